//! What bpf(2) says about programs, links and maps, as bytes into rows.
//!
//! Layouts and numbers from include/uapi/linux/bpf.h. Structs only ever grow at their end, so fields are
//! read by offset and a short answer lacks what comes later.

use bpfwatch_core::handle::HandleKind;

use crate::netlink::{array_at, c_text, u32_at, u64_at};

/// Bytes of `struct bpf_prog_info` that are asked for: up to and with its name.
pub const PROGRAM_INFO: usize = 80;
/// Offset of `nr_map_ids` in it, and of `map_ids`.
pub const MAP_IDS: (usize, usize) = (52, 56);
/// Bytes of `struct bpf_link_info` that are asked for.
pub const LINK_INFO: usize = 32;
/// Bytes of `struct bpf_map_info` that are asked for.
pub const MAP_INFO: usize = 16;

/// BPF_CGROUP_INET_INGRESS and BPF_CGROUP_INET_EGRESS.
pub const CGROUP_SKB: [(u32, &str); 2] = [(0, "cgroup/ingress"), (1, "cgroup/egress")];
/// BPF_TCX_INGRESS and BPF_TCX_EGRESS, of Linux 6.6.
pub const TCX: [(u32, &str); 2] = [(46, "tcx/ingress"), (47, "tcx/egress")];
/// BPF_NETKIT_PRIMARY and BPF_NETKIT_PEER, of Linux 6.7.
pub const NETKIT: [(u32, &str); 2] = [(54, "netkit/primary"), (55, "netkit/peer")];

/// Program types that see packets, as bpftool names them.
const TYPES: [(u32, &str, HandleKind); 6] = [
    (1, "socket_filter", HandleKind::SocketFilter),
    (3, "sched_cls", HandleKind::TcProgram),
    (4, "sched_act", HandleKind::TcProgram),
    (6, "xdp", HandleKind::XdpProgram),
    (8, "cgroup_skb", HandleKind::CgroupProgram),
    (32, "netfilter", HandleKind::NetfilterProgram),
];

/// Map types, in the order of `enum bpf_map_type`, as bpftool names them.
const MAPS: [&str; 35] = [
    "unspec",
    "hash",
    "array",
    "prog_array",
    "perf_event_array",
    "percpu_hash",
    "percpu_array",
    "stack_trace",
    "cgroup_array",
    "lru_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "array_of_maps",
    "hash_of_maps",
    "devmap",
    "sockmap",
    "cpumap",
    "xskmap",
    "sockhash",
    "cgroup_storage",
    "reuseport_sockarray",
    "percpu_cgroup_storage",
    "queue",
    "stack",
    "sk_storage",
    "devmap_hash",
    "struct_ops",
    "ringbuf",
    "inode_storage",
    "task_storage",
    "bloom_filter",
    "user_ringbuf",
    "cgrp_storage",
    "arena",
    "insn_array",
];

/// Hook numbers of netfilter (include/uapi/linux/netfilter.h).
const NETFILTER_HOOKS: [&str; 5] = [
    "netfilter/prerouting",
    "netfilter/input",
    "netfilter/forward",
    "netfilter/output",
    "netfilter/postrouting",
];

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramRow {
    /// Its type.
    pub program_type: u32,
    /// Hash of its instructions.
    pub tag: [u8; 8],
    /// When it was loaded, in nanoseconds of the boot-time clock.
    pub loaded_ns: u64,
    /// Who loaded it, in the reader's numbering.
    pub uid: u32,
    /// How many maps it uses.
    pub maps: u32,
    /// Its name; empty for none.
    pub name: Vec<u8>,
}

/// A link that says where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkRow {
    /// Number of the program.
    pub program: u32,
    /// Where, as far as the link alone tells.
    pub place: Place,
}

