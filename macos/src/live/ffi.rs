//! System calls of macOS that no safe crate offers: sysctl(3), libproc(3), csops(2), and the
//! unified log. Everything is read into
//! plain bytes, which [`stats`](crate::stats) and [`libproc`](crate::libproc) take apart.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io;
use std::mem::offset_of;
use std::ptr::NonNull;

use crate::libproc;

/// PROC_PIDFDVNODEPATHINFO of sys/proc_info.h.
const FD_VNODE_PATH: c_int = 2;
/// PROC_PIDVNODEPATHINFO of sys/proc_info.h.
pub const DIRECTORIES: c_int = 9;
/// PROC_PIDUNIQIDENTIFIERINFO of xnu bsd/sys/proc_info_private.h.
pub const UNIQUE: c_int = 17;
/// PROC_PIDTBSDINFO of sys/proc_info.h.
pub const BSDINFO: c_int = libc::PROC_PIDTBSDINFO;
/// PROC_PIDPATHINFO_MAXSIZE of sys/proc_info.h.
const PATH_MAX: usize = 4096;
/// Reads that are tried while a table grows faster than the buffer for it.
const TRIES: usize = 6;

/// CS_OPS_STATUS of xnu bsd/sys/codesign.h.
const CS_OPS_STATUS: c_uint = 0;
/// CS_OPS_CDHASH, ibid.
pub const CS_OPS_CDHASH: c_uint = 5;
/// CS_OPS_IDENTITY, ibid.
pub const CS_OPS_IDENTITY: c_uint = 11;
/// CS_OPS_TEAMID, ibid.
pub const CS_OPS_TEAMID: c_uint = 14;

/// What [`libproc`] reads at given places is where these structs have it.
const _: () = {
    assert!(size_of::<libc::proc_fdinfo>() == libproc::FD_SIZE);
    assert!(size_of::<libc::proc_bsdinfo>() == libproc::BSDINFO_SIZE);
    assert!(offset_of!(libc::proc_bsdinfo, pbi_ppid) == 16);
    assert!(offset_of!(libc::proc_bsdinfo, pbi_uid) == 20);
    assert!(offset_of!(libc::proc_bsdinfo, pbi_comm) == 48);
    assert!(size_of::<libc::vinfo_stat>() == 136);
    assert!(offset_of!(libc::vinfo_stat, vst_rdev) + 24 == 140);
    assert!(size_of::<libc::vnode_info>() == 152);
    assert!(size_of::<libc::proc_vnodepathinfo>() == libproc::DIRECTORIES_SIZE);
    assert!(24 + size_of::<libc::vnode_info_path>() == libproc::VNODE_PATH_SIZE);
};

unsafe extern "C" {
    /// csops(2), in libSystem (xnu libsyscall); of the C interface no header is public.
    fn csops(pid: libc::pid_t, ops: c_uint, buffer: *mut c_void, size: usize) -> c_int;
}

/// Reads a sysctl by its name into `buffer`, which is made larger as needed but never beyond `cap` bytes.
/// Returns how many bytes were filled. Nothing is ever written to a sysctl.
///
/// # Errors
/// As sysctl(3) has them; OutOfMemory where `cap` is not enough.
pub fn sysctl_by_name(name: &CStr, buffer: &mut Vec<u8>, cap: usize) -> io::Result<usize> {
    grow(buffer, cap, |buffer, length| {
        // SAFETY: the name ends in a zero byte; `buffer` is null or has `length` bytes; no new value.
        unsafe { libc::sysctlbyname(name.as_ptr(), buffer, length, std::ptr::null_mut(), 0) }
    })
}

