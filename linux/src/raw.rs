//! Rows as the kernel gives them, owned, with numbers still numbers.

/// An AF_PACKET socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketRow {
    /// Inode of the socket.
    pub inode: u64,
    /// SOCK_DGRAM (2), SOCK_RAW (3) or SOCK_PACKET (10).
    pub socket_type: u8,
    /// EtherType it receives, 3 for all, 0 for none: then it only sends.
    pub protocol: u16,
    /// Index of its interface; 0 for all, negative when the interface is gone.
    pub ifindex: i32,
    /// User who opened it, in the reader's numbering.
    pub uid: Option<u32>,
    /// It asks for promiscuous mode on some interface.
    pub promiscuous: Option<bool>,
    /// A packet filter that drops something is attached.
    pub filter: Option<bool>,
    /// It has a memory-mapped receive ring.
    pub ring: Option<bool>,
}

/// A raw IP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawIpRow {
    /// Inode of the socket.
    pub inode: u64,
    /// 4 or 6.
    pub ip_version: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Index of the interface it is bound to; 0 for all, `None` where the source does not tell.
    pub ifindex: Option<u32>,
    /// User who opened it, in the reader's numbering.
    pub uid: Option<u32>,
}

/// An AF_XDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpRow {
    /// Inode of the socket.
    pub inode: u64,
    /// Index of its interface; 0 before it is bound.
    pub ifindex: u32,
    /// It has a ring to receive into.
    pub ring: bool,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: Vec<u8>,
    /// How many want it promiscuous.
    pub promiscuity: Option<u32>,
    /// What it is: `bridge`, `veth`, `bond` ...; `None` for hardware.
    pub kind: Option<Vec<u8>>,
    /// What it is a port of: `bridge`, `bond`, `openvswitch` ...
    pub port_of: Option<Vec<u8>>,
    /// Index of its master.
    pub master: Option<u32>,
    /// Index of the interface that it lies on, within this namespace.
    pub lower: Option<u32>,
    /// Numbers of the XDP programs on it, and how each is attached.
    pub xdp: Vec<(u32, &'static str)>,
}

/// What the proc connector tells, threads left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcEvent {
    /// CPU that it happened on.
    pub cpu: u32,
    /// When, in nanoseconds of the monotonic clock.
    pub monotonic_ns: u64,
    /// What happened.
    pub what: ProcWhat,
}

/// What happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcWhat {
    /// The answer to a subscription: 0, or an errno.
    Answer(u32),
    /// A new process.
    Fork {
        /// Its parent.
        parent: u32,
        /// The new one.
        child: u32,
    },
    /// A new image.
    Exec {
        /// Whose.
        pid: u32,
    },
    /// The end of a process.
    Exit {
        /// Of which.
        pid: u32,
    },
    /// Something else, or a thread's fork or end.
    Other,
}
