//! Events of the eBPF programs as rows: `struct handle_event` and `struct process_event` of
//! `linux/ebpf/bpfwatch.bpf.c`, in the machine's byte order.

use crate::netlink::{c_text, u16_at, u32_at, u64_at};

/// Bytes of a handle event before its text; the first 80 of every event are `struct who`.
const HANDLE: usize = 128;
/// Bytes of an execution before its data.
const PROCESS: usize = 104;
/// `IMAGE_DELETED`, `IMAGE_UNNAMED`, `IMAGE_CUT`, `CWD_CUT`.
const DELETED: u16 = 1;
const UNNAMED: u16 = 2;
const IMAGE_CUT: u16 = 4;
const CWD_CUT: u16 = 8;

/// What happened: `enum kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A process was copied.
    Fork,
    /// It executed something.
    Exec,
    /// It ended.
    Exit,
    /// A socket was made.
    Open,
    /// It was bound.
    Bind,
    /// A classic filter was attached or taken away.
    Filter,
    /// It got a memory-mapped receive ring.
    Ring,
    /// It asked for promiscuous mode, or gave it up.
    Promisc,
    /// Another process received it.
    Receive,
    /// Its last descriptor is gone.
    Close,
    /// An interface's IFF_PROMISC was set or cleared.
    Flags,
    /// An eBPF program that sees packets was loaded, or one was attached somewhere.
    Program,
}

const WHATS: [What; 12] = [
    What::Fork,
    What::Exec,
    What::Exit,
    What::Open,
    What::Bind,
    What::Filter,
    What::Ring,
    What::Promisc,
    What::Receive,
    What::Close,
    What::Flags,
    What::Program,
];

/// Who did it, when. Namespaces are inodes, numbers those of the initial namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// What happened.
    pub what: What,
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// Start of the process in nanoseconds since boot.
    pub start_ns: u64,
    /// Process.
    pub pid: u32,
    /// Its parent; 0 in an exit.
    pub ppid: u32,
    /// Its session; 0 where it is not told.
    pub sid: u32,
    /// Effective user.
    pub uid: u32,
    /// Terminal, as in `/proc/PID/stat`.
    pub tty: u32,
    /// Network namespace.
    pub net: u32,
    /// Mount namespace.
    pub mnt: u32,
    /// Pid namespace.
    pub pid_ns: u32,
    /// User namespace.
    pub user_ns: u32,
    /// The kernel's short name.
    pub comm: Vec<u8>,
    /// How often it, and those that it is a copy of, executed something.
    pub execs: u32,
    flags: u16,
}

/// Ticks of a second in `/proc/PID/stat` (USER_HZ).
const USER_HZ: u64 = 100;

impl Who {
    /// Start as `/proc/PID/stat` has it.
    pub fn start(&self) -> u64 {
        self.start_ns / (1_000_000_000 / USER_HZ)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let kind = u16_at(bytes, 16)?;
        let what = *WHATS.get(usize::from(kind).checked_sub(1)?)?;
        Some(Self {
            what,
            monotonic_ns: u64_at(bytes, 0)?,
            start_ns: u64_at(bytes, 8)?,
            flags: u16_at(bytes, 18)?,
            pid: u32_at(bytes, 20)?,
            ppid: u32_at(bytes, 24)?,
            sid: u32_at(bytes, 28)?,
            uid: u32_at(bytes, 32)?,
            tty: u32_at(bytes, 36)?,
            net: u32_at(bytes, 40)?,
            mnt: u32_at(bytes, 44)?,
            pid_ns: u32_at(bytes, 48)?,
            user_ns: u32_at(bytes, 52)?,
            comm: c_text(bytes.get(56..72)?).to_vec(),
            execs: u32_at(bytes, 72)?,
        })
    }
}

