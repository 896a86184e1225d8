//! `doctor`: what the sensor sees on this machine, what is blind, and why. Each source is tried once.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bpfwatch_core::platform::{Check, CheckState};

use crate::decode::BPF_DEVICE;
use crate::ffi::{self, Event, Kqueue};
use crate::kernel::{self, Kernel};
use crate::{auditpipe, guard, inotify};

/// From this release on `net.bpf.stats` lists one vnet only (sys/net/bpf.c).
const STATS_OF_ONE_VNET: u32 = 1_600_006;
/// How long an open may take to be told.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is not watched. Each says so on every machine.
const GAPS: [(&str, &str); 4] = [
    (
        "opens in jails",
        "watched from 15.0 on; before, an open that is shorter than the time between two looks, 250 ms, is not \
         seen: a watch inside a jail's /dev would keep the jail from stopping",
    ),
    (
        "short-lived opens",
        "those of under a millisecond are told without their process, unless [sensors] audit = \"exec+open\"",
    ),
    (
        "capture without /dev/bpf",
        "not watched yet: netgraph, netmap, divert and raw sockets, if_bridge span ports, DTrace",
    ),
    (
        "short-lived programs",
        "of one that ends at once arguments and path may be gone before they are read, unless [sensors] audit \
         is \"exec\" or \"exec+open\"",
    ),
];

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
        Ok(mut kernel) => {
            let device = kernel.find_device();
            out.push(tried(
                "holders of BPF descriptors",
                device.and_then(|device| {
                    let (look, _) = kernel.look(device)?;
                    Ok(format!("{} by kern.file", count(look.files.len(), "descriptor")))
                }),
            ));
            let attached = kernel.attached();
            out.push(tried(
                "attached descriptors",
                attached
                    .map(|rows| format!("{} by net.bpf.stats", count(rows.len(), "descriptor"))),
            ));
            let all = kernel.all();
            out.push(tried(
                "processes",
                all.map(|rows| format!("{} by kern.proc", count(rows.len(), "process"))),
            ));
        }
        Err(error) => out.push(tried("BPF descriptors", Err(error))),
    }
    out.push(tried("executions", executions()));
    out.push(tried("promiscuous interfaces", route()));
    out.push(jails());
    out.push(audit());
    if kernel::release_date().is_some_and(|date| date >= STATS_OF_ONE_VNET) {
        out.push(check(
            "descriptors in VNET jails",
            CheckState::Blind,
            "this kernel lists attached descriptors of one vnet only; those of VNET jails are seen open, \
             but not whether they are attached or promiscuous"
                .to_owned(),
            None,
        ));
    }
    out.extend(
        GAPS.iter().map(|(name, why)| check(name, CheckState::Info, (*why).to_owned(), None)),
    );
    out
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
    ffi::inotify_add(&inotify, BPF_DEVICE.as_bytes(), inotify::OPEN | inotify::DONT_FOLLOW)?;
    drop(OpenOptions::new().read(true).open(BPF_DEVICE)?);
    let mut events = Vec::new();
    queue.wait(PATIENCE, &mut events)?;
    let mut buffer = [0; 1024];
    let length = if events.is_empty() { 0 } else { (&inotify).read(&mut buffer)? };
    if inotify::events(&buffer[..length]).iter().any(|event| event.mask & inotify::OPEN != 0) {
        Ok("an open was told by inotify; nodes of jails are watched too".to_owned())
    } else {
        Err(io::Error::other(
            "an open was not told by inotify; opens shorter than 250 ms are missed",
        ))
    }
}

/// Opens the device once and waits to be told.
fn an_open_is_told() -> io::Result<String> {
    /// NOTE_OPEN of sys/event.h.
    const NOTE_OPEN: u32 = 0x80;
    let queue = Kqueue::new()?;
    let node = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(BPF_DEVICE)?;
    let ident = usize::try_from(node.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flags = libc::EV_ADD | libc::EV_CLEAR;
    let filter = libc::EVFILT_VNODE;
    queue.change(Event { ident, filter, flags, fflags: NOTE_OPEN, data: 0 })?;
    drop(OpenOptions::new().read(true).open(BPF_DEVICE)?);
    let mut events = Vec::new();
    queue.wait(PATIENCE, &mut events)?;
    if events.iter().any(|event| event.fflags & NOTE_OPEN != 0) {
        Ok("an open was told by kqueue, of the host's node alone".to_owned())
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

fn route() -> io::Result<String> {
    ffi::socket(libc::PF_ROUTE, libc::SOCK_RAW, 0)?;
    Ok("told by a route socket, of this network stack; a second reader changes no flag".to_owned())
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
