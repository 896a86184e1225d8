//! Rows as the kernel gives them, owned, with numbers still numbers.

/// A BPF descriptor that is attached to an interface: a row of `net.bpf.stats`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfRow {
    /// Process that touched the descriptor last: not always one that has it. It stays when that process is
    /// dead.
    pub pid: u32,
    /// Name of the interface; the vnet is not told.
    pub interface: Vec<u8>,
    /// It asked for promiscuous mode (BIOCPROMISC).
    pub promiscuous: bool,
    /// Packets that the interface saw since it was attached.
    pub received: u64,
    /// Packets that passed its filter: what it can read.
    pub matched: u64,
    /// Of these, packets that its full buffer dropped.
    pub dropped: u64,
    /// Packets that it wrote.
    pub written: u64,
    /// Size of its buffer in bytes.
    pub buffer: u32,
    /// Its configuration is locked (BIOCLOCK), as programs do that drop privileges.
    pub locked: bool,
}

/// A descriptor of a process: a row of `kern.file`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRow {
    /// Process that has it.
    pub pid: u32,
    /// Effective user of that process.
    pub uid: u32,
    /// Number of the descriptor.
    pub fd: i32,
    /// Address of the open file: the same in all descriptors that were duplicated, inherited or passed. 0
    /// where the reader may not see addresses.
    pub file: u64,
    /// DTYPE_VNODE (1), DTYPE_SOCKET (2) ...
    pub kind: i16,
    /// Of a device, what tells it from other devices, the same over all mounts of devfs; of a socket its
    /// address.
    pub data: u64,
    /// Address of the vnode: one for each mount of devfs.
    pub vnode: u64,
    /// FREAD (1), FWRITE (2) ...
    pub flags: u32,
}

/// A descriptor of one process: a row of `kern.proc.filedesc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdRow {
    /// Number of the descriptor; negative for the program's text, its directories and its terminal.
    pub fd: i32,
    /// KF_TYPE_VNODE (1), KF_TYPE_SOCKET (2) ...
    pub kind: i32,
    /// KF_FLAG_READ (1), KF_FLAG_WRITE (2) ...
    pub flags: i32,
    /// Of a file.
    pub vnode: Option<VnodeRow>,
    /// Of a socket.
    pub socket: Option<SocketRow>,
    /// Path as the reader would name it; empty where the kernel knows none.
    pub path: Vec<u8>,
}

/// The part of an [`FdRow`] that files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VnodeRow {
    /// KF_VTYPE_VREG (1), KF_VTYPE_VDIR (2), KF_VTYPE_VCHR (4) ...
    pub kind: i32,
    /// Device number of a device: st_rdev of its node.
    pub rdev: u64,
    /// Mode, with the type of file.
    pub mode: u16,
}

/// The part of an [`FdRow`] that sockets have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketRow {
    /// AF_INET (2), AF_ROUTE (17), AF_NETGRAPH (32) ...
    pub domain: i32,
    /// SOCK_RAW (3) ...
    pub kind: i32,
    /// Protocol within the domain.
    pub protocol: i32,
}

/// A raw IP or divert socket: a row of `net.inet.raw.pcblist` or `net.inet.divert.pcblist`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcbRow {
    /// Address of the socket: what [`FileRow::data`] is of a socket.
    pub socket: u64,
    /// IP protocol of a raw socket; 0 for all.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Port of a divert socket; 0 of one that is not bound.
    pub port: u16,
}

/// A process: a row of `kern.proc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcRow {
    /// Its id.
    pub pid: u32,
    /// Its parent's.
    pub ppid: u32,
    /// Its session's; 0 for none.
    pub sid: u32,
    /// Effective user.
    pub uid: u32,
    /// Start, in microseconds since the epoch: what tells it from another process with its id.
    pub start: u64,
    /// P_JAILED (0x01000000), P_SYSTEM (0x200) ...
    pub flags: u64,
    /// SZOMB (5) ...
    pub state: u8,
    /// Name of the program; any process can change its own.
    pub comm: Vec<u8>,
    /// Device number of its terminal; all ones for none.
    pub tty: u64,
    /// Process that traces it; 0 for none.
    pub tracer: u32,
    /// Jail; 0 for the host.
    pub jid: u32,
}

/// A message of a route socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteMessage {
    /// RTM_IFINFO: flags or state of an interface changed.
    Interface {
        /// Its index.
        index: u16,
        /// Its flags, IFF_*.
        flags: u32,
    },
    /// RTM_IFANNOUNCE: an interface came or went.
    Announce {
        /// Its index.
        index: u16,
        /// Its name.
        name: Vec<u8>,
        /// It came; else it went.
        arrived: bool,
    },
    /// Another, with its type.
    Other(u8),
}

/// RTM_NEWLINK of netlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// Index of the interface.
    pub index: u32,
    /// Its name.
    pub name: Option<Vec<u8>>,
    /// Its flags, IFF_*.
    pub flags: u32,
    /// Flags that changed.
    pub change: u32,
}

/// A jail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JailRow {
    /// Its id.
    pub jid: u32,
    /// The jail that it is in; 0 for the host.
    pub parent: u32,
    /// Full name, `parent.child` for a nested one.
    pub name: Vec<u8>,
    /// Root directory on the host.
    pub path: Vec<u8>,
    /// Host name inside.
    pub hostname: Vec<u8>,
    /// It has a network stack of its own.
    pub vnet: Option<bool>,
    /// Rules that its mounts of devfs begin with.
    pub devfs_ruleset: Option<u32>,
    /// Its root may open raw sockets.
    pub raw_sockets: Option<bool>,
    /// It is being removed.
    pub dying: bool,
}
