//! Reads of /proc. A [`ProcDir`] stands for one process and never for a later one with its number: the
//! kernel ties the open directory to the process itself, and reads fail once that is gone.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};

use crate::grip::{self, Grip, Link};
use crate::proc_text::{self, Stat};

/// Most that is read of a short file: a cgroup file, a status, a passwd.
const SHORT: usize = 1 << 20;

/// An open `/proc/PID`.
pub struct ProcDir {
    pid: u32,
    dir: OwnedFd,
}

impl ProcDir {
    /// Of a process; `None` when there is none.
    pub fn open(pid: u32) -> Option<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(format!("/proc/{pid}").as_str(), flags, Mode::empty()).ok()?;
        Some(Self { pid, dir })
    }

    /// Whose it is.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// For reads by path.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Opens a file in it.
    pub fn file(&self, name: &str) -> Option<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        openat(&self.dir, name, flags, Mode::empty()).ok().map(File::from)
    }

    /// Contents of a short file in it.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        read_short(self.file(name)?)
    }

    /// Target of a link in it.
    pub fn link(&self, name: &str) -> Option<Vec<u8>> {
        readlinkat(&self.dir, name).ok().map(OsStringExt::into_vec)
    }

    /// Inode of one of its namespaces: `net`, `mnt`, `pid` or `user`.
    pub fn namespace(&self, kind: &str) -> Option<u64> {
        proc_text::link_inode(&self.link(&format!("ns/{kind}"))?, kind)
    }

    /// Effective user id: the owner of the directory, whatever the process forbids to others
    /// (fs/proc/base.c: task_dump_owner). Far cheaper than `status`, and 0 for a process that is gone:
    /// to be trusted only if a later read succeeds.
    pub fn owner(&self) -> Option<u32> {
        fstat(&self.dir).ok().map(|facts| facts.st_uid)
    }

    /// Its `stat`.
    pub fn stat(&self) -> Option<Stat> {
        proc_text::stat(&self.read("stat")?)
    }
}

fn read_short(file: File) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    file.take(SHORT as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Contents of a short file.
pub fn read(path: &str) -> Option<Vec<u8>> {
    read_short(File::open(path).ok()?)
}

/// First line of a short file, without its end.
pub fn read_line(path: &str) -> Option<Vec<u8>> {
    let mut bytes = read(path)?;
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    bytes.truncate(end);
    Some(bytes)
}

/// Whether a security module is active; `None` where securityfs is not mounted, and nobody can tell.
pub fn has_lsm(name: &str) -> Option<bool> {
    let active = read_line("/sys/kernel/security/lsm")?;
    Some(active.split(|byte| *byte == b',').any(|lsm| lsm == name.as_bytes()))
}

/// All processes, in the directory's order: by number.
pub fn pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a process still has namespaces: a zombie has none. For one whose namespaces may not be read.
pub fn is_alive(pid: u32) -> bool {
    match std::fs::read_link(format!("/proc/{pid}/ns/net")) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    }
}

/// What a process holds, by descriptor. Empty where its descriptors may not be seen. With `more`, also what
/// only `fdinfo` tells.
pub fn grips(pid: u32, more: bool) -> Vec<(Grip, u32)> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut grips = Vec::new();
    for entry in entries.flatten() {
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(link) = std::fs::read_link(entry.path()) else { continue };
        let grip = match grip::link(link.as_os_str().as_encoded_bytes()) {
            Link::Whole(grip) => Some(grip),
            Link::Other => None,
            partial if more => told(pid, fd, &partial),
            _ => None,
        };
        grips.extend(grip.map(|grip| (grip, fd)));
    }
    grips
}

fn told(pid: u32, fd: u32, link: &Link) -> Option<Grip> {
    grip::told(link, &read(&format!("/proc/{pid}/fdinfo/{fd}"))?)
}

/// Whether a process still has that as that descriptor.
pub fn holds(pid: u32, fd: u32, grip: &Grip) -> bool {
    let Ok(link) = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")) else { return false };
    match grip::link(link.as_os_str().as_encoded_bytes()) {
        Link::Whole(found) => found == *grip,
        Link::Other => false,
        partial => told(pid, fd, &partial).as_ref() == Some(grip),
    }
}
