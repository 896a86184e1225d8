//! One look into one network namespace: packet sockets, raw IP sockets, interfaces.

use std::os::fd::AsFd as _;

use crate::netlink::Message;
use crate::netlink_socket::{BUFFER, Dumped, NetlinkSocket};
use crate::netns::{Stranded, Visitor, Way};
use crate::raw::{Link, PacketRow, RawIpRow};
use crate::{netlink_diag, netlink_route, proc, proc_text};

/// What was seen in one namespace. A part that could not be read whole is `None`: then nothing may be
/// concluded from what is missing in it.
#[derive(Debug, Default)]
pub struct NamespaceScan {
    /// Packet sockets.
    pub packets: Option<Vec<PacketRow>>,
    /// Raw IP sockets, both versions.
    pub raws: Option<Vec<RawIpRow>>,
    /// Interfaces, where they were asked for or an unknown one turned up.
    pub links: Option<Vec<Link>>,
}

/// Looks into namespaces. Belongs to one thread.
pub struct Scanner {
    visitor: Visitor,
    buffer: Vec<u8>,
    home: Sockets,
    home_inode: u64,
    packet_diag: bool,
    raw_diag: bool,
}

/// Sockets of the namespace that they were opened in, opened when first needed.
#[derive(Default)]
struct Sockets {
    diag: Option<NetlinkSocket>,
    route: Option<NetlinkSocket>,
}

impl Sockets {
    fn diag(&mut self) -> Option<&mut NetlinkSocket> {
        Self::opened(&mut self.diag, libc::NETLINK_SOCK_DIAG)
    }

    fn route(&mut self) -> Option<&mut NetlinkSocket> {
        Self::opened(&mut self.route, libc::NETLINK_ROUTE)
    }

    fn opened(slot: &mut Option<NetlinkSocket>, protocol: i32) -> Option<&mut NetlinkSocket> {
        if slot.is_none() {
            *slot = NetlinkSocket::for_dumps(protocol).ok();
        }
        slot.as_mut()
    }
}

impl Scanner {
    /// For this thread. Finds out which tables the kernel has: asking for a missing one makes it look
    /// for a module each time, so that is done once.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn new() -> std::io::Result<Self> {
        let visitor = Visitor::at_home()?;
        let home_inode = visitor.home_inode()?;
        let mut scanner = Self {
            visitor,
            buffer: vec![0; BUFFER],
            home: Sockets::default(),
            home_inode,
            packet_diag: true,
            raw_diag: true,
        };
        let mut probe = |request: fn(u32) -> Vec<u8>| {
            let answer =
                scanner.home.diag().map(|diag| diag.dump(request, &mut scanner.buffer, |_| {}));
            matches!(answer, Some(Ok(_)))
        };
        let packet_diag = probe(netlink_diag::packet_request);
        let raw_diag = probe(|seq| netlink_diag::raw_request(seq, 4));
        (scanner.packet_diag, scanner.raw_diag) = (packet_diag, raw_diag);
        Ok(scanner)
    }

    /// Inode of the namespace that this thread is at home in.
    pub fn home_inode(&self) -> u64 {
        self.home_inode
    }

    /// Looks into a namespace; `None` when it cannot be entered. Interfaces are listed when `links` asks
    /// for it or when a socket is bound to one that is not among `known`.
    ///
    /// # Errors
    /// When the thread could not return.
    pub fn scan(
        &mut self,
        inode: u64,
        way: &Way,
        links: bool,
        known: &[Link],
    ) -> Result<Option<NamespaceScan>, Stranded> {
        let Self { visitor, buffer, home, packet_diag, raw_diag, .. } = self;
        let (packet_diag, raw_diag) = (*packet_diag, *raw_diag);
        let mut away = Sockets::default();
        let sockets = if *way == Way::Home { home } else { &mut away };
        let seen = visitor.visit(inode, way, || {
            let packets = if packet_diag {
                dump_packets(sockets, buffer)
            } else {
                proc::read("/proc/thread-self/net/packet").map(|t| proc_text::packet_table(&t))
            };
            let raws =
                if raw_diag { dump_raws(sockets, buffer) } else { read_raws("/proc/thread-self") };
            let unknown = |row: &PacketRow| {
                row.ifindex > 0 && known.iter().all(|l| l.index != row.ifindex.unsigned_abs())
            };
            let asked = links || packets.iter().flatten().any(unknown);
            let links = if asked { dump_links(sockets, buffer) } else { None };
            NamespaceScan { packets, raws, links }
        })?;
        // Closed before anything else is done: they keep the namespace alive.
        drop(away);
        if seen.is_none()
            && let Way::Process(pid) = way
        {
            return Ok(read_tables(*pid, inode));
        }
        Ok(seen)
    }
}

/// What can be read without entering, where entering is not allowed.
fn read_tables(pid: u32, inode: u64) -> Option<NamespaceScan> {
    let dir = proc::ProcDir::open(pid)?;
    let packets = dir.read("net/packet").map(|table| proc_text::packet_table(&table));
    let raws = read_raws(&format!("/proc/{pid}"));
    (dir.namespace("net") == Some(inode)).then_some(NamespaceScan { packets, raws, links: None })
}

fn read_raws(process: &str) -> Option<Vec<RawIpRow>> {
    let mut rows = proc_text::raw_table(&proc::read(&format!("{process}/net/raw"))?, 4);
    // Without IPv6 there is no such file, and no such socket.
    if let Some(table) = proc::read(&format!("{process}/net/raw6")) {
        rows.extend(proc_text::raw_table(&table, 6));
    }
    Some(rows)
}

fn dump_packets(sockets: &mut Sockets, buffer: &mut [u8]) -> Option<Vec<PacketRow>> {
    let mut rows = Vec::new();
    let row = |message: &Message<'_>| rows.extend(netlink_diag::packet_row(message));
    whole(sockets.diag()?.dump(netlink_diag::packet_request, buffer, row))?;
    Some(rows)
}

fn dump_raws(sockets: &mut Sockets, buffer: &mut [u8]) -> Option<Vec<RawIpRow>> {
    let mut rows = Vec::new();
    for version in [4, 6] {
        let request = |seq| netlink_diag::raw_request(seq, version);
        let row = |message: &Message<'_>| rows.extend(netlink_diag::raw_row(message));
        whole(sockets.diag()?.dump(request, buffer, row))?;
    }
    Some(rows)
}

fn dump_links(sockets: &mut Sockets, buffer: &mut [u8]) -> Option<Vec<Link>> {
    let mut links = Vec::new();
    let row = |message: &Message<'_>| links.extend(netlink_route::link(message));
    whole(sockets.route()?.dump(netlink_route::links_request, buffer, row))?;
    Some(links)
}

fn whole(answer: nix::Result<Dumped>) -> Option<()> {
    matches!(answer, Ok(Dumped::Whole)).then_some(())
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanner")
            .field("diag", &self.home.diag.as_ref().map(|socket| socket.as_fd()))
            .field("packet_diag", &self.packet_diag)
            .field("raw_diag", &self.raw_diag)
            .finish()
    }
}
