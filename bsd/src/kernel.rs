//! The kernel's tables, read and decoded: what the sensor, `scan` and `doctor` ask.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CString, c_int};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::process::Process;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;

use crate::captures::{Captures, Walk};
use crate::poll::{Look, Who};
use crate::raw::{BpfRow, FdRow, FileRow, JailRow, ProcRow, SocketRow};
use crate::stats::TableError;
use crate::{decode, ffi, filedesc, files, jails, procs, stats, users};

/// CTL_KERN and KERN_FILE of sys/sysctl.h.
const KERN_FILE: [c_int; 2] = [1, 15];
/// KERN_PROC with KERN_PROC_PROC.
const ALL_PROCS: [c_int; 4] = [1, 14, 8, 0];
/// Below KERN_PROC: KERN_PROC_PID, KERN_PROC_ARGS, KERN_PROC_PATHNAME, KERN_PROC_CWD.
const PROC_PID: c_int = 1;
const PROC_ARGS: c_int = 7;
const PROC_PATHNAME: c_int = 12;
const PROC_CWD: c_int = 42;
/// KERN_PROC_FILEDESC.
const PROC_FILEDESC: c_int = 33;
/// CTL_KERN and KERN_OSRELDATE.
const KERN_OSRELDATE: [c_int; 2] = [1, 24];
/// Bytes of a table that are read at most: two million descriptors.
const TABLE_CAP: usize = 256 * 1024 * 1024;
/// Of one process: ARG_MAX.
const ARGS_CAP: usize = 1024 * 1024;
/// How long a child may take that reads a table in a jail.
pub const IN_JAIL: Duration = Duration::from_millis(250);
/// Bytes of the table that it reads: some hundred descriptors.
const IN_JAIL_CAP: usize = 64 * 1024;
/// How long the lists of jails and users hold.
const FRESH: Duration = Duration::from_secs(30);
/// Jails that are kept.
const MAX_JAILS: usize = 16_384;

/// Wall time.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::default() + since
}

/// Version of the kernel's interface (kern.osreldate).
pub fn release_date() -> Option<u32> {
    let mut buffer = vec![0; 16];
    let length = ffi::sysctl(&KERN_OSRELDATE, &mut buffer, 16).ok()?;
    crate::bytes::word(buffer.get(..length)?, 0)
}

/// When the kernel was started, in seconds since the epoch (kern.bootid is newer than 13): what tells one
/// boot from another, as far as nobody sets the clock.
pub fn boot_time() -> Option<i64> {
    /// CTL_KERN and KERN_BOOTTIME.
    const KERN_BOOTTIME: [c_int; 2] = [1, 21];
    let mut buffer = vec![0; 32];
    let length = ffi::sysctl(&KERN_BOOTTIME, &mut buffer, 32).ok()?;
    crate::bytes::signed_long(buffer.get(..length)?, 0)
}

