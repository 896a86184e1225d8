//! Endpoint Security messages to observations. Pure: builds and is tested on every system.

use std::sync::Arc;

use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::process::{Ancestor, CodeIdentity, Process};
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;

use crate::names;
use crate::raw::{CS_SIGNED, CS_VALID, EsProcess, Event, Message, UNCHANGED};

/// The group whose members may open BPF devices where Wireshark's ChmodBPF is installed.
pub const ACCESS_GROUP: &str = "access_bpf";
/// All BPF devices, where a change is about none in particular.
const ALL_DEVICES: &str = "/dev/bpf*";

/// What a message means; `None` for files other than BPF devices and for changes that loosen nothing.
///
/// A close becomes [`Kind::HandleReleased`]: whether the descriptor was the last one, and so the handle
/// is gone, [`Holders`](crate::holders::Holders) or the kernel's own list has to tell.
pub fn observation(message: Message, sensor: &Arc<str>) -> Option<Observation> {
    let Message { at, process, event } = message;
    let (actor, kind) = match event {
        Event::Exec { target, args, cwd } => {
            let process = Process { args: Some(args), cwd, ..self::process(*target) };
            (process, Kind::Executed)
        }
        Event::Fork { child } => (self::process(*child), Kind::Forked),
        Event::Exit => (self::process(process), Kind::Exited),
        Event::Open { path } => {
            let handle = bpf_handle(path)?;
            (self::process(process), Kind::HandleOpened { handle, pre_existing: false })
        }
        Event::Close { path } => {
            (self::process(process), Kind::HandleReleased { handle: bpf_handle(path)? })
        }
        Event::SetMode { path, mode } => {
            let mode = mode & 0o7777;
            if !is_bpf_device(path.as_str()) || mode & 0o066 == 0 {
                return None;
            }
            let mode = Some(mode);
            let kind = Kind::AccessLoosened { path, mode, uid: None, gid: None, member: None };
            (self::process(process), kind)
        }
        Event::SetOwner { path, uid, gid } => {
            let other = |id: u32| (id != 0 && id != UNCHANGED).then_some(id);
            let (uid, gid) = (other(uid), other(gid));
            if !is_bpf_device(path.as_str()) || (uid, gid) == (None, None) {
                return None;
            }
            let kind = Kind::AccessLoosened { path, mode: None, uid, gid, member: None };
            (self::process(process), kind)
        }
        Event::GroupAdd { instigator, group, member } => {
            if group.as_str() != ACCESS_GROUP {
                return None;
            }
            let path = Text::from(ALL_DEVICES);
            let kind = Kind::AccessLoosened { path, mode: None, uid: None, gid: None, member };
            (self::process(instigator.map_or(process, |instigator| *instigator)), kind)
        }
        Event::ProfileRemove { instigator, identifier } => {
            if !identifier.as_str().starts_with(names::BUNDLE_ID) {
                return None;
            }
            let why = format!("configuration profile {} was removed", identifier.as_str());
            let kind = Kind::Lost { count: 0, why: Text::from(why) };
            (self::process(instigator.map_or(process, |instigator| *instigator)), kind)
        }
    };
    Some(observed(at, sensor, actor, kind))
}

fn observed(at: Timestamp, sensor: &Arc<str>, actor: Process, kind: Kind) -> Observation {
    let sensor = Arc::clone(sensor);
    Observation { at, seq: 0, sensor, actor: Some(Arc::new(actor)), kind }
}

