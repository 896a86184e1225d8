//! System calls that no safe crate offers: the only unsafe code of this package. kqueue is called directly,
//! because the crates for it know no EVFILT_JAIL.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_uint, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::layout::{Ifbifconf, Ifbreq, Ifdrv};
use crate::{audit, inotify, link, spans};

/// The ABI of 12.0 and later (sys/event.h). What libc has for older releases would be silently cut.
const _: () = assert!(size_of::<libc::kevent>() == 64);
const _: () = assert!(size_of::<libc::ifreq>() == 32);

/// Events taken at once.
const EVENTS: usize = 256;
/// Reads that are tried while a table grows faster than the buffer for it.
const TRIES: usize = 6;

/// An event of kqueue, or what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Descriptor, pid, jid ...
    pub ident: usize,
    /// EVFILT_*.
    pub filter: i16,
    /// EV_*.
    pub flags: u16,
    /// NOTE_*.
    pub fflags: u32,
    /// What the filter says beyond that.
    pub data: i64,
}

/// A kqueue (kqueue(2)). It may be used from several threads.
#[derive(Debug)]
pub struct Kqueue(OwnedFd);

impl Kqueue {
    /// A new one. It is not inherited by children.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes nothing.
        let fd = unsafe { libc::kqueue() };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Asks for events, or for no more of them.
    ///
    /// # Errors
    /// As kevent(2) has them; ESRCH for a process that has ended.
    pub fn change(&self, event: Event) -> io::Result<()> {
        let mut raw = empty();
        raw.ident = event.ident;
        raw.filter = event.filter;
        raw.flags = event.flags;
        raw.fflags = event.fflags;
        raw.data = event.data;
        // SAFETY: `raw` is one kevent that lives through the call, and no events are asked back.
        let done = unsafe {
            libc::kevent(
                self.0.as_raw_fd(),
                &raw const raw,
                1,
                std::ptr::null_mut(),
                0,
                std::ptr::null(),
            )
        };
        check(done)
    }

