//! What rules see: an executed process, a capture session, a loosened posture.
//!
//! Each implements rsigma's `Event` on our own types, so that no JSON is built for a live event. Field
//! names are Sigma's where Sigma has them; the tables stand in [`crate::rules::fields`]. An unknown
//! value is an absent field.

use std::borrow::Cow;
use std::cell::OnceCell;

use rsigma_eval::{Event, EventValue};

use crate::arguments::Arguments;
use crate::finding::Stage;
use crate::observation::{Kind, Os};
use crate::process::{Process, ProcessKey};
use crate::rules::fields::Source;
use crate::scope::Scope;
use crate::session::SessionChanged;
use crate::text::Text;

/// An event that rules can be asked about.
pub trait RuleEvent: Event {
    /// Which logsource it belongs to.
    fn source(&self) -> Source;
    /// The system that it happened on.
    fn os(&self) -> Os;
}

/// A process's fields; command lines are joined at the first use, and once.
struct Actor<'a> {
    process: Option<&'a Process>,
    lineage: Option<ProcessKey>,
    line: OnceCell<Option<String>>,
    parent_line: OnceCell<Option<String>>,
}

fn text(text: &Option<Text>) -> Option<EventValue<'_>> {
    text.as_ref().map(|text| word(text.as_str()))
}

fn word(text: &str) -> EventValue<'_> {
    EventValue::Str(Cow::Borrowed(text))
}

fn number(number: impl TryInto<i64>) -> Option<EventValue<'static>> {
    number.try_into().ok().map(EventValue::Int)
}

fn flag(flag: Option<bool>) -> Option<EventValue<'static>> {
    flag.map(EventValue::Bool)
}

/// A line break becomes a space: `*` in a rule stops at a line break (rsigma compiles it to `.*`), and
/// an argument with one in it would hide the rest.
fn joined(arguments: Option<&Arguments>) -> Option<String> {
    let line = arguments?.command_line();
    if memchr::memchr2(b'\n', b'\r', line.as_bytes()).is_some() {
        return Some(line.replace(['\n', '\r'], " "));
    }
    Some(line)
}

fn lineage(key: ProcessKey) -> String {
    match key.start {
        Some(start) => format!("{}:{start}", key.pid),
        None => key.pid.to_string(),
    }
}

impl<'a> Actor<'a> {
    fn new(process: Option<&'a Process>, lineage: Option<ProcessKey>) -> Self {
        Self { process, lineage, line: OnceCell::new(), parent_line: OnceCell::new() }
    }

    fn field(&self, name: &str) -> Option<EventValue<'_>> {
        if name == "LineageId" {
            return self.lineage.map(|key| EventValue::Str(Cow::Owned(lineage(key))));
        }
        let process = self.process?;
        match name {
            "Image" => text(&process.image),
            "CommandLine" => {
                self.line.get_or_init(|| joined(process.args.as_ref())).as_deref().map(word)
            }
            "CommandLineTruncated" => flag(process.args.as_ref().map(Arguments::is_cut)),
            "ArgumentCount" => number(process.args.as_ref()?.count()),
            "CurrentDirectory" => text(&process.cwd),
            "User" => text(&process.user),
            "UserId" => number(process.uid?),
            "ProcessId" => number(process.pid),
            "ParentProcessId" => number(process.ppid?),
            "ParentImage" => text(&process.ancestors.first()?.image),
            "ParentCommandLine" => self
                .parent_line
                .get_or_init(|| joined(process.ancestors.first()?.args.as_ref()))
                .as_deref()
                .map(word),
            "AncestorImages" => {
                let images: Vec<EventValue<'_>> =
                    process.ancestors.iter().filter_map(|ancestor| text(&ancestor.image)).collect();
                (!images.is_empty()).then_some(EventValue::Array(images))
            }
            "ProcessName" => text(&process.name),
            "Terminal" => text(&process.tty),
            "ImageOwner" => number(process.image_owner?),
            "ImageDeleted" => flag(process.image_deleted),
            "ImageWritableDir" => flag(process.image_writable_dir),
            "Unit" => text(&process.unit),
            "SigningId" => text(&process.identity.as_ref()?.signing_id),
            "TeamId" => text(&process.identity.as_ref()?.team_id),
            "CdHash" => text(&process.identity.as_ref()?.cdhash),
            "PlatformBinary" => flag(process.identity.as_ref()?.platform_binary),
            _ => scope_field(process.scope.as_deref()?, name),
        }
    }
}

