//! System calls that no safe crate offers: the only unsafe code of this package.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::netlink_proc::Instruction;

/// socket(2), closed on exec. For families and types that nix has no name for.
///
/// # Errors
/// As the call has them; EPERM without CAP_NET_RAW for packet and raw sockets.
pub fn socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds an AF_PACKET socket to a protocol (host byte order) and an interface; 0 is each of them.
///
/// # Errors
/// As bind(2) has them; ENODEV when there is no such interface.
pub fn bind_packet(socket: BorrowedFd<'_>, ifindex: c_int, protocol: u16) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sockaddr_ll, a struct of integers.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex;
    // SAFETY: the pointer is to a live sockaddr_ll and the length is its size.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    check(done)
}

/// Binds a SOCK_PACKET socket to an interface by name, of which the kernel takes 14 bytes
/// (net/packet/af_packet.c: `packet_bind_spkt`).
///
/// # Errors
/// As bind(2) has them; ENODEV when there is no such interface.
pub fn bind_sock_packet(socket: BorrowedFd<'_>, interface: &str) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sockaddr, a struct of integers.
    let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
    address.sa_family = libc::AF_PACKET as u16;
    for (slot, byte) in address.sa_data.iter_mut().zip(interface.bytes()) {
        *slot = byte as libc::c_char;
    }
    // SAFETY: the pointer is to a live sockaddr and the length is its size.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            &raw const address,
            size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    };
    check(done)
}

/// Makes an AF_PACKET socket's interface promiscuous for as long as the socket lives (packet(7),
/// PACKET_MR_PROMISC).
///
/// # Errors
/// As setsockopt(2) has them.
pub fn join_promiscuous(socket: BorrowedFd<'_>, ifindex: c_int) -> io::Result<()> {
    let membership = libc::packet_mreq {
        mr_ifindex: ifindex,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY: the pointer is to a live packet_mreq and the length is its size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const membership).cast(),
            size_of::<libc::packet_mreq>() as libc::socklen_t,
        )
    };
    check(done)
}

/// Reads an extended attribute of a file, not of what a symbolic link points to (lgetxattr(2)).
/// Returns how many bytes of `buffer` it filled.
///
/// # Errors
/// ENODATA when the file has none of that name, ERANGE when `buffer` is too small.
pub fn attribute(path: &CStr, name: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: both strings end in a zero byte and live through the call; the kernel writes at most
    // `buffer.len()` bytes to the buffer.
    let size = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            buffer.as_mut_ptr().cast::<c_void>(),
            buffer.len(),
        )
    };
    usize::try_from(size).map_err(|_| io::Error::last_os_error())
}

/// Reads an extended attribute of what a path leads to (getxattr(2)). Returns how many bytes of `buffer` it
/// filled.
///
/// # Errors
/// ENODATA or EOPNOTSUPP when it has none of that name, ERANGE when `buffer` is too small.
pub fn target_attribute(path: &CStr, name: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: both strings end in a zero byte and live through the call; the kernel writes at most
    // `buffer.len()` bytes to the buffer.
    let size = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            buffer.as_mut_ptr().cast::<c_void>(),
            buffer.len(),
        )
    };
    usize::try_from(size).map_err(|_| io::Error::last_os_error())
}

/// Attaches a classic BPF program to a socket (SO_ATTACH_FILTER).
///
/// # Errors
/// What the system says, or InvalidInput for a program too long.
pub fn attach_filter(socket: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let mut instructions: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: instructions.as_mut_ptr() };
    // SAFETY: `program` is a sock_fprog whose `filter` points to `len` instructions; both live until
    // the call returns, and the kernel copies them.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(done)
}

/// Sets a socket option whose value is an int.
///
/// # Errors
/// What the system says.
pub fn set_option(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer is to an int that lives until the call returns, and the length is an int's.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(done)
}

/// Sets the nice value of the calling thread (setpriority(2): on Linux it is one of a thread's own).
///
/// # Errors
/// EACCES without CAP_SYS_NICE.
pub fn raise_priority(nice: c_int) -> io::Result<()> {
    // SAFETY: the call takes numbers only; 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })
}

fn check(done: c_int) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns the calling thread's empty allocator pages to the system (mi_collect of mimalloc). Without effect
/// where another allocator is in use.
pub fn collect_heap() {
    // SAFETY: the call takes a flag only, and every thread may make it at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Unmaps the pages of a read-only mapping of a file; each is mapped again when it is next read
/// (MADV_DONTNEED of madvise(2)).
///
/// The range has to be of a private mapping of a file that nobody has written to: written pages would be lost.
///
/// # Errors
/// As the call has them; EINVAL for locked memory or an address that is not of a page's begin.
pub fn forget_pages(range: std::ops::Range<usize>) -> io::Result<()> {
    let address: *mut c_void = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the caller names code and constants of a file, which the kernel reads again unchanged;
    // no reference into them sees another value.
    check(unsafe { libc::madvise(address, range.len(), libc::MADV_DONTNEED) })
}
