//! `doctor`: what the sensor sees on this machine, what is blind, and why. Each source is tried once.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bpfwatch_core::platform::{Check, CheckState};

use crate::captures::Captures;
use crate::decode::BPF_DEVICE;
use crate::ffi::{self, Event, Kqueue};
use crate::kernel::{self, Kernel};
use crate::{auditpipe, guard, inotify, interfaces};

/// How long an open may take to be told.
const PATIENCE: Duration = Duration::from_millis(500);
/// A node that is opened to see whether opens are told: like /dev/bpf it is of devfs. An open of that one
/// itself would be told to a daemon that runs beside, and reported.
const PROBE: &str = "/dev/null";

/// What is not seen, by whether the kernel has inotify(2). Each says so on every machine.
fn gaps(has_inotify: bool) -> Vec<(&'static str, &'static str)> {
    let opens = if has_inotify {
        (
            "short-lived opens",
            "each is counted; those of under a millisecond are told without their process, unless [sensors] audit \
             = \"exec+open\"",
        )
    } else {
        (
            "short-lived opens",
            "one that ends before a look finds its process is not told at all: this kernel has no inotify(2), and \
             an event of kqueue is one open or more. In jails nothing is watched before 15.0, because a watch in \
             a jail's /dev would keep the jail from stopping: there it is opens of under 250 ms. [sensors] audit = \"exec+open\" has them all",
        )
    };
    vec![
        opens,
        (
            "capture without /dev/bpf",
            "not seen: DTrace, graphs of netgraph that need no socket (ng_ksocket), bridges in jails with a \
             network stack of their own",
        ),
        (
            "short-lived programs",
            "of one that ends at once arguments and path may be gone before they are read, unless [sensors] audit \
             is \"exec\" or \"exec+open\"",
        ),
    ]
}

fn check(name: &str, state: CheckState, detail: String, mend: Option<&str>) -> Check {
    Check { name: name.to_owned(), state, detail, mend: mend.map(str::to_owned) }
}

fn tried(name: &str, result: io::Result<String>) -> Check {
    match result {
        Ok(detail) => check(name, CheckState::Ok, detail, None),
        Err(error) => {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            let mend =
                if denied { "run it as root on the host" } else { "see bpf(4) and devfs(5)" };
            check(name, CheckState::Blind, error.to_string(), Some(mend))
        }
    }
}

/// One check for each source that the sensor uses, then what none of them sees.
pub fn checks() -> Vec<Check> {
    let has_inotify = kernel::release_date().is_some_and(|date| date >= guard::SINCE);
    let told = if has_inotify { inotify_tells() } else { an_open_is_told() };
    let mut out = vec![tried("opens of /dev/bpf", told)];
    match Kernel::new() {
        Ok(mut kernel) => out.extend(tables(&mut kernel)),
        Err(error) => out.push(tried("BPF descriptors", Err(error))),
    }
    out.push(tried("executions", executions()));
    out.push(tried("promiscuous interfaces", link_messages()));
    out.push(jails());
    out.push(audit());
    let gaps = gaps(has_inotify).into_iter();
    out.extend(gaps.map(|(name, why)| check(name, CheckState::Info, why.to_owned(), None)));
    out
}

/// The kernel's tables.
fn tables(kernel: &mut Kernel) -> Vec<Check> {
    let mut captures = Captures::new(false);
    let look = kernel.device(BPF_DEVICE).and_then(|device| kernel.look(device, &mut captures));
    let (holders, others, attached) = match look {
        Ok((look, None)) => {
            let rows = look.attached.as_ref().map_or(0, Vec::len);
            (Ok(look.files.len()), Ok(look.others.len()), Ok(rows))
        }
        Ok((look, Some(error))) => (Ok(look.files.len()), Ok(look.others.len()), Err(error)),
        Err(error) => {
            let again = || io::Error::new(error.kind(), error.to_string());
            let (others, attached) = (again(), again());
            (Err(error), Err(others), Err(attached))
        }
    };
    let by = |what: &'static str, source: &'static str| {
        move |number: usize| format!("{} by {source}", count(number, what))
    };
    let all = kernel.all().map(|rows| rows.len());
    let stats = if kernel.is_per_vnet() {
        "net.bpf.stats; this kernel lists those of one network stack, and a child reads it in each VNET jail \
         that has a descriptor"
    } else {
        "net.bpf.stats"
    };
    vec![
        tried("holders of BPF descriptors", holders.map(by("descriptor", "kern.file"))),
        tried("attached descriptors", attached.map(by("descriptor", stats))),
        tried(
            "netmap, netgraph, divert and raw sockets",
            others.map(by("open file", "kern.file, net.inet.raw.pcblist, net.inet.divert.pcblist")),
        ),
        tried("processes", all.map(by("process", "kern.proc"))),
    ]
}

fn count(number: usize, what: &str) -> String {
    let plural = match (number, what) {
        (1, _) => "",
        (_, "process") => "es",
        _ => "s",
    };
    format!("{number} {what}{plural}")
}

