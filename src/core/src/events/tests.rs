//! What each event supplies, against the tables that rules are checked with.

use std::sync::Arc;

use super::*;
use crate::handle::{Handle, HandleKind, RawGrade, SocketType};
use crate::logged::Fields;
use crate::observation::Interface;
use crate::process::{Ancestor, CodeIdentity};
use crate::program::BpfProgram;
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
        details: Some(Box::new(details())),
        scope: Some(Arc::new(scope)),
        responsible: Some(Arc::new(Ancestor {
            pid: 5,
            start: None,
            image: Some("/Applications/Terminal".into()),
            args: None,
        })),
        ancestors: vec![Arc::new(Ancestor {
            pid: 1,
            start: None,
            image: Some("/bin/sh".into()),
            args: Some(Arguments::from_list(["sh"])),
        })],
        ..Process::from_pid(7)
    }
}

fn details() -> Fields {
    let mut fields = Fields::default();
    crate::rules::fields::details().for_each(|name| fields.push(name, Value::text("x")));
    fields
}

fn scopes() -> [Scope; 4] {
    let some = || Some("x".into());
    [
        Scope::Host,
        Scope::Jail {
            jid: Some(3),
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
    handle.peer = Some("br0".into());
    handle.program = Some(Box::new(BpfProgram {
        name: Some("sniff".into()),
        tag: Some("0123456789abcdef".into()),
        program_type: Some("sched_cls".into()),
        uid: Some(0),
        loaded_at: Some(Timestamp::from_secs(1)),
        attached: vec!["tcx/ingress".into()],
        cgroups: vec!["/x.slice".into()],
        maps: Some(vec!["ringbuf".into()]),
        pinned: vec!["/sys/fs/bpf/x".into()],
    }));
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
    let events: Vec<ProcessEvent<'_>> =
        processes.iter().map(|process| ProcessEvent::new(process, Os::Linux, Some(key))).collect();
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
        member: Some("ann".into()),
    };
    let actor = Process { image: Some("/bin/chmod".into()), ..Process::from_pid(3) };
    let event = PostureEvent::new(&loosened, Os::Freebsd, Some(&actor)).unwrap();
    let expected = serde_json::json!({
        "EventType": "access_loosened", "Path": "/dev/bpf", "Mode": 438, "Member": "ann",
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
