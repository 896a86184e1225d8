//! `doctor`: who could capture on this machine without being root.
//!
//! Everything is read, nothing is tried, and each look is bounded: `doctor` answers in well under a
//! second on a host of any size.

mod files;
mod groups;
mod processes;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpfwatch_core::platform::{Check, CheckState};
use bpfwatch_core::scope::Scope;

use crate::capability::{NET_RAW, Status};
use crate::proc;
use files::{Privileged, Why};
use processes::Holder;

/// Time for the walk through executables.
const WALK_BUDGET: Duration = Duration::from_millis(200);
/// Most names in one line.
const LISTED: usize = 8;
/// Largest /etc/group that is read, in bytes.
const GROUP_LIMIT: u64 = 1 << 20;

/// One check for each way in which somebody other than root may capture.
pub fn checks() -> Vec<Check> {
    let mut group_file = String::new();
    let _ = fs::File::open("/etc/group")
        .and_then(|file| file.take(GROUP_LIMIT).read_to_string(&mut group_file));
    let found = files::find(&roots(), WALK_BUDGET);
    let holders = processes::group(processes::holders());
    let mut checks = vec![
        file_capabilities(&found, &group_file),
        set_uid(&found, &group_file),
        users_processes(&holders),
        containers(&holders, true),
        containers(&holders, false),
        user_namespaces(&UserNamespaces::read()),
        init_capabilities(&read_text("/proc/1/status")),
        unprivileged_bpf(number("/proc/sys/kernel/unprivileged_bpf_disabled")),
        usbmon(),
    ];
    checks.extend(wireshark_group(&group_file));
    checks
}

fn check(name: &str, state: CheckState, detail: String, mend: Option<&str>) -> Check {
    Check { name: name.to_owned(), state, detail, mend: mend.map(str::to_owned) }
}

/// Where programs are: of directories in PATH only what can be run by name, and where anybody may
/// write, two levels, because a walk of all of it would never end.
fn roots() -> Vec<(PathBuf, usize)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path =
        std::env::split_paths(&path).filter(|root| root.is_absolute()).map(|root| (root, 0));
    let fixed = [
        ("/usr/sbin", 1),
        ("/usr/bin", 1),
        ("/usr/local/sbin", 1),
        ("/usr/local/bin", 1),
        ("/tmp", 1),
        ("/var/tmp", 1),
        ("/dev/shm", 1),
        ("/usr/libexec", 6),
        ("/opt", 6),
        ("/usr/local/lib", 6),
        ("/usr/lib", 6),
    ];
    in_path.chain(fixed.map(|(root, levels)| (PathBuf::from(root), levels))).collect()
}

fn file_capabilities(found: &files::Found, group_file: &str) -> Check {
    let capable: Vec<_> =
        found.files.iter().filter(|file| matches!(file.why, Why::Capabilities(_))).collect();
    let open = capable.iter().any(|file| file.serves_capture && file.mode & 0o001 != 0);
    let state = match (open, capable.is_empty()) {
        (true, _) => CheckState::Warning,
        (false, true) if found.complete => CheckState::Ok,
        (false, _) => CheckState::Info,
    };
    let listed = list(capable.iter().map(|file| describe(file, group_file)));
    let detail =
        format!("{}{}", listed.unwrap_or("none that serves capture".to_owned()), extent(found));
    let mend = "let only one group run it (`chmod o-x`), or take the capability away (`setcap -r`)";
    check("file capabilities", state, detail, open.then_some(mend))
}

fn set_uid(found: &files::Found, group_file: &str) -> Check {
    let tools: Vec<_> = found.files.iter().filter(|file| file.why == Why::SetUid).collect();
    let state = match (tools.is_empty(), found.complete) {
        (true, true) => CheckState::Ok,
        (true, false) => CheckState::Info,
        (false, _) => CheckState::Warning,
    };
    let listed = list(tools.iter().map(|file| describe(file, group_file)));
    let detail = format!("{}{}", listed.unwrap_or("none".to_owned()), extent(found));
    let mend = "find out who made it; take the bit away (`chmod u-s`)";
    check("set-uid capture tools", state, detail, (!tools.is_empty()).then_some(mend))
}

fn extent(found: &files::Found) -> String {
    let cut = if found.complete { "" } else { ", and then the time was up" };
    format!(" (looked at {} files{cut})", found.looked_at)
}