fn scope_field<'a>(scope: &'a Scope, name: &str) -> Option<EventValue<'a>> {
    match (name, scope) {
        ("ScopeKind", _) => Some(word(scope.kind())),
        ("JailId", Scope::Jail { jid, .. }) => number(*jid),
        ("JailName", Scope::Jail { name, .. }) => Some(word(name.as_str())),
        ("JailVnet", Scope::Jail { vnet, .. }) => flag(*vnet),
        ("ContainerId", Scope::Container { id, .. }) => Some(word(id.as_str())),
        ("ContainerRuntime", Scope::Container { runtime, .. }) => text(runtime),
        ("ContainerImage", Scope::Container { image, .. }) => text(image),
        ("Pod", Scope::Container { pod, .. }) => text(pod),
        ("NetNs", Scope::Container { netns, .. }) => number((*netns)?),
        ("NetNs", Scope::Namespace { netns, .. }) => number(*netns),
        _ => None,
    }
}

/// An executed process: category `process_creation`.
pub struct ProcessEvent<'a> {
    os: Os,
    actor: Actor<'a>,
}

impl<'a> ProcessEvent<'a> {
    /// `lineage` is the nearest process that leads a terminal session, container or jail.
    pub fn new(process: &'a Process, os: Os, lineage: Option<ProcessKey>) -> Self {
        Self { os, actor: Actor::new(Some(process), lineage) }
    }

    fn field(&self, name: &str) -> Option<EventValue<'_>> {
        self.actor.field(name)
    }
}

/// A capture session that changed: category `packet_capture`. Process fields are its owner's.
pub struct SessionEvent<'a> {
    changed: &'a SessionChanged,
    actor: Actor<'a>,
}

impl<'a> SessionEvent<'a> {
    /// From the change that the tracker emitted.
    pub fn new(changed: &'a SessionChanged) -> Self {
        let session = &changed.session;
        let owner = session.owner().map(|process| &**process);
        Self { changed, actor: Actor::new(owner, session.lineage) }
    }

    fn field(&self, name: &str) -> Option<EventValue<'_>> {
        let session = &*self.changed.session;
        let handle = &session.handle;
        match name {
            "Change" => Some(word(self.changed.change.as_str())),
            "Stage" => {
                let stages = [Stage::Opened, Stage::Attached, Stage::Reading];
                // A later stage implies the earlier ones, whether or not they were seen.
                let reached = stages.into_iter().take_while(|stage| *stage <= session.stage());
                Some(EventValue::Array(reached.map(|stage| word(stage.as_str())).collect()))
            }
            "CurrentStage" => Some(word(session.stage().as_str())),
            "HandleKind" => Some(word(handle.kind.as_str())),
            "Device" => text(&handle.device),
            "Interface" => text(&handle.interface),
            "Protocol" => text(&handle.protocol),
            "SocketType" => Some(word(handle.socket_type?.as_str())),
            "IpVersion" => number(handle.ip_version?),
            "FilterAttached" => flag(handle.filter),
            "Ring" => flag(handle.ring),
            "RawGrade" => Some(word(handle.grade?.as_str())),
            "Promiscuous" => flag(Some(session.promiscuous || session.promiscuous_at.is_some())),
            "Packets" => number(session.packets?),
            "HolderCount" => number(session.holders.len()),
            "InFlight" => flag(Some(session.in_flight)),
            "PreExisting" => flag(Some(session.pre_existing)),
            "Enumeration" => flag(Some(session.enumeration)),
            "SessionId" => Some(word(&session.id)),
            "NetNs" => match handle.netns {
                Some(netns) => number(netns),
                None => self.actor.field(name),
            },
            _ => self.actor.field(name),
        }
    }
}

/// What makes captures possible without being one: category `capture_posture`.
pub struct PostureEvent<'a> {
    os: Os,
    kind: &'a Kind,
    actor: Actor<'a>,
}

impl<'a> PostureEvent<'a> {
    /// `None` where `kind` is no such thing, or says that it ended.
    pub fn new(kind: &'a Kind, os: Os, actor: Option<&'a Process>) -> Option<Self> {
        match kind {
            Kind::InterfacePromiscuous { on: true, .. } | Kind::AccessLoosened { .. } => {
                Some(Self { os, kind, actor: Actor::new(actor, None) })
            }
            _ => None,
        }
    }

    fn field(&self, name: &str) -> Option<EventValue<'_>> {
        match (self.kind, name) {
            (kind, "EventType") => Some(word(kind.name())),
            (Kind::InterfacePromiscuous { interface, .. }, "Interface") => {
                Some(word(interface.name.as_str()))
            }
            (Kind::InterfacePromiscuous { interface, .. }, "InterfaceRole") => {
                text(&interface.role)
            }
            (Kind::InterfacePromiscuous { interface, .. }, "PromiscuityCount") => {
                number(interface.count?)
            }
            (Kind::InterfacePromiscuous { interface, .. }, "NetNs") => number(interface.netns?),
            (Kind::AccessLoosened { path, .. }, "Path") => Some(word(path.as_str())),
            (Kind::AccessLoosened { mode, .. }, "Mode") => number((*mode)?),
            _ => self.actor.field(name),
        }
    }
}