/// An event about a socket or an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleRow {
    /// Who.
    pub who: Who,
    /// Inode of the socket, or number of the program; 0 where it is not known.
    pub inode: u64,
    /// Network namespace of socket or interface.
    pub net: u32,
    /// Index of the interface, 0 for all.
    pub ifindex: i32,
    /// AF_PACKET, AF_XDP, AF_INET or AF_INET6.
    pub family: u16,
    /// SOCK_RAW and so on; the type of a program.
    pub socket_type: u16,
    /// EtherType or IP protocol; 0 for none.
    pub protocol: u16,
    /// On or off, for what can be either.
    pub on: bool,
    /// Name of the interface; empty where it is not known.
    pub interface: Vec<u8>,
    /// Control groups, in the form of `/proc/PID/cgroup`.
    pub cgroup: Vec<u8>,
}

/// An execution, a fork or an exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRow {
    /// Who.
    pub who: Who,
    /// What was executed; `None` for a fork or an exit.
    pub exec: Option<Box<ExecRow>>,
}

/// What a process executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRow {
    /// Path of the image, from the root of its mount namespace.
    pub image: Vec<u8>,
    /// It is longer than what an event carries: the first directories are missing.
    pub image_cut: bool,
    /// The image has no name any more, or never had one.
    pub image_deleted: bool,
    /// User who owns the image, in the initial numbering.
    pub image_owner: u32,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// Its first directories are missing.
    pub cwd_cut: bool,
    /// Control groups, in the form of `/proc/PID/cgroup`.
    pub cgroup: Vec<u8>,
    /// First arguments, each ended by a zero byte.
    pub args_head: Vec<u8>,
    /// Last arguments; what they are of is in `args_length`.
    pub args_tail: Vec<u8>,
    /// Bytes of all arguments. Head and tail are all of them where they are as many.
    pub args_length: u64,
}

/// Reads an event of the ring `handles`; `None` for one that this version does not know.
pub fn handle(bytes: &[u8]) -> Option<HandleRow> {
    let who = Who::read(bytes)?;
    let unified = u32_at(bytes, 120)? as usize;
    let size = u32_at(bytes, 124)? as usize;
    let text = bytes.get(HANDLE..)?;
    Some(HandleRow {
        who,
        inode: u64_at(bytes, 80)?,
        net: u32_at(bytes, 88)?,
        ifindex: u32_at(bytes, 92)?.cast_signed(),
        family: u16_at(bytes, 96)?,
        socket_type: u16_at(bytes, 98)?,
        protocol: u16_at(bytes, 100)?,
        on: u16_at(bytes, 102)? != 0,
        interface: c_text(bytes.get(104..120)?).to_vec(),
        cgroup: control_groups(text.get(..unified)?, text.get(unified..size)?),
    })
}

/// Reads an event of the ring `processes`.
pub fn process(bytes: &[u8]) -> Option<ProcessRow> {
    let who = Who::read(bytes)?;
    if who.what != What::Exec {
        return Some(ProcessRow { who, exec: None });
    }
    let mut data = bytes.get(PROCESS..)?;
    let mut part = |at| {
        let (part, rest) = data.split_at_checked(usize::from(u16_at(bytes, at)?))?;
        data = rest;
        Some(part)
    };
    let (image, cwd) = (part(92)?, part(94)?);
    let (unified, old) = (part(96)?, part(98)?);
    let (args_head, args_tail) = (part(100)?.to_vec(), part(102)?.to_vec());
    let image = if who.flags & UNNAMED != 0 { [b"/", c_text(image)].concat() } else { path(image) };
    let exec = ExecRow {
        image,
        image_cut: who.flags & IMAGE_CUT != 0,
        image_deleted: who.flags & DELETED != 0,
        image_owner: u32_at(bytes, 88)?,
        cwd: path(cwd),
        cwd_cut: who.flags & CWD_CUT != 0,
        cgroup: control_groups(unified, old),
        args_head,
        args_tail,
        args_length: u64_at(bytes, 80)?,
    };
    Some(ProcessRow { who, exec: Some(Box::new(exec)) })
}

