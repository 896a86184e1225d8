//! Messages of netlink(4), 14.0 and later: RTM_NEWLINK tells which flags of an interface changed, and its
//! name. One vnet only, as route sockets.

use core::mem::offset_of;

use crate::bytes::{half, id, until_nul, word};
use crate::layout::{Ifinfomsg, Nlmsghdr};
use crate::raw::LinkRow;

/// AF_NETLINK of sys/socket.h.
pub const AF_NETLINK: i32 = 38;
/// NETLINK_ROUTE of netlink/netlink.h.
pub const NETLINK_ROUTE: i32 = 0;
/// SOL_NETLINK of netlink/netlink.h.
pub const SOL_NETLINK: i32 = 270;
/// NETLINK_ADD_MEMBERSHIP of netlink/netlink.h.
pub const NETLINK_ADD_MEMBERSHIP: i32 = 1;
/// RTNLGRP_LINK of netlink/netlink_route.h.
pub const RTNLGRP_LINK: i32 = 1;
/// RTM_NEWLINK of netlink/netlink_route.h.
pub const RTM_NEWLINK: u16 = 16;
/// IFLA_IFNAME of netlink/route/interface.h.
const IFLA_IFNAME: u16 = 3;
/// Bits of an attribute's type that are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const TYPE_FLAGS: u16 = 0xc000;
/// IFNAMSIZ of net/if.h.
const IFNAMSIZ: usize = 16;

/// The RTM_NEWLINK messages of one read, in order.
pub fn links(mut bytes: &[u8]) -> Vec<LinkRow> {
    let header = size_of::<Nlmsghdr>();
    let mut out = Vec::new();
    while let Some(length) = word(bytes, offset_of!(Nlmsghdr, len)) {
        let Ok(length) = usize::try_from(length) else { break };
        let Some(message) = bytes.get(..length).filter(|_| length >= header) else { break };
        if half(message, offset_of!(Nlmsghdr, kind)) == Some(RTM_NEWLINK) {
            out.extend(link(&message[header..]));
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    out
}

fn link(body: &[u8]) -> Option<LinkRow> {
    let attributes = body.get(size_of::<Ifinfomsg>()..)?;
    Some(LinkRow {
        index: id(body, offset_of!(Ifinfomsg, index))?,
        name: attribute(attributes, IFLA_IFNAME)
            .map(until_nul)
            .filter(|name| name.len() < IFNAMSIZ)
            .map(<[u8]>::to_vec),
        flags: word(body, offset_of!(Ifinfomsg, flags))?,
        change: word(body, offset_of!(Ifinfomsg, change))?,
    })
}

/// The value of the first attribute of that type.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(half(bytes, 0)?);
        let kind = half(bytes, 2)? & !TYPE_FLAGS;
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(aligned(length)..)?;
    }
}

/// Messages and attributes begin at multiples of four bytes.
fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::IFF_PROMISC;

    const NETLINK: &[u8] = include_bytes!("../tests/data/netlink.bin");

    #[test]
    fn reads_what_a_netlink_socket_gave() {
        let links = links(NETLINK);
        let changed: Vec<_> = links
            .iter()
            .filter(|link| link.change == IFF_PROMISC)
            .map(|link| {
                let name = link.name.as_deref().unwrap_or_default();
                (link.index, name, link.flags & IFF_PROMISC != 0)
            })
            .collect();
        assert_eq!(
            changed,
            [
                (1, b"vtnet0".as_slice(), true),
                (1, b"vtnet0", false),
                (2, b"lo0", true),
                (2, b"lo0", false),
                (8, b"epair0a", true),
                (10, b"bridge0", true),
                (10, b"bridge0", false),
            ]
        );
    }

    #[test]
    fn a_message_that_lies_about_its_length_ends_the_read() {
        for length in [0u32, 15, 5000, u32::MAX] {
            let mut bytes = NETLINK.to_vec();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(links(&bytes), [], "{length}");
        }
        let mut bytes = NETLINK[..348].to_vec();
        // The first attribute claims to be longer than the message.
        bytes[32..34].copy_from_slice(&4000u16.to_ne_bytes());
        assert_eq!(links(&bytes)[0].name, None);
    }
}
