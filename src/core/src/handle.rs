//! What packets come through: a BPF device, a socket, a program in the kernel, a mirror.

use serde::{Deserialize, Serialize};

use crate::program::BpfProgram;
use crate::text::Text;

/// The mechanism behind a capture handle: the value of the rule field `HandleKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandleKind {
    /// A descriptor of /dev/bpf (macOS, FreeBSD).
    Bpf,
    /// A Linux AF_PACKET socket, SOCK_RAW or SOCK_DGRAM.
    PacketSocket,
    /// A Linux SOCK_PACKET socket, obsolete since 2.2 and still there.
    SockPacket,
    /// An AF_INET or AF_INET6 socket of type SOCK_RAW.
    RawSocket,
    /// A Linux AF_XDP socket.
    XdpSocket,
    /// An eBPF program of type socket filter: it sees what its socket receives.
    SocketFilter,
    /// An eBPF program of traffic control: a classifier or action, at clsact or tcx.
    TcProgram,
    /// An XDP program: it sees what an interface receives, before anything else does.
    XdpProgram,
    /// An eBPF program of type cgroup skb: it sees the packets of a control group's sockets.
    CgroupProgram,
    /// An eBPF program at a netfilter hook.
    NetfilterProgram,
    /// A tc filter whose action `mirred` copies or moves packets to another interface.
    TcMirror,
    /// A TAP device that is a port of a bridge: its holder gets what the bridge sends there.
    TapPort,
    /// A netlink socket that a group of NFLOG is bound to: it gets copies of packets.
    NflogSocket,
    /// A netlink socket that a queue of NFQUEUE is bound to: packets wait for its verdict.
    NfqueueSocket,
    /// A descriptor of usbmon: it sees what USB devices send, network adapters among them.
    Usbmon,
    /// A descriptor of /dev/netmap (FreeBSD): the rings of an interface, in place of the network stack.
    Netmap,
    /// A FreeBSD netgraph socket: an end of a graph whose nodes can see every frame of an interface.
    NetgraphSocket,
    /// A FreeBSD divert socket: packets that a firewall rule picks wait for what it does with them.
    DivertSocket,
    /// A span port of a FreeBSD bridge: it gets a copy of every frame that the bridge receives.
    BridgeSpan,
}

impl HandleKind {
    /// As in JSON and in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            HandleKind::Bpf => "bpf",
            HandleKind::PacketSocket => "packet_socket",
            HandleKind::SockPacket => "sock_packet",
            HandleKind::RawSocket => "raw_socket",
            HandleKind::XdpSocket => "xdp_socket",
            HandleKind::SocketFilter => "socket_filter",
            HandleKind::TcProgram => "tc_program",
            HandleKind::XdpProgram => "xdp_program",
            HandleKind::CgroupProgram => "cgroup_program",
            HandleKind::NetfilterProgram => "netfilter_program",
            HandleKind::TcMirror => "tc_mirror",
            HandleKind::TapPort => "tap_port",
            HandleKind::NflogSocket => "nflog_socket",
            HandleKind::NfqueueSocket => "nfqueue_socket",
            HandleKind::Usbmon => "usbmon",
            HandleKind::Netmap => "netmap",
            HandleKind::NetgraphSocket => "netgraph_socket",
            HandleKind::DivertSocket => "divert_socket",
            HandleKind::BridgeSpan => "bridge_span",
        }
    }

    /// Whether it is an eBPF program.
    pub fn is_program(self) -> bool {
        matches!(
            self,
            HandleKind::SocketFilter
                | HandleKind::TcProgram
                | HandleKind::XdpProgram
                | HandleKind::CgroupProgram
                | HandleKind::NetfilterProgram
        )
    }

    /// Whether it goes on without any process: what is attached to an interface stays there when the
    /// one who attached it ends.
    pub fn outlives_holders(self) -> bool {
        self.is_program() || matches!(self, HandleKind::TcMirror | HandleKind::BridgeSpan)
    }
}

/// Socket type as the program asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketType {
    /// SOCK_RAW: with link-layer header.
    Raw,
    /// SOCK_DGRAM: cooked.
    Dgram,
    /// SOCK_PACKET.
    Packet,
}

impl SocketType {
    /// As in JSON and in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            SocketType::Raw => "raw",
            SocketType::Dgram => "dgram",
            SocketType::Packet => "packet",
        }
    }
}