fn invalid(error: TableError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The tables. Buffers are kept from one read to the next.
pub struct Kernel {
    stats_mib: Vec<c_int>,
    /// Each network stack has a table of its own.
    per_vnet: bool,
    files: Vec<u8>,
    stats: Vec<u8>,
    procs: Vec<u8>,
    one: Vec<u8>,
    jails: HashMap<u32, JailRow>,
    jails_read: Option<Instant>,
    users: HashMap<u32, Text>,
    users_read: Option<Instant>,
}

impl Kernel {
    /// Ready to read.
    ///
    /// # Errors
    /// When the kernel has no BPF.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            stats_mib: ffi::mib(c"net.bpf.stats")?,
            per_vnet: stats::is_per_vnet(release_date()),
            files: vec![0; 512 * 1024],
            stats: vec![0; 64 * 1024],
            procs: vec![0; 256 * 1024],
            one: vec![0; 16 * 1024],
            jails: HashMap::new(),
            jails_read: None,
            users: HashMap::new(),
            users_read: None,
        })
    }

    /// What tells a device from others in `kern.file`. Where nobody has it open, it is opened once, for
    /// the moment of one read.
    ///
    /// # Errors
    /// When it cannot be opened, or the kernel hides addresses from this user.
    pub fn find_device(&mut self, path: &str) -> io::Result<u64> {
        if let Some(device) = self.device(path)? {
            return Ok(device);
        }
        let opened = File::open(path)?;
        let (own, fd) = (std::process::id(), opened.as_raw_fd());
        let rows = self.files(|row| row.pid == own && row.fd == fd)?;
        drop(opened);
        let found = rows.first().map(|row| row.data).filter(|data| *data != 0);
        found.ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, "addresses are hidden"))
    }

    /// The same without opening it, which others would be told of: `None` where no process has it open. One
    /// process of each open device is asked which it is.
    ///
    /// # Errors
    /// When there is no such device, or descriptors cannot be listed.
    pub fn device(&mut self, path: &str) -> io::Result<Option<u64>> {
        let rdev = fs::symlink_metadata(path)?.rdev();
        let mut one_of_each = HashMap::new();
        // Of other files the kernel tells no data, or their vnode.
        self.files(|row| {
            if row.kind == files::DTYPE_VNODE && row.data != 0 && row.data != row.vnode {
                one_of_each.entry(row.data).or_insert((row.pid, row.fd));
            }
            false
        })?;
        let mut is_it = |(pid, fd): (u32, i32)| {
            let rows = self.descriptors(pid).unwrap_or_default();
            let row = rows.into_iter().find(|row| row.fd == fd);
            row.and_then(|row| row.vnode)
                .is_some_and(|vnode| vnode.kind == filedesc::KF_VTYPE_VCHR && vnode.rdev == rdev)
        };
        Ok(one_of_each.into_iter().find(|(_, one)| is_it(*one)).map(|(data, _)| data))
    }

    /// Descriptors of a process.
    fn descriptors(&mut self, pid: u32) -> Option<Vec<FdRow>> {
        let mib = [1, 14, PROC_FILEDESC, c_int::try_from(pid).ok()?];
        let length = ffi::sysctl(&mib, &mut self.procs, TABLE_CAP).ok()?;
        filedesc::rows(&self.procs[..length]).ok()
    }

    /// Sockets of a process, by descriptor.
    pub fn sockets(&mut self, pid: u32) -> Option<HashMap<i32, SocketRow>> {
        let rows = self.descriptors(pid)?.into_iter();
        Some(rows.filter_map(|row| Some((row.fd, row.socket?))).collect())
    }

    /// Rows of `kern.file`.
    ///
    /// # Errors
    /// What the system says, or a table that is not understood.
    pub fn files(&mut self, wanted: impl FnMut(&FileRow) -> bool) -> io::Result<Vec<FileRow>> {
        let length = ffi::sysctl(&KERN_FILE, &mut self.files, TABLE_CAP)?;
        files::rows(&self.files[..length], wanted).map_err(invalid)
    }

    /// Rows of `net.bpf.stats`.
    ///
    /// # Errors
    /// EPERM for other users than root; a table that is not understood.
    pub fn attached(&mut self) -> io::Result<Vec<BpfRow>> {
        let cap = stats::MAX_ROWS * 168;
        let length = ffi::sysctl(&self.stats_mib, &mut self.stats, cap)?;
        stats::rows(&self.stats[..length]).map_err(invalid)
    }

    /// Whether `net.bpf.stats` has the rows of the reader's network stack alone.
    pub fn is_per_vnet(&self) -> bool {
        self.per_vnet
    }

    /// Rows of `net.bpf.stats` in a jail with a network stack of its own.
    ///
    /// # Errors
    /// As [`ffi::sysctl_in_jail`] has them; a table that is not understood.
    pub fn attached_in(&mut self, jid: u32) -> io::Result<Vec<BpfRow>> {
        let mut table = vec![0; IN_JAIL_CAP];
        let length = ffi::sysctl_in_jail(jid, &self.stats_mib, &mut table, IN_JAIL)?;
        stats::rows(&table[..length]).map_err(invalid)
    }

    /// What is attached in all network stacks where one of `files` may be.
    fn attached_everywhere(&mut self, files: &[FileRow]) -> io::Result<Vec<BpfRow>> {
        let mut rows = self.attached()?;
        if self.per_vnet && !files.is_empty() {
            let pids: BTreeSet<u32> = files.iter().map(|row| row.pid).collect();
            let jids = pids.into_iter().filter_map(|pid| self.row(pid)).map(|row| row.jid);
            let jids: BTreeSet<u32> = jids.collect();
            self.refresh_jails();
            let owners = jids.into_iter().filter_map(|jid| jails::stack_owner(jid, &self.jails));
            let owners: BTreeSet<u32> = owners.collect();
            for jid in owners {
                rows.extend(self.attached_in(jid)?);
            }
        }
        Ok(rows)
    }

    /// A look: who has it open first, what is attached second. The other order loses who it was.
    ///
    /// # Errors
    /// When descriptors cannot be listed. The error of the second table stands beside the look.
    pub fn look(
        &mut self,
        device: Option<u64>,
        captures: &mut Captures,
    ) -> io::Result<(Look, Option<io::Error>)> {
        let walk = captures.prepare(self);
        let (mut others, mut unknown) = (Vec::new(), Vec::new());
        let files = self.files(|row| {
            if device == Some(row.data) {
                return true;
            }
            others.extend(captures.handle(row).map(|handle| (*row, handle)));
            if walk != Walk::None && captures.is_unknown(row) {
                unknown.push(*row);
            }
            false
        })?;
        let (attached, error) = match self.attached_everywhere(&files) {
            Ok(rows) => (Some(rows), None),
            Err(error) => (None, Some(error)),
        };
        captures.confirm(&mut others);
        // What was asked for may be known already, and be something else by now.
        let asked = captures.walk(walk, unknown, self);
        others.retain(|(row, _)| captures.handle(row).is_some());
        others.retain(|(row, _)| !asked.iter().any(|(other, _)| other == row));
        others.extend(asked);
        Ok((Look { files, others, attached }, error))
    }

    /// All processes.
    ///
    /// # Errors
    /// What the system says, or a table that is not understood.
    pub fn all(&mut self) -> io::Result<Vec<ProcRow>> {
        let length = ffi::sysctl(&ALL_PROCS, &mut self.procs, TABLE_CAP)?;
        procs::rows(&self.procs[..length]).map_err(invalid)
    }

    fn of(&mut self, what: c_int, pid: u32) -> Option<&[u8]> {
        let pid = c_int::try_from(pid).ok()?;
        let length = ffi::sysctl(&[1, 14, what, pid], &mut self.one, ARGS_CAP).ok()?;
        self.one.get(..length)
    }

    /// One process.
    pub fn row(&mut self, pid: u32) -> Option<ProcRow> {
        procs::rows(self.of(PROC_PID, pid)?).ok()?.into_iter().next()
    }

    /// All about a process. Arguments first, they go first; then its path; then the rest. Of one that is
    /// gone what could still be read.
    pub fn read(&mut self, pid: u32) -> Process {
        let args = self.of(PROC_ARGS, pid).and_then(procs::arguments);
        let image = self.of(PROC_PATHNAME, pid).and_then(procs::path);
        let row = self.row(pid);
        let mut process = match &row {
            Some(row) => {
                let scope = self.scope(row.jid);
                decode::process(row, Some(scope))
            }
            None => Process::from_pid(pid),
        };
        process.user = process.uid.and_then(|uid| self.user(uid));
        process.args = args;
        if let Some(image) = &image {
            look_at_image(Path::new(image.as_str()), &mut process);
        }
        process.image = image;
        process.cwd = self.working_directory(pid);
        process
    }

    fn working_directory(&mut self, pid: u32) -> Option<Text> {
        let rows = filedesc::rows(self.of(PROC_CWD, pid)?).ok()?;
        let cwd = rows.into_iter().find(|row| row.fd == filedesc::KF_FD_TYPE_CWD)?;
        (!cwd.path.is_empty()).then(|| Text::from_bytes_limited(&cwd.path, 1024))
    }

    /// Scope of a jail id.
    pub fn scope(&mut self, jid: u32) -> Arc<Scope> {
        if jid != 0 && !self.jails.contains_key(&jid) {
            self.read_jails();
        }
        Arc::new(decode::scope(jid, self.jails.get(&jid)))
    }

    /// Scope of the jail with that full name, if there is one.
    pub fn jail_named(&mut self, name: &Text) -> Option<Arc<Scope>> {
        /// One that is gone must not have all jails read at each record.
        const PAUSE: Duration = Duration::from_millis(100);
        let named = |jails: &HashMap<u32, JailRow>| {
            let mut all = jails.values().filter(|jail| !jail.dying);
            all.find(|jail| name.as_str().as_bytes() == jail.name).map(|jail| jail.jid)
        };
        if named(&self.jails).is_none() && self.jails_read.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.read_jails();
        }
        let jid = named(&self.jails)?;
        Some(self.scope(jid))
    }

    /// The jails, by id.
    pub fn jails(&mut self) -> Vec<JailRow> {
        self.refresh_jails();
        let mut all: Vec<JailRow> = self.jails.values().cloned().collect();
        all.sort_by_key(|jail| jail.jid);
        all
    }

    /// Whether there is a jail.
    pub fn has_jails(&mut self) -> bool {
        self.refresh_jails();
        !self.jails.is_empty()
    }

    /// Jails came, went or changed.
    pub fn forget_jails(&mut self) {
        self.jails_read = None;
    }

    fn refresh_jails(&mut self) {
        if self.jails_read.is_none_or(|read| read.elapsed() >= FRESH) {
            self.read_jails();
        }
    }

    fn read_jails(&mut self) {
        self.jails_read = Some(Instant::now());
        if let Ok(jails) = list_jails() {
            self.jails = jails;
        }
    }

    fn user(&mut self, uid: u32) -> Option<Text> {
        if self.users_read.is_none_or(|read| read.elapsed() >= FRESH) {
            self.users_read = Some(Instant::now());
            self.users =
                fs::read(users::PASSWD).map(|text| users::users(&text)).unwrap_or_default();
        }
        self.users.get(&uid).cloned()
    }
}

