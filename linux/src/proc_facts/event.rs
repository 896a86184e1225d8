//! The same facts from an event of the kernel, without a look at /proc where the event says all.
//!
//! A process may be gone by the time its event is read: what the event does not carry stays unknown then.

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::process::Process;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::text::Text;
use nix::fcntl::open;
use nix::sys::stat::Mode;

use super::{FOLDER, PATH_LIMIT, Reader, arguments, folder};
use crate::ebpf::layout::{ExecRow, Who};
use crate::proc::ProcDir;
use crate::proc_text;
use crate::scope::{self, Namespaces};

/// Places that are kept.
const PLACES: usize = 1024;
/// How long the scope of a foreign network namespace holds: it may be given a name meanwhile.
const FOREIGN: Duration = Duration::from_secs(1);

/// Where a process is: control groups, and its network, mount, pid and user namespaces.
pub type Place = (Vec<u8>, [u32; 4]);

/// What follows from it.
pub struct Belongs {
    scope: Option<Arc<Scope>>,
    unit: Option<Text>,
    at: Instant,
}

impl Reader {
    /// The process that an event is about, as far as every event tells. `cgroup` is in the form of
    /// `/proc/PID/cgroup`.
    pub fn of_event(&mut self, who: &Who, cgroup: &[u8], process: &mut Process) {
        process.pid = who.pid;
        process.start = Some(who.start());
        process.ppid = Some(who.ppid);
        process.sid = (who.sid != 0).then_some(who.sid);
        process.uid = Some(who.uid);
        process.name = Some(Text::from_bytes(&who.comm));
        process.tty = proc_text::tty_name(who.tty);
        let at_home = self.home.user == Some(u64::from(who.user_ns));
        process.user = if at_home { self.users.name(who.uid) } else { None };
        (process.scope, process.unit) = self.belongs(who, cgroup);
    }

    /// The process of an execution, with all that findings name.
    pub fn executed(&mut self, who: &Who, exec: &ExecRow) -> Process {
        let mut process = Process::default();
        self.of_event(who, &exec.cgroup, &mut process);
        let image = whole(who, "exe", &exec.image, exec.image_cut);
        let cwd = whole(who, "cwd", &exec.cwd, exec.cwd_cut);
        process.image = Some(Text::from_bytes_limited(&image, PATH_LIMIT));
        process.image_deleted = Some(exec.image_deleted);
        process.image_owner = Some(exec.image_owner);
        process.cwd = Some(Text::from_bytes_limited(&cwd, PATH_LIMIT));
        // A path without its first directories is no path.
        let is_path = image.starts_with(b"/");
        process.image_writable_dir = if is_path { self.writable_at(who, &image) } else { None };
        process.args = self.arguments_of(who, exec);
        process
    }

    fn belongs(&mut self, who: &Who, cgroup: &[u8]) -> (Option<Arc<Scope>>, Option<Text>) {
        let key = (cgroup.to_vec(), [who.net, who.mnt, who.pid_ns, who.user_ns]);
        let net = u64::from(who.net);
        let foreign = self.home.net != Some(net);
        if let Some(known) = self.places.get(&key)
            && (!foreign || known.at.elapsed() < FOREIGN)
        {
            return (known.scope.clone(), known.unit.clone());
        }
        // systemd's own hierarchy of version 1 is in no event, and only tells the unit.
        let is_old = cgroup.contains(&b'\n');
        let systemd = if is_old { systemd_group(who) } else { None };
        let is_whole = systemd.is_some() || !is_old;
        let cgroup = &[cgroup, &systemd.unwrap_or_default()].concat();
        let differs = |home: Option<u64>, inode| Some(home? != u64::from(inode));
        let namespaces = Namespaces {
            net: Some(net),
            host_net: self.home.net,
            own_mount: differs(self.home.mnt, who.mnt),
            own_pid: differs(self.home.pid, who.pid_ns),
            net_name: if foreign { self.name(net) } else { None },
            host_container: self.home.container.clone(),
        };
        let scope = scope::from_proc(cgroup, &namespaces).map(|scope| match scope {
            Scope::Host => Arc::clone(&self.host_scope),
            other => Arc::new(other),
        });
        let belongs = Belongs { scope, unit: scope::unit(cgroup), at: Instant::now() };
        let answer = (belongs.scope.clone(), belongs.unit.clone());
        // What is only known of processes that are gone does not stand for those that are there.
        if is_whole {
            if self.places.len() >= PLACES {
                self.places.clear();
            }
            self.places.insert(key, belongs);
        }
        answer
    }