fn visit_strings(value: &EventValue<'_>, visit: &mut dyn FnMut(&str)) {
    match value {
        EventValue::Str(text) => visit(text),
        EventValue::Array(values) => {
            for value in values {
                visit_strings(value, visit);
            }
        }
        _ => {}
    }
}

macro_rules! rule_event {
    ($event:ident, $source:expr, |$this:ident| $os:expr) => {
        impl RuleEvent for $event<'_> {
            fn source(&self) -> Source {
                $source
            }

            fn os(&self) -> Os {
                let $this = self;
                $os
            }
        }

        impl Event for $event<'_> {
            fn get_field(&self, path: &str) -> Option<EventValue<'_>> {
                self.field(path)
            }

            fn any_string_value(&self, pred: &dyn Fn(&str) -> bool) -> bool {
                $source.supplied().filter_map(|name| self.field(name)).any(|value| {
                    let mut found = false;
                    visit_strings(&value, &mut |text| found = found || pred(text));
                    found
                })
            }

            fn all_string_values(&self) -> Vec<Cow<'_, str>> {
                let mut all = Vec::new();
                self.visit_string_values(&mut |text| all.push(Cow::Owned(text.to_owned())));
                all
            }

            fn visit_string_values(&self, visit: &mut dyn FnMut(&str)) {
                for value in $source.supplied().filter_map(|name| self.field(name)) {
                    visit_strings(&value, visit);
                }
            }

            fn to_json(&self) -> serde_json::Value {
                let fields = $source.supplied().filter_map(|name| {
                    self.field(name).map(|value| (name.to_owned(), value.to_json()))
                });
                serde_json::Value::Object(fields.collect())
            }

            // No top-level keys are told: the candidate index then asks for the fields that its rules
            // use, which are fewer than the event's, instead of looking up each key that there is.
        }
    };
}

