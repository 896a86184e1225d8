//! Starts programs, each in a session of its own, and ends them with all their descendants.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a program may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether this process may do everything.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program's path.
pub fn find(tool: &str) -> Option<PathBuf> {
    if tool.starts_with('/') {
        return Some(PathBuf::from(tool)).filter(|file| file.is_file());
    }
    let path = std::env::var_os("PATH")?;
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|dir| dir.join(tool)).find(|file| file.is_file())
}

/// A program that runs until this is dropped.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts it as the leader of a session, in the control groups given, with nothing to read and
    /// nowhere to write.
    pub fn start(groups: &[PathBuf], command: &[String]) -> Self {
        let mut setsid = Command::new("setsid");
        if groups.is_empty() {
            setsid.args(command);
        } else {
            // The shell enters the groups and becomes the program.
            let enter = "while [ \"$1\" != -- ]; do echo $$ >\"$1/cgroup.procs\"; shift; done; \
                         shift; exec \"$@\"";
            setsid.args(["sh", "-c", enter, "enter"]).args(groups).arg("--").args(command);
        }
        setsid.stdin(Stdio::null()).current_dir("/");
        if std::env::var_os("BPFWATCH_QUALITY_LOUD").is_none() {
            setsid.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Self { child: setsid.spawn().unwrap() }
    }

    /// Waits for its end, at most so long. Whether it ended.
    pub fn wait(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked of all, because a program whose parent ended is nobody's descendant but ours.
        let tree = family(self.child.id());
        for pid in &tree {
            let _ = kill(*pid, Signal::SIGTERM);
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && tree.iter().any(|pid| is_alive(*pid)) {
            let _ = self.child.try_wait();
            std::thread::sleep(Duration::from_millis(20));
        }
        for pid in tree.iter().filter(|pid| is_alive(**pid)) {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Runs a program to its end, at most so long.
pub fn run(command: &[&str], limit: Duration) {
    let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    Running::start(&[], &command).wait(limit);
}

/// Runs a program that must succeed, and gives what it wrote.
pub fn must(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Ends everything that is left below this process.
pub fn end_descendants() {
    for pid in descendants(std::process::id()) {
        let _ = kill(pid, Signal::SIGKILL);
    }
    // What ended is left to this process, which asked for it.
    while nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
        .is_ok_and(|status| status != nix::sys::wait::WaitStatus::StillAlive)
    {}
}

struct Row {
    parent: u32,
    session: u32,
    is_zombie: bool,
}

/// State, parent and session of a process (proc_pid_stat(5), fields 3, 4 and 6).
fn row(pid: u32) -> Option<Row> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    let stat = stat.ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_zombie = fields.next()? == "Z";
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Row { parent, session, is_zombie })
}

fn table() -> HashMap<u32, Row> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    names.filter_map(|pid: u32| Some((pid, row(pid)?))).collect()
}

fn is_alive(pid: Pid) -> bool {
    u32::try_from(pid.as_raw()).ok().and_then(row).is_some_and(|row| !row.is_zombie)
}

/// The process, its descendants, and everything in the session that it leads.
fn family(leader: u32) -> Vec<Pid> {
    let mut pids = descendants(leader);
    let session = table().into_iter().filter(|(_, row)| row.session == leader).map(|(pid, _)| pid);
    pids.extend(session.filter_map(as_pid));
    pids.extend(as_pid(leader));
    pids.sort();
    pids.dedup();
    pids
}

fn descendants(root: u32) -> Vec<Pid> {
    let table = table();
    let below = |pid: &u32| {
        let mut at = *pid;
        // Deeper is nothing that is started here.
        for _ in 0..64 {
            match table.get(&at) {
                Some(row) if row.parent == root => return true,
                Some(row) => at = row.parent,
                None => return false,
            }
        }
        false
    };
    table.keys().filter(|pid| below(pid)).copied().filter_map(as_pid).collect()
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().map(Pid::from_raw)
}
