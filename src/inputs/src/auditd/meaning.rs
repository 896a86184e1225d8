//! What an event says: an execution, a capture socket on its way, a promiscuous interface; and each of
//! its records by itself, as rules for auditd see it.
//!
//! Audit tells a socket by the process's descriptor alone, so its handle has the serial number of the
//! event that opened it as its id. A descriptor that was inherited or handed on is not known here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::handle::{Handle, HandleKind, RawGrade, SocketType};
use bpfwatch_core::logged::{Logged, Value};
use bpfwatch_core::observation::{Interface, Kind, Observation};
use bpfwatch_core::process::Process;
use bpfwatch_core::protocols::{ether_type, ip_protocol};
use bpfwatch_core::text::Text;

use super::events::{Event, kind_of};
use super::syscalls::{self, Call};
use crate::text::{shortened, unhex};

/// Capture sockets that are known at once; over it the oldest is forgotten.
const MAX_HANDLES: usize = 4096;
/// Bytes of a command line that a message shows.
const COMMAND_SHOWN: usize = 240;

/// IFF_PROMISC (include/uapi/linux/if.h).
const IFF_PROMISC: i64 = 0x100;
/// Address families and levels (include/linux/socket.h).
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_PACKET: u64 = 17;
const AF_XDP: u64 = 44;
const SOL_SOCKET: u64 = 1;
const SOL_PACKET: u64 = 263;
/// Options (include/uapi/asm-generic/socket.h, include/uapi/linux/if_packet.h).
const SO_ATTACH_FILTER: u64 = 26;
const SO_ATTACH_BPF: u64 = 50;
const PACKET_ADD_MEMBERSHIP: u64 = 1;
const PACKET_RX_RING: u64 = 5;
/// How interfaces are called that container engines and hypervisors make to be ports of a bridge, which makes
/// each promiscuous (net/bridge/br_if.c: `br_add_if`). The record does not tell what an interface is for; it
/// comes out as a record all the same.
const BRIDGE_PORTS: [&str; 6] = ["veth", "vnet", "tap", "fwpr", "fwln", "vif"];

/// A process and one of its descriptors.
type Descriptor = (u32, u64);

/// What is remembered from one event to the next.
#[derive(Default)]
pub(super) struct Meaning {
    handles: HashMap<Descriptor, Handle>,
    order: VecDeque<Descriptor>,
}

impl Meaning {
    /// Appends what an event says.
    pub(super) fn of(&mut self, event: Event, out: &mut Vec<Observation>) {
        let actor = actor(&event).map(Arc::new);
        let mut say = |actor: &Option<Arc<Process>>, kind| {
            let (sensor, actor) = (Arc::clone(&event.sensor), actor.clone());
            out.push(Observation { at: event.at, seq: 0, sensor, actor, kind });
        };
        let syscall = Syscall::of(&event);
        if let (Some(syscall), Some(process)) = (&syscall, &actor) {
            match syscall.call {
                Call::Execve if syscall.success => say(&actor, Kind::Executed),
                Call::Execve => {}
                _ => self.socket(&event, syscall, process.pid, &mut |kind| say(&actor, kind)),
            }
        }
        for record in event.records.iter().filter(|record| kind_of(record) == "ANOM_PROMISCUOUS") {
            let Some(name) = text(record, "dev") else { continue };
            if BRIDGE_PORTS.iter().any(|start| name.as_str().starts_with(start)) {
                continue;
            }
            let on = number(record, "prom").unwrap_or(0) & IFF_PROMISC != 0;
            let interface = Interface { name: name.clone(), netns: None, count: None, role: None };
            say(&actor, Kind::InterfacePromiscuous { interface, on });
        }
        let by_call = event.records.iter().find(|record| kind_of(record) == "SYSCALL");
        let by_call = by_call.and_then(|record| subject(record));
        for mut record in event.records {
            let message = message(&record, actor.as_deref());
            let whole = Arc::make_mut(&mut record);
            whole.message = message;
            whole.subject = subject(whole).or_else(|| by_call.clone());
            if let (Some(syscall), "SYSCALL") = (&syscall, kind_of(whole)) {
                whole.fields.push("SYSCALL", Value::text(syscalls::name(syscall.call)));
            }
            say(&actor, Kind::Logged { record });
        }
    }