/// Path, capabilities and who may run it.
fn describe(file: &Privileged, group_file: &str) -> String {
    let what = match file.why {
        Why::Capabilities(set) => set.names().join(","),
        Why::SetUid => "set-uid root".to_owned(),
    };
    let copy = file
        .copy_of
        .as_ref()
        .map(|tool| format!(", a copy of {}", shown_path(tool)))
        .unwrap_or_default();
    let who = if file.mode & 0o001 != 0 {
        "anyone".to_owned()
    } else if file.mode & 0o010 != 0 {
        let group = groups::parse(group_file).find(|group| group.gid == file.gid);
        group.map_or(format!("group {}", file.gid), |group| format!("group {}", shown(group.name)))
    } else {
        "its owner".to_owned()
    };
    format!("{} ({what}{copy}; run by {who})", shown_path(&file.path))
}

fn users_processes(holders: &processes::Found) -> Check {
    let state = if holders.others.is_empty() { CheckState::Ok } else { CheckState::Info };
    let one = |holder: &Holder| {
        let user = holder.uid.map_or("?".to_owned(), |uid| uid.to_string());
        let place = if holder.reaches_host() { "" } else { ", own network" };
        format!("{} (pid {}, uid {user}{place})", shown(&holder.name), holder.pid)
    };
    let detail = list(holders.others.iter().map(one)).unwrap_or("none".to_owned());
    check("users' processes with CAP_NET_RAW", state, detail, None)
}

/// Containers with CAP_NET_RAW in the host's network, or in one of their own.
fn containers(found: &processes::Found, on_host: bool) -> Check {
    let lines: Vec<_> = found
        .containers
        .iter()
        .filter(|(_, holders)| holders.iter().any(Holder::reaches_host) == on_host)
        .map(|(scope, holders)| container(scope, holders))
        .collect();
    let hidden = if found.namespaces_hidden {
        " (namespaces of other users' processes could not be read)"
    } else {
        ""
    };
    let any = !lines.is_empty();
    let detail = format!("{}{hidden}", list(lines.into_iter()).unwrap_or("none".to_owned()));
    let well = if found.namespaces_hidden { CheckState::Info } else { CheckState::Ok };
    if on_host {
        let state = if any { CheckState::Warning } else { well };
        let mend = "it sees all of the host's traffic: drop the capability (`--cap-drop NET_RAW`) or \
                    the host's network, unless capturing is what it is for";
        check("containers that can capture on the host", state, detail, any.then_some(mend))
    } else {
        let state = if any { CheckState::Info } else { well };
        check("containers that can capture in their own network", state, detail, None)
    }
}

fn container(scope: &Scope, holders: &[Holder]) -> String {
    let Scope::Container { id, runtime, pod, .. } = scope else { return scope.kind().to_owned() };
    let id: String = id.as_str().chars().take(12).collect();
    let runtime = runtime.as_ref().map_or("container", |runtime| runtime.as_str());
    let pod =
        pod.as_ref().map(|pod| format!(" of pod {}", shown(pod.as_str()))).unwrap_or_default();
    let names =
        holders.iter().take(3).map(|holder| shown(&holder.name)).collect::<Vec<_>>().join(", ");
    let more = if holders.len() > 3 { ", ..." } else { "" };
    format!("{runtime} {}{pod} ({names}{more})", shown(&id))
}

/// The settings that decide whether a user may make a user namespace; `None` where the kernel has not
/// got the setting.
#[derive(Debug, Clone, Copy, Default)]
struct UserNamespaces {
    /// user.max_user_namespaces.
    limit: Option<i64>,
    /// kernel.unprivileged_userns_clone (Debian's kernels).
    unprivileged: Option<i64>,
    /// kernel.apparmor_restrict_unprivileged_userns (Ubuntu's kernels).
    apparmor: Option<i64>,
}

impl UserNamespaces {
    fn read() -> Self {
        Self {
            limit: number("/proc/sys/user/max_user_namespaces"),
            unprivileged: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        }
    }
}

