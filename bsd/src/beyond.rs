//! What captures and never opens /dev/bpf: netmap, netgraph, divert and raw IP sockets. Pure.
//!
//! `kern.file` says which process has which socket or device, and of a socket nothing but its address. Which
//! addresses are raw IP or divert sockets stands in the kernel's lists of them, of the host's network stack.
//! What those do not have, netgraph and the sockets of VNET jails, is asked of the processes that have
//! unknown sockets, each once in a while: an address may be another socket's by then. They do not tell the
//! protocol of a raw socket; the lists of their jail do.

use std::collections::HashMap;

use bpfwatch_core::handle::{Handle, HandleKind, RawGrade, SocketType};
use bpfwatch_core::protocols::ip_protocol;
use bpfwatch_core::text::Text;

use crate::files::DTYPE_SOCKET;
use crate::poll::file_id;
use crate::raw::{FileRow, PcbRow, SocketRow};

/// AF_NETGRAPH of sys/socket.h.
pub const AF_NETGRAPH: i32 = 32;
/// PF_DIVERT of sys/socket.h, 14.0 and later.
pub const PF_DIVERT: i32 = 44;
/// AF_INET of sys/socket.h.
pub const AF_INET: i32 = 2;
/// AF_INET6 of sys/socket.h.
pub const AF_INET6: i32 = 28;
/// SOCK_RAW of sys/socket.h.
pub const SOCK_RAW: i32 = 3;
/// NG_DATA of netgraph/ng_socket.h: gets what arrives at its hooks. A control socket gets none of it.
pub const NG_DATA: i32 = 1;
/// The device of netmap(4).
pub const NETMAP_DEVICE: &str = "/dev/netmap";
/// How long it holds that a socket captures nothing, in milliseconds, while its process keeps it.
const FRESH: u64 = 30_000;
/// How long it holds that it does.
const FRESH_CAPTURE: u64 = 5_000;

/// How much a raw IP socket says about capturing. FreeBSD hands a packet to raw sockets only when no part of
/// the kernel takes it, or the one that does hands it on as ICMP and IGMP do (sys/netinet/ip_input.c
/// `ip_protox`): a raw socket of TCP, UDP, UDP-Lite or SCTP gets nothing, and sends.
pub fn grade(protocol: u8) -> RawGrade {
    match protocol {
        6 | 17 | 132 | 136 => RawGrade::SendOnly,
        other => RawGrade::of_protocol(other),
    }
}

/// A socket as one process has it. The kernel soon gives the address of a closed socket to the next one, and
/// that of a file too: process, file and socket together seldom come again.
type Key = (u32, u64, u64);

/// What a process told of a socket.
#[derive(Debug)]
struct Told {
    handle: Option<Handle>,
    at: u64,
    /// It was there at the last look.
    seen: bool,
}

/// Sockets and devices that capture, as far as they are known.
#[derive(Debug, Default)]
pub struct Beyond {
    /// What tells /dev/netmap from other devices in `kern.file`.
    pub netmap: Option<u64>,
    /// From the kernel's lists, by address of the socket.
    listed: HashMap<u64, Handle>,
    told: HashMap<Key, Told>,
}

fn key(row: &FileRow) -> Key {
    (row.pid, row.file, row.data)
}

impl Beyond {
    /// The kernel's lists as they are now.
    pub fn list(&mut self, raw: &[PcbRow], divert: &[PcbRow]) {
        self.listed = listed(raw, divert);
    }

    /// Leaves of `found` what the lists, read once more after `kern.file`, still have as it was: between the
    /// first list and the file table an address may have become another socket's.
    pub fn confirm(&mut self, found: &mut Vec<(FileRow, Handle)>) {
        found.retain(|(row, handle)| {
            let other = !matches!(handle.kind, HandleKind::RawSocket | HandleKind::DivertSocket);
            let told = || self.told.get(&key(row)).is_some_and(|told| told.handle.is_some());
            let same = |listed: &Handle| listed.kind == handle.kind;
            other || self.listed.get(&row.data).map_or_else(told, same)
        });
    }

    /// Whether one of `found` stands in the lists.
    pub fn has_listed(&self, found: &[(FileRow, Handle)]) -> bool {
        found.iter().any(|(row, _)| row.kind == DTYPE_SOCKET && self.listed.contains_key(&row.data))
    }

