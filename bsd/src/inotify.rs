//! Events of inotify(2), native from FreeBSD 15.0 (sys/inotify.h): it queues each open of a device node,
//! where kqueue merges those that wait. Which process it was neither of them tells.

use crate::bytes::{signed, word};

/// IN_ATTRIB.
pub const ATTRIB: u32 = 0x4;
/// IN_OPEN.
pub const OPEN: u32 = 0x20;
/// IN_CLOSE_WRITE and IN_CLOSE_NOWRITE.
pub const CLOSE: u32 = 0x8 | 0x10;
/// IN_DONT_FOLLOW: who rules a jail may put a symbolic link in the place of its node.
pub const DONT_FOLLOW: u32 = 0x0200_0000;
/// IN_UNMOUNT: the mount went, or somebody called revoke(2) on a node of the device.
pub const UNMOUNT: u32 = 0x2000;
/// IN_Q_OVERFLOW: vfs.inotify.max_queued_events were waiting and what came then is lost.
pub const OVERFLOW: u32 = 0x4000;
/// IN_IGNORED: the watch is gone.
pub const IGNORED: u32 = 0x8000;

/// IN_NONBLOCK, which is O_NONBLOCK.
pub const NONBLOCK: i32 = 0x4;
/// IN_CLOEXEC, which is O_CLOEXEC.
pub const CLOEXEC: i32 = 0x10_0000;
/// System calls (sys/syscall.h): zig's libc for 14.0 has no functions for them.
pub const SYS_SPECIALFD: i32 = 577;
/// See [`SYS_SPECIALFD`].
pub const SYS_ADD_WATCH_AT: i32 = 593;
/// See [`SYS_SPECIALFD`].
pub const SYS_RM_WATCH: i32 = 594;
/// Which special descriptor is asked for (sys/specialfd.h).
pub const SPECIALFD_INOTIFY: i32 = 2;

/// Bytes of `struct inotify_event` before the name.
const HEADER: usize = size_of::<crate::layout::InotifyEvent>();

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Which watch; -1 for an overflow.
    pub watch: i32,
    /// IN_*.
    pub mask: u32,
}

/// What one read gave. A cut event at the end is left out: the kernel never cuts one.
pub fn events(mut bytes: &[u8]) -> Vec<Event> {
    let mut out = Vec::new();
    while let (Some(watch), Some(mask), Some(length)) =
        (signed(bytes, 0), word(bytes, 4), word(bytes, 12))
    {
        out.push(Event { watch, mask });
        let end = HEADER.saturating_add(length as usize);
        let Some(rest) = bytes.get(end..) else { break };
        bytes = rest;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(watch: i32, mask: u32, name: &[u8]) -> Vec<u8> {
        let length = u32::try_from(name.len()).unwrap();
        let numbers = [watch.cast_unsigned(), mask, 0, length];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        bytes.extend_from_slice(name);
        bytes
    }

    #[test]
    fn each_event_is_read() {
        let bytes = [raw(1, OPEN, b""), raw(2, ATTRIB, b"bpf\0"), raw(-1, OVERFLOW, b"")].concat();
        let seen = events(&bytes);
        let wanted = [(1, OPEN), (2, ATTRIB), (-1, OVERFLOW)];
        assert_eq!(seen, wanted.map(|(watch, mask)| Event { watch, mask }));
    }

    #[test]
    fn what_is_cut_is_left_out() {
        let bytes = [raw(1, OPEN, b""), raw(2, OPEN, b"name")].concat();
        for length in 0..bytes.len() {
            let count = events(&bytes[..length]).len();
            assert_eq!(count, usize::from(length >= 16) + usize::from(length >= 32), "{length}");
        }
        assert!(events(&raw(1, OPEN, b"")[..12]).is_empty());
        let mut huge = raw(1, OPEN, b"");
        huge[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(events(&huge).len(), 1);
    }
}