/// The minor of a BPF device by its path, `/dev/bpf3`.
pub fn bpf_minor(path: &str) -> Option<u64> {
    let digits = path.strip_prefix("/dev/bpf")?;
    let plain =
        !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Whether the path is of a BPF device.
pub fn is_bpf_device(path: &str) -> bool {
    bpf_minor(path).is_some()
}

fn bpf_handle(path: Text) -> Option<Handle> {
    let minor = bpf_minor(path.as_str())?;
    Some(Handle { device: Some(path), ..Handle::new(HandleKind::Bpf, minor) })
}

/// A process in the common words. Without a valid signature it has no identity: what such a process
/// says of itself must not match an expected capture.
pub fn process(process: EsProcess) -> Process {
    let EsProcess { signing_id, team_id, cdhash, platform_binary, .. } = process;
    let vouched = CS_VALID | CS_SIGNED;
    let identity = match process.codesigning_flags {
        Some(flags) if flags & vouched != vouched => CodeIdentity {
            platform_binary: platform_binary.map(|_| false),
            ..CodeIdentity::default()
        },
        _ => CodeIdentity { signing_id, team_id, cdhash, platform_binary },
    };
    Process {
        pid: process.pid,
        start: Some(u64::from(process.pidversion)),
        ppid: process.ppid,
        sid: process.session_id,
        responsible: process
            .responsible
            .filter(|(pid, _)| *pid != process.pid && *pid != 0)
            .map(|(pid, version)| Arc::new(responsible(pid, version))),
        uid: process.euid,
        image: process.executable,
        image_owner: process.executable_owner,
        tty: process.tty,
        identity: (identity != CodeIdentity::default()).then(|| Box::new(identity)),
        ..Process::default()
    }
}

/// The tracker knows the rest of it.
fn responsible(pid: u32, pidversion: u32) -> Ancestor {
    Ancestor { pid, start: Some(u64::from(pidversion)), image: None, args: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(event: Event) -> Option<Kind> {
        let process = EsProcess { pid: 7, pidversion: 70, ..EsProcess::default() };
        let message = Message { at: Timestamp::from_secs(1), process, event };
        observation(message, &Arc::from("test")).map(|observation| {
            let key = observation.actor.unwrap().key();
            assert_eq!((key.pid, key.start), (7, Some(70)));
            observation.kind
        })
    }

    #[test]
    fn only_bpf_devices_count() {
        assert_eq!(bpf_minor("/dev/bpf0"), Some(0));
        assert_eq!(bpf_minor("/dev/bpf255"), Some(255));
        for path in ["/dev/bpf", "/dev/bpf-1", "/dev/bpf1x", "/tmp/dev/bpf1", "/dev/bpf1000000000"]
        {
            assert_eq!(bpf_minor(path), None, "{path}");
        }
        assert_eq!(of(Event::Open { path: "/dev/null".into() }), None);
        let Some(Kind::HandleOpened { handle, .. }) = of(Event::Open { path: "/dev/bpf3".into() })
        else {
            panic!("not opened")
        };
        assert_eq!((handle.kind, handle.id), (HandleKind::Bpf, 3));
        assert_eq!(handle.device, Some("/dev/bpf3".into()));
    }

    #[test]
    fn only_wider_access_is_reported() {
        let mode = |mode| of(Event::SetMode { path: "/dev/bpf0".into(), mode });
        assert_eq!(mode(0o020_600), None);
        let Some(Kind::AccessLoosened { mode: Some(0o660), .. }) = mode(0o020_660) else {
            panic!("g+rw is wider")
        };
        let owner = |uid, gid| of(Event::SetOwner { path: "/dev/bpf0".into(), uid, gid });
        assert_eq!(owner(0, 0), None);
        assert_eq!(owner(UNCHANGED, UNCHANGED), None);
        let Some(Kind::AccessLoosened { uid: None, gid: Some(501), .. }) = owner(UNCHANGED, 501)
        else {
            panic!("another group is wider")
        };
        assert_eq!(of(Event::SetMode { path: "/tmp/x".into(), mode: 0o666 }), None);
    }

    #[test]
    fn a_member_of_the_group_may_capture() {
        let add = |group: &str| {
            let instigator = EsProcess { pid: 7, pidversion: 70, ..EsProcess::default() };
            let (instigator, member) = (Some(Box::new(instigator)), Some("ann".into()));
            of(Event::GroupAdd { instigator, group: group.into(), member })
        };
        assert_eq!(add("staff"), None);
        let Some(Kind::AccessLoosened { member, .. }) = add(ACCESS_GROUP) else {
            panic!("not said")
        };
        assert_eq!(member, Some("ann".into()));
    }

    #[test]
    fn our_own_profile_is_missed() {
        let remove = |identifier: &str| {
            of(Event::ProfileRemove { instigator: None, identifier: identifier.into() })
        };
        assert_eq!(remove("com.example.wifi"), None);
        let Some(Kind::Lost { why, .. }) = remove("io.github.bpfwatch.settings") else {
            panic!("not said")
        };
        assert!(why.as_str().contains("io.github.bpfwatch.settings"));
    }

    #[test]
    fn another_process_may_answer_for_it() {
        let by = |pid| {
            let process =
                EsProcess { pid: 7, responsible: Some((pid, 30)), ..EsProcess::default() };
            super::process(process).responsible.map(|known| (known.pid, known.start))
        };
        assert_eq!(by(3), Some((3, Some(30))));
        assert_eq!((by(7), by(0)), (None, None), "nobody else does");
    }

    #[test]
    fn a_broken_signature_is_no_identity() {
        let signed = |flags| {
            let process = process(EsProcess {
                codesigning_flags: flags,
                signing_id: Some("com.apple.airport.airportd".into()),
                platform_binary: Some(true),
                ..EsProcess::default()
            });
            let identity = process.identity.unwrap();
            (identity.signing_id.is_some(), identity.platform_binary)
        };
        assert_eq!(signed(Some(CS_VALID | CS_SIGNED)), (true, Some(true)));
        assert_eq!(signed(None), (true, Some(true)));
        assert_eq!(signed(Some(CS_SIGNED)), (false, Some(false)));
        assert_eq!(signed(Some(CS_VALID)), (false, Some(false)));
        assert_eq!(process(EsProcess::default()).identity, None);
    }
}