    /// Waits up to `timeout` for events and puts them into `out`, in place of what was there.
    ///
    /// # Errors
    /// As kevent(2) has them; an interrupted wait is none.
    pub fn wait(&self, timeout: Duration, out: &mut Vec<Event>) -> io::Result<()> {
        out.clear();
        let mut raw = [empty(); EVENTS];
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        // SAFETY: `raw` has room for EVENTS kevents, and `timeout` lives through the call.
        let count = unsafe {
            libc::kevent(
                self.0.as_raw_fd(),
                std::ptr::null(),
                0,
                raw.as_mut_ptr(),
                EVENTS as c_int,
                &raw const timeout,
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        let filled = raw.iter().take(usize::try_from(count).unwrap_or(0));
        out.extend(filled.map(|event| Event {
            ident: event.ident,
            filter: event.filter,
            flags: event.flags,
            fflags: event.fflags,
            data: event.data,
        }));
        Ok(())
    }
}

fn empty() -> libc::kevent {
    // SAFETY: all-zero bytes are a valid kevent, a struct of integers and one pointer that may be null.
    unsafe { std::mem::zeroed() }
}

/// Numbers of a sysctl by its name (sysctlnametomib(3)).
///
/// # Errors
/// ENOENT when the kernel has none of that name.
pub fn mib(name: &CStr) -> io::Result<Vec<c_int>> {
    let mut mib = [0; 24];
    let mut length = mib.len();
    // SAFETY: the name ends in a zero byte, and `length` says how many numbers fit in `mib`.
    check(unsafe { libc::sysctlnametomib(name.as_ptr(), mib.as_mut_ptr(), &raw mut length) })?;
    Ok(mib[..length.min(mib.len())].to_vec())
}

/// Reads a sysctl into `buffer`, which is made larger as needed but never beyond `cap` bytes, and kept at
/// its size for the next time. Returns how many bytes were filled. Nothing is ever written to a sysctl.
///
/// # Errors
/// As sysctl(3) has them; OutOfMemory where `cap` is not enough.
pub fn sysctl(mib: &[c_int], buffer: &mut Vec<u8>, cap: usize) -> io::Result<usize> {
    for _ in 0..TRIES {
        let mut length = buffer.len();
        match sysctl_once(mib, buffer.as_mut_ptr().cast(), &mut length) {
            // A table that just fills the buffer may have been cut.
            Ok(()) if length < buffer.len() => return Ok(length),
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {}
            Err(error) => return Err(error),
        }
        let mut needed = 0;
        sysctl_once(mib, std::ptr::null_mut(), &mut needed)?;
        let room = needed.saturating_add(needed / 4).saturating_add(1024).max(buffer.len() + 1);
        if buffer.len() >= cap {
            break;
        }
        buffer.resize(room.min(cap), 0);
    }
    Err(io::ErrorKind::OutOfMemory.into())
}

fn sysctl_once(mib: &[c_int], buffer: *mut c_void, length: &mut usize) -> io::Result<()> {
    let count = c_uint::try_from(mib.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `mib` has `count` numbers; `buffer` is null, or has `length` bytes; no new value is given.
    let done = unsafe { libc::sysctl(mib.as_ptr(), count, buffer, length, std::ptr::null(), 0) };
    check(done)
}

/// socket(2), closed on exec and not blocking.
///
/// # Errors
/// As the call has them.
pub fn socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::socket(domain, kind, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The members of a bridge, as whole rows (if_bridge(4), BRDGGIFS; sys/net/if_bridge.c `bridge_ioctl_gifs`).
///
/// # Errors
/// ENXIO when there is no such interface; OutOfMemory for more members than a bridge has.
pub fn bridge_members(socket: impl AsFd, bridge: &[u8]) -> io::Result<Vec<u8>> {
    const ROOM: usize = 1024 * size_of::<Ifbreq>();
    let mut members = vec![0u8; ROOM];
    let mut list = Ifbifconf { len: ROOM as u32, gap: 0, buf: members.as_mut_ptr() as u64 };
    let mut request = Ifdrv {
        name: [0; 16],
        cmd: spans::BRDGGIFS,
        len: size_of::<Ifbifconf>() as u64,
        data: (&raw mut list) as u64,
    };
    if bridge.len() >= request.name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..bridge.len()].copy_from_slice(bridge);
    let command = spans::SIOCGDRVSPEC as libc::c_ulong;
    // SAFETY: SIOCGDRVSPEC takes one ifdrv, whose data is `len` bytes that BRDGGIFS reads and writes as one
    // ifbifconf; that points to `members`, which has as many bytes as it says. All live through the call.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), command, &raw mut request) })?;
    let filled = list.len as usize;
    if filled >= ROOM {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    members.truncate(filled);
    Ok(members)
}

/// A netlink socket that is told of changes of interfaces (netlink(4), RTNLGRP_LINK), 14.0 and later.
///
/// # Errors
/// EAFNOSUPPORT or EPROTONOSUPPORT where the kernel has no netlink.
pub fn link_messages() -> io::Result<OwnedFd> {
    let socket = socket(link::AF_NETLINK, libc::SOCK_RAW, link::NETLINK_ROUTE)?;
    let group: c_int = link::RTNLGRP_LINK;
    // SAFETY: NETLINK_ADD_MEMBERSHIP reads one int, which lives through the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            link::SOL_NETLINK,
            link::NETLINK_ADD_MEMBERSHIP,
            (&raw const group).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    })?;
    Ok(socket)
}

/// Reads a sysctl as a jail has it, through a child that enters the jail (jail_attach(2)) and ends. For what
/// the kernel tells of one network stack alone. Returns how many bytes of `buffer` were filled.
///
/// The child cannot be traced or dumped before it enters, and has no descriptor but the pipe for its answer:
/// root of the jail can do no more than kill it. One that does not answer within `patience` is killed.
///
/// # Errors
/// As fork(2), jail_attach(2) and sysctl(3) have them; TimedOut; UnexpectedEof when it was killed.
pub fn sysctl_in_jail(
    jid: u32,
    mib: &[c_int],
    buffer: &mut [u8],
    patience: Duration,
) -> io::Result<usize> {
    let jid = c_int::try_from(jid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let count = c_uint::try_from(mib.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the kernel just made both and nobody else knows them.
    let (answer, end) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: the child of a program with threads may only make calls that are safe in a signal handler. It
    // calls `in_jail` alone, which makes plain system calls on memory that is there already, and never returns.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        // SAFETY: this is the child; `mib` has `count` numbers.
        unsafe { in_jail(jid, mib.as_ptr(), count, buffer, end.as_raw_fd()) }
    }
    drop(end);
    let answered = read_answer(&answer, buffer, patience);
    // SAFETY: `child` is ours and was not waited for: the number is nobody else's. Its end is not asked for.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        while libc::waitpid(child, std::ptr::null_mut(), 0) < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    answered
}

/// The child of [`sysctl_in_jail`].
///
/// # Safety
/// Only to be called in a child that fork(2) just made; `mib` points to `count` numbers.
unsafe fn in_jail(
    jid: c_int,
    mib: *const c_int,
    count: c_uint,
    buffer: &mut [u8],
    end: c_int,
) -> ! {
    let mut length = buffer.len();
    let mut disable: c_int = libc::PROC_TRACE_CTL_DISABLE;
    // SAFETY: system calls with numbers and with pointers to this frame, to `mib` and to `buffer`, which has
    // `length` bytes. Nothing is allocated, locked or dropped.
    unsafe {
        let done = if libc::procctl(
            libc::P_PID,
            libc::id_t::from(libc::getpid()),
            libc::PROC_TRACE_CTL,
            (&raw mut disable).cast(),
        ) != 0
            || libc::dup2(end, 0) != 0
        {
            -1
        } else {
            libc::closefrom(1);
            match libc::jail_attach(jid) {
                0 => libc::sysctl(
                    mib,
                    count,
                    buffer.as_mut_ptr().cast(),
                    &raw mut length,
                    std::ptr::null(),
                    0,
                ),
                failed => failed,
            }
        };
        // A length, or an error as a negative number.
        let said = if done == 0 { length as i64 } else { -i64::from(*libc::__error()) };
        let header = said.to_ne_bytes();
        let parts: [(*const u8, usize); 2] = [
            (header.as_ptr(), header.len()),
            (buffer.as_ptr(), if done == 0 { length } else { 0 }),
        ];
        for (mut at, mut left) in parts {
            while left > 0 {
                let written = libc::write(0, at.cast(), left);
                let Ok(written @ 1..) = usize::try_from(written) else { libc::_exit(1) };
                at = at.add(written.min(left));
                left = left.saturating_sub(written);
            }
        }
        libc::_exit(0)
    }
}

fn read_answer(answer: &OwnedFd, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
    let until = Instant::now() + patience;
    let mut header = [0; 8];
    read_within(answer, &mut header, until)?;
    let said = i64::from_ne_bytes(header);
    if said < 0 {
        let error = i32::try_from(-said).unwrap_or(libc::EINVAL);
        return Err(io::Error::from_raw_os_error(error));
    }
    let room = usize::try_from(said).ok().and_then(|length| buffer.get_mut(..length));
    let room = room.ok_or(io::ErrorKind::InvalidData)?;
    read_within(answer, room, until)?;
    Ok(room.len())
}

/// Fills `buffer`.
fn read_within(from: &OwnedFd, buffer: &mut [u8], until: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let mut ask = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `ask` is one pollfd.
        match unsafe { libc::poll(&raw mut ask, 1, c_int::try_from(left).unwrap_or(c_int::MAX)) } {
            0 => return Err(io::ErrorKind::TimedOut.into()),
            1.. => {}
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(error),
            },
        }
        let rest = &mut buffer[filled..];
        // SAFETY: `rest` has as many bytes as are asked for.
        match unsafe { libc::read(from.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len()) } {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += usize::try_from(read).map_err(|_| io::Error::last_os_error())?,
        }
    }
    Ok(())
}

/// Asks jail_get(2) for the jail that follows `last`, by jid; also one that is being removed. Each parameter
/// comes with room for its value.
///
/// # Errors
/// ENOENT when there is none; EINVAL when the kernel does not know a parameter.
pub fn next_jail(last: u32, parameters: &mut [(&CStr, Vec<u8>)]) -> io::Result<()> {
    let mut last = c_int::try_from(last).map_err(|_| io::ErrorKind::InvalidInput)?;
    let text = |name: &CStr| libc::iovec {
        iov_base: name.as_ptr().cast_mut().cast(),
        iov_len: name.to_bytes_with_nul().len(),
    };
    let mut parts = vec![
        text(c"lastjid"),
        libc::iovec { iov_base: (&raw mut last).cast(), iov_len: size_of::<c_int>() },
    ];
    for (name, value) in parameters.iter_mut() {
        parts.push(text(name));
        parts.push(libc::iovec { iov_base: value.as_mut_ptr().cast(), iov_len: value.len() });
    }
    let count = c_uint::try_from(parts.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: each part points to as many bytes as it says, which live through the call; the kernel writes
    // to values only, never to names.
    check(unsafe { libc::jail_get(parts.as_mut_ptr(), count, libc::JAIL_DYING) }.min(0))
}

/// Type and mount point of every mounted file system (getfsstat(2)), as cached.
///
/// # Errors
/// As the call has them.
pub fn mounts() -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    for extra in [8, 64, 512] {
        // SAFETY: a null buffer asks for the number of mounts.
        let count = unsafe { libc::getfsstat(std::ptr::null_mut(), 0, libc::MNT_NOWAIT) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())? + extra;
        // SAFETY: all-zero bytes are a valid statfs, a struct of integers and arrays of them.
        let mut table: Vec<libc::statfs> = vec![unsafe { std::mem::zeroed() }; count];
        let size = libc::c_long::try_from(count * size_of::<libc::statfs>())
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: `table` has `size` bytes.
        let filled = unsafe { libc::getfsstat(table.as_mut_ptr(), size, libc::MNT_NOWAIT) };
        let filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
        if filled < count {
            let bytes = |name: &[libc::c_char]| -> Vec<u8> {
                name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8).collect()
            };
            let rows = table.iter().take(filled);
            return Ok(rows.map(|fs| (bytes(&fs.f_fstypename), bytes(&fs.f_mntonname))).collect());
        }
    }
    Err(io::ErrorKind::OutOfMemory.into())
}