/// A path from its components, last one first, each ended by a zero byte.
fn path(components: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(components.len() + 1);
    let components = components.strip_suffix(b"\0").unwrap_or(components);
    if components.is_empty() {
        return b"/".to_vec();
    }
    for component in components.rsplit(|byte| *byte == 0) {
        path.push(b'/');
        path.extend(component);
    }
    path
}

/// As `/proc/PID/cgroup` has them; which controllers the one of version 1 is for does not matter.
fn control_groups(unified: &[u8], old: &[u8]) -> Vec<u8> {
    let mut text = b"0::".to_vec();
    text.extend(path(unified));
    if !old.is_empty() {
        text.extend(b"\n1:v1:");
        text.extend(path(old));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(kind: u16, flags: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(7u64.to_ne_bytes());
        bytes.extend(1_239_999_999u64.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        for number in 20..29u32 {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(b"tcpdump\0\0\0\0\0\0\0\0\0");
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    fn execution(flags: u16, image: &[u8]) -> Vec<u8> {
        let mut bytes = who(2, flags);
        bytes.extend(6u64.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        for part in [image.len(), 0, 13, 9, 6, 0] {
            bytes.extend((part as u16).to_ne_bytes());
        }
        bytes.extend(image);
        bytes.extend(b"session\0user\0kubepods\0ls\0-l\0");
        bytes
    }

    #[test]
    fn an_execution() {
        let row = process(&execution(0, b"ls\0bin\0usr\0")).unwrap();
        assert_eq!((row.who.start(), row.who.pid, row.who.user_ns), (123, 20, 28));
        assert_eq!((&row.who.comm[..], row.who.execs), (&b"tcpdump"[..], 7));
        let exec = row.exec.unwrap();
        assert_eq!(exec.image, b"/usr/bin/ls");
        assert_eq!(exec.cwd, b"/");
        assert_eq!(exec.cgroup, b"0::/user/session\n1:v1:/kubepods");
        assert_eq!(exec.args_head, b"ls\0-l\0");
        assert!(!exec.image_deleted && exec.args_tail.is_empty() && exec.args_length == 6);
        let cut = |flags| process(&execution(flags, b"ls\0")).unwrap().exec.unwrap();
        assert!(cut(4).image_cut && !cut(4).cwd_cut && cut(8).cwd_cut && !cut(8).image_cut);
        let exec = process(&execution(3, b"memfd:x\0")).unwrap().exec.unwrap();
        assert_eq!((exec.image, exec.image_deleted), (b"/memfd:x".to_vec(), true));
    }

    #[test]
    fn what_is_cut_short_or_unknown_is_nothing() {
        let whole = execution(0, b"ls\0");
        for end in 0..whole.len() {
            assert_eq!(process(&whole[..end]), None, "{end}");
        }
        assert_eq!(process(&who(13, 0)), None);
        assert_eq!(process(&who(0, 0)), None);
        assert_eq!(process(&who(1, 0)).unwrap().exec, None);
        assert_eq!(handle(&who(4, 0)), None);
    }

    #[test]
    fn a_bind() {
        let mut bytes = who(5, 0);
        bytes.extend(99u64.to_ne_bytes());
        bytes.extend(26u32.to_ne_bytes());
        bytes.extend(1u32.to_ne_bytes());
        for number in [17u16, 3, 3, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes.extend(2u32.to_ne_bytes());
        bytes.extend(2u32.to_ne_bytes());
        bytes.extend(b"a\0rubbish");
        let row = handle(&bytes).unwrap();
        assert_eq!((row.who.what, row.inode, row.ifindex), (What::Bind, 99, 1));
        assert_eq!((row.family, row.socket_type, row.protocol, row.on), (17, 3, 3, false));
        assert_eq!(row.interface, b"lo");
        assert_eq!(row.cgroup, b"0::/a");
    }
}
