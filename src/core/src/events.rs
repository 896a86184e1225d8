//! What rules see: an executed process, a capture session, a loosened posture, a record of a log.
//!
//! Each implements rsigma's `Event` on our own types, so that no JSON is built for a live event. Field
//! names are Sigma's where Sigma has them; the tables stand in [`crate::rules::fields`]. An unknown
//! value is an absent field.

use std::borrow::Cow;
use std::cell::OnceCell;

use rsigma_eval::{Event, EventValue};

use crate::arguments::Arguments;
use crate::finding::Stage;
use crate::logged::Value;
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

/// An empty list is an absent field.
fn list(list: &[Text]) -> Option<EventValue<'_>> {
    let values = || list.iter().map(|text| word(text.as_str())).collect();
    (!list.is_empty()).then(|| EventValue::Array(values()))
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
            "ResponsibleImage" => text(&process.responsible.as_ref()?.image),
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
            _ => {
                let detail = process.details.as_ref().and_then(|details| details.get(name));
                detail.map(value).or_else(|| scope_field(process.scope.as_deref()?, name))
            }
        }
    }
}

fn value(value: &Value) -> EventValue<'_> {
    match value {
        Value::Text(text) => word(text.as_str()),
        Value::Number(number) => EventValue::Int(*number),
        Value::Bool(flag) => EventValue::Bool(*flag),
        Value::List(list) => EventValue::Array(list.iter().map(self::value).collect()),
    }
}

fn scope_field<'a>(scope: &'a Scope, name: &str) -> Option<EventValue<'a>> {
    match (name, scope) {
        ("ScopeKind", _) => Some(word(scope.kind())),
        ("JailId", Scope::Jail { jid, .. }) => jid.and_then(number),
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
    narrower: Option<&'a [&'a str]>,
}

impl<'a> SessionEvent<'a> {
    /// From the change that the tracker emitted.
    pub fn new(changed: &'a SessionChanged) -> Self {
        let session = &changed.session;
        let owner = session.owner().map(|process| &**process);
        Self { changed, actor: Actor::new(owner, session.lineage), narrower: None }
    }

    /// As the session may become: with a filter, and with its own protocol or any of these. One question
    /// stands for many, because a rule that asks for a value is content with one of a list.
    pub fn narrowed(changed: &'a SessionChanged, protocols: &'a [&'a str]) -> Self {
        Self { narrower: Some(protocols), ..Self::new(changed) }
    }

    fn field(&self, name: &str) -> Option<EventValue<'_>> {
        let session = &*self.changed.session;
        let handle = &session.handle;
        if let Some(protocols) = self.narrower {
            match name {
                "FilterAttached" => return flag(Some(true)),
                "Protocol" => {
                    let own = text(&handle.protocol).into_iter();
                    let all = own.chain(protocols.iter().map(|name| word(name)));
                    return Some(EventValue::Array(all.collect()));
                }
                _ => {}
            }
        }
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
            "PeerInterface" => text(&handle.peer),
            "ProgramName" => text(&handle.program.as_ref()?.name),
            "ProgramTag" => text(&handle.program.as_ref()?.tag),
            "ProgramType" => text(&handle.program.as_ref()?.program_type),
            "ProgramUserId" => number(handle.program.as_ref()?.uid?),
            "ProgramAttached" => list(&handle.program.as_ref()?.attached),
            "ProgramCgroup" => list(&handle.program.as_ref()?.cgroups),
            "ProgramMaps" => list(handle.program.as_ref()?.maps.as_deref()?),
            "ProgramCarriesOut" => flag(handle.program.as_ref()?.carries_out()),
            "ProgramPinned" => list(&handle.program.as_ref()?.pinned),
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
            (Kind::AccessLoosened { member, .. }, "Member") => text(member),
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
    ($event:ident, |$from:ident| $source:expr, |$this:ident| $os:expr) => {
        impl RuleEvent for $event<'_> {
            fn source(&self) -> Source {
                let $from = self;
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
                self.values().any(|(_, value)| {
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
                for (_, value) in self.values() {
                    visit_strings(&value, visit);
                }
            }

            fn to_json(&self) -> serde_json::Value {
                let fields = self.values();
                let fields = fields.map(|(name, value)| (name.to_owned(), value.to_json()));
                serde_json::Value::Object(fields.collect())
            }

            // No top-level keys are told: the candidate index then asks for the fields that its rules
            // use, which are fewer than the event's, instead of looking up each key that there is.
        }
    };
}

/// The events whose fields stand in a table.
macro_rules! table_event {
    ($event:ident, $source:expr, |$this:ident| $os:expr) => {
        impl $event<'_> {
            fn values(&self) -> impl Iterator<Item = (&str, EventValue<'_>)> {
                $source.supplied().filter_map(|name| Some((name, self.field(name)?)))
            }
        }

        rule_event!($event, |_event| $source, |$this| $os);
    };
}

table_event!(ProcessEvent, Source::ProcessCreation, |event| event.os);
table_event!(SessionEvent, Source::PacketCapture, |event| event.changed.session.os);
table_event!(PostureEvent, Source::CapturePosture, |event| event.os);

// Here and not above: it uses the macro.
mod logged;
pub use logged::LoggedEvent;

#[cfg(test)]
mod tests;