/// A descriptor of inotify(2) that does not block. zig's libc is of 14.0 and has no such function, so it is
/// the system call itself (sys/kern/syscalls.master, sys/sys/specialfd.h of 15.0).
///
/// # Errors
/// As the call has them. On a kernel older than 15.0 the process would be killed: ask for its release first.
pub fn inotify() -> io::Result<OwnedFd> {
    let flags: c_int = inotify::NONBLOCK | inotify::CLOEXEC;
    let size = size_of::<c_int>();
    // SAFETY: the kernel reads `struct specialfd_inotify`, which is one int, of the size told.
    let fd = unsafe {
        libc::syscall(inotify::SYS_SPECIALFD, inotify::SPECIALFD_INOTIFY, &raw const flags, size)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Watches a path (inotify_add_watch(2)). Returns the number of the watch.
///
/// # Errors
/// As the call has them; ENOENT when there is nothing at the path.
pub fn inotify_add(queue: impl AsFd, path: &[u8], mask: u32) -> io::Result<c_int> {
    let path = CString::new(path)?;
    let fd = queue.as_fd().as_raw_fd();
    // SAFETY: the path ends in a zero byte and lives through the call; the rest are numbers.
    let watch = unsafe {
        libc::syscall(inotify::SYS_ADD_WATCH_AT, fd, libc::AT_FDCWD, path.as_ptr(), mask)
    };
    if watch < 0 { Err(io::Error::last_os_error()) } else { Ok(watch) }
}

/// Ends a watch (inotify_rm_watch(2)).
///
/// # Errors
/// EINVAL when there is none of that number.
pub fn inotify_remove(queue: impl AsFd, watch: c_int) -> io::Result<()> {
    let fd = queue.as_fd().as_raw_fd();
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::syscall(inotify::SYS_RM_WATCH, fd, watch) })
}

