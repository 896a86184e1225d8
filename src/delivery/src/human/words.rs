//! Times, handles, scopes and processes in words. What comes out is free of controls.

use std::fmt::Write as _;
use std::time::Duration;

use bpfwatch_core::finding::{Level, ProcessView, SessionView};
use bpfwatch_core::handle::{Handle, HandleKind, RawGrade, SocketType};
use bpfwatch_core::logged::Log;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::time::Timestamp;

use super::programs;
use crate::visible::name;

/// Where the system keeps its programs: from there a program is called by its name alone, from
/// anywhere else by its whole path.
const SYSTEM_DIRS: [&str; 9] = [
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/lib/systemd",
    "/lib/systemd",
    "/usr/libexec",
];

/// Hexadecimal digits of a container id that tools of its runtimes show.
const SHORT_ID: usize = 12;

/// `02:45:17Z`.
pub fn clock(at: Timestamp) -> String {
    let full = at.to_string();
    // RFC 3339 of a year that has four digits, as all have that 64 bits of nanoseconds hold.
    format!("{}Z", full.get(11..19).unwrap_or(&full))
}

/// `02:45:17Z`, with the date before it unless it is that of `beside`.
pub fn clock_beside(at: Timestamp, beside: Timestamp) -> String {
    const DAY: i64 = 86_400;
    if at.secs().div_euclid(DAY) == beside.secs().div_euclid(DAY) {
        return clock(at);
    }
    let full = at.to_string();
    format!("{} {}", full.get(..10).unwrap_or_default(), clock(at))
}

/// `12 ms`, `3.2 s`, `4 min 5 s`, `2 h 3 min`, `3 d 4 h`.
pub fn span(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0 => format!("{} ms", time.subsec_millis()),
        1..60 => format!("{}.{} s", secs, time.subsec_millis() / 100),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        3_600..86_400 => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

/// `12s`, `4m`, `2h`, `3d`.
pub fn age(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..60 => format!("{secs}s"),
        60..3_600 => format!("{}m", secs / 60),
        3_600..86_400 => format!("{}h", secs / 3_600),
        _ => format!("{}d", secs / 86_400),
    }
}

/// `1204`, `123k`, `45M`, `6G`.
pub fn rounded(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..1_000_000 => format!("{}k", number / 1_000),
        1_000_000..1_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

/// `1 packet`, `2 packets`.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `CRITICAL` to `INFO`: at most eight columns.
pub fn level(level: Level) -> &'static str {
    match level {
        Level::Informational => "INFO",
        Level::Low => "LOW",
        Level::Medium => "MEDIUM",
        Level::High => "HIGH",
        Level::Critical => "CRITICAL",
    }
}

/// A log as people call it.
pub fn log(log: Log) -> &'static str {
    match log {
        Log::PsScript => "PowerShell script blocks",
        Log::WindowsSystem => "Windows System",
        Log::WindowsSecurity => "Windows Security",
        Log::KubernetesAudit => "Kubernetes audit",
        Log::Auditd => "Linux audit",
        Log::CiscoAaa => "commands on a Cisco device",
        Log::JuniperMgd => "commands on a Juniper device",
        Log::BpfOpens => "opens of BPF devices",
    }
}

/// A program by its name where the system keeps it, else by its path.
pub fn program(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((dir, file)) if !file.is_empty() && SYSTEM_DIRS.contains(&dir) => name(file),
        _ => name(path),
    }
    .into_owned()
}

/// The best short name of a process: its program, or what the kernel calls it, or `unknown`.
pub fn process_name(process: &ProcessView) -> String {
    match (&process.image, &process.name) {
        (Some(image), _) => program(image),
        (None, Some(called)) => name(called).into_owned(),
        (None, None) => "unknown".to_owned(),
    }
}

/// `tcpdump (pid 4242)`.
pub fn process_short(process: &ProcessView) -> String {
    format!("{} (pid {})", process_name(process), process.pid)
}

