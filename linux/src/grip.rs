//! What a descriptor stands for: a socket, an eBPF program or a link of it, a TAP device, a USB monitor.
//!
//! Links of `/proc/PID/fd` tell sockets by inode and the others by name; of those, `fdinfo` tells which
//! (kernel/bpf/syscall.c: `bpf_prog_show_fdinfo`, `bpf_link_show_fdinfo`; drivers/net/tun.c:
//! `tun_chr_show_fdinfo`).

use bpfwatch_core::handle::{Handle, HandleKind};

use crate::proc_text;
use crate::programs::info;

/// What a descriptor has to stand for, for its process to hold a handle.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grip {
    /// A socket, by inode.
    Socket(u64),
    /// A program or a link of it, by the program's number.
    Program(u64),
    /// A TAP device, by name.
    Tap(Vec<u8>),
    /// A USB monitor, by the number of its bus; 0 is all of them.
    Usbmon(u64),
}

/// What a link in `/proc/PID/fd` says by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// All of it.
    Whole(Grip),
    /// A program or a link: its `fdinfo` says more.
    Bpf,
    /// A TUN or TAP device: its `fdinfo` says more.
    Tun,
    /// Something else.
    Other,
}

impl Grip {
    /// Of the handle; `None` for one that nobody holds.
    pub fn of(handle: &Handle) -> Option<Self> {
        match handle.kind {
            kind if kind.is_program() => Some(Grip::Program(handle.id)),
            HandleKind::TcMirror => None,
            HandleKind::TapPort => {
                Some(Grip::Tap(handle.interface.as_ref()?.as_str().as_bytes().to_vec()))
            }
            HandleKind::Usbmon => Some(Grip::Usbmon(handle.id)),
            _ => Some(Grip::Socket(handle.id)),
        }
    }

    /// Whether a link tells it whole, without its `fdinfo`.
    pub fn is_plain(&self) -> bool {
        matches!(self, Grip::Socket(_) | Grip::Usbmon(_))
    }
}

/// Reads a link's target.
pub fn link(target: &[u8]) -> Link {
    if let Some(inode) = proc_text::link_inode(target, "socket") {
        return Link::Whole(Grip::Socket(inode));
    }
    match target {
        b"anon_inode:bpf-prog" | b"anon_inode:bpf_link" | b"anon_inode:bpf-link" => Link::Bpf,
        b"/dev/net/tun" => Link::Tun,
        _ => usbmon(target).map_or(Link::Other, |bus| Link::Whole(Grip::Usbmon(bus))),
    }
}

/// The bus of `/dev/usbmonN`, or of `Nt` and `Nu` in debugfs.
fn usbmon(target: &[u8]) -> Option<u64> {
    let digits = match target.strip_prefix(b"/dev/usbmon") {
        Some(digits) => digits,
        None => {
            let at = target.windows(12).position(|part| part == b"/usb/usbmon/")?;
            let name = &target[at + 12..];
            name.strip_suffix(b"t").or_else(|| name.strip_suffix(b"u"))?
        }
    };
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The rest, from `fdinfo`.
pub fn told(link: &Link, fdinfo: &[u8]) -> Option<Grip> {
    match link {
        Link::Bpf => info::fdinfo_program(fdinfo).map(|id| Grip::Program(u64::from(id))),
        Link::Tun => {
            let mut lines = fdinfo.split(|byte| *byte == b'\n');
            let name = lines.find_map(|line| line.strip_prefix(b"iff:"))?.trim_ascii();
            (!name.is_empty()).then(|| Grip::Tap(name.to_vec()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_what_more_is_told() {
        assert_eq!(link(b"socket:[12]"), Link::Whole(Grip::Socket(12)));
        assert_eq!(link(b"/dev/usbmon3"), Link::Whole(Grip::Usbmon(3)));
        assert_eq!(link(b"/sys/kernel/debug/usb/usbmon/0u"), Link::Whole(Grip::Usbmon(0)));
        for other in [&b"/sys/kernel/debug/usb/usbmon/1s"[..], b"/dev/usbmonx", b"pipe:[4]", b""] {
            assert_eq!(link(other), Link::Other);
        }
        let program = link(b"anon_inode:bpf-prog");
        assert_eq!(told(&program, b"prog_id:\t9\n"), Some(Grip::Program(9)));
        let tun = link(b"/dev/net/tun");
        assert_eq!(told(&tun, b"pos:\t0\niff:\ttap0\n"), Some(Grip::Tap(b"tap0".to_vec())));
        // No device yet.
        assert_eq!(told(&tun, b"pos:\t0\niff:\t\n"), None);
    }

    #[test]
    fn each_handle_has_its_grip() {
        let handle = |kind| Handle { interface: Some("tap0".into()), ..Handle::new(kind, 7) };
        assert_eq!(Grip::of(&handle(HandleKind::PacketSocket)), Some(Grip::Socket(7)));
        assert_eq!(Grip::of(&handle(HandleKind::NflogSocket)), Some(Grip::Socket(7)));
        assert_eq!(Grip::of(&handle(HandleKind::XdpProgram)), Some(Grip::Program(7)));
        assert_eq!(Grip::of(&handle(HandleKind::TapPort)), Some(Grip::Tap(b"tap0".to_vec())));
        assert_eq!(Grip::of(&handle(HandleKind::TcMirror)), None);
    }
}
