//! What `scan` shows: a table of who holds a capture handle now, and whether they should.

use bpfwatch_core::finding::{ProcessView, SessionLine, Verdict};
use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::scope::Scope;

use crate::human::words;
use crate::style::{Paint, Style};
use crate::table::{Cell, Column, Fit, Table};
use crate::visible::{cut_middle, cut_start, name, wrap};

const UNKNOWN: &str = "unknown";

/// What `unknown` becomes where there is little room; explained below the table then.
const UNKNOWN_SHORT: &str = "?";

/// Columns of a process at most: the end of its path tells most.
const PROCESS_COLUMNS: usize = 48;

/// A handle first seen this long before the look at it was there when bpfwatch came, and nobody knows
/// for how long.
const FRESH_SECS: u64 = 5;

/// Appends the table, a summary and what is needed to read it. Nothing is cut where `width` is `None`.
pub fn render_table(lines: &[SessionLine], width: Option<usize>, color: bool, out: &mut Vec<u8>) {
    let style = Style { color, width, verbose: false };
    let mut text = String::with_capacity(1024);
    if lines.is_empty() {
        push_prose(
            &style,
            &mut text,
            "No process holds a capture handle that can be seen from here.",
        );
    } else {
        push_table(&style, &mut text, lines);
        text.push('\n');
        push_notes(&style, &mut text, lines);
    }
    out.extend_from_slice(text.as_bytes());
}

fn push_table(style: &Style, out: &mut String, lines: &[SessionLine]) {
    let mut table = Table::new(vec![
        Column::new("PROCESS", 12).fit(Fit::CutStart),
        Column::new("PID", 3).right(),
        Column::new("USER", 6),
        Column::new("SCOPE", 8),
        Column::new("HANDLE", 10),
        Column::new("INTERFACE", 6).short("IFACE"),
        Column::new("PROMISC", 4).short("PROM"),
        Column::new("PACKETS", 4).short("PKTS").right(),
        Column::new("SINCE", 5),
        Column::new("VERDICT", 10),
    ]);
    for line in lines {
        table.row(row(line));
    }
    let mut dropped = Vec::new();
    let fits = |table: &Table| style.width.is_none_or(|width| table.natural_width() <= width);
    let full = fits(&table);
    if !full {
        dropped = table.drop_columns(|cell| cell.text() == UNKNOWN);
    }
    let start = out.len();
    table.render(style, out);
    if !dropped.is_empty() {
        let dropped = dropped.join(", ").to_lowercase();
        push_prose(style, out, &format!("Not known here, so not shown: {dropped}."));
    }
    // A question mark in a name also brings the note, which does no harm.
    if !full && out[start..].contains(UNKNOWN_SHORT) {
        push_prose(style, out, "?: unknown.");
    }
}

fn row(line: &SessionLine) -> Vec<Cell> {
    let session = &line.session;
    let holder = line.holders.first();
    let verdict = match (line.verdict, &line.expected_by) {
        (Verdict::Expected, Some(filter)) => {
            Cell::new(format!("expected ({})", cell_name(filter))).short("expected")
        }
        (Verdict::Expected, None) => Cell::new("expected"),
        (Verdict::Unexpected, _) => Cell::new("unexpected"),
        (Verdict::Unknown, _) => Cell::new(UNKNOWN),
    };
    vec![
        process(holder, line.holders.len()),
        holder.map_or_else(unknown, |holder| Cell::new(holder.pid.to_string())),
        holder.map_or_else(unknown, user),
        line.scope.as_deref().map_or_else(unknown, scope),
        handle(&session.handle),
        interface(&session.handle),
        Cell::new(if session.promiscuous { "yes" } else { "no" }),
        session.packets.map_or_else(unknown, |packets| {
            Cell::new(packets.to_string()).short(words::rounded(packets))
        }),
        since(line),
        verdict.paint(Paint::of_verdict(line.verdict)),
    ]
}

/// A name that leaves room for the other columns, however wide the terminal.
fn cell_name(text: &str) -> String {
    const COLUMNS: usize = 40;
    cut_middle(&name(text), COLUMNS).into_owned()
}

fn unknown() -> Cell {
    Cell::new(UNKNOWN).short(UNKNOWN_SHORT)
}

fn process(holder: Option<&ProcessView>, holders: usize) -> Cell {
    let Some(holder) = holder else { return unknown() };
    let more = if holders > 1 { format!(" +{}", holders - 1) } else { String::new() };
    let long = cut_start(&words::process_name(holder), PROCESS_COLUMNS).into_owned();
    let short = long.rsplit('/').next().filter(|file| !file.is_empty()).unwrap_or(&long);
    let short = format!("{short}{more}");
    Cell::new(format!("{long}{more}")).short(short)
}

fn user(holder: &ProcessView) -> Cell {
    match (&holder.user, holder.uid) {
        (Some(user), _) => Cell::new(cell_name(user)),
        (None, Some(uid)) => Cell::new(format!("uid {uid}")).short(uid.to_string()),
        (None, None) => unknown(),
    }
}

fn scope(scope: &Scope) -> Cell {
    match scope {
        Scope::Host => Cell::new("host"),
        Scope::Jail { name: jail, .. } => Cell::new(format!("jail {}", cell_name(jail.as_str()))),
        Scope::Container { id, .. } => {
            let id = words::short_id(id.as_str());
            Cell::new(format!("container {id}")).short(id)
        }
        Scope::Namespace { name: Some(called), .. } => {
            Cell::new(format!("netns {}", cell_name(called.as_str())))
        }
        Scope::Namespace { netns, name: None } => Cell::new(format!("netns {netns}")),
    }
}