impl Who for Kernel {
    fn start(&mut self, pid: u32) -> Option<u64> {
        self.row(pid).map(|row| row.start)
    }

    fn process(&mut self, pid: u32) -> Arc<Process> {
        Arc::new(self.read(pid))
    }
}

/// Every jail that can be seen from here, dying ones too.
///
/// # Errors
/// What the system says.
pub fn list_jails() -> io::Result<HashMap<u32, JailRow>> {
    let mut out = HashMap::new();
    let mut last = 0;
    // What a kernel without VIMAGE does not know makes the whole call fail.
    let mut with_vnet = true;
    while out.len() < MAX_JAILS {
        let wanted = |name: &str| with_vnet || name != "vnet";
        let names: Vec<Option<CString>> = jails::PARAMETERS
            .iter()
            .map(|parameter| CString::new(parameter.name).ok().filter(|_| wanted(parameter.name)))
            .collect();
        let mut asked: Vec<_> = names
            .iter()
            .zip(jails::PARAMETERS)
            .filter_map(|(name, parameter)| Some((name.as_deref()?, vec![0; parameter.size])))
            .collect();
        match ffi::next_jail(last, &mut asked) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && with_vnet => {
                with_vnet = false;
                continue;
            }
            Err(error) => return Err(error),
        }
        let mut given = asked.into_iter().map(|(_, value)| value);
        let values: Vec<_> =
            names.iter().map(|name| name.as_ref().and_then(|_| given.next())).collect();
        let Some(jail) = jails::row(&values).filter(|jail| jail.jid > last) else { break };
        last = jail.jid;
        out.insert(jail.jid, jail);
    }
    Ok(out)
}