    fn writable_at(&mut self, who: &Who, image: &[u8]) -> Option<bool> {
        let folder = folder(image)?;
        let mnt = u64::from(who.mnt);
        if self.own_mnt == Some(mnt) {
            let root = || -> Option<OwnedFd> { open("/", FOLDER, Mode::empty()).ok() };
            return self.folder_writable((Some(mnt), 0, 0), folder, root);
        }
        self.writable(&alive(who)?, image)
    }

    fn arguments_of(&self, who: &Who, exec: &ExecRow) -> Option<Arguments> {
        let told = (exec.args_head.len() + exec.args_tail.len()) as u64;
        if told > 0 && told == exec.args_length {
            if exec.args_tail.is_empty() {
                return Some(Arguments::from_nul_separated(&exec.args_head));
            }
            let all = [&exec.args_head[..], &exec.args_tail].concat();
            return Some(Arguments::from_nul_separated(&all));
        }
        // Longer than an event, or in a page that the kernel would have had to fetch.
        if let Some(whole) = alive(who).and_then(|dir| arguments(&dir)) {
            return Some(whole);
        }
        if told == 0 {
            return None;
        }
        let nuls = |part: &[u8]| part.iter().filter(|byte| **byte == 0).count();
        let count = nuls(&exec.args_head) + nuls(&exec.args_tail);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let tail = exec.args_tail.strip_suffix(b"\0").unwrap_or(&exec.args_tail);
        Some(Arguments::from_ends(&exec.args_head, tail, exec.args_length - 1, count))
    }
}

/// A path that an event told. One that is `cut` is asked for anew; of a process that is gone, what is left of it
/// stands after dots.
fn whole<'a>(who: &Who, link: &str, told: &'a [u8], cut: bool) -> Cow<'a, [u8]> {
    if !cut {
        return Cow::Borrowed(told);
    }
    let asked = alive(who).and_then(|dir| dir.link(link)).map(|path| {
        let end = path.strip_suffix(b" (deleted)").map_or(path.len(), <[u8]>::len);
        path[..end].to_vec()
    });
    Cow::Owned(asked.unwrap_or_else(|| [b"...", told].concat()))
}

/// The line of systemd's hierarchy of version 1, after a line break; empty where there is none, `None` where
/// the process is gone. One that is ending is shown at the root of it (kernel/cgroup/cgroup.c:
/// proc_cgroup_show), and so is one that is there, so that says nothing.
fn systemd_group(who: &Who) -> Option<Vec<u8>> {
    let text = alive(who)?.read("cgroup")?;
    let mut lines = text.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.windows(14).any(|part| part == b":name=systemd:"));
    Some(line.map_or_else(Vec::new, |line| [b"\n", line].concat()))
}

/// The process, if it has not ended.
fn alive(who: &Who) -> Option<ProcDir> {
    let dir = ProcDir::open(who.pid)?;
    (dir.stat()?.start == who.start()).then_some(dir)
}

/// Whether the image of a process that is still there was deleted since its execution: what hides itself
/// does that before it opens a handle.
pub fn image_is_gone(who: &Who) -> bool {
    let link = alive(who).and_then(|dir| dir.link("exe"));
    link.is_some_and(|link| proc_text::image(&link).1)
}
