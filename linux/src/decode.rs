//! From rows to handles: numbers become the names that rules and people know.

use bpfwatch_core::handle::{Handle, HandleKind, RawGrade, SocketType};
pub use bpfwatch_core::protocols::{ether_type, ip_protocol};
use bpfwatch_core::text::Text;

use crate::raw::{PacketRow, RawIpRow};

/// The handle of a packet socket. `interface` is the name that belongs to the row's index, `netns` the
/// inode of its network namespace where that is not the host's.
pub fn packet_handle(row: &PacketRow, interface: Option<Text>, netns: Option<u64>) -> Handle {
    let socket_type = match row.socket_type {
        2 => Some(SocketType::Dgram),
        3 => Some(SocketType::Raw),
        10 => Some(SocketType::Packet),
        _ => None,
    };
    let kind = match socket_type {
        Some(SocketType::Packet) => HandleKind::SockPacket,
        _ => HandleKind::PacketSocket,
    };
    Handle {
        interface,
        protocol: (row.protocol != 0).then(|| ether_type(row.protocol)),
        socket_type,
        filter: row.filter,
        ring: row.ring,
        netns,
        ..Handle::new(kind, row.inode)
    }
}

/// The handle of a raw IP socket.
pub fn raw_handle(row: &RawIpRow, interface: Option<Text>, netns: Option<u64>) -> Handle {
    Handle {
        interface,
        protocol: Some(ip_protocol(row.protocol)),
        socket_type: Some(SocketType::Raw),
        ip_version: Some(row.ip_version),
        netns,
        grade: Some(RawGrade::of_protocol(row.protocol)),
        ..Handle::new(HandleKind::RawSocket, row.inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sniffer_and_a_sender() {
        let row = PacketRow {
            inode: 5,
            socket_type: 10,
            protocol: 3,
            ifindex: 0,
            uid: None,
            promiscuous: None,
            filter: None,
            ring: None,
        };
        let handle = packet_handle(&row, Some(Text::from("any")), Some(9));
        assert_eq!(handle.kind, HandleKind::SockPacket);
        assert_eq!(handle.socket_type, Some(SocketType::Packet));
        assert_eq!(handle.protocol, Some(Text::from("ETH_P_ALL")));
        let sender = PacketRow { protocol: 0, socket_type: 3, ..row };
        assert_eq!(packet_handle(&sender, None, None).protocol, None);
        let ping = RawIpRow { inode: 6, ip_version: 4, protocol: 1, ifindex: None, uid: None };
        let handle = raw_handle(&ping, None, None);
        assert_eq!(handle.grade, Some(RawGrade::Control));
        assert_eq!(handle.protocol, Some(Text::from("IPPROTO_ICMP")));
    }
}