    fn socket(&mut self, event: &Event, syscall: &Syscall, pid: u32, say: &mut dyn FnMut(Kind)) {
        let Syscall { call, args, arch, success, exit } = syscall;
        let fd = (pid, args[0]);
        match call {
            Call::Socket => {
                let (true, Ok(opened)) = (*success, u64::try_from(*exit)) else { return };
                if let Some(known) = self.handles.remove(&(pid, opened)) {
                    say(Kind::HandleClosed { handle: known });
                }
                let Some(handle) = handle(event, args, *arch) else { return };
                say(Kind::HandleOpened { handle: handle.clone(), pre_existing: false });
                if receives(&handle) {
                    say(Kind::HandleAttached { handle: handle.clone() });
                }
                self.remember((pid, opened), handle);
            }
            Call::Bind if *success => {
                let Some(handle) = self.handles.get_mut(&fd) else { return };
                let Some((protocol, index)) = link_address(event) else { return };
                if protocol != 0 {
                    handle.protocol = Some(ether_type(protocol));
                }
                if index == 0 {
                    handle.interface = Some(Text::from("any"));
                }
                if receives(handle) {
                    say(Kind::HandleAttached { handle: handle.clone() });
                }
            }
            Call::Setsockopt if *success => {
                let Some(handle) = self.handles.get_mut(&fd) else { return };
                match (args[1], args[2]) {
                    (SOL_SOCKET, SO_ATTACH_FILTER | SO_ATTACH_BPF) => handle.filter = Some(true),
                    (SOL_PACKET, PACKET_RX_RING) => handle.ring = Some(true),
                    // The request itself is behind a pointer; that the interface changed tells.
                    (SOL_PACKET, PACKET_ADD_MEMBERSHIP) => {
                        let Some(interface) = made_promiscuous(event) else { return };
                        handle.interface = Some(interface);
                        return say(Kind::Promiscuous { handle: handle.clone(), on: true });
                    }
                    _ => return,
                }
                if receives(handle) {
                    say(Kind::HandleAttached { handle: handle.clone() });
                }
            }
            Call::Close if *success => {
                if let Some(handle) = self.handles.remove(&fd) {
                    say(Kind::HandleClosed { handle });
                }
            }
            Call::Exit => {
                if !self.handles.is_empty() {
                    let mut ended: Vec<Descriptor> =
                        self.handles.keys().filter(|(owner, _)| *owner == pid).copied().collect();
                    ended.sort_unstable();
                    for fd in ended {
                        if let Some(handle) = self.handles.remove(&fd) {
                            say(Kind::HandleClosed { handle });
                        }
                    }
                }
                say(Kind::Exited);
            }
            _ => {}
        }
    }

    fn remember(&mut self, fd: Descriptor, handle: Handle) {
        if self.order.len() >= MAX_HANDLES
            && let Some(oldest) = self.order.pop_front()
        {
            self.handles.remove(&oldest);
        }
        self.order.push_back(fd);
        self.handles.insert(fd, handle);
    }
}

/// A packet socket of protocol 0 only sends; a raw one receives unless its protocol only sends.
fn receives(handle: &Handle) -> bool {
    match handle.kind {
        HandleKind::RawSocket => handle.grade != Some(RawGrade::SendOnly),
        HandleKind::XdpSocket => false,
        _ => handle.protocol.is_some(),
    }
}

