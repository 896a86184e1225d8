//! Who reads NFLOG groups and NFQUEUE queues: from two tables of netfilter, through the table of netlink
//! sockets, to inodes.
//!
//! Formats from net/netfilter/nfnetlink_{log,queue}.c (`seq_show`) and net/netlink/af_netlink.c
//! (`netlink_native_seq_show`).

use std::collections::BTreeMap;

use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::text::Text;

/// NETLINK_NETFILTER.
const NETFILTER: u64 = 12;
/// NFULNL_COPY_PACKET and NFQNL_COPY_PACKET: whole packets are handed on, not only what is said of them.
const COPY_PACKET: u64 = 2;

/// A socket that gets packets of groups or queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderRow {
    /// NFLOG or NFQUEUE.
    pub kind: HandleKind,
    /// Inode of its socket.
    pub inode: u64,
    /// Its groups or queues, sorted.
    pub numbers: Vec<u64>,
}

impl ReaderRow {
    /// The handle. Interfaces are called as libpcap calls them (pcap-netfilter-linux.c): `nflog:5`.
    pub fn handle(&self, netns: Option<u64>) -> Handle {
        let prefix = if self.kind == HandleKind::NflogSocket { "nflog" } else { "nfqueue" };
        let numbers: Vec<String> = self.numbers.iter().map(u64::to_string).collect();
        Handle {
            interface: Some(Text::from(format!("{prefix}:{}", numbers.join(",")))),
            netns,
            ..Handle::new(self.kind, self.inode)
        }
    }
}

/// Joins the tables: `log` and `queue` of netfilter, absent where the kernel has none, and `sockets`, the
/// table of netlink sockets, which is read only where it is needed.
pub fn rows(
    log: Option<&[u8]>,
    queue: Option<&[u8]>,
    sockets: impl FnOnce() -> Option<Vec<u8>>,
) -> Option<Vec<ReaderRow>> {
    let mut bound: BTreeMap<(HandleKind, u64), Vec<u64>> = BTreeMap::new();
    for (kind, table) in [(HandleKind::NflogSocket, log), (HandleKind::NfqueueSocket, queue)] {
        for line in table.unwrap_or_default().split(|byte| *byte == b'\n') {
            // Number, port of the socket, length of the queue, mode, ...
            let [number, port, _, mode] = leading(line);
            if let (Some(number), Some(port), Some(COPY_PACKET)) = (number, port, mode) {
                bound.entry((kind, port)).or_default().push(number);
            }
        }
    }
    if bound.is_empty() {
        return Some(Vec::new());
    }
    let ports = ports(&sockets()?);
    let row = |((kind, port), mut numbers): ((HandleKind, u64), Vec<u64>)| {
        numbers.sort_unstable();
        Some(ReaderRow { kind, inode: *ports.get(&port)?, numbers })
    };
    Some(bound.into_iter().filter_map(row).collect())
}

/// Inodes of netfilter's netlink sockets by port.
fn ports(table: &[u8]) -> BTreeMap<u64, u64> {
    let row = |line: &[u8]| {
        // sk, protocol, port, groups, two amounts of memory, dump, references, drops, inode.
        let mut fields =
            line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).skip(1);
        let protocol = number(fields.next()?)?;
        let port = number(fields.next()?)?;
        let inode = number(fields.nth(6)?)?;
        (protocol == NETFILTER && port != 0).then_some((port, inode))
    };
    table.split(|byte| *byte == b'\n').filter_map(row).collect()
}

fn leading(line: &[u8]) -> [Option<u64>; 4] {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    std::array::from_fn(|_| words.next().and_then(number))
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKETS: &[u8] = b"sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
        00000000053d2b92 0   77         00000000 0        0        0     2        0        4       \n\
        000000007c879b39 12  77         00000000 0        0        0     2        0        1593    \n\
        00000000f0bca403 12  0          00000000 0        0        0     2        0        1595    \n";

    #[test]
    fn a_socket_with_two_groups_is_one_reader() {
        let log = b"    7     77     0 2 65535      1  1\n    5     77     0 2 65535      1  1\n";
        let rows = rows(Some(log), None, || Some(SOCKETS.to_vec())).unwrap();
        let want = ReaderRow { kind: HandleKind::NflogSocket, inode: 1593, numbers: vec![5, 7] };
        assert_eq!(rows, [want]);
        let handle = rows[0].handle(Some(9));
        assert_eq!(handle.interface, Some(Text::from("nflog:5,7")));
        assert_eq!(handle.netns, Some(9));
    }

    #[test]
    fn a_queue_that_copies_no_packets_gets_none() {
        let queue = |mode| format!("    0     77     0 {mode}     0     0     0        0  1\n");
        let rows = |mode| rows(None, Some(queue(mode).as_bytes()), || Some(SOCKETS.to_vec()));
        assert_eq!(rows(1), Some(vec![]));
        let row = &rows(2).unwrap()[0];
        assert_eq!(row.kind, HandleKind::NfqueueSocket);
        assert_eq!(row.handle(None).interface, Some(Text::from("nfqueue:0")));
    }

    #[test]
    fn without_readers_no_sockets_are_listed() {
        assert_eq!(rows(Some(b""), None, || unreachable!()), Some(vec![]));
        let log = b"    5     77     0 2 65535      1  1\n";
        // Sockets that cannot be listed are no reason to call the reader gone.
        assert_eq!(rows(Some(log), None, || None), None);
        assert_eq!(rows(Some(log), None, || Some(b"sk Eth\n".to_vec())), Some(vec![]));
        assert_eq!(rows(Some(b"x y\n5\n"), None, || unreachable!()), Some(vec![]));
    }
}
