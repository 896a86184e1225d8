//! One look into one network namespace: sockets, readers of netfilter's logs, interfaces, and what is
//! attached to them.

use std::os::fd::AsFd as _;

use crate::netlink::Message;
use crate::netlink_socket::{BUFFER, Dumped, NetlinkSocket};
use crate::netns::{Stranded, Visitor, Way};
use crate::raw::{Link, PacketRow, RawIpRow, XdpRow};
use crate::readers::{self, ReaderRow};
use crate::sensor_traffic::{self, Traffic};
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
    /// AF_XDP sockets.
    pub xdp: Option<Xdp>,
    /// Readers of NFLOG and NFQUEUE.
    pub readers: Option<Vec<ReaderRow>>,
    /// Programs and mirrors of traffic control, where they were asked for.
    pub traffic: Option<Traffic>,
}

/// AF_XDP sockets of a namespace.
#[derive(Debug)]
pub enum Xdp {
    /// Each of them, from xdp_diag.
    Rows(Vec<XdpRow>),
    /// Only how many there are, from `/proc/net/protocols`.
    Count(u64),
}

/// What to look for in a namespace besides sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Interfaces.
    pub links: bool,
    /// What is attached to them; includes interfaces.
    pub traffic: bool,
}

/// Looks into namespaces. Belongs to one thread.
pub struct Scanner {
    visitor: Visitor,
    buffer: Vec<u8>,
    home: Sockets,
    home_inode: u64,
    packet_diag: bool,
    raw_diag: bool,
    xdp_diag: bool,
}

/// Sockets of the namespace that they were opened in, opened when first needed.
#[derive(Default)]
pub struct Sockets {
    diag: Option<NetlinkSocket>,
    route: Option<NetlinkSocket>,
}

impl Sockets {
    fn diag(&mut self) -> Option<&mut NetlinkSocket> {
        Self::opened(&mut self.diag, libc::NETLINK_SOCK_DIAG)
    }

    /// For rtnetlink.
    pub fn route(&mut self) -> Option<&mut NetlinkSocket> {
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
            xdp_diag: true,
        };
        let mut probe = |request: fn(u32) -> Vec<u8>| {
            let answer =
                scanner.home.diag().map(|diag| diag.dump(request, &mut scanner.buffer, |_| {}));
            matches!(answer, Some(Ok(_)))
        };
        let packet_diag = probe(netlink_diag::packet_request);
        let raw_diag = probe(|seq| netlink_diag::raw_request(seq, 4));
        let xdp_diag = probe(netlink_diag::xdp_request);
        (scanner.packet_diag, scanner.raw_diag) = (packet_diag, raw_diag);
        scanner.xdp_diag = xdp_diag;
        Ok(scanner)
    }

    /// Inode of the namespace that this thread is at home in.
    pub fn home_inode(&self) -> u64 {
        self.home_inode
    }

    /// Whether the kernel lists AF_XDP sockets.
    pub fn lists_xdp(&self) -> bool {
        self.xdp_diag
    }

    /// Looks into a namespace; `None` when it cannot be entered. Interfaces are listed when `depth` asks
    /// for it or when a socket is bound to one that is not among `known`.
    ///
    /// # Errors
    /// When the thread could not return.
    pub fn scan(
        &mut self,
        inode: u64,
        way: &Way,
        depth: Depth,
        known: &[Link],
    ) -> Result<Option<NamespaceScan>, Stranded> {
        let Self { visitor, buffer, home, packet_diag, raw_diag, xdp_diag, .. } = self;
        let (packet_diag, raw_diag, xdp_diag) = (*packet_diag, *raw_diag, *xdp_diag);
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
            let asked = depth.links || depth.traffic || packets.iter().flatten().any(unknown);
            let links = if asked { dump_links(sockets, buffer) } else { None };
            let xdp = if xdp_diag {
                dump_xdp(sockets, buffer).map(Xdp::Rows)
            } else {
                count_xdp("/proc/thread-self")
            };
            let readers = read_readers("/proc/thread-self");
            let traffic = match &links {
                Some(links) if depth.traffic => sensor_traffic::look(sockets, buffer, links),
                _ => None,
            };
            NamespaceScan { packets, raws, links, xdp, readers, traffic }
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
    let process = format!("/proc/{pid}");
    let scan = NamespaceScan {
        packets,
        raws: read_raws(&process),
        xdp: count_xdp(&process),
        readers: read_readers(&process),
        ..NamespaceScan::default()
    };
    (dir.namespace("net") == Some(inode)).then_some(scan)
}

fn read_raws(process: &str) -> Option<Vec<RawIpRow>> {
    let mut rows = proc_text::raw_table(&proc::read(&format!("{process}/net/raw"))?, 4);
    // Without IPv6 there is no such file, and no such socket.
    if let Some(table) = proc::read(&format!("{process}/net/raw6")) {
        rows.extend(proc_text::raw_table(&table, 6));
    }
    Some(rows)
}

/// `None` where neither table can be read: the kernel has none, or does not show it.
fn read_readers(process: &str) -> Option<Vec<ReaderRow>> {
    let log = proc::read(&format!("{process}/net/netfilter/nfnetlink_log"));
    let queue = proc::read(&format!("{process}/net/netfilter/nfnetlink_queue"));
    if log.is_none() && queue.is_none() {
        return None;
    }
    let sockets = || proc::read(&format!("{process}/net/netlink"));
    readers::rows(log.as_deref(), queue.as_deref(), sockets)
}

fn count_xdp(process: &str) -> Option<Xdp> {
    let table = proc::read(&format!("{process}/net/protocols"))?;
    proc_text::sockets_of(&table, b"XDP").map(Xdp::Count)
}

fn dump_xdp(sockets: &mut Sockets, buffer: &mut [u8]) -> Option<Vec<XdpRow>> {
    let mut rows = Vec::new();
    let row = |message: &Message<'_>| rows.extend(netlink_diag::xdp_row(message));
    whole(sockets.diag()?.dump(netlink_diag::xdp_request, buffer, row))?;
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

/// Whether a dump gave everything.
pub fn whole(answer: nix::Result<Dumped>) -> Option<()> {
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