unsafe extern "C" {
    /// auditon(2), which the libc crate lacks.
    fn auditon(command: c_int, data: *mut c_void, length: c_int) -> c_int;
}

/// Whether the system audits (A_GETCOND of auditon(2)): AUC_*.
///
/// # Errors
/// EPERM for other users than root, ENOSYS in a jail and where the kernel has no audit.
pub fn audit_condition() -> io::Result<c_int> {
    let mut condition: c_int = 0;
    let data = (&raw mut condition).cast();
    // SAFETY: the kernel writes one int to `data`, which has room for one and lives through the call.
    check(unsafe { auditon(audit::A_GETCOND, data, size_of::<c_int>() as c_int) })?;
    Ok(condition)
}

/// Sets something of an audit pipe (auditpipe(4)); `words` is all that the command takes.
///
/// # Errors
/// As the call has them; InvalidInput where the command takes another number of bytes.
pub fn audit_pipe_set(pipe: impl AsFd, command: u64, words: &[u32]) -> io::Result<()> {
    if audit::parameter_size(command) != size_of_val(words) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the command says how many bytes the kernel reads, and `words` has just as many.
    check(unsafe {
        libc::ioctl(pipe.as_fd().as_raw_fd(), command as libc::c_ulong, words.as_ptr())
    })
}

