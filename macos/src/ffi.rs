//! System calls that no safe crate offers: the only unsafe code of this package.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// BIOCPROMISC of net/bpf.h: `_IO('B', 105)`.
const BIOCPROMISC: u64 = 0x2000_4269;
/// BIOCSETIF of net/bpf.h: `_IOW('B', 108, struct ifreq)`.
const BIOCSETIF: u64 = 0x8020_426c;

/// `struct ifreq` of net/if.h: a name, and a union that BIOCSETIF does not look at.
#[repr(C)]
struct Ifreq {
    name: [u8; 16],
    union: [u64; 2],
}

const _: () = {
    assert!(size_of::<Ifreq>() == 32);
    assert!(std::mem::offset_of!(Ifreq, union) == 16);
    // The size stands in the command's bits 16 to 28 (sys/ioccom.h).
    assert!((BIOCSETIF >> 16) & 0x1fff == 32);
};

/// Attaches a BPF descriptor to an interface (bpf(4), BIOCSETIF).
///
/// # Errors
/// ENXIO when there is none of that name, InvalidInput for a name that is too long.
pub fn attach(bpf: impl AsFd, interface: &str) -> io::Result<()> {
    let mut request = Ifreq { name: [0; 16], union: [0; 2] };
    if interface.len() >= request.name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..interface.len()].copy_from_slice(interface.as_bytes());
    // SAFETY: BIOCSETIF reads one ifreq, to which the pointer is, and which lives through the call.
    check(unsafe { libc::ioctl(bpf.as_fd().as_raw_fd(), BIOCSETIF as _, &raw const request) })
}

/// Makes the interface of a BPF descriptor promiscuous for as long as the descriptor lives (bpf(4),
/// BIOCPROMISC).
///
/// # Errors
/// EINVAL when it is not attached.
pub fn promiscuous(bpf: impl AsFd) -> io::Result<()> {
    // SAFETY: BIOCPROMISC takes no argument.
    check(unsafe { libc::ioctl(bpf.as_fd().as_raw_fd(), BIOCPROMISC as _) })
}

fn check(done: c_int) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