/// The handle that `socket(family, type, protocol)` made; `None` where it is no capture socket.
fn handle(event: &Event, args: &[u64; 4], arch: u32) -> Option<Handle> {
    let [family, kind, protocol, _] = *args;
    // The flags SOCK_CLOEXEC and SOCK_NONBLOCK stand above.
    let socket_type = match kind & 0xf {
        2 => SocketType::Dgram,
        3 => SocketType::Raw,
        10 => SocketType::Packet,
        _ if family == AF_XDP => SocketType::Raw,
        _ => return None,
    };
    let new = |kind| Handle { socket_type: Some(socket_type), ..Handle::new(kind, event.id()) };
    let packets = |kind| {
        let protocol = syscalls::from_network(arch, protocol);
        Handle { protocol: (protocol != 0).then(|| ether_type(protocol)), ..new(kind) }
    };
    match (family, socket_type) {
        (AF_PACKET | AF_INET, SocketType::Packet) => Some(packets(HandleKind::SockPacket)),
        (AF_PACKET, _) => Some(packets(HandleKind::PacketSocket)),
        (AF_XDP, _) => Some(Handle::new(HandleKind::XdpSocket, event.id())),
        (AF_INET | AF_INET6, SocketType::Raw) => {
            let protocol = u8::try_from(protocol).ok()?;
            Some(Handle {
                protocol: Some(ip_protocol(protocol)),
                ip_version: Some(if family == AF_INET { 4 } else { 6 }),
                grade: Some(RawGrade::of_protocol(protocol)),
                ..new(HandleKind::RawSocket)
            })
        }
        _ => None,
    }
}

/// Protocol and interface of a `sockaddr_ll` (include/uapi/linux/if_packet.h); those of this machine's
/// byte order are taken for little endian, as nearly all are.
fn link_address(event: &Event) -> Option<(u16, u32)> {
    let record = event.records.iter().find(|record| kind_of(record) == "SOCKADDR")?;
    let bytes = unhex(string(record, "saddr")?.as_bytes())?;
    let family = u16::from_le_bytes([*bytes.first()?, *bytes.get(1)?]);
    let protocol = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    let index: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    (u64::from(family) == AF_PACKET).then_some((protocol, u32::from_le_bytes(index)))
}

fn made_promiscuous(event: &Event) -> Option<Text> {
    let record = event.records.iter().find(|record| kind_of(record) == "ANOM_PROMISCUOUS")?;
    let on = number(record, "prom")? & IFF_PROMISC != 0;
    if on { text(record, "dev").cloned() } else { None }
}

/// The system call of an event.
struct Syscall {
    call: Call,
    args: [u64; 4],
    arch: u32,
    success: bool,
    exit: i64,
}

impl Syscall {
    fn of(event: &Event) -> Option<Self> {
        let record = event.records.iter().find(|record| kind_of(record) == "SYSCALL")?;
        let arch = u32::try_from(hex(record, "arch")?).ok()?;
        let mut call = number(record, "syscall").and_then(|n| syscalls::of_number(arch, n));
        if call.is_none() {
            call = string(record, "SYSCALL").and_then(|name| syscalls::of_name(&name));
        }
        let mut args = arguments_of(record);
        let mut call = call?;
        if call == Call::Socketcall {
            call = syscalls::of_socketcall(args[0])?;
            args = arguments_of(event.records.iter().find(|r| kind_of(r) == "SOCKETCALL")?);
        }
        let success = string(record, "success").is_some_and(|word| word == "yes");
        Some(Self { call, args, arch, success, exit: number(record, "exit").unwrap_or(-1) })
    }
}

fn arguments_of(record: &Logged) -> [u64; 4] {
    ["a0", "a1", "a2", "a3"].map(|name| hex(record, name).unwrap_or(0))
}

/// The process that an event is about: of its system call, or as a record of user space names it.
fn actor(event: &Event) -> Option<Process> {
    let named = |kind| event.records.iter().find(|record| kind_of(record) == kind);
    let record = named("SYSCALL").or_else(|| event.records.first())?;
    let small = |name| number(record, name).and_then(|number| u32::try_from(number).ok());
    let image = text(record, "exe").cloned();
    let deleted = image.as_ref().and_then(|image| image.as_str().strip_suffix(" (deleted)"));
    Some(Process {
        pid: small("pid")?,
        ppid: small("ppid"),
        uid: small("euid").or_else(|| small("uid")),
        user: text(record, "EUID").or_else(|| text(record, "UID")).cloned(),
        name: text(record, "comm").cloned(),
        image_deleted: deleted.map(|_| true),
        image: deleted.map(Text::from).or(image),
        args: arguments(event),
        cwd: named("CWD").and_then(|cwd| text(cwd, "cwd")).cloned(),
        tty: text(record, "tty").cloned(),
        ..Process::default()
    })
}