/// Records that an audit pipe dropped since it was opened.
///
/// # Errors
/// As the call has them.
pub fn audit_pipe_drops(pipe: impl AsFd) -> io::Result<u64> {
    const { assert!(audit::parameter_size(audit::GET_DROPS) == size_of::<u64>()) };
    let mut drops: u64 = 0;
    let command = audit::GET_DROPS as libc::c_ulong;
    // SAFETY: the kernel writes as many bytes as the command says: one u64, for which there is room.
    check(unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), command, &raw mut drops) })?;
    Ok(drops)
}

/// Lets this process open nothing any more, ever (cap_enter(2)).
///
/// # Errors
/// ENOSYS where the kernel has no Capsicum.
pub fn enter_capability_mode() -> io::Result<()> {
    // SAFETY: the call takes nothing.
    check(unsafe { libc::cap_enter() })
}

/// Attaches a BPF descriptor to an interface (bpf(4), BIOCSETIF).
///
/// # Errors
/// ENXIO when there is none of that name, InvalidInput for a name that is too long.
pub fn attach(bpf: impl AsFd, interface: &str) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid ifreq, a struct of integers and a union of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *slot = byte as libc::c_char;
    }
    let command = crate::bsm::event::BIOCSETIF as libc::c_ulong;
    // SAFETY: BIOCSETIF reads one ifreq, to which the pointer is, and which lives through the call.
    check(unsafe { libc::ioctl(bpf.as_fd().as_raw_fd(), command, &raw const request) })
}

/// Makes the interface of a BPF descriptor promiscuous for as long as the descriptor lives (bpf(4),
/// BIOCPROMISC).
///
/// # Errors
/// EINVAL when it is not attached.
pub fn promiscuous(bpf: impl AsFd) -> io::Result<()> {
    let command = crate::bsm::event::BIOCPROMISC as libc::c_ulong;
    // SAFETY: BIOCPROMISC takes no argument.
    check(unsafe { libc::ioctl(bpf.as_fd().as_raw_fd(), command) })
}

fn check(done: c_int) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