fn handle(handle: &Handle) -> Cell {
    let protocol = handle.protocol.as_ref().map(|text| cell_name(text.as_str()));
    let with = |kind: &str, protocol: Option<&str>| match protocol {
        Some(protocol) => format!("{kind} {protocol}"),
        None => kind.to_owned(),
    };
    let short = protocol.as_deref().map(|text| {
        text.strip_prefix("ETH_P_").or_else(|| text.strip_prefix("IPPROTO_")).unwrap_or(text)
    });
    match handle.kind {
        HandleKind::Bpf => match &handle.device {
            Some(device) => {
                let device = cell_name(device.as_str());
                let short = device.strip_prefix("/dev/").unwrap_or(&device).to_owned();
                Cell::new(device).short(short)
            }
            None => Cell::new("bpf"),
        },
        HandleKind::PacketSocket => {
            Cell::new(with("packet", protocol.as_deref())).short(with("packet", short))
        }
        HandleKind::SockPacket => {
            Cell::new(with("SOCK_PACKET", protocol.as_deref())).short(with("SOCK_PACKET", short))
        }
        HandleKind::RawSocket => {
            let (long, brief) = match handle.ip_version {
                Some(version) => (format!("raw IPv{version}"), format!("raw{version}")),
                None => ("raw IP".to_owned(), "raw".to_owned()),
            };
            Cell::new(with(&long, protocol.as_deref())).short(with(&brief, short))
        }
        HandleKind::XdpSocket => Cell::new("AF_XDP"),
        HandleKind::SocketFilter => program(handle, "eBPF socket filter", "filter"),
        HandleKind::TcProgram => program(handle, "eBPF tc", "tc"),
        HandleKind::XdpProgram => program(handle, "eBPF XDP", "XDP"),
        HandleKind::CgroupProgram => program(handle, "eBPF cgroup", "cgroup"),
        HandleKind::NetfilterProgram => program(handle, "eBPF netfilter", "nf"),
        HandleKind::TcMirror => peer(handle, "tc mirror to", "mirror"),
        HandleKind::TapPort => peer(handle, "TAP on", "TAP"),
        HandleKind::NflogSocket => Cell::new("NFLOG"),
        HandleKind::NfqueueSocket => Cell::new("NFQUEUE"),
        HandleKind::Usbmon => Cell::new("usbmon"),
        HandleKind::Netmap => Cell::new("netmap"),
        HandleKind::NetgraphSocket => Cell::new("netgraph"),
        HandleKind::DivertSocket => Cell::new("divert"),
        HandleKind::BridgeSpan => peer(handle, "span to", "span"),
    }
}

fn interface(handle: &Handle) -> Cell {
    match &handle.interface {
        Some(interface) => Cell::new(cell_name(interface.as_str())),
        None if words::needs_interface(handle.kind) => unknown(),
        None => Cell::new("none"),
    }
}

/// A program with its name.
fn program(handle: &Handle, kind: &str, short: &str) -> Cell {
    let called = handle.program.as_ref().and_then(|program| program.name.as_ref());
    match called {
        Some(called) => {
            let called = cell_name(called.as_str());
            Cell::new(format!("{kind} {called}")).short(format!("{short} {called}"))
        }
        None => Cell::new(kind).short(short),
    }
}

/// A kind that ends in a preposition, with the other interface.
fn peer(handle: &Handle, kind: &str, short: &str) -> Cell {
    match &handle.peer {
        Some(peer) => Cell::new(format!("{kind} {}", cell_name(peer.as_str()))).short(short),
        None => Cell::new(short),
    }
}

fn since(line: &SessionLine) -> Cell {
    let opened = line.session.opened_at;
    let age = line.time.since(opened);
    let clock = words::clock_beside(opened, line.time);
    if !line.session.pre_existing {
        return Cell::new(clock).short(words::age(age));
    }
    if age.as_secs() < FRESH_SECS {
        return unknown();
    }
    Cell::new(format!("before {clock}")).short(format!(">{}", words::age(age)))
}

fn push_notes(style: &Style, out: &mut String, lines: &[SessionLine]) {
    let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    let parts: Vec<String> = [
        (Verdict::Unexpected, "unexpected"),
        (Verdict::Expected, "expected"),
        (Verdict::Unknown, UNKNOWN),
    ]
    .into_iter()
    .map(|(verdict, word)| (count(verdict), word))
    .filter(|(number, _)| *number > 0)
    .map(|(number, word)| format!("{number} {word}"))
    .collect();
    let handles = words::count(lines.len() as u64, "capture handle");
    push_prose(style, out, &format!("{handles}: {}.", parts.join(", ")));
    for line in lines.iter().filter(|line| line.verdict == Verdict::Unexpected) {
        let Some(rule) = line.rules.first() else { continue };
        let process = line.holders.first().map_or_else(|| UNKNOWN.to_owned(), words::process_short);
        let more = match line.rules.len() {
            1 => String::new(),
            rules => format!(" and {}", words::count(rules as u64 - 1, "other rule")),
        };
        let title = name(&rule.title);
        push_prose(
            style,
            out,
            &format!("unexpected: {process}: {title} ({}){more}", rule.level.as_str()),
        );
    }
    if count(Verdict::Unknown) > 0 {
        push_prose(
            style,
            out,
            "unknown: no rule matches it, and no filter says that it is expected.",
        );
    }
}

/// Appends a sentence, broken at the width, with what follows the first line set in.
fn push_prose(style: &Style, out: &mut String, text: &str) {
    const INDENT: &str = "  ";
    let Some(width) = style.width else {
        out.push_str(text);
        out.push('\n');
        return;
    };
    for (index, piece) in wrap(text, width.saturating_sub(INDENT.len())).into_iter().enumerate() {
        if index > 0 {
            out.push_str(INDENT);
        }
        out.push_str(piece);
        out.push('\n');
    }
}