/// Where a link attaches a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To a control group: its number (the inode of its directory) and in which direction.
    Cgroup(u64, &'static str),
    /// To a netfilter hook.
    Netfilter(&'static str),
}

/// Reads a `struct bpf_prog_info`.
pub fn program(bytes: &[u8]) -> Option<ProgramRow> {
    Some(ProgramRow {
        program_type: u32_at(bytes, 0)?,
        tag: array_at(bytes, 8)?,
        loaded_ns: u64_at(bytes, 40)?,
        uid: u32_at(bytes, 48)?,
        maps: u32_at(bytes, MAP_IDS.0)?,
        name: c_text(bytes.get(64..PROGRAM_INFO)?).to_vec(),
    })
}

/// Reads a `struct bpf_link_info`; `None` for links of other kinds, of which namespaces tell more.
pub fn link(bytes: &[u8]) -> Option<LinkRow> {
    const CGROUP: u32 = 3;
    const NETFILTER: u32 = 10;
    let place = match u32_at(bytes, 0)? {
        CGROUP => {
            let attached = u32_at(bytes, 24)?;
            let (_, name) = CGROUP_SKB.into_iter().find(|(kind, _)| *kind == attached)?;
            Place::Cgroup(u64_at(bytes, 16)?, name)
        }
        NETFILTER => {
            let hook = usize::try_from(u32_at(bytes, 20)?).ok()?;
            Place::Netfilter(NETFILTER_HOOKS.get(hook).copied().unwrap_or("netfilter"))
        }
        _ => return None,
    };
    Some(LinkRow { program: u32_at(bytes, 8)?, place })
}

/// The type and its handle; `None` for a program that sees no packets.
pub fn packet_type(number: u32) -> Option<(&'static str, HandleKind)> {
    TYPES.iter().find(|known| known.0 == number).map(|(_, name, kind)| (*name, *kind))
}

/// Whether such a program can only let a packet pass or not, unless it has maps: it can send a packet
/// nowhere else, as one of tc or XDP can. systemd attaches some without maps to every sandboxed service, and
/// whoever asks what a kernel can do loads socket filters without.
pub fn needs_maps(kind: HandleKind) -> bool {
    matches!(kind, HandleKind::SocketFilter | HandleKind::CgroupProgram)
}

/// A map type by name.
pub fn map_type(number: u32) -> &'static str {
    usize::try_from(number).ok().and_then(|index| MAPS.get(index)).copied().unwrap_or("unknown")
}

/// Number of the program in `/proc/PID/fdinfo/FD` of a program's or link's descriptor
/// (kernel/bpf/syscall.c: `bpf_prog_show_fdinfo`, `bpf_link_show_fdinfo`).
pub fn fdinfo_program(fdinfo: &[u8]) -> Option<u32> {
    let line =
        fdinfo.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"prog_id:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_program() {
        let mut bytes = vec![0; PROGRAM_INFO];
        bytes[..4].copy_from_slice(&6u32.to_ne_bytes());
        bytes[8..16].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        bytes[40..48].copy_from_slice(&77u64.to_ne_bytes());
        bytes[48..52].copy_from_slice(&1000u32.to_ne_bytes());
        bytes[52..56].copy_from_slice(&2u32.to_ne_bytes());
        bytes[64..69].copy_from_slice(b"sniff");
        let row = program(&bytes).unwrap();
        assert_eq!((row.program_type, row.loaded_ns, row.uid, row.maps), (6, 77, 1000, 2));
        assert_eq!((row.tag, &row.name[..]), ([1, 2, 3, 4, 5, 6, 7, 8], b"sniff".as_slice()));
        assert_eq!(packet_type(6), Some(("xdp", HandleKind::XdpProgram)));
        // kprobe
        assert_eq!(packet_type(2), None);
        assert_eq!(program(&bytes[..64]), None);
    }

    #[test]
    fn reads_links_that_tell_a_place() {
        let bytes = |kind: u32, tail: &[u8]| {
            let mut bytes = vec![0; LINK_INFO];
            bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            bytes[8..12].copy_from_slice(&41u32.to_ne_bytes());
            bytes[16..16 + tail.len()].copy_from_slice(tail);
            bytes
        };
        let mut cgroup = 4711u64.to_ne_bytes().to_vec();
        cgroup.extend(1u32.to_ne_bytes());
        let place = Place::Cgroup(4711, "cgroup/egress");
        assert_eq!(link(&bytes(3, &cgroup)), Some(LinkRow { program: 41, place }));
        // A control group's socket creation is no packet.
        cgroup[8] = 2;
        assert_eq!(link(&bytes(3, &cgroup)), None);
        let hook = [2u32.to_ne_bytes(), 3u32.to_ne_bytes()].concat();
        let place = Place::Netfilter("netfilter/output");
        assert_eq!(link(&bytes(10, &hook)), Some(LinkRow { program: 41, place }));
        assert_eq!(link(&bytes(2, &[])), None);
        assert_eq!(link(&[3, 0, 0]), None);
    }

    #[test]
    fn maps_stand_where_the_kernel_numbers_them() {
        for (number, name) in [(4, "perf_event_array"), (17, "xskmap"), (27, "ringbuf")] {
            assert_eq!(map_type(number), name);
        }
        assert_eq!(map_type(4000), "unknown");
    }

    #[test]
    fn a_descriptor_names_its_program() {
        let link = b"pos:\t0\nlink_type:\ttcx\nlink_id:\t3\nprog_tag:\t0011\nprog_id:\t41\n";
        assert_eq!(fdinfo_program(link), Some(41));
        assert_eq!(fdinfo_program(b"pos:\t0\nprog_id:\tx\n"), None);
        assert_eq!(fdinfo_program(b""), None);
    }
}
