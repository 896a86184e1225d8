//! Everything about one process that findings name, read from /proc at once.
//!
//! The arguments come first: a short process takes them with it when it ends, while the rest is
//! mostly the same for its parent. What cannot be read stays unknown.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::arguments::{Arguments, HEAD_LIMIT, TAIL_LIMIT};
use bpfwatch_core::process::Process;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::text::Text;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use crate::netns;
use crate::proc::ProcDir;
use crate::proc_text;
use crate::scope::{self, Namespaces};
use crate::users::Users;

mod event;

pub use event::image_is_gone;

/// Longest path that is kept, the kernel's PATH_MAX.
const PATH_LIMIT: usize = 4096;
/// How long a verdict on a directory holds.
const DIRECTORY_FRESH: Duration = Duration::from_secs(2);
/// How long the name of a namespace holds.
const NAME_FRESH: Duration = Duration::from_secs(1);
/// Verdicts that are kept.
const DIRECTORIES: usize = 1024;

/// The namespaces that count as the host's: those of pid 1; where pid 1 has more capabilities than the
/// reader and may not be looked at (ptrace(2), access mode checking), those of the kernel's threads,
/// which never leave the initial ones; else those of the reader.
#[derive(Debug, Clone, Default)]
pub struct Home {
    /// Network.
    pub net: Option<u64>,
    mnt: Option<u64>,
    pid: Option<u64>,
    user: Option<u64>,
    container: Option<Text>,
}

impl Home {
    /// Looks.
    pub fn find() -> Self {
        let of = |pid: u32| ProcDir::open(pid).filter(|dir| dir.namespace("net").is_some());
        let kernel = || of(2).filter(is_kthreadd);
        let Some(dir) = of(1).or_else(kernel).or_else(|| of(std::process::id())) else {
            return Self::default();
        };
        Self {
            net: dir.namespace("net"),
            mnt: dir.namespace("mnt"),
            pid: dir.namespace("pid"),
            user: dir.namespace("user"),
            container: dir.read("cgroup").and_then(|cgroup| scope::container_id(&cgroup)),
        }
    }

    /// How the namespaces of a process, of which the network namespace is `net`, compare with the host's.
    pub fn compare(&self, dir: &ProcDir, net: Option<u64>) -> Namespaces {
        let differs = |kind, home: Option<u64>| Some(dir.namespace(kind)? != home?);
        Namespaces {
            net,
            host_net: self.net,
            own_mount: differs("mnt", self.mnt),
            own_pid: differs("pid", self.pid),
            net_name: None,
            host_container: self.container.clone(),
        }
    }

    /// Whether the user namespace of a process is another than the host's.
    pub fn own_user(&self, dir: &ProcDir) -> Option<bool> {
        Some(dir.namespace("user")? != self.user?)
    }

    /// The inode where it is not the host's.
    pub fn foreign_net(&self, netns: u64) -> Option<u64> {
        (self.net != Some(netns)).then_some(netns)
    }
}

/// Whether it is the parent of all kernel threads: no parent, no executable. In a container pid 2 is
/// somebody else.
fn is_kthreadd(dir: &ProcDir) -> bool {
    dir.stat().is_some_and(|stat| stat.ppid == 0 && stat.name == b"kthreadd")
        && dir.link("exe").is_none()
}

/// A process and what only the sensor needs of it.
pub struct Facts {
    /// What findings name.
    pub process: Process,
    /// Inode of its network namespace.
    pub netns: Option<u64>,
}

/// How a root directory is opened.
const FOLDER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Mount namespace, and device and inode of a root directory.
type Place = (Option<u64>, u64, u64);

/// Reads processes; keeps what several have in common.
pub struct Reader {
    home: Home,
    users: Users,
    /// Names under /run/netns by inode, and when they were looked up.
    names: HashMap<u64, (Option<Text>, Instant)>,
    directories: HashMap<(Place, Vec<u8>), (bool, Instant)>,
    host_scope: Arc<Scope>,
    /// Scopes and units by control groups and namespaces, for events.
    places: HashMap<event::Place, event::Belongs>,
    /// The mount namespace that this program is in.
    own_mnt: Option<u64>,
}

