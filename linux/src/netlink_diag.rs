//! NETLINK_SOCK_DIAG: rows of packet sockets and raw IP sockets.
//!
//! Layouts from include/uapi/linux/{sock_diag,packet_diag,inet_diag}.h; what fills them in is
//! net/packet/diag.c and net/ipv4/{inet_diag,raw_diag}.c.

use crate::netlink::{Attributes, Message, dump_request, u16_at, u32_at};
use crate::raw::{PacketRow, RawIpRow, XdpRow};

/// SOCK_DIAG_BY_FAMILY: type of requests and rows.
pub const BY_FAMILY: u16 = 20;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_PACKET: u8 = 17;
const AF_XDP: u8 = 44;
const IPPROTO_RAW: u8 = 255;

/// All of PACKET_SHOW_{INFO,MCLIST,RING_CFG,FANOUT,MEMINFO,FILTER}.
const SHOW_ALL: u32 = 0x3F;
const PACKET_FIXED: usize = 16;
const PACKET_INFO: u16 = 0;
const PACKET_MCLIST: u16 = 1;
const PACKET_RX_RING: u16 = 2;
const PACKET_UID: u16 = 5;
const PACKET_FILTER: u16 = 7;
/// `struct packet_diag_mclist`: index, count, u16 type, u16 alen, 32 bytes of address.
const MEMBERSHIP_LEN: usize = 44;
const MR_PROMISC: u16 = 1;

const INET_FIXED: usize = 72;

/// XDP_SHOW_INFO and XDP_SHOW_RING_CFG.
const XDP_SHOW: u32 = 0x3;
const XDP_FIXED: usize = 16;
const XDP_INFO: u16 = 1;
const XDP_RX_RING: u16 = 3;

/// Asks for all packet sockets of the namespace, with everything that can be shown.
pub fn packet_request(seq: u32) -> Vec<u8> {
    // family, protocol 0 (all), padding, inode 0, show, no cookie.
    let mut body = vec![AF_PACKET, 0, 0, 0];
    body.extend(0u32.to_ne_bytes());
    body.extend(SHOW_ALL.to_ne_bytes());
    body.extend([0; 8]);
    dump_request(BY_FAMILY, seq, &body)
}