/// `root (uid 0)`, as far as it is known.
pub fn user(process: &ProcessView) -> String {
    match (&process.user, process.uid) {
        (Some(user), Some(uid)) => format!("{} (uid {uid})", name(user)),
        (Some(user), None) => name(user).into_owned(),
        (None, Some(uid)) => format!("uid {uid}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// `packet socket, ETH_P_ALL on lo`.
pub fn handle_short(handle: &Handle) -> String {
    let mut out = match handle.kind {
        HandleKind::Bpf => match &handle.device {
            Some(device) => format!("BPF device {}", name(device.as_str())),
            None => "BPF device".to_owned(),
        },
        HandleKind::PacketSocket => "packet socket".to_owned(),
        HandleKind::SockPacket => "SOCK_PACKET socket".to_owned(),
        HandleKind::RawSocket => match handle.ip_version {
            Some(version) => format!("raw IPv{version} socket"),
            None => "raw IP socket".to_owned(),
        },
        HandleKind::XdpSocket => "AF_XDP socket".to_owned(),
        HandleKind::SocketFilter => programs::called(handle, "socket filter"),
        HandleKind::TcProgram => programs::called(handle, "tc program"),
        HandleKind::XdpProgram => programs::called(handle, "XDP program"),
        HandleKind::CgroupProgram => programs::called(handle, "cgroup program"),
        HandleKind::NetfilterProgram => programs::called(handle, "netfilter program"),
        HandleKind::TcMirror => "tc mirror".to_owned(),
        HandleKind::TapPort => "TAP device".to_owned(),
        HandleKind::NflogSocket => "NFLOG reader".to_owned(),
        HandleKind::NfqueueSocket => "NFQUEUE reader".to_owned(),
        HandleKind::Usbmon => "USB monitor".to_owned(),
        HandleKind::Netmap => "netmap rings".to_owned(),
        HandleKind::NetgraphSocket => "netgraph socket".to_owned(),
        HandleKind::DivertSocket => "divert socket".to_owned(),
        HandleKind::BridgeSpan => "span port of a bridge".to_owned(),
    };
    if let Some(protocol) = &handle.protocol {
        out.push_str(", ");
        out.push_str(&name(protocol.as_str()));
    }
    match handle.interface.as_ref().map(|text| text.as_str()) {
        Some("any") => out.push_str(" on any interface"),
        Some(interface) => {
            out.push_str(" on ");
            out.push_str(&name(interface));
        }
        None if handle.kind == HandleKind::RawSocket || !needs_interface(handle.kind) => {}
        None => out.push_str(" on unknown interface"),
    }
    if let Some(peer) = &handle.peer {
        let role = if handle.kind == HandleKind::TapPort { ", port of " } else { " to " };
        out.push_str(role);
        out.push_str(&name(peer.as_str()));
    }
    out
}

/// All that is known of a session's handle, and which of its traits are unknown.
pub fn handle(session: &SessionView) -> String {
    let handle = &session.handle;
    let mut out = handle_short(handle);
    let mut unknown = Vec::new();
    if handle.kind == HandleKind::PacketSocket
        && let Some(kind) = handle.socket_type
    {
        out.push_str(match kind {
            SocketType::Raw => ", SOCK_RAW",
            SocketType::Dgram => ", SOCK_DGRAM",
            SocketType::Packet => ", SOCK_PACKET",
        });
    }
    if handle.kind == HandleKind::RawSocket {
        match handle.grade {
            Some(RawGrade::SendOnly) => out.push_str(", can only send"),
            Some(RawGrade::Control) => out.push_str(", control protocol"),
            Some(RawGrade::Capture) => out.push_str(", gets copies of other processes' traffic"),
            None => {}
        }
    } else if session.promiscuous {
        out.push_str(", promiscuous");
    } else if matches!(
        handle.kind,
        HandleKind::Bpf | HandleKind::PacketSocket | HandleKind::SockPacket | HandleKind::XdpSocket
    ) {
        out.push_str(", not promiscuous");
    }
    if let Some(program) = &handle.program {
        programs::facts(program, &mut out);
    }
    match handle.filter {
        Some(true) => out.push_str(", filter"),
        Some(false) => out.push_str(", no filter"),
        None if has_filter(handle.kind) => unknown.push("filter"),
        None => {}
    }
    match handle.ring {
        Some(true) => out.push_str(", ring"),
        Some(false) if handle.kind == HandleKind::PacketSocket => out.push_str(", no ring"),
        None if handle.kind == HandleKind::PacketSocket => unknown.push("ring"),
        _ => {}
    }
    if let Some(netns) = handle.netns {
        let _ = write!(out, ", network namespace {netns}");
    }
    if !unknown.is_empty() {
        let _ = write!(out, "; unknown: {}", unknown.join(", "));
    }
    out
}

/// Whether such a handle captures on an interface, if it captures.
pub fn needs_interface(kind: HandleKind) -> bool {
    !matches!(
        kind,
        HandleKind::SocketFilter
            | HandleKind::CgroupProgram
            | HandleKind::NetfilterProgram
            | HandleKind::NetgraphSocket
    )
}

/// Whether such a handle can have a packet filter of its own.
fn has_filter(kind: HandleKind) -> bool {
    matches!(
        kind,
        HandleKind::Bpf
            | HandleKind::PacketSocket
            | HandleKind::SockPacket
            | HandleKind::RawSocket
            | HandleKind::XdpSocket
    )
}

/// A scope in words.
pub fn scope(scope: &Scope) -> String {
    match scope {
        Scope::Host => "host".to_owned(),
        Scope::Jail { jid, name: jail, vnet, path, hostname } => {
            let mut out = format!("jail {}", name(jail.as_str()));
            if let Some(jid) = jid {
                let _ = write!(out, " (jid {jid})");
            }
            match vnet {
                Some(true) => out.push_str(", network stack of its own"),
                Some(false) => out.push_str(", on the host's network stack"),
                None => {}
            }
            named(&mut out, "path", path.as_ref().map(|text| text.as_str()));
            named(&mut out, "host name", hostname.as_ref().map(|text| text.as_str()));
            out
        }
        Scope::Container { id, runtime, image, pod, netns: _ } => {
            let mut out = format!("container {}", short_id(id.as_str()));
            if let Some(runtime) = runtime {
                let _ = write!(out, " ({})", name(runtime.as_str()));
            }
            named(&mut out, "pod", pod.as_ref().map(|text| text.as_str()));
            named(&mut out, "image", image.as_ref().map(|text| text.as_str()));
            out
        }
        Scope::Namespace { netns, name: called } => match called {
            Some(called) => format!("network namespace {} ({netns})", name(called.as_str())),
            None => format!("network namespace {netns}"),
        },
    }
}

/// A container id as its runtime's tools show it; an id that is no hexadecimal number is a name and
/// stays whole.
pub fn short_id(id: &str) -> String {
    let hex = id.len() > SHORT_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex { id[..SHORT_ID].to_owned() } else { name(id).into_owned() }
}

fn named(out: &mut String, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.push_str(", ");
        out.push_str(key);
        out.push(' ');
        out.push_str(&name(value));
    }
}

/// An observation's kind as evidence names it.
pub fn evidence(kind: &str) -> String {
    match kind {
        "handle_opened" => "opened",
        "handle_attached" => "attached",
        "handle_active" => "reading",
        "handle_released" => "released",
        "handle_closed" => "closed",
        other => return name(other).replace('_', " "),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let at = Timestamp::parse("2026-11-24T02:45:17.123456Z").unwrap();
        assert_eq!(clock(at), "02:45:17Z");
        assert_eq!(clock_beside(at, at), "02:45:17Z");
        assert_eq!(clock_beside(at, at + Duration::from_secs(86_400)), "2026-11-24 02:45:17Z");
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (3_249, "3.2 s"),
            (245_000, "4 min 5 s"),
            (7_380_000, "2 h 3 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn programs_of_the_system_go_by_name() {
        assert_eq!(program("/usr/sbin/tcpdump"), "tcpdump");
        assert_eq!(program("/tmp/bin/tcpdump"), "/tmp/bin/tcpdump");
        assert_eq!(program("/usr/bin/"), "/usr/bin/");
        assert_eq!(program("tcpdump"), "tcpdump");
    }

    #[test]
    fn only_hexadecimal_ids_are_shortened() {
        assert_eq!(short_id("0123456789abcdef0123"), "0123456789ab");
        assert_eq!(short_id("my-long-container-name"), "my-long-container-name");
    }
}
