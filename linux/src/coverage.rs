//! `doctor`: what the sensors see on this machine, what is blind, and why.
//!
//! [`probe`] tries each source once; what is made of the answers is here and needs no machine.

mod beyond;
mod probe;

use bpfwatch_core::platform::{Check, CheckState};
use nix::errno::Errno;

use crate::capability;
use crate::ebpf::load::LoadError;
use probe::{HidePid, Probe};

/// Most process ids in one line.
const LISTED: usize = 5;

/// Capabilities that the sensors need, what for, and how it stands without them.
const NEEDED: [(u8, &str, &str, CheckState); 4] = [
    (
        capability::SYS_PTRACE,
        "CAP_SYS_PTRACE",
        "reading whose descriptor a socket is, of other users' processes",
        CheckState::Blind,
    ),
    (
        capability::DAC_READ_SEARCH,
        "CAP_DAC_READ_SEARCH",
        "listing descriptors of other users' processes",
        CheckState::Blind,
    ),
    (
        capability::SYS_ADMIN,
        "CAP_SYS_ADMIN",
        "entering the network namespaces of containers",
        CheckState::Blind,
    ),
    (
        capability::NET_ADMIN,
        "CAP_NET_ADMIN",
        "executions from the proc connector, and filters of packet sockets",
        CheckState::Blind,
    ),
];

/// What is not watched. Each says so on every machine, and so is no reason for `doctor` to fail.
const GAPS: [(&str, &str); 3] = [
    (
        "other eBPF programs",
        "tracing programs can read packets from the kernel's memory; only types that see packets \
         themselves are watched",
    ),
    (
        "mirrors of switches",
        "Open vSwitch, SPAN ports and `nft dup` copy traffic without a filter of traffic control",
    ),
    ("packets read", "no source tells how many packets a handle received, or whether any was read"),
];

/// One check for each source that the sensors use, then what none of them sees.
pub fn checks() -> Vec<Check> {
    from_probe(&Probe::take())
}

fn from_probe(probe: &Probe) -> Vec<Check> {
    let mut checks =
        vec![Check::new("kernel", CheckState::Ok, format!("Linux {}", probe.kernel)), place(probe)];
    checks.extend(NEEDED.iter().map(|(number, name, what, without)| {
        if probe.effective.has(*number) && !probe.initial_user {
            let detail = format!("counts only in its own user namespace; for {what}");
            with_mend(Check::new(name, *without, detail), "run as root of the host")
        } else if probe.effective.has(*number) {
            Check::new(name, CheckState::Ok, format!("there; for {what}"))
        } else {
            let mend = format!("run as root, or with AmbientCapabilities={name} in the unit");
            with_mend(Check::new(name, *without, format!("missing; for {what}")), &mend)
        }
    }));
    checks.extend([
        packet_sockets(probe),
        raw_sockets(probe),
        holders(probe),
        namespaces(probe),
        executions(probe),
        interfaces(probe),
        Check::new(
            "io_uring and 32-bit calls",
            CheckState::Ok,
            "sockets are found in the kernel's tables, however they were made".to_owned(),
        ),
        events(probe),
    ]);
    checks.extend(beyond::checks(&probe.beyond));
    if probe.ebpf.is_err() {
        let looks = [(
            "short-lived handles",
            "without eBPF a handle that is opened and closed between two looks is not seen; the \
                 execution of its program is",
        )];
        checks.extend(looks.map(|(name, why)| {
            Check::new(&format!("not seen: {name}"), CheckState::Info, why.to_owned())
        }));
    }
    checks.extend(GAPS.iter().map(|(name, why)| {
        Check::new(&format!("not seen: {name}"), CheckState::Info, (*why).to_owned())
    }));
    checks
}

fn with_mend(check: Check, mend: &str) -> Check {
    Check { mend: Some(mend.to_owned()), ..check }
}

/// Why a table gives nothing. sock_diag answers ENOENT for a family without a handler (net/core/sock_diag.c:
/// `__sock_diag_cmd`).
fn why(error: Errno) -> &'static str {
    if error == Errno::ENOENT { "the kernel lacks it" } else { error.desc() }
}

/// Whether the host is what is seen.
fn place(probe: &Probe) -> Check {
    let name = "place";
    if !probe.initial_pid || !probe.initial_user {
        let kind = if probe.initial_pid { "user" } else { "pid" };
        let detail =
            format!("runs in a {kind} namespace of its own: the host is not seen from here");
        let mend = "run it on the host, or in a container with the host's pid, network and user \
                    namespaces";
        return with_mend(Check::new(name, CheckState::Blind, detail), mend);
    }
    if probe.host_network == Some(false) {
        let detail = "runs in a network namespace of its own: no executions and no interface events \
                      of the host";
        let mend = "run it in the host's network namespace";
        return with_mend(Check::new(name, CheckState::Blind, detail.to_owned()), mend);
    }
    Check::new(name, CheckState::Ok, "runs in the host's namespaces".to_owned())
}

fn packet_sockets(probe: &Probe) -> Check {
    let name = "packet sockets";
    match (probe.packet_diag, probe.packet_table) {
        (Ok(count), _) => {
            let detail = format!("packet_diag answers: {count} in this network namespace");
            Check::new(name, CheckState::Ok, detail)
        }
        (Err(error), true) => with_mend(
            Check::new(
                name,
                CheckState::Warning,
                format!(
                    "packet_diag does not answer ({}): /proc/PID/net/packet is read instead, which \
                     shows no promiscuous mode, filter or ring",
                    why(error)
                ),
            ),
            "modprobe af_packet_diag, or a kernel with CONFIG_PACKET_DIAG",
        ),
        (Err(error), false) => with_mend(
            Check::new(name, CheckState::Blind, format!("no source answers ({})", why(error))),
            "a kernel with CONFIG_PACKET_DIAG, and /proc mounted",
        ),
    }
}