/// Arguments of a process as KERN_PROCARGS2 gives them; see [`libproc::arguments`] for what is in them.
///
/// # Errors
/// As sysctl(3) has them: EINVAL for a process that is gone or another user's.
pub fn arguments(pid: u32, buffer: &mut [u8]) -> io::Result<usize> {
    let mut mib = [libc::CTL_KERN, libc::KERN_PROCARGS2, number(pid)?];
    let mut length = buffer.len();
    // SAFETY: `mib` has three numbers, `buffer` has `length` bytes, and no new value is given.
    let done = unsafe {
        libc::sysctl(
            mib.as_mut_ptr(),
            3,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(length.min(buffer.len())) }
}

fn grow(
    buffer: &mut Vec<u8>,
    cap: usize,
    read: impl Fn(*mut c_void, *mut usize) -> c_int,
) -> io::Result<usize> {
    for _ in 0..TRIES {
        let mut length = buffer.len();
        if read(buffer.as_mut_ptr().cast(), &raw mut length) == 0 {
            return Ok(length.min(buffer.len()));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOMEM) {
            return Err(error);
        }
        if buffer.len() >= cap {
            break;
        }
        buffer.resize((buffer.len() * 2).clamp(1024, cap), 0);
    }
    Err(io::ErrorKind::OutOfMemory.into())
}

/// All pids.
///
/// # Errors
/// What the system says.
pub fn pids() -> io::Result<Vec<u32>> {
    // SAFETY: a null buffer asks for the number of processes.
    let count = unsafe { libc::proc_listallpids(std::ptr::null_mut(), 0) };
    let count = filled(count)? + 64;
    let mut pids = vec![0i32; count];
    let size = c_int::try_from(count * size_of::<i32>()).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // SAFETY: `pids` has `size` bytes.
    let count = filled(unsafe { libc::proc_listallpids(pids.as_mut_ptr().cast(), size) })?;
    Ok(pids.iter().take(count).filter_map(|pid| u32::try_from(*pid).ok()).collect())
}

/// One flavor of proc_pidinfo that has a size of its own.
///
/// # Errors
/// ESRCH for a process that is gone, EPERM for another user's; InvalidData for another size.
pub fn pid_info(pid: u32, flavor: c_int, size: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; size];
    let length = pid_info_into(pid, flavor, &mut buffer)?;
    if length == size { Ok(buffer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Descriptors of a process into `buffer`: returns the bytes filled (PROC_PIDLISTFDS).
///
/// # Errors
/// As [`pid_info`].
pub fn descriptors(pid: u32, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        let length = pid_info_into(pid, libc::PROC_PIDLISTFDS, buffer)?;
        // A list that just fills the buffer may have been cut.
        if length < buffer.len() || buffer.len() >= 16 * 1024 * 1024 {
            return Ok(length);
        }
        buffer.resize(buffer.len() * 2, 0);
    }
}

fn pid_info_into(pid: u32, flavor: c_int, buffer: &mut [u8]) -> io::Result<usize> {
    let size = c_int::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let pid = number(pid)?;
    // SAFETY: `buffer` has `size` bytes.
    filled(unsafe { libc::proc_pidinfo(pid, flavor, 0, buffer.as_mut_ptr().cast(), size) })
}

/// What PROC_PIDFDVNODEPATHINFO says of a descriptor.
///
/// # Errors
/// As [`pid_info`]; EBADF when it was closed meanwhile.
pub fn vnode_path(pid: u32, fd: i32) -> io::Result<[u8; libproc::VNODE_PATH_SIZE]> {
    let mut buffer = [0; libproc::VNODE_PATH_SIZE];
    let (pid, size) = (number(pid)?, libproc::VNODE_PATH_SIZE as c_int);
    // SAFETY: `buffer` has `size` bytes.
    let done =
        unsafe { libc::proc_pidfdinfo(pid, fd, FD_VNODE_PATH, buffer.as_mut_ptr().cast(), size) };
    if filled(done)? == buffer.len() { Ok(buffer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Path of a process's executable (proc_pidpath).
///
/// # Errors
/// As [`pid_info`].
pub fn image(pid: u32) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; PATH_MAX];
    let pid = number(pid)?;
    // SAFETY: `buffer` has PATH_MAX bytes.
    let length = unsafe { libc::proc_pidpath(pid, buffer.as_mut_ptr().cast(), PATH_MAX as u32) };
    buffer.truncate(filled(length)?);
    Ok(buffer)
}

/// Flags of a process's signature.
///
/// # Errors
/// ESRCH for a process that is gone.
pub fn signature_flags(pid: u32) -> io::Result<u32> {
    let mut flags = [0; 4];
    signature(pid, CS_OPS_STATUS, &mut flags)?;
    Ok(u32::from_ne_bytes(flags))
}

/// A part of a process's signature, into `buffer`, whose size some parts must have.
///
/// # Errors
/// ENOENT or EINVAL where the process has none; ERANGE where it is longer.
pub fn signature(pid: u32, part: c_uint, buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: `buffer` has as many bytes as it says.
    let done = unsafe { csops(number(pid)?, part, buffer.as_mut_ptr().cast(), buffer.len()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn number(pid: u32) -> io::Result<c_int> {
    c_int::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// libproc returns how much it filled; nothing is an error, with its cause in errno.
fn filled(done: c_int) -> io::Result<usize> {
    match usize::try_from(done) {
        Ok(length) if length > 0 => Ok(length),
        _ => Err(io::Error::last_os_error()),
    }
}

unsafe extern "C" {
    /// os/log.h.
    fn os_log_create(subsystem: *const c_char, category: *const c_char) -> *mut c_void;
    /// os/log.h, behind `os_log_with_type`.
    fn _os_log_impl(
        dso: *const c_void,
        log: *mut c_void,
        kind: u8,
        format: *const c_char,
        buffer: *const u8,
        size: u32,
    );
}

/// The format of every record. The log keeps not the text but where it stands in the image: it must be in the
/// section where os/log.h has its formats, else `<compose failure>` is shown.
#[used]
#[unsafe(link_section = "__TEXT,__oslogstring,cstring_literals")]
static FORMAT: [u8; 11] = *b"%{public}s\0";

/// A log of a subsystem and category (os_log_create(3)).
pub struct Log(NonNull<c_void>);

// SAFETY: a log is never changed and never freed, and os_log(3) may be called with it from any thread.
unsafe impl Send for Log {}

impl Log {
    /// The log of that name; the system keeps one for each and none is ever released.
    pub fn new(subsystem: &CStr, category: &CStr) -> Option<Self> {
        // SAFETY: both names end in a zero byte; they are copied.
        NonNull::new(unsafe { os_log_create(subsystem.as_ptr(), category.as_ptr()) }).map(Self)
    }

    /// Writes a record of a type of os/log.h.
    pub fn write(&self, kind: u8, message: &CStr) {
        // One item that is no number: a public string of eight bytes: the pointer to it.
        let mut buffer = [2, 1, 0x22, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        buffer[4..].copy_from_slice(&(message.as_ptr() as usize).to_ne_bytes());
        // SAFETY: all-zero bytes are a valid Dl_info, a struct of pointers.
        let mut image: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: FORMAT is in this image, and `image` lives through the call.
        if unsafe { libc::dladdr((&raw const FORMAT).cast(), &raw mut image) } == 0 {
            return;
        }
        // SAFETY: the image has FORMAT, which ends in a zero byte; the buffer is what the compiler's builtin
        // (clang lib/CodeGen, __builtin_os_log_format) makes of one `%{public}s`: summary 2 (an item that is
        // not a scalar), count 1, descriptor 0x22 (string, public), size 8, pointer. `message` lives through
        // the call, which copies it.
        unsafe {
            _os_log_impl(
                image.dli_fbase,
                self.0.as_ptr(),
                kind,
                (&raw const FORMAT).cast(),
                buffer.as_ptr(),
                buffer.len() as u32,
            );
        }
    }
}