impl Reader {
    /// For this host.
    pub fn new(home: Home) -> Self {
        Self {
            home,
            users: Users::default(),
            names: HashMap::new(),
            directories: HashMap::new(),
            host_scope: Arc::new(Scope::Host),
            places: HashMap::new(),
            own_mnt: ProcDir::open(std::process::id()).and_then(|dir| dir.namespace("mnt")),
        }
    }

    /// The host's namespaces.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// A process with all that can be read; only its pid where it is gone.
    pub fn read(&mut self, pid: u32) -> Facts {
        match ProcDir::open(pid) {
            Some(dir) => self.read_dir(&dir),
            None => Facts { process: Process::from_pid(pid), netns: None },
        }
    }

    /// The same through an open directory.
    pub fn read_dir(&mut self, dir: &ProcDir) -> Facts {
        let mut process = Process::from_pid(dir.pid());
        process.args = arguments(dir);
        let exe = dir.link("exe");
        let owner = dir.owner();
        if let Some(stat) = dir.stat() {
            // It was alive when its owner was looked at, or this read would have failed.
            process.uid = owner;
            process.start = Some(stat.start);
            process.ppid = Some(stat.ppid);
            process.sid = (stat.sid != 0).then_some(stat.sid);
            process.name = Some(Text::from_bytes(&stat.name));
            process.tty = proc_text::tty_name(stat.tty);
        }
        process.cwd = dir.link("cwd").map(|path| Text::from_bytes_limited(&path, PATH_LIMIT));
        let cgroup = dir.read("cgroup");
        process.unit = cgroup.as_deref().and_then(scope::unit);
        let netns = dir.namespace("net");
        process.scope = self.scope(dir, cgroup.as_deref().unwrap_or_default(), netns);
        if let Some(uid) = process.uid
            && self.home.own_user(dir) == Some(false)
        {
            process.user = self.users.name(uid);
        }
        if let Some(link) = exe {
            let (path, deleted) = proc_text::image(&link);
            process.image = Some(Text::from_bytes_limited(path, PATH_LIMIT));
            process.image_deleted = Some(deleted);
            process.image_owner =
                fstatat(dir.as_fd(), "exe", AtFlags::empty()).ok().map(|facts| facts.st_uid);
            process.image_writable_dir = self.writable(dir, path);
        }
        Facts { process, netns }
    }

    fn scope(&mut self, dir: &ProcDir, cgroup: &[u8], net: Option<u64>) -> Option<Arc<Scope>> {
        let foreign = net.filter(|net| self.home.net != Some(*net));
        let net_name = foreign.and_then(|net| self.name(net));
        let namespaces = Namespaces { net_name, ..self.home.compare(dir, net) };
        Some(match scope::from_proc(cgroup, &namespaces)? {
            Scope::Host => Arc::clone(&self.host_scope),
            other => Arc::new(other),
        })
    }

    /// Name of a network namespace, where it has one.
    fn name(&mut self, net: u64) -> Option<Text> {
        if let Some((name, at)) = self.names.get(&net)
            && at.elapsed() < NAME_FRESH
        {
            return name.clone();
        }
        let now = Instant::now();
        self.names.retain(|_, (_, at)| now - *at < NAME_FRESH);
        let named = netns::named().into_iter().map(|(inode, _, name)| (inode, (Some(name), now)));
        self.names.extend(named);
        self.names.entry(net).or_insert((None, now)).0.clone()
    }