    /// A look begins.
    pub fn begin(&mut self) {
        for told in self.told.values_mut() {
            told.seen = false;
        }
    }

    /// Forgets what the look did not find.
    pub fn end(&mut self) {
        self.told.retain(|_, told| told.seen);
    }

    /// What the open file captures as.
    pub fn handle(&mut self, row: &FileRow) -> Option<Handle> {
        let handle = if row.data == 0 {
            None
        } else if row.kind == DTYPE_SOCKET {
            let told = self.told.get_mut(&key(row)).and_then(|told| {
                told.seen = true;
                told.handle.as_ref()
            });
            self.listed.get(&row.data).or(told).cloned()
        } else {
            let netmap = self.netmap == Some(row.data);
            netmap.then(|| Handle {
                device: Some(Text::from(NETMAP_DEVICE)),
                ..Handle::new(HandleKind::Netmap, 0)
            })
        };
        handle.map(|handle| Handle { id: file_id(row), ..handle })
    }

    /// Whether its process has not told lately what socket it is.
    pub fn is_unknown(&self, row: &FileRow, now: u64) -> bool {
        let is_old = |told: &Told| {
            let fresh = if told.handle.is_some() { FRESH_CAPTURE } else { FRESH };
            now.saturating_sub(told.at) >= fresh
        };
        row.kind == DTYPE_SOCKET
            && row.data != 0
            && !self.listed.contains_key(&row.data)
            && self.told.get(&key(row)).is_none_or(is_old)
    }

    /// What its process has as that descriptor; `None` where it is gone. Whether more is to be known of it
    /// from the lists of its network stack.
    pub fn tell(&mut self, row: &FileRow, socket: Option<SocketRow>, now: u64) -> bool {
        let Some(socket) = socket else {
            self.told.remove(&key(row));
            return false;
        };
        let handle = told_socket(socket);
        let vague = handle.as_ref().is_some_and(|handle| {
            matches!(handle.kind, HandleKind::RawSocket | HandleKind::DivertSocket)
        });
        let known = |told: &Told| {
            told.handle.as_ref().map(|handle| handle.kind)
                == handle.as_ref().map(|handle| handle.kind)
        };
        match self.told.get_mut(&key(row)).filter(|told| known(told)) {
            // What more is known of it holds.
            Some(told) => {
                (told.at, told.seen) = (now, true);
                false
            }
            None => {
                self.told.insert(key(row), Told { handle, at: now, seen: true });
                vague
            }
        }
    }

    /// The lists of another network stack, for what its processes told without protocol or port.
    pub fn refine(&mut self, raw: &[PcbRow], divert: &[PcbRow]) {
        let listed = listed(raw, divert);
        for ((_, _, socket), told) in &mut self.told {
            if let (Some(handle), Some(better)) = (&mut told.handle, listed.get(socket))
                && handle.kind == better.kind
            {
                *handle = better.clone();
            }
        }
    }
}

/// Handles of the kernel's lists, by address of the socket.
fn listed(raw: &[PcbRow], divert: &[PcbRow]) -> HashMap<u64, Handle> {
    let raw = raw.iter().map(|row| (row.socket, raw_socket(row)));
    // One that is bound to no port gets nothing.
    let bound = divert.iter().filter(|row| row.port != 0);
    let divert = bound.map(|row| (row.socket, divert_socket(row.port)));
    raw.chain(divert).filter(|(socket, _)| *socket != 0).collect()
}

fn raw_socket(row: &PcbRow) -> Handle {
    Handle {
        protocol: Some(ip_protocol(row.protocol)),
        socket_type: Some(SocketType::Raw),
        ip_version: Some(row.ip_version),
        grade: Some(grade(row.protocol)),
        ..Handle::new(HandleKind::RawSocket, 0)
    }
}

fn divert_socket(port: u16) -> Handle {
    let interface = Some(Text::from(format!("divert:{port}")));
    Handle { interface, ..Handle::new(HandleKind::DivertSocket, 0) }
}