/// The arguments of an execution, put together from `a0`, `a1`, and `a2[0]`, `a2[1]` where one is long.
fn arguments(event: &Event) -> Option<Arguments> {
    let mut list: Vec<u8> = Vec::new();
    let mut last: Option<u64> = None;
    let mut count = 0u32;
    let mut told = None;
    for record in event.records.iter().filter(|record| kind_of(record) == "EXECVE") {
        told = told.or_else(|| number(record, "argc"));
        for (name, value) in record.fields.iter() {
            let Some(value) = value.as_text() else { continue };
            let Some(place) = place_of(name) else { continue };
            if last != Some(place) {
                if last.is_some() {
                    list.push(0);
                }
                count = count.saturating_add(1);
                last = Some(place);
            }
            list.extend_from_slice(value.as_str().as_bytes());
        }
        if let Some(rest) = string(record, super::record::REST) {
            let more = rest.split('\0').count() as u64;
            count = count.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
            // The next record may go on with the last of them.
            last = last.map(|last| last.saturating_add(more));
            list.push(0);
            list.extend_from_slice(rest.as_bytes());
        }
    }
    last?;
    let told = told.and_then(|count| u32::try_from(count).ok()).unwrap_or(count);
    if told > count {
        // Some did not come: the list is not whole.
        return Some(Arguments::from_ends(&list, &[], list.len() as u64 + 1, told));
    }
    Some(Arguments::from_nul_separated(&list))
}

/// Which argument: of `a12` and `a12[3]` the twelfth after the first.
fn place_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix('a')?;
    let digits = digits.split_once('[').map_or(digits, |(digits, _)| digits);
    digits.parse().ok()
}

/// Who: the user that logged in, whatever he has become since, else the one that acts.
fn subject(record: &Logged) -> Option<Text> {
    let named = |name| text(record, name).filter(|name| name.as_str() != "unset");
    let known = named("AUID").or_else(|| named("UID")).or_else(|| named("acct"));
    known.cloned().or_else(|| {
        // 4294967295: nobody logged in.
        let login = number(record, "auid").filter(|uid| *uid < i64::from(u32::MAX));
        let uid = login.or_else(|| number(record, "uid"))?;
        Some(Text::from(format!("uid {uid}")))
    })
}

/// A line for people.
fn message(record: &Logged, actor: Option<&Process>) -> Text {
    let string = |name: &str| string(record, name).unwrap_or_default();
    let program = || {
        let image = actor.and_then(|process| process.image.as_ref().or(process.name.as_ref()));
        image.map_or("an unknown program", Text::as_str)
    };
    let line = match kind_of(record) {
        "EXECVE" => {
            let line = actor.and_then(|process| process.args.as_ref()).map(Arguments::command_line);
            format!("executed {}", shortened(&line.unwrap_or_default(), COMMAND_SHOWN))
        }
        "SYSCALL" => {
            let name = match string("SYSCALL") {
                name if name.is_empty() => format!("system call {}", string("syscall")),
                name => name,
            };
            let failed = if string("success") == "no" { ", which failed" } else { "" };
            format!("{name} by {}{failed}", program())
        }
        "ANOM_PROMISCUOUS" => {
            let on = number(record, "prom").unwrap_or(0) & IFF_PROMISC != 0;
            let became = if on { "became promiscuous" } else { "is no longer promiscuous" };
            format!("{} {became}", string("dev"))
        }
        "PATH" => format!("{} used by {}", string("name"), program()),
        "PROCTITLE" => format!("title {}", shortened(&string("proctitle"), COMMAND_SHOWN)),
        other => {
            let unit = string("unit");
            let of = if unit.is_empty() { program().to_owned() } else { unit };
            format!("{other}: {of}")
        }
    };
    Text::from_bytes_limited(line.as_bytes(), 1024)
}

fn text<'a>(record: &'a Logged, name: &str) -> Option<&'a Text> {
    record.fields.get(name)?.as_text()
}

/// A value as the log writes it.
fn string(record: &Logged, name: &str) -> Option<String> {
    match record.fields.get(name)? {
        Value::Text(text) => Some(text.as_str().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn number(record: &Logged, name: &str) -> Option<i64> {
    match record.fields.get(name)? {
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

fn hex(record: &Logged, name: &str) -> Option<u64> {
    u64::from_str_radix(&string(record, name)?, 16).ok()
}