/// Who owns the program, whether it is still there, and who may put another in its place. The path is the
/// host's, of a jailed program too.
fn look_at_image(path: &Path, process: &mut Process) {
    match fs::symlink_metadata(path) {
        Ok(facts) => {
            process.image_owner = Some(facts.uid());
            process.image_deleted = Some(false);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => process.image_deleted = Some(true),
        Err(_) => {}
    }
    let open = |directory: &Path| {
        let facts = fs::symlink_metadata(directory).ok()?;
        let group = facts.mode() & 0o020 != 0 && facts.gid() != 0;
        Some(facts.uid() != 0 || facts.mode() & 0o002 != 0 || group)
    };
    let mut above = path.ancestors().skip(1).map(open);
    process.image_writable_dir = above.try_fold(false, |any, this| this.map(|this| any || this));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::Mutex;
    use std::thread;

    /// A jail with a network stack of its own, for as long as this lives.
    struct Jail(String);

    impl Jail {
        fn new(name: &str) -> Self {
            let name = format!("{name}{}", std::process::id());
            let made = Command::new("jail")
                .args(["-c", "persist", "vnet", "path=/", "host.hostname=inside"])
                .arg(format!("name={name}"))
                .status();
            assert!(made.unwrap().success());
            Self(name)
        }

        fn jid(&self) -> u32 {
            let jails = list_jails().unwrap();
            jails.values().find(|jail| jail.name == self.0.as_bytes()).unwrap().jid
        }
    }

    impl Drop for Jail {
        fn drop(&mut self) {
            let _ = Command::new("jail").args(["-r", &self.0]).status();
        }
    }

    fn is_root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            eprintln!("skipped: needs root, to make a jail");
        }
        root
    }

    /// Whether a child is left is a question of the whole process.
    static ALONE: Mutex<()> = Mutex::new(());

    /// CTL_KERN and KERN_HOSTNAME: each jail has its own.
    const HOSTNAME: [c_int; 2] = [1, 10];

    #[test]
    fn a_child_reads_what_a_jail_sees() {
        if !is_root() {
            return;
        }
        let _alone = ALONE.lock();
        let jail = Jail::new("bpfwatchread");
        // As in the sensor, with other threads about.
        let reads = (0..4).map(|_| {
            let jid = jail.jid();
            thread::spawn(move || {
                let mut buffer = [0; 256];
                let length =
                    ffi::sysctl_in_jail(jid, &HOSTNAME, &mut buffer, Duration::from_secs(20));
                buffer[..length.unwrap()].to_vec()
            })
        });
        for read in reads.collect::<Vec<_>>() {
            assert_eq!(read.join().unwrap(), b"inside\0");
        }
        // The table of descriptors, as it is read on kernels that have one for each network stack.
        let mut kernel = Kernel::new().unwrap();
        let rows = kernel.attached_in(jail.jid()).unwrap();
        assert!(rows.len() <= stats::MAX_ROWS);
    }

    #[test]
    fn a_child_that_cannot_answer_is_an_error() {
        if !is_root() {
            return;
        }
        let _alone = ALONE.lock();
        let mut buffer = [0; 256];
        let mut read = |jid, patience, room| {
            ffi::sysctl_in_jail(jid, &HOSTNAME, &mut buffer[..room], patience).unwrap_err()
        };
        let long = Duration::from_secs(20);
        assert_eq!(read(999_999, long, 256).raw_os_error(), Some(libc::EINVAL));
        let jail = Jail::new("bpfwatchlate");
        assert_eq!(read(jail.jid(), Duration::ZERO, 256).kind(), io::ErrorKind::TimedOut);
        assert_eq!(read(jail.jid(), long, 1).raw_os_error(), Some(libc::ENOMEM));
        // No child is left, and none waits to be asked for.
        let wait = nix::sys::wait::wait();
        assert_eq!(wait, Err(nix::errno::Errno::ECHILD));
    }
}