/// What tells one handle from another within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleKey {
    /// Its mechanism.
    pub kind: HandleKind,
    /// See [`Handle::id`].
    pub id: u64,
}

/// One capture handle, as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handle {
    /// Its mechanism.
    pub kind: HandleKind,
    /// What tells it from others of its kind: socket inode on Linux, file pointer on FreeBSD, minor on
    /// macOS; the kernel's number of an eBPF program. An id may come back after the handle was reported
    /// closed.
    pub id: u64,
    /// Device node, such as `/dev/bpf3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Text>,
    /// Interface it is attached to; `any` where it takes all of them. For what is none but captures like
    /// one, libpcap's name: `nflog:5`, `nfqueue:0`, `usbmon1`; of a divert socket its port: `divert:8668`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Text>,
    /// Protocol by name (`ETH_P_ALL`, `ETH_P_LLDP`, `IPPROTO_TCP`), or in hexadecimal; of a netgraph socket
    /// `NG_DATA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Text>,
    /// Socket type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_type: Option<SocketType>,
    /// Address family of a raw IP socket: 4 or 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<u8>,
    /// Whether a packet filter is attached to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<bool>,
    /// Whether it has a memory-mapped receive ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<bool>,
    /// Inode of the network namespace that it is in, where that is not the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u64>,
    /// It can only send or receives nothing but its own control protocol: raw IP by protocol, see
    /// [`RawGrade`]. Absent for other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grade: Option<RawGrade>,
    /// The other interface: where a mirror or a span sends to, the bridge that a TAP device is a port of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Text>,
    /// The eBPF program, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Box<BpfProgram>>,
}

/// How much a raw IP socket says about capturing, by its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawGrade {
    /// IPPROTO_RAW: only sends. iptables-legacy opens one at each call. On FreeBSD also TCP, UDP and others
    /// that the kernel keeps to itself.
    SendOnly,
    /// ICMP, ICMPv6, IGMP, OSPF, PIM, VRRP: ping, traceroute and routing daemons.
    Control,
    /// TCP, UDP and others: gets a copy of other processes' traffic.
    Capture,
}

impl RawGrade {
    /// Grades an IP protocol number. (Linux net/ipv4/raw.c: `raw_v4_input` hands each packet of the
    /// protocol to every raw socket of it; a socket of IPPROTO_RAW gets none.)
    pub fn of_protocol(protocol: u8) -> Self {
        match protocol {
            255 => RawGrade::SendOnly,
            // ICMP, IGMP, ICMPv6, OSPF, PIM, VRRP.
            1 | 2 | 58 | 89 | 103 | 112 => RawGrade::Control,
            _ => RawGrade::Capture,
        }
    }

    /// As in JSON and in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            RawGrade::SendOnly => "send_only",
            RawGrade::Control => "control",
            RawGrade::Capture => "capture",
        }
    }
}

impl Handle {
    /// A handle of which only kind and id are known.
    pub fn new(kind: HandleKind, id: u64) -> Self {
        Self {
            kind,
            id,
            device: None,
            interface: None,
            protocol: None,
            socket_type: None,
            ip_version: None,
            filter: None,
            ring: None,
            netns: None,
            grade: None,
            peer: None,
            program: None,
        }
    }

    /// Kind and id.
    pub fn key(&self) -> HandleKey {
        HandleKey { kind: self.kind, id: self.id }
    }

    /// Takes over what `newer` knows; what it does not know stays.
    pub fn update(&mut self, newer: &Handle) {
        fn take<T: Clone>(mine: &mut Option<T>, theirs: &Option<T>) {
            if theirs.is_some() {
                mine.clone_from(theirs);
            }
        }
        take(&mut self.device, &newer.device);
        take(&mut self.interface, &newer.interface);
        take(&mut self.protocol, &newer.protocol);
        take(&mut self.socket_type, &newer.socket_type);
        take(&mut self.ip_version, &newer.ip_version);
        take(&mut self.filter, &newer.filter);
        take(&mut self.ring, &newer.ring);
        take(&mut self.netns, &newer.netns);
        take(&mut self.grade, &newer.grade);
        take(&mut self.peer, &newer.peer);
        match (&mut self.program, &newer.program) {
            (Some(mine), Some(theirs)) => mine.update(theirs),
            (mine, theirs) => take(mine, theirs),
        }
    }
}
