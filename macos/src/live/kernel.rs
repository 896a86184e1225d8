//! The kernel's tables, read and decoded: what the sensor, `scan` and `doctor` ask.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::process::Process;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;
use nix::unistd::{Uid, User, geteuid};

use super::ffi;
use crate::libproc::{self, Facts};
use crate::poll::{Look, Who};
use crate::stats::{self, BpfRow};
use crate::{bytes, decode};

/// Bytes of the table of descriptors that are read at most.
const STATS_CAP: usize = 1024 * 1024;
/// Bytes of arguments and environment: ARG_MAX (kern.argmax). With a smaller buffer the kernel gives the end of
/// them (xnu bsd/kern/kern_sysctl.c `sysctl_procargsx`).
const ARGS_SIZE: usize = 1024 * 1024;
/// Longest text of a signature.
const SIGNATURE: usize = 1024;
/// Time between two looks at the descriptors of all processes while nothing changes.
const SWEEP: Duration = Duration::from_secs(10);
/// Names of users that are kept.
const MAX_USERS: usize = 1024;

/// Wall time.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::default() + since
}

/// A sysctl that is a text.
pub fn text(name: &std::ffi::CStr) -> Option<Text> {
    let mut buffer = vec![0; 256];
    let length = ffi::sysctl_by_name(name, &mut buffer, 4096).ok()?;
    let text = bytes::until_nul(buffer.get(..length)?);
    (!text.is_empty()).then(|| Text::from_bytes(text))
}

/// The tables. Buffers are kept from one read to the next.
pub struct Kernel {
    stats: Vec<u8>,
    descriptors: Vec<u8>,
    args: Vec<u8>,
    users: HashMap<u32, Option<Text>>,
    /// Who opened what, and when all processes were asked about it.
    swept: Option<(BTreeSet<(u32, u32)>, Instant)>,
    /// Who had what then and since.
    holders: BTreeMap<u32, Vec<u32>>,
}

impl Kernel {
    /// Ready to read.
    pub fn new() -> Self {
        Self {
            stats: vec![0; 16 * 1024],
            descriptors: vec![0; 4096],
            args: vec![0; ARGS_SIZE],
            users: HashMap::new(),
            swept: None,
            holders: BTreeMap::new(),
        }
    }

    /// Open descriptors by `debug.bpf_stats`.
    ///
    /// # Errors
    /// What the system says, or that the table is not understood.
    pub fn rows(&mut self) -> io::Result<Vec<BpfRow>> {
        let length = ffi::sysctl_by_name(c"debug.bpf_stats", &mut self.stats, STATS_CAP)?;
        let bytes = self.stats.get(..length).unwrap_or_default();
        stats::rows(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// What is open, and who has it. All processes are asked when something was opened or has no holder any
    /// more, and now and then; in between those that are known to have one.
    ///
    /// # Errors
    /// As [`Kernel::rows`].
    pub fn look(&mut self) -> io::Result<Look> {
        let rows = self.rows()?;
        let is_complete = geteuid().is_root();
        if rows.is_empty() {
            self.swept = None;
            self.holders.clear();
            return Ok(Look { is_complete, ..Look::default() });
        }
        let opened: BTreeSet<_> = rows.iter().map(|row| (row.minor, row.opener)).collect();
        let mut asked: BTreeSet<u32> = self.holders.values().flatten().copied().collect();
        asked.extend(rows.iter().map(|row| row.opener).filter(|pid| *pid != 0));
        let known = self
            .swept
            .as_ref()
            .is_some_and(|(swept, at)| opened.is_subset(swept) && at.elapsed() < SWEEP);
        let mut holders = if known { self.who_holds(asked) } else { BTreeMap::new() };
        if rows.iter().any(|row| !holders.contains_key(&row.minor)) {
            holders = self.who_holds(ffi::pids()?);
            self.swept = Some((opened, Instant::now()));
        }
        self.holders.clone_from(&holders);
        Ok(Look { rows, holders, is_complete })
    }

    /// The next look asks all processes.
    pub fn doubt(&mut self) {
        self.swept = None;
    }

    fn who_holds(&mut self, pids: impl IntoIterator<Item = u32>) -> BTreeMap<u32, Vec<u32>> {
        let mut out: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for pid in pids {
            // One that is gone or another user's has nothing to say.
            let Ok(length) = ffi::descriptors(pid, &mut self.descriptors) else { continue };
            for fd in libproc::vnodes(self.descriptors.get(..length).unwrap_or_default()) {
                let Ok(vnode) = ffi::vnode_path(pid, fd) else { continue };
                let path = libproc::path(&vnode).and_then(|path| std::str::from_utf8(path).ok());
                let minor = path.and_then(decode::bpf_minor);
                let Some(minor) = minor.and_then(|minor| u32::try_from(minor).ok()) else {
                    continue;
                };
                let holders = out.entry(minor).or_default();
                if !holders.contains(&pid) {
                    holders.push(pid);
                }
            }
        }
        out
    }

    /// All about a process; `None` when there is none.
    pub fn read(&mut self, pid: u32) -> Option<Process> {
        let signature = |part, size: usize| {
            let mut buffer = vec![0; size];
            ffi::signature(pid, part, &mut buffer).ok().map(|()| buffer)
        };
        let facts = Facts {
            bsdinfo: ffi::pid_info(pid, ffi::BSDINFO, libproc::BSDINFO_SIZE).ok(),
            unique: ffi::pid_info(pid, ffi::UNIQUE, libproc::UNIQUE_SIZE).ok(),
            image: ffi::image(pid).ok(),
            flags: ffi::signature_flags(pid).ok(),
            signing_id: signature(ffi::CS_OPS_IDENTITY, SIGNATURE),
            team_id: signature(ffi::CS_OPS_TEAMID, SIGNATURE),
            cdhash: signature(ffi::CS_OPS_CDHASH, 20),
        };
        if facts.bsdinfo.is_none() && facts.unique.is_none() && facts.image.is_none() {
            return None;
        }
        let mut process = decode::process(libproc::process(pid, &facts));
        process.start = self.start(pid);
        process.name = facts.bsdinfo.as_deref().and_then(libproc::comm);
        process.user = process.uid.and_then(|uid| self.user(uid));
        let length = ffi::arguments(pid, &mut self.args).unwrap_or(0);
        process.args = libproc::arguments(self.args.get(..length).unwrap_or_default());
        // What follows the arguments there is nobody's business.
        self.args.iter_mut().take(length).for_each(|byte| *byte = 0);
        process.cwd = ffi::pid_info(pid, ffi::DIRECTORIES, libproc::DIRECTORIES_SIZE)
            .ok()
            .and_then(|bytes| libproc::directory(&bytes));
        process.image_owner = facts.image.as_deref().and_then(|path| {
            fs::symlink_metadata(Path::new(OsStr::from_bytes(path))).ok().map(|facts| facts.uid())
        });
        Some(process)
    }

    fn user(&mut self, uid: u32) -> Option<Text> {
        if self.users.len() >= MAX_USERS {
            self.users.clear();
        }
        let name = self.users.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map(|user| Text::from(user.name))
        });
        name.clone()
    }
}

impl Who for Kernel {
    fn start(&mut self, pid: u32) -> Option<u64> {
        let unique = ffi::pid_info(pid, ffi::UNIQUE, libproc::UNIQUE_SIZE).ok()?;
        libproc::pidversion(&unique).map(u64::from)
    }

    fn process(&mut self, pid: u32) -> Option<Arc<Process>> {
        self.read(pid).map(Arc::new)
    }
}