    /// Whether somebody other than root may write into the image's directory or into one above it, as
    /// the process sees them. A sticky directory counts: whoever may write there may put a file there.
    fn writable(&mut self, dir: &ProcDir, image: &[u8]) -> Option<bool> {
        let folder = folder(image)?;
        // The kernel gives the path from the reader's root, or from that of the process's mount namespace
        // (fs/d_path.c: prepend_path), not from the process's own, which is another after chroot(2).
        let mount = dir.namespace("mnt");
        let beside = |pid| ProcDir::open(pid).filter(|other| other.namespace("mnt") == mount);
        let other = mount.and_then(|_| beside(std::process::id()).or_else(|| beside(1)));
        let base = other.as_ref().unwrap_or(dir);
        let facts = fstatat(base.as_fd(), "root", AtFlags::empty()).ok()?;
        // The same path may be another folder in another mount namespace.
        let place = (mount, facts.st_dev, facts.st_ino);
        let open = || openat(base.as_fd(), "root", FOLDER, Mode::empty()).ok();
        self.folder_writable(place, folder, open)
    }

    fn folder_writable(
        &mut self,
        place: Place,
        folder: &[u8],
        root: impl FnOnce() -> Option<OwnedFd>,
    ) -> Option<bool> {
        let key = (place, folder.to_vec());
        if let Some((verdict, at)) = self.directories.get(&key)
            && at.elapsed() < DIRECTORY_FRESH
        {
            return Some(*verdict);
        }
        let root = root()?;
        let mut verdict = others_write(&fstat(&root).ok()?);
        let relative = folder.strip_prefix(b"/").unwrap_or(folder);
        let ends = relative.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([relative.len()]).filter(|end| *end > 0) {
            if verdict {
                break;
            }
            // A folder that is gone, as that of a deleted image may be, says nothing.
            if let Ok(facts) = fstatat(&root, &relative[..end], AtFlags::AT_SYMLINK_NOFOLLOW) {
                verdict = others_write(&facts);
            }
        }
        if self.directories.len() >= DIRECTORIES {
            self.directories.clear();
        }
        self.directories.insert(key, (verdict, Instant::now()));
        Some(verdict)
    }
}

/// The folder that an image is in; `None` for one that never had a name.
fn folder(image: &[u8]) -> Option<&[u8]> {
    if image.starts_with(b"/memfd:") {
        return None;
    }
    Some(&image[..image.iter().rposition(|byte| *byte == b'/')?])
}

fn others_write(directory: &FileStat) -> bool {
    let mode = directory.st_mode;
    directory.st_uid != 0 || mode & 0o002 != 0 || (mode & 0o020 != 0 && directory.st_gid != 0)
}

/// Arguments, of which no more is held than what is kept.
fn arguments(dir: &ProcDir) -> Option<Arguments> {
    let mut file = dir.file("cmdline")?;
    let mut bytes = vec![0; 4096];
    let mut filled = 0;
    loop {
        let read = file.read(&mut bytes[filled..]).ok()?;
        if read == 0 {
            // A kernel thread has none, a process that ends has lost them.
            return (filled > 0).then(|| Arguments::from_nul_separated(&bytes[..filled]));
        }
        filled += read;
        if filled == bytes.len() {
            if filled >= HEAD_LIMIT + TAIL_LIMIT {
                return Some(long_arguments(&mut file, &bytes[..filled]));
            }
            bytes.resize(filled * 2, 0);
        }
    }
}

/// The rest of a list that begins with `head`: counted, and the last part kept.
fn long_arguments(file: &mut std::fs::File, head: &[u8]) -> Arguments {
    let nuls = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == 0).count();
    let mut tail = head.to_vec();
    let mut length = head.len() as u64;
    let mut count = nuls(head);
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = file.read(&mut chunk) {
        let new = &chunk[..read];
        length += read as u64;
        count += nuls(new);
        tail.extend(new);
        if tail.len() > HEAD_LIMIT + TAIL_LIMIT + 1 {
            // One more than is kept, for the terminator.
            tail.drain(..tail.len() - (TAIL_LIMIT + 1));
        }
    }
    let end = match tail.last() {
        Some(0) => tail.len() - 1,
        _ => {
            count += 1;
            tail.len()
        }
    };
    let whole = tail.len() as u64 == length;
    length -= (tail.len() - end) as u64;
    if whole {
        return Arguments::from_nul_separated(&tail[..end]);
    }
    Arguments::from_ends(head, &tail[..end], length, u32::try_from(count).unwrap_or(u32::MAX))
}