/// Asks for all raw sockets of one IP version, 4 or 6.
pub fn raw_request(seq: u32, ip_version: u8) -> Vec<u8> {
    let family = if ip_version == 6 { AF_INET6 } else { AF_INET };
    // family, protocol, extensions, raw protocol; all states; an empty socket id.
    let mut body = vec![family, IPPROTO_RAW, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend([0; 48]);
    dump_request(BY_FAMILY, seq, &body)
}

/// Asks for all AF_XDP sockets of the namespace.
pub fn xdp_request(seq: u32) -> Vec<u8> {
    // As for packet sockets.
    let mut body = vec![AF_XDP, 0, 0, 0];
    body.extend(0u32.to_ne_bytes());
    body.extend(XDP_SHOW.to_ne_bytes());
    body.extend([0; 8]);
    dump_request(BY_FAMILY, seq, &body)
}

/// A row of an AF_XDP socket; `None` for anything else and for what is cut short
/// (net/xdp/xsk_diag.c: `xsk_diag_fill`).
pub fn xdp_row(message: &Message<'_>) -> Option<XdpRow> {
    let body = message.body;
    if message.kind != BY_FAMILY || *body.first()? != AF_XDP || body.len() < XDP_FIXED {
        return None;
    }
    let mut row = XdpRow { inode: u64::from(u32_at(body, 4)?), ifindex: 0, ring: false };
    for (kind, payload) in Attributes::behind(body, XDP_FIXED) {
        match kind {
            XDP_INFO => row.ifindex = u32_at(payload, 0)?,
            XDP_RX_RING => row.ring = true,
            _ => {}
        }
    }
    Some(row)
}

/// A row of a packet socket; `None` for anything else and for what is cut short.
pub fn packet_row(message: &Message<'_>) -> Option<PacketRow> {
    let body = message.body;
    if message.kind != BY_FAMILY || *body.first()? != AF_PACKET || body.len() < PACKET_FIXED {
        return None;
    }
    let mut row = PacketRow {
        inode: u64::from(u32_at(body, 4)?),
        socket_type: *body.get(1)?,
        protocol: u16_at(body, 2)?,
        ifindex: 0,
        uid: None,
        promiscuous: None,
        // The kernel names a classic filter; an absent attribute says that there is none.
        filter: Some(false),
        ring: Some(false),
    };
    for (kind, payload) in Attributes::behind(body, PACKET_FIXED) {
        match kind {
            PACKET_INFO => row.ifindex = u32_at(payload, 0)?.cast_signed(),
            PACKET_MCLIST => row.promiscuous = Some(wants_promiscuous(payload)),
            PACKET_RX_RING => row.ring = Some(true),
            PACKET_UID => row.uid = u32_at(payload, 0),
            PACKET_FILTER => row.filter = filters(payload),
            _ => {}
        }
    }
    Some(row)
}

fn wants_promiscuous(memberships: &[u8]) -> bool {
    memberships.chunks_exact(MEMBERSHIP_LEN).any(|one| u16_at(one, 8) == Some(MR_PROMISC))
}

/// Whether a classic BPF program drops anything. An empty attribute means that the reader may not see
/// it (net/core/sock_diag.c: `sock_diag_put_filterinfo`). libpcap attaches `ret #262144` where the user
/// gave no expression: that program lets everything pass.
fn filters(program: &[u8]) -> Option<bool> {
    const BPF_RET_K: u16 = 0x06;
    if program.is_empty() {
        return None;
    }
    let lets_all_pass = program.len() == 8
        && u16_at(program, 0) == Some(BPF_RET_K)
        && u32_at(program, 4).is_some_and(|bytes| bytes > 0);
    Some(!lets_all_pass)
}

/// A row of a raw IP socket; `None` for anything else and for what is cut short.
pub fn raw_row(message: &Message<'_>) -> Option<RawIpRow> {
    let body = message.body;
    if message.kind != BY_FAMILY || body.len() < INET_FIXED {
        return None;
    }
    let ip_version = match *body.first()? {
        AF_INET => 4,
        AF_INET6 => 6,
        _ => return None,
    };
    Some(RawIpRow {
        inode: u64::from(u32_at(body, 68)?),
        ip_version,
        // A raw socket's "port" is its protocol, in network order (net/ipv4/af_inet.c: inet_create).
        protocol: *body.get(5)?,
        ifindex: u32_at(body, 40),
        uid: u32_at(body, 64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Messages, attribute, message};

    fn packet_body(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = vec![AF_PACKET, 3];
        body.extend(3u16.to_ne_bytes());
        body.extend(4711u32.to_ne_bytes());
        body.extend([0; 8]);
        for (kind, payload) in attributes {
            body.extend(attribute(*kind, payload));
        }
        message(BY_FAMILY, 2, 1, &body)
    }

    fn row(attributes: &[(u16, Vec<u8>)]) -> PacketRow {
        let bytes = packet_body(attributes);
        packet_row(&Messages::new(&bytes).next().unwrap()).unwrap()
    }

    fn membership(kind: u16) -> Vec<u8> {
        let mut one = vec![2, 0, 0, 0, 1, 0, 0, 0];
        one.extend(kind.to_ne_bytes());
        one.resize(MEMBERSHIP_LEN, 0);
        one
    }

    #[test]
    fn reads_a_sniffer() {
        let mut info = 2u32.to_ne_bytes().to_vec();
        info.resize(24, 0);
        let memberships = [membership(0), membership(MR_PROMISC)].concat();
        let got = row(&[
            (PACKET_INFO, info),
            (PACKET_MCLIST, memberships),
            (PACKET_RX_RING, vec![0; 28]),
            (PACKET_UID, 1000u32.to_ne_bytes().to_vec()),
            (PACKET_FILTER, vec![0x28, 0, 0, 0, 12, 0, 0, 0, 0x06, 0, 0, 0, 0, 0, 4, 0]),
        ]);
        let want = PacketRow {
            inode: 4711,
            socket_type: 3,
            protocol: 3,
            ifindex: 2,
            uid: Some(1000),
            promiscuous: Some(true),
            filter: Some(true),
            ring: Some(true),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn a_filter_that_passes_all_is_none() {
        let pass = vec![0x06, 0, 0, 0, 0, 0, 4, 0];
        assert_eq!(row(&[(PACKET_FILTER, pass)]).filter, Some(false));
        assert_eq!(row(&[(PACKET_FILTER, vec![0x06, 0, 0, 0, 0, 0, 0, 0])]).filter, Some(true));
        assert_eq!(row(&[(PACKET_FILTER, vec![])]).filter, None);
        assert_eq!(row(&[]).filter, Some(false));
        assert_eq!(row(&[(PACKET_MCLIST, membership(2))]).promiscuous, Some(false));
    }

    #[test]
    fn reads_an_xdp_socket() {
        let mut body = vec![AF_XDP, 3, 0, 0];
        body.extend(4711u32.to_ne_bytes());
        body.extend([0; 8]);
        let unbound = message(BY_FAMILY, 2, 1, &body);
        let row = |bytes: &[u8]| xdp_row(&Messages::new(bytes).next().unwrap());
        assert_eq!(row(&unbound), Some(XdpRow { inode: 4711, ifindex: 0, ring: false }));
        body.extend(attribute(XDP_INFO, &[3, 0, 0, 0, 1, 0, 0, 0]));
        body.extend(attribute(XDP_RX_RING, &2048u32.to_ne_bytes()));
        let bound = message(BY_FAMILY, 2, 1, &body);
        let want = XdpRow { inode: 4711, ifindex: u32::from_ne_bytes([3, 0, 0, 0]), ring: true };
        assert_eq!(row(&bound), Some(want));
        assert_eq!(row(&packet_body(&[])), None);
    }

    #[test]
    fn reads_a_raw_socket() {
        let mut body = vec![0; INET_FIXED];
        body[0] = AF_INET6;
        body[4..6].copy_from_slice(&58u16.to_be_bytes());
        body[40..44].copy_from_slice(&2u32.to_ne_bytes());
        body[68..72].copy_from_slice(&99u32.to_ne_bytes());
        let bytes = message(BY_FAMILY, 2, 1, &body);
        let got = raw_row(&Messages::new(&bytes).next().unwrap()).unwrap();
        let want =
            RawIpRow { inode: 99, ip_version: 6, protocol: 58, ifindex: Some(2), uid: Some(0) };
        assert_eq!(got, want);
    }
}
