//! A record to observations, each record by itself.
//!
//! What a descriptor number means only [`Descriptors`](crate::bsm::descriptors::Descriptors) can tell, who
//! sees one record after the other. To it a handle's id is the number of the descriptor, with the device
//! number above it for an open: [`opened_id`].

use std::sync::Arc;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::process::Process;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::text::Text;

use crate::bsm::event::{BIOCPROMISC, BIOCSETIF, Event, O_PATH};
use crate::bsm::record::Record;

/// Bytes kept of a path or a name.
const TEXT_LIMIT: usize = 4096;
/// Device number of what is no device.
const NO_DEVICE: u32 = u32::MAX;
/// What chown(2) takes for "leave it".
const UNCHANGED: u32 = u32::MAX;

/// Id of a handle between this module and the joining: the device's number and the descriptor's.
pub fn opened_id(rdev: u32, fd: u32) -> u64 {
    u64::from(rdev) << 32 | u64::from(fd)
}

/// Device and descriptor of an [`opened_id`].
pub fn opened_parts(id: u64) -> (u32, u32) {
    ((id >> 32) as u32, id as u32)
}

/// What a record says, if it says anything that matters. `paths_only` for macOS, whose O_PATH is another
/// flag.
pub fn observation(record: &Record<'_>, sensor: &Arc<str>, is_macos: bool) -> Option<Observation> {
    let event = Event::of(record.header?.event)?;
    // An exit returns its status, and always succeeds.
    if event != Event::Exit && !record.succeeded() {
        return None;
    }
    let (process, kind) = match event {
        Event::Execute => executed(record)?,
        Event::Fork => forked(record)?,
        Event::Exit => (actor(record)?, Kind::Exited),
        Event::Open => {
            if !is_macos && record.argument("flags").is_some_and(|flags| flags & O_PATH != 0) {
                return None;
            }
            (actor(record)?, opened(record)?)
        }
        Event::Close => (actor(record)?, Kind::HandleReleased { handle: by_number(record)? }),
        Event::Ioctl => (actor(record)?, controlled(record)?),
        Event::SetMode | Event::SetOwner => (actor(record)?, loosened(record)?),
    };
    let actor = Some(Arc::new(process));
    Some(Observation { at: record.at(), seq: 0, sensor: Arc::clone(sensor), actor, kind })
}

fn actor(record: &Record<'_>) -> Option<Process> {
    let subject = record.subject?;
    let scope = match record.zone {
        Some(zone) => Scope::Jail {
            jid: None,
            name: Text::from_bytes_limited(zone, TEXT_LIMIT),
            vnet: None,
            path: None,
            hostname: None,
        },
        None => Scope::Host,
    };
    Some(Process {
        uid: Some(subject.euid),
        scope: Some(Arc::new(scope)),
        ..Process::from_pid(subject.pid)
    })
}

fn child(record: &Record<'_>) -> Option<u32> {
    let told = record.argument("child PID").or(record.returned.map(|(_, value)| value));
    told.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)
}

fn forked(record: &Record<'_>) -> Option<(Process, Kind)> {
    let parent = actor(record)?;
    let child = Process { pid: child(record)?, ppid: Some(parent.pid), ..parent };
    Some((child, Kind::Forked))
}

fn executed(record: &Record<'_>) -> Option<(Process, Kind)> {
    let mut process = actor(record)?;
    // posix_spawn(2) of macOS is recorded of the parent.
    if let Some(child) = record.argument("child PID").and_then(|pid| u32::try_from(pid).ok()) {
        process.ppid = Some(process.pid);
        process.pid = child;
    }
    process.image = record.path.map(|path| Text::from_bytes_limited(path, TEXT_LIMIT));
    process.args = record.exec_arguments.map(Arguments::from_nul_separated);
    process.image_owner = record.attributes.map(|attributes| attributes.uid);
    Some((process, Kind::Executed))
}

fn rdev(record: &Record<'_>) -> Option<u32> {
    // The kernel's own number has 64 bits, of which a record of 32 keeps the lower half.
    let rdev = record.attributes?.rdev as u32;
    (rdev != NO_DEVICE).then_some(rdev)
}

/// Every open of a device: which of them is BPF is not known yet.
fn opened(record: &Record<'_>) -> Option<Kind> {
    let (_, fd) = record.returned?;
    let id = opened_id(rdev(record)?, u32::try_from(fd).ok()?);
    let device = Some(Text::from_bytes_limited(record.path?, TEXT_LIMIT));
    let handle = Handle { device, ..Handle::new(HandleKind::Bpf, id) };
    Some(Kind::HandleOpened { handle, pre_existing: false })
}

/// A handle by the number of its descriptor.
fn by_number(record: &Record<'_>) -> Option<Handle> {
    let fd = u32::try_from(record.argument("fd")?).ok()?;
    Some(Handle::new(HandleKind::Bpf, opened_id(0, fd)))
}

fn controlled(record: &Record<'_>) -> Option<Kind> {
    let handle = by_number(record)?;
    match record.argument("cmd")? {
        BIOCSETIF => Some(Kind::HandleAttached { handle }),
        BIOCPROMISC => Some(Kind::Promiscuous { handle, on: true }),
        _ => None,
    }
}

fn loosened(record: &Record<'_>) -> Option<Kind> {
    let path = record.path.filter(|path| is_bpf_path(path))?;
    let number = |name| record.argument(name).and_then(|value| u32::try_from(value).ok());
    let other = |id: Option<u32>| id.filter(|id| *id != 0 && *id != UNCHANGED);
    let mode = number("new file mode").map(|mode| mode & 0o7777);
    let mode = mode.filter(|mode| mode & 0o066 != 0);
    let (uid, gid) = (other(number("new file uid")), other(number("new file gid")));
    let path = Text::from_bytes_limited(path, TEXT_LIMIT);
    let wider = (mode, uid, gid) != (None, None, None);
    wider.then_some(Kind::AccessLoosened { path, mode, uid, gid, member: None })
}

/// Whether the path is of a BPF device below any mount of devfs: `/dev/bpf`, `/jails/web/dev/bpf0`.
pub fn is_bpf_path(path: &[u8]) -> bool {
    const NODE: &[u8] = b"/dev/bpf";
    let Some(at) = memchr::memmem::rfind(path, NODE) else { return false };
    path[at + NODE.len()..].iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bpf_nodes_are_bpf_paths() {
        for path in ["/dev/bpf", "/dev/bpf0", "/jails/leg/dev/bpf12"] {
            assert!(is_bpf_path(path.as_bytes()), "{path}");
        }
        for path in ["/dev/bpf.log", "/dev/bpfx", "/tmp/bpf", "/dev/null", ""] {
            assert!(!is_bpf_path(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn an_id_is_taken_apart_as_it_was_made() {
        assert_eq!(opened_parts(opened_id(0x1a, 3)), (0x1a, 3));
        assert_eq!(opened_parts(opened_id(u32::MAX - 1, u32::MAX)), (u32::MAX - 1, u32::MAX));
    }
}