/// Watches the device by inotify as the sensor does, opens it once and waits to be told.
fn inotify_tells() -> io::Result<String> {
    let queue = Kqueue::new()?;
    let inotify = File::from(ffi::inotify()?);
    let ident = usize::try_from(inotify.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (filter, flags) = (libc::EVFILT_READ, libc::EV_ADD | libc::EV_CLEAR);
    queue.change(Event { ident, filter, flags, fflags: 0, data: 0 })?;
    for node in [BPF_DEVICE, PROBE] {
        ffi::inotify_add(&inotify, node.as_bytes(), inotify::OPEN | inotify::DONT_FOLLOW)?;
    }
    drop(File::open(PROBE)?);
    let mut events = Vec::new();
    queue.wait(PATIENCE, &mut events)?;
    let mut buffer = [0; 1024];
    let length = if events.is_empty() { 0 } else { (&inotify).read(&mut buffer)? };
    if inotify::events(&buffer[..length]).iter().any(|event| event.mask & inotify::OPEN != 0) {
        let told =
            format!("an open (of {PROBE}) was told by inotify; nodes of jails are watched too");
        Ok(told)
    } else {
        Err(io::Error::other(
            "an open was not told by inotify; opens shorter than 250 ms are missed",
        ))
    }
}

/// Watches the device by kqueue as the sensor does, and waits to be told of an open.
fn an_open_is_told() -> io::Result<String> {
    /// NOTE_OPEN of sys/event.h.
    const NOTE_OPEN: u32 = 0x80;
    let queue = Kqueue::new()?;
    let mut nodes = Vec::new();
    for path in [BPF_DEVICE, PROBE] {
        let node = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
        let ident = usize::try_from(node.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let flags = libc::EV_ADD | libc::EV_CLEAR;
        let filter = libc::EVFILT_VNODE;
        queue.change(Event { ident, filter, flags, fflags: NOTE_OPEN, data: 0 })?;
        nodes.push(node);
    }
    drop(File::open(PROBE)?);
    let mut events = Vec::new();
    queue.wait(PATIENCE, &mut events)?;
    if events.iter().any(|event| event.fflags & NOTE_OPEN != 0) {
        Ok(format!("an open (of {PROBE}) was told by kqueue; the host's node alone is watched"))
    } else {
        Err(io::Error::other("an open was not told; opens are found by looking every 250 ms"))
    }
}

/// Follows this process, starts it once more as a child, and waits to be told of the execution.
fn executions() -> io::Result<String> {
    let queue = Kqueue::new()?;
    let ident = std::process::id() as usize;
    let fflags = libc::NOTE_EXEC | libc::NOTE_TRACK;
    let (filter, flags) = (libc::EVFILT_PROC, libc::EV_ADD | libc::EV_CLEAR);
    queue.change(Event { ident, filter, flags, fflags, data: 0 })?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = child.id() as usize;
    let ended = child.wait();
    let mut seen = false;
    let mut events = Vec::new();
    let started = Instant::now();
    while !seen && started.elapsed() < PATIENCE {
        queue.wait(PATIENCE, &mut events)?;
        seen = events.iter().any(|event| event.ident == pid && event.fflags & libc::NOTE_EXEC != 0);
    }
    ended?;
    if seen {
        Ok("the execution of a child was told by kqueue".to_owned())
    } else {
        Err(io::Error::other("the execution of a child was not told by kqueue"))
    }
}

fn link_messages() -> io::Result<String> {
    let (_, netlink) = interfaces::open()?;
    let by = if netlink { "netlink" } else { "a route socket" };
    Ok(format!("told by {by}, of this network stack; a second reader changes no flag"))
}

/// Whether an audit pipe would give anything, and at what cost; it is read only where that is asked for.
fn audit() -> Check {
    let (detail, mend) = match auditpipe::is_auditing() {
        Ok(true) => (
            "auditd runs. [sensors] audit = \"exec\" reads every execution (1.3 times the cost of one), \
             \"exec+open\" also who opened a capture device, however shortly (15 to 30 times the cost of every \
             open of any file on this machine)"
                .to_owned(),
            None,
        ),
        Ok(false) => (
            "auditd does not run: [sensors] audit cannot be \"exec\" or \"exec+open\"".to_owned(),
            Some("`sysrc auditd_enable=YES` and `service auditd start`, if it is wanted"),
        ),
        Err(error) => (format!("no audit records can be had here: {error}"), None),
    };
    check("audit records", CheckState::Info, detail, mend)
}

fn jails() -> Check {
    match kernel::list_jails() {
        Err(error) => tried("jails", Err(error)),
        Ok(jails) => {
            let shared = jails.values().filter(|jail| jail.vnet == Some(false)).count();
            let detail =
                format!("{}, {shared} on the host's network stack", count(jails.len(), "jail"));
            check("jails", CheckState::Ok, detail, None)
        }
    }
}