/// Of a raw IP socket the kernel tells there neither its protocol, nor of a divert socket its port.
fn told_socket(socket: SocketRow) -> Option<Handle> {
    match (socket.domain, socket.kind) {
        (AF_NETGRAPH, _) if socket.protocol == NG_DATA => Some(Handle {
            protocol: Some(Text::from("NG_DATA")),
            ..Handle::new(HandleKind::NetgraphSocket, 0)
        }),
        (PF_DIVERT, _) => Some(Handle::new(HandleKind::DivertSocket, 0)),
        (AF_INET | AF_INET6, SOCK_RAW) => Some(Handle {
            socket_type: Some(SocketType::Raw),
            ip_version: Some(if socket.domain == AF_INET { 4 } else { 6 }),
            ..Handle::new(HandleKind::RawSocket, 0)
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::DTYPE_VNODE;

    fn row(kind: i16, data: u64) -> FileRow {
        FileRow { pid: 7, uid: 0, fd: 4, file: 0xf11e, kind, data, vnode: 0, flags: 3 }
    }

    fn pcb(socket: u64, protocol: u8, port: u16) -> PcbRow {
        PcbRow { socket, protocol, ip_version: 4, port }
    }

    fn socket(domain: i32, kind: i32, protocol: i32) -> Option<SocketRow> {
        Some(SocketRow { domain, kind, protocol })
    }

    #[test]
    fn sockets_of_the_lists() {
        let mut beyond = Beyond::default();
        beyond.list(&[pcb(10, 1, 0), pcb(11, 47, 0)], &[pcb(12, 0, 8668), pcb(13, 0, 0)]);
        let mut of = |data| beyond.handle(&row(DTYPE_SOCKET, data));
        let ping = of(10).unwrap();
        assert_eq!((ping.kind, ping.id, ping.ip_version), (HandleKind::RawSocket, 0xf11e, Some(4)));
        assert_eq!(ping.grade, Some(RawGrade::Control));
        assert_eq!(of(11).unwrap().grade, Some(RawGrade::Capture));
        let natd = of(12).unwrap();
        assert_eq!(natd.kind, HandleKind::DivertSocket);
        assert_eq!(natd.interface, Some(Text::from("divert:8668")));
        assert_eq!((of(13), of(14), of(0)), (None, None, None));
        // A file of that address is no socket.
        assert_eq!(beyond.handle(&row(DTYPE_VNODE, 10)), None);
        beyond.list(&[], &[]);
        assert_eq!(beyond.handle(&row(DTYPE_SOCKET, 10)), None);
    }

    #[test]
    fn what_the_kernel_keeps_to_itself_is_only_sent() {
        for (protocol, graded) in [
            (6, RawGrade::SendOnly),
            (17, RawGrade::SendOnly),
            (255, RawGrade::SendOnly),
            (1, RawGrade::Control),
            (89, RawGrade::Control),
            (0, RawGrade::Capture),
            (50, RawGrade::Capture),
        ] {
            assert_eq!(grade(protocol), graded, "{protocol}");
        }
    }

    #[test]
    fn sockets_that_only_their_process_tells_of() {
        let mut beyond = Beyond::default();
        let row = row(DTYPE_SOCKET, 20);
        assert!(beyond.is_unknown(&row, 0));
        for (told, kind) in [
            (socket(AF_NETGRAPH, 2, NG_DATA), Some(HandleKind::NetgraphSocket)),
            (socket(AF_NETGRAPH, 2, 2), None),
            (socket(PF_DIVERT, SOCK_RAW, 0), Some(HandleKind::DivertSocket)),
            (socket(AF_INET6, SOCK_RAW, 0), Some(HandleKind::RawSocket)),
            (socket(AF_INET, 1, 6), None),
        ] {
            beyond.tell(&row, told, 100);
            assert!(!beyond.is_unknown(&row, 200));
            assert_eq!(beyond.handle(&row).map(|handle| handle.kind), kind);
        }
        assert!(!beyond.is_unknown(&row, 99 + FRESH) && beyond.is_unknown(&row, 100 + FRESH));
        beyond.tell(&row, socket(AF_NETGRAPH, 2, NG_DATA), 100);
        assert!(beyond.is_unknown(&row, 100 + FRESH_CAPTURE));
        beyond.tell(&row, None, 200);
        assert!(beyond.is_unknown(&row, 200) && beyond.handle(&row).is_none());
        // The lists know better.
        beyond.tell(&row, socket(AF_INET, SOCK_RAW, 0), 400);
        beyond.list(&[pcb(20, 1, 0)], &[]);
        assert_eq!(beyond.handle(&row).unwrap().grade, Some(RawGrade::Control));
        assert!(!beyond.is_unknown(&row, u64::MAX));
    }

    #[test]
    fn an_address_that_is_another_socket_by_now() {
        let mut beyond = Beyond::default();
        let first = row(DTYPE_SOCKET, 20);
        let other = FileRow { pid: 8, ..first };
        beyond.tell(&first, socket(AF_NETGRAPH, 2, NG_DATA), 0);
        assert!(beyond.handle(&other).is_none() && beyond.is_unknown(&other, 1));
        beyond.tell(&other, socket(AF_INET, 1, 6), 0);
        let passed = FileRow { file: 0xf11f, ..other };
        assert!(beyond.is_unknown(&passed, 1));
        // What a look does not find is asked for anew.
        beyond.begin();
        assert!(beyond.handle(&first).is_some());
        beyond.end();
        assert!(beyond.is_unknown(&other, 1) && !beyond.is_unknown(&first, 1));
        // One of the lists that became another between them and the file table is none.
        beyond.list(&[pcb(30, 47, 0), pcb(31, 1, 0)], &[]);
        let rows = [row(DTYPE_SOCKET, 30), row(DTYPE_SOCKET, 31), first];
        let mut found: Vec<_> =
            rows.iter().map(|row| (*row, beyond.handle(row).unwrap())).collect();
        assert!(beyond.has_listed(&found) && !beyond.has_listed(&found[2..]));
        beyond.list(&[pcb(31, 1, 0)], &[pcb(30, 0, 1)]);
        beyond.confirm(&mut found);
        assert_eq!(found.iter().map(|(row, _)| row.data).collect::<Vec<_>>(), [31, 20]);
        beyond.list(&[], &[]);
        beyond.confirm(&mut found);
        assert_eq!(found.iter().map(|(row, _)| row.data).collect::<Vec<_>>(), [20]);
    }

    #[test]
    fn the_lists_of_a_jail_tell_more() {
        let mut beyond = Beyond::default();
        let (ping, natd) = (row(DTYPE_SOCKET, 20), row(DTYPE_SOCKET, 21));
        assert!(beyond.tell(&ping, socket(AF_INET, SOCK_RAW, 0), 0));
        assert!(beyond.tell(&natd, socket(PF_DIVERT, SOCK_RAW, 0), 0));
        assert_eq!(beyond.handle(&ping).unwrap().grade, None);
        // An address of theirs that is no raw socket any more is left alone, as are sockets nobody asked for.
        beyond.refine(&[pcb(20, 1, 0), pcb(21, 1, 0), pcb(22, 1, 0)], &[pcb(21, 0, 8668)]);
        let handle = beyond.handle(&ping).unwrap();
        assert_eq!((handle.id, handle.grade), (0xf11e, Some(RawGrade::Control)));
        let handle = beyond.handle(&natd).unwrap();
        assert_eq!(handle.interface, Some(Text::from("divert:8668")));
        assert_eq!(beyond.handle(&row(DTYPE_SOCKET, 22)), None);
        // Asked again it stays what it is, and nobody has to enter the jail for it.
        assert!(!beyond.tell(&ping, socket(AF_INET, SOCK_RAW, 0), 9000));
        assert_eq!(beyond.handle(&ping).unwrap().grade, Some(RawGrade::Control));
    }

    #[test]
    fn netmap_is_told_by_its_device() {
        let mut beyond = Beyond::default();
        assert_eq!(beyond.handle(&row(DTYPE_VNODE, 30)), None);
        beyond.netmap = Some(30);
        let handle = beyond.handle(&row(DTYPE_VNODE, 30)).unwrap();
        assert_eq!(handle.kind, HandleKind::Netmap);
        assert_eq!(handle.device, Some(Text::from(NETMAP_DEVICE)));
        assert!(!beyond.is_unknown(&row(DTYPE_VNODE, 31), 0));
    }
}
