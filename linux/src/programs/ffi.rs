//! The calls of bpf(2) that only read: numbers, descriptions, attachments.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::info::{MAP_IDS, PROGRAM_INFO};

/// Most maps of one program that are asked about.
const MAX_MAPS: usize = 64;
/// Most programs that a query of one place returns.
const MAX_QUERIED: usize = 64;

/// What the kernel numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// A program.
    Program,
    /// A map.
    Map,
    /// A link.
    Link,
}

impl Object {
    /// BPF_{PROG,LINK}_GET_NEXT_ID.
    fn next_command(self) -> libc::c_long {
        match self {
            Object::Program => 11,
            Object::Map => 12,
            Object::Link => 31,
        }
    }

    /// BPF_{PROG,MAP,LINK}_GET_FD_BY_ID.
    fn open_command(self) -> libc::c_long {
        match self {
            Object::Program => 13,
            Object::Map => 14,
            Object::Link => 30,
        }
    }
}

/// `BPF_*_GET_NEXT_ID` and `BPF_*_GET_FD_BY_ID`: number, next number, flags, token.
#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
    token_fd: i32,
}
const _: () = assert!(size_of::<IdAttr>() == 16);

/// `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}
const _: () = assert!(size_of::<InfoAttr>() == 16 && std::mem::offset_of!(InfoAttr, info) == 8);

/// `BPF_PROG_QUERY`, whole: the kernel writes `revision` whatever size it is told (kernel/bpf/mprog.c:
/// bpf_mprog_query).
#[repr(C)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    id_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}
const _: () = assert!(size_of::<QueryAttr>() == 64 && std::mem::offset_of!(QueryAttr, ids) == 16);
const _: () = assert!(std::mem::offset_of!(QueryAttr, count) == 24);
const _: () = assert!(std::mem::offset_of!(QueryAttr, revision) == 56);

/// `BPF_OBJ_GET`.
#[repr(C)]
struct PathAttr {
    path: u64,
    fd: u32,
    flags: u32,
}
const _: () = assert!(size_of::<PathAttr>() == 16);

/// Commands.
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
/// BPF_F_RDONLY.
const READ_ONLY: u32 = 1 << 3;

/// bpf(2). `attr` and everything that it points to must be valid for the command.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes at most `size_of::<T>()` bytes of `attr`, which lives through the
    // call; what it points to is the caller's promise.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

fn descriptor(number: libc::c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: bpf(2) just made this descriptor, closed on exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The number after `id`, or `None` after the last one.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, ENOSYS without bpf(2), EINVAL where the kernel has no such objects.
pub fn next_id(object: Object, id: u32) -> io::Result<Option<u32>> {
    let mut attr = IdAttr { id, next_id: 0, open_flags: 0, token_fd: 0 };
    // SAFETY: the command reads and writes `attr` alone, of which the kernel is told the size.
    match unsafe { bpf(object.next_command(), &mut attr) } {
        Ok(_) => Ok(Some(attr.next_id)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A descriptor of an object. It keeps the object alive: not to be kept.
///
/// # Errors
/// ENOENT when it is gone, EPERM without CAP_SYS_ADMIN.
pub fn open(object: Object, id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr { id, next_id: 0, open_flags: 0, token_fd: 0 };
    // SAFETY: the command reads `attr` alone.
    descriptor(unsafe { bpf(object.open_command(), &mut attr) }?)
}

/// A descriptor of what is pinned there, to read only.
///
/// # Errors
/// As open(2), and EPERM for what allows no such descriptor.
pub fn open_pinned(path: &CStr) -> io::Result<OwnedFd> {
    let mut attr =
        PathAttr { path: path.as_ptr().expose_provenance() as u64, fd: 0, flags: READ_ONLY };
    // SAFETY: the command reads `attr` and the string, which ends in a zero byte and outlives the call.
    match unsafe { bpf(OBJ_GET, &mut attr) } {
        Ok(number) => descriptor(number),
        // Programs and links take no flags (kernel/bpf/inode.c: bpf_obj_get_user).
        Err(_) => {
            attr.flags = 0;
            // SAFETY: as above.
            descriptor(unsafe { bpf(OBJ_GET, &mut attr) }?)
        }
    }
}

/// Fills `info` with what the kernel tells of a link or map; the rest stays zero.
///
/// # Errors
/// What the system says.
pub fn info(fd: BorrowedFd<'_>, info: &mut [u8]) -> io::Result<()> {
    let mut attr = InfoAttr {
        fd: fd.as_raw_fd().cast_unsigned(),
        len: u32::try_from(info.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    info.fill(0);
    // SAFETY: the kernel writes at most `len` bytes to `info`, which lives through the call and holds no
    // pointers: all of it is zero.
    unsafe { bpf(OBJ_GET_INFO, &mut attr) }?;
    Ok(())
}

/// What the kernel tells of a program, and the numbers of its maps.
///
/// # Errors
/// What the system says.
pub fn program(fd: BorrowedFd<'_>) -> io::Result<([u8; PROGRAM_INFO], Vec<u32>)> {
    let mut info = [0; PROGRAM_INFO];
    let mut maps = [0u32; MAX_MAPS];
    info[MAP_IDS.0..MAP_IDS.0 + 4].copy_from_slice(&(MAX_MAPS as u32).to_ne_bytes());
    let address = maps.as_mut_ptr().expose_provenance() as u64;
    info[MAP_IDS.1..MAP_IDS.1 + 8].copy_from_slice(&address.to_ne_bytes());
    let mut attr = InfoAttr {
        fd: fd.as_raw_fd().cast_unsigned(),
        len: PROGRAM_INFO as u32,
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: `info` is the head of a bpf_prog_info of `len` bytes whose only pointer, map_ids, has room for
    // the MAX_MAPS numbers that nr_map_ids promises; all of it lives through the call.
    unsafe { bpf(OBJ_GET_INFO, &mut attr) }?;
    let count = u32::from_ne_bytes([
        info[MAP_IDS.0],
        info[MAP_IDS.0 + 1],
        info[MAP_IDS.0 + 2],
        info[MAP_IDS.0 + 3],
    ]);
    let count = usize::try_from(count).unwrap_or(MAX_MAPS).min(MAX_MAPS);
    Ok((info, maps[..count].to_vec()))
}

/// Numbers of the programs attached to `target`: an interface's index in this thread's network
/// namespace for tcx and netkit, else a descriptor of a control group.
///
/// # Errors
/// EINVAL where the kernel has no such attachment, EPERM without CAP_NET_ADMIN.
pub fn attached(target: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MAX_QUERIED];
    let mut attr = QueryAttr {
        target,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: MAX_QUERIED as u32,
        padding: 0,
        id_flags: 0,
        link_ids: 0,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: the kernel writes at most `count` numbers to `ids`, which lives through the call.
    match unsafe { bpf(PROG_QUERY, &mut attr) } {
        Ok(_) => {}
        // There are more: the first ones stand there.
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => attr.count = MAX_QUERIED as u32,
        Err(error) => return Err(error),
    }
    let count = usize::try_from(attr.count).unwrap_or(MAX_QUERIED).min(MAX_QUERIED);
    Ok(ids[..count].to_vec())
}