rule_event!(ProcessEvent, Source::ProcessCreation, |event| event.os);
rule_event!(SessionEvent, Source::PacketCapture, |event| event.changed.session.os);
rule_event!(PostureEvent, Source::CapturePosture, |event| event.os);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::handle::{Handle, HandleKind, RawGrade, SocketType};
    use crate::observation::Interface;
    use crate::process::{Ancestor, CodeIdentity};
    use crate::session::{CaptureSession, Change};
    use crate::time::Timestamp;

    fn full_process(scope: Scope) -> Process {
        Process {
            start: Some(9),
            ppid: Some(1),
            uid: Some(0),
            user: Some("root".into()),
            name: Some("tcpdump".into()),
            image: Some("/usr/bin/tcpdump".into()),
            args: Some(Arguments::from_list(["tcpdump", "-i", "lo"])),
            cwd: Some("/tmp".into()),
            tty: Some("pts/0".into()),
            image_owner: Some(0),
            image_deleted: Some(false),
            image_writable_dir: Some(false),
            unit: Some("x.service".into()),
            identity: Some(Box::new(CodeIdentity {
                signing_id: Some("a".into()),
                team_id: Some("b".into()),
                cdhash: Some("c".into()),
                platform_binary: Some(true),
            })),
            scope: Some(Arc::new(scope)),
            ancestors: vec![Arc::new(Ancestor {
                pid: 1,
                start: None,
                image: Some("/bin/sh".into()),
                args: Some(Arguments::from_list(["sh"])),
            })],
            ..Process::from_pid(7)
        }
    }

    fn scopes() -> [Scope; 4] {
        let some = || Some("x".into());
        [
            Scope::Host,
            Scope::Jail {
                jid: 3,
                name: "web".into(),
                vnet: Some(true),
                path: None,
                hostname: None,
            },
            Scope::Container {
                id: "c".into(),
                runtime: some(),
                image: some(),
                pod: some(),
                netns: Some(5),
            },
            Scope::Namespace { netns: 6, name: None },
        ]
    }

    fn session(owner: Process) -> SessionChanged {
        let mut handle = Handle::new(HandleKind::RawSocket, 1);
        handle.device = Some("/dev/bpf0".into());
        handle.interface = Some("any".into());
        handle.protocol = Some("ETH_P_ALL".into());
        handle.socket_type = Some(SocketType::Raw);
        handle.ip_version = Some(4);
        handle.filter = Some(false);
        handle.ring = Some(true);
        handle.grade = Some(RawGrade::Capture);
        let session = CaptureSession {
            id: "s".into(),
            os: Os::Freebsd,
            handle,
            holders: vec![Arc::new(owner)],
            reached: [None, Some(Timestamp::from_secs(1)), None],
            promiscuous_at: Some(Timestamp::from_secs(1)),
            promiscuous: false,
            packets: Some(4),
            closed_at: None,
            pre_existing: false,
            in_flight: false,
            enumeration: false,
            lineage: Some(ProcessKey { pid: 7, start: None }),
        };
        let change = Change::Attached;
        SessionChanged { at: Timestamp::from_secs(1), seq: 1, change, session: Arc::new(session) }
    }

    fn names(events: &[&dyn Event]) -> Vec<String> {
        let mut names: Vec<String> = events
            .iter()
            .filter_map(|event| event.to_json().as_object().cloned())
            .flat_map(|object| object.into_iter().map(|(name, _)| name))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn table(source: Source) -> Vec<String> {
        let mut names: Vec<String> = source.supplied().map(str::to_owned).collect();
        names.sort();
        names
    }

    #[test]
    fn each_supplied_field_can_be_had() {
        let processes: Vec<Process> = scopes().into_iter().map(full_process).collect();
        let key = ProcessKey { pid: 7, start: Some(9) };
        let events: Vec<ProcessEvent<'_>> = processes
            .iter()
            .map(|process| ProcessEvent::new(process, Os::Linux, Some(key)))
            .collect();
        let all: Vec<&dyn Event> = events.iter().map(|event| event as &dyn Event).collect();
        assert_eq!(names(&all), table(Source::ProcessCreation));

        let changes: Vec<SessionChanged> = processes.iter().cloned().map(session).collect();
        let events: Vec<SessionEvent<'_>> = changes.iter().map(SessionEvent::new).collect();
        let all: Vec<&dyn Event> = events.iter().map(|event| event as &dyn Event).collect();
        assert_eq!(names(&all), table(Source::PacketCapture));
        assert_eq!((events[0].source(), events[0].os()), (Source::PacketCapture, Os::Freebsd));
    }

    #[test]
    fn a_posture_event_says_what_changed() {
        let interface = Interface {
            name: "eth0".into(),
            netns: Some(4),
            count: Some(2),
            role: Some("bridge port".into()),
        };
        let promiscuous = Kind::InterfacePromiscuous { interface, on: true };
        let event = PostureEvent::new(&promiscuous, Os::Linux, None).unwrap();
        let expected = serde_json::json!({
            "EventType": "interface_promiscuous", "Interface": "eth0", "NetNs": 4,
            "InterfaceRole": "bridge port", "PromiscuityCount": 2,
        });
        assert_eq!(event.to_json(), expected);
        let loosened = Kind::AccessLoosened {
            path: "/dev/bpf".into(),
            mode: Some(0o666),
            uid: None,
            gid: None,
        };
        let actor = Process { image: Some("/bin/chmod".into()), ..Process::from_pid(3) };
        let event = PostureEvent::new(&loosened, Os::Freebsd, Some(&actor)).unwrap();
        let expected = serde_json::json!({
            "EventType": "access_loosened", "Path": "/dev/bpf", "Mode": 438,
            "Image": "/bin/chmod", "ProcessId": 3,
        });
        assert_eq!(event.to_json(), expected);
        assert!(PostureEvent::new(&Kind::Executed, Os::Linux, None).is_none());
    }

    #[test]
    fn a_session_has_its_stages_and_its_owner() {
        let changed = session(full_process(Scope::Host));
        let event = SessionEvent::new(&changed);
        let json = event.to_json();
        assert_eq!(json["Stage"], serde_json::json!(["opened", "attached"]));
        assert_eq!(json["CurrentStage"], "attached");
        assert_eq!(json["Image"], "/usr/bin/tcpdump");
        assert_eq!(json["LineageId"], "7");
        assert_eq!(json["Promiscuous"], true);
        assert!(event.any_string_value(&|text| text == "opened"));
        assert!(!event.any_string_value(&|text| text == "reading"));
        assert!(event.all_string_values().iter().any(|text| text == "ETH_P_ALL"));
        assert_eq!(event.get_field("Qwerty"), None);
        // Nobody holds it: what is about a process is absent.
        let mut nobody = changed.clone();
        Arc::make_mut(&mut nobody.session).holders.clear();
        assert_eq!(SessionEvent::new(&nobody).get_field("Image"), None);
    }
}