fn user_namespaces(settings: &UserNamespaces) -> Check {
    let (state, detail) = match settings {
        UserNamespaces { limit: None, .. } => {
            (CheckState::Ok, "the kernel has none, or hides user.max_user_namespaces".to_owned())
        }
        UserNamespaces { limit: Some(0), .. } => {
            (CheckState::Ok, "user.max_user_namespaces is 0: nobody can make one".to_owned())
        }
        UserNamespaces { unprivileged: Some(0), .. } => (
            CheckState::Ok,
            "kernel.unprivileged_userns_clone is 0: only root can make one".to_owned(),
        ),
        UserNamespaces { apparmor: Some(1..), .. } => (
            CheckState::Ok,
            "AppArmor denies capabilities in them to programs without a profile that allows it"
                .to_owned(),
        ),
        UserNamespaces { limit: Some(limit), .. } => (
            CheckState::Info,
            format!(
                "any user can make one (up to {limit}), and in it capture in a network namespace of \
                 its own (`unshare -rn`), never on the host's"
            ),
        ),
    };
    check("user namespaces", state, detail, None)
}

/// What pid 1 hands on to every service.
fn init_capabilities(status: &str) -> Check {
    let name = "capabilities of pid 1";
    if status.is_empty() {
        return check(name, CheckState::Info, "its status could not be read".to_owned(), None);
    }
    let status = Status::parse(status);
    if status.ambient.has(NET_RAW) {
        let detail = "CAP_NET_RAW is in its ambient set: every service inherits it".to_owned();
        return check(name, CheckState::Warning, detail, None);
    }
    let detail = if status.bounding.has(NET_RAW) {
        "CAP_NET_RAW is in its bounding set, not in its ambient set: only root and files with \
         capabilities gain it"
    } else {
        "CAP_NET_RAW is not in its bounding set: nothing that it starts can ever gain it"
    };
    check(name, CheckState::Ok, detail.to_owned(), None)
}

fn unprivileged_bpf(disabled: Option<i64>) -> Check {
    let name = "unprivileged eBPF";
    match disabled {
        Some(0) => check(
            name,
            CheckState::Warning,
            "any user may load eBPF programs (kernel.unprivileged_bpf_disabled is 0)".to_owned(),
            Some("sysctl kernel.unprivileged_bpf_disabled=2"),
        ),
        Some(value) => {
            let detail = format!("kernel.unprivileged_bpf_disabled is {value}: needs CAP_BPF");
            check(name, CheckState::Ok, detail, None)
        }
        None => check(name, CheckState::Ok, "the kernel has no bpf(2) for users".to_owned(), None),
    }
}

fn usbmon() -> Check {
    let modes = fs::read_dir("/dev").into_iter().flatten().flatten().filter_map(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with("usbmon")).then_some(())?;
        Some((entry.path(), fs::symlink_metadata(entry.path()).ok()?))
    });
    let (mut devices, mut loose) = (0, Vec::new());
    for (path, metadata) in modes {
        devices += 1;
        if metadata.mode() & 0o044 != 0 || metadata.uid() != 0 {
            let (mode, uid, gid) = (metadata.mode() & 0o777, metadata.uid(), metadata.gid());
            loose.push(format!("{} (mode {mode:04o}, owner {uid}:{gid})", shown_path(&path)));
        }
    }
    loose.sort();
    let state = if loose.is_empty() { CheckState::Ok } else { CheckState::Warning };
    let detail = match list(loose.into_iter()) {
        Some(listed) => format!("users can read USB traffic: {listed}"),
        None => format!("{devices} devices, only root reads them"),
    };
    let mend = (state == CheckState::Warning).then_some("find the udev rule that opened them");
    check("USB capture devices", state, detail, mend)
}

/// The group that distributions let run dumpcap; no line where it is not there.
fn wireshark_group(group_file: &str) -> Option<Check> {
    let group = groups::parse(group_file).find(|group| group.name == "wireshark")?;
    let state = if group.members.is_empty() { CheckState::Ok } else { CheckState::Info };
    let members = list(group.members.iter().map(|member| shown(member)));
    let detail = members.unwrap_or("no members in /etc/group".to_owned());
    Some(check("group wireshark", state, detail, None))
}

fn number(path: &str) -> Option<i64> {
    String::from_utf8(proc::read_line(path)?).ok()?.trim().parse().ok()
}

fn read_text(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The first of them, and how many more; `None` when there are none.
fn list(items: impl ExactSizeIterator<Item = String>) -> Option<String> {
    let more = items.len().saturating_sub(LISTED);
    let mut items: Vec<_> = items.take(LISTED).collect();
    if more > 0 {
        items.push(format!("and {more} more"));
    }
    (!items.is_empty()).then(|| items.join(", "))
}

/// Foreign text for one line: control characters as escapes.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

fn shown_path(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

#[cfg(test)]
mod tests;