fn raw_sockets(probe: &Probe) -> Check {
    let name = "raw IP sockets";
    match (probe.raw_diag, probe.raw_table) {
        (Ok(count), _) => Check::new(
            name,
            CheckState::Ok,
            format!("inet_diag answers: {count} of IPv4 in this network namespace"),
        ),
        // All that is missing is the interface that a socket is bound to.
        (Err(error), true) => Check::new(
            name,
            CheckState::Ok,
            format!(
                "read from /proc/PID/net/raw and raw6: inet_diag has no raw sockets here ({})",
                why(error)
            ),
        ),
        (Err(error), false) => with_mend(
            Check::new(name, CheckState::Blind, format!("no source answers ({})", why(error))),
            "a kernel with CONFIG_INET_RAW_DIAG, or /proc mounted",
        ),
    }
}

/// Whether descriptors can be tied to processes.
fn holders(probe: &Probe) -> Check {
    let name = "holders of sockets";
    let hidden = &probe.hidden;
    if let HidePid::On(option) = &probe.hide_pid
        && !probe.effective.has(capability::SYS_PTRACE)
    {
        let detail =
            format!("/proc is mounted with {option}: other users' processes are not there");
        let mend = "run as root, or with the group of the mount's gid= option";
        return with_mend(Check::new(name, CheckState::Blind, detail), mend);
    }
    if hidden.is_empty() {
        let detail = format!("descriptors of all {} processes can be read", probe.processes);
        return Check::new(name, CheckState::Ok, detail);
    }
    let pids: Vec<_> = hidden.iter().take(LISTED).map(u32::to_string).collect();
    let more = if hidden.len() > LISTED { ", ..." } else { "" };
    let detail = format!(
        "descriptors of {} of {} processes cannot be read (pid {}{more}): a socket of theirs has no \
         holder",
        hidden.len(),
        probe.processes,
        pids.join(", ")
    );
    if hidden.len() * 2 > probe.processes || !probe.initial_user {
        return with_mend(Check::new(name, CheckState::Blind, detail), "run as root");
    }
    let mend = "ptrace(2) allows it only with every capability that such a process has";
    with_mend(Check::new(name, CheckState::Warning, detail), mend)
}

fn namespaces(probe: &Probe) -> Check {
    let name = "network namespaces";
    let (total, reached) = (probe.namespaces, probe.namespaces_reached);
    let mut detail = format!("{reached} of {total} can be looked into");
    if probe.namespaces_unknown > 0 {
        detail += &format!("; that of {} processes is not known", probe.namespaces_unknown);
    }
    if reached < total || probe.namespaces_unknown * 2 > probe.processes {
        let mend = "run as root in the host's pid and user namespaces";
        return with_mend(Check::new(name, CheckState::Blind, detail), mend);
    }
    Check::new(name, CheckState::Ok, detail)
}

fn executions(probe: &Probe) -> Check {
    let name = "executions";
    let blind = |detail: &str, mend: &str| {
        with_mend(Check::new(name, CheckState::Blind, detail.to_owned()), mend)
    };
    match probe.connector {
        Err(Errno::EPROTONOSUPPORT | Errno::ECONNREFUSED) => blind(
            "no proc connector: the kernel has none, or this is not the initial network namespace",
            "a kernel with CONFIG_PROC_EVENTS, and the host's network namespace",
        ),
        Err(error) => blind(&format!("the proc connector refuses: {}", why(error)), "run as root"),
        // The kernel takes a subscription only from there (drivers/connector/cn_proc.c:
        // cn_proc_mcast_ctl); others get no answer.
        Ok(()) if !probe.initial_pid || !probe.initial_user => blind(
            "the proc connector answers only in the initial pid and user namespaces",
            "run it on the host",
        ),
        Ok(()) if !probe.effective.has(capability::NET_ADMIN) => {
            blind("the proc connector needs CAP_NET_ADMIN", "run as root")
        }
        Ok(()) => Check::new(name, CheckState::Ok, "the proc connector can be joined".to_owned()),
    }
}

/// Whether handles and executions are told at once.
fn events(probe: &Probe) -> Check {
    let name = "events at once";
    let (hook, not_better) = match &probe.ebpf {
        Ok(hooked) => hooked,
        Err(why) => {
            let detail = format!("no eBPF, so handles are only looked for: {why}");
            let mend = match why {
                LoadError::Off => "set `ebpf = \"auto\"` under [sensors] in the configuration",
                _ => {
                    "run as root or with CAP_BPF and CAP_PERFMON, on Linux 5.8 or later with \
                     CONFIG_DEBUG_INFO_BTF"
                }
            };
            return with_mend(Check::new(name, CheckState::Warning, detail), mend);
        }
    };
    let mut detail = format!(
        "eBPF on {}: 64-bit and 32-bit programs, `int 0x80`, io_uring and passed descriptors",
        hook.as_str()
    );
    if !hook.tells_close() {
        detail += "; the end of a handle is found by looks";
    }
    if !not_better.is_empty() {
        detail += &format!(" (not {})", not_better.join("; not "));
    }
    Check::new(name, CheckState::Ok, detail)
}

fn interfaces(probe: &Probe) -> Check {
    let name = "promiscuous interfaces";
    match probe.links {
        Ok(count) => {
            let detail = format!("rtnetlink answers: {count} interfaces in this network namespace");
            Check::new(name, CheckState::Ok, detail)
        }
        Err(error) => Check::new(
            name,
            CheckState::Blind,
            format!("rtnetlink does not answer: {}", why(error)),
        ),
    }
}

#[cfg(test)]
mod tests;
