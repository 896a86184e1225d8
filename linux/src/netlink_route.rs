//! rtnetlink: interfaces, how many want them promiscuous, and what they are part of.
//!
//! Layouts from include/uapi/linux/{rtnetlink,if_link}.h; what fills them in is net/core/rtnetlink.c.

use crate::netlink::{Attributes, Message, attribute, c_text, dump_request, u32_at};
use crate::raw::Link;

/// RTM_NEWLINK: an interface, or a change of one.
pub const NEW_LINK: u16 = 16;
/// RTM_DELLINK: an interface that is gone.
pub const DEL_LINK: u16 = 17;
/// Bit of RTNLGRP_LINK in the groups of a socket address.
pub const GROUP_LINK: u32 = 1;

const GET_LINK: u16 = 18;
/// `struct ifinfomsg`: family, padding, type, index, flags, change.
const LINK_FIXED: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
/// Of each mode that a program can be attached in, where there are several.
const XDP_MODES: [(u16, &str); 3] = [(5, "xdp/driver"), (6, "xdp/generic"), (7, "xdp/offload")];
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
/// RTEXT_FILTER_SKIP_STATS: without counters, which would be most of the answer.
const SKIP_STATS: u32 = 1 << 3;

/// Asks for all interfaces of the namespace.
pub fn links_request(seq: u32) -> Vec<u8> {
    let mut body = vec![0; LINK_FIXED];
    body.extend(attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes()));
    dump_request(GET_LINK, seq, &body)
}

/// An interface; `None` for other messages and for what is cut short.
pub fn link(message: &Message<'_>) -> Option<Link> {
    if !matches!(message.kind, NEW_LINK | DEL_LINK) || message.body.len() < LINK_FIXED {
        return None;
    }
    let mut link = Link { index: u32_at(message.body, 4)?, ..Link::default() };
    let mut lies_elsewhere = false;
    for (kind, payload) in Attributes::behind(message.body, LINK_FIXED) {
        match kind {
            IFLA_IFNAME => link.name = c_text(payload).to_vec(),
            IFLA_LINK => link.lower = u32_at(payload, 0),
            IFLA_MASTER => link.master = u32_at(payload, 0),
            IFLA_PROMISCUITY => link.promiscuity = u32_at(payload, 0),
            IFLA_LINK_NETNSID => lies_elsewhere = true,
            IFLA_XDP => link.xdp = xdp(payload),
            IFLA_LINKINFO => {
                for (kind, payload) in Attributes::new(payload) {
                    match kind {
                        IFLA_INFO_KIND => link.kind = Some(c_text(payload).to_vec()),
                        IFLA_INFO_SLAVE_KIND => link.port_of = Some(c_text(payload).to_vec()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if lies_elsewhere {
        link.lower = None;
    }
    Some(link)
}

/// XDP programs of an interface (net/core/rtnetlink.c: `rtnl_xdp_fill`): each mode names its own, and a
/// program alone is named once more without its mode.
fn xdp(nested: &[u8]) -> Vec<(u32, &'static str)> {
    let mut programs = Vec::new();
    let (mut single, mut mode) = (None, "xdp");
    for (kind, payload) in Attributes::new(nested) {
        if let Some((_, name)) = XDP_MODES.into_iter().find(|(number, _)| *number == kind) {
            programs.extend(u32_at(payload, 0).map(|id| (id, name)));
        } else if kind == IFLA_XDP_PROG_ID {
            single = u32_at(payload, 0);
        } else if kind == IFLA_XDP_ATTACHED && payload.first() == Some(&2) {
            mode = "xdp/generic";
        }
    }
    if programs.is_empty() {
        programs.extend(single.map(|id| (id, mode)));
    }
    programs.retain(|(id, _)| *id != 0);
    programs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Messages, message};

    #[test]
    fn reads_xdp_programs() {
        let id = |kind, id: u32| attribute(kind, &id.to_ne_bytes());
        let none = attribute(IFLA_XDP_ATTACHED, &[0]);
        assert_eq!(xdp(&none), []);
        let one = [attribute(IFLA_XDP_ATTACHED, &[2]), id(IFLA_XDP_PROG_ID, 41), id(6, 41)];
        assert_eq!(xdp(&one.concat()), [(41, "xdp/generic")]);
        assert_eq!(xdp(&one[..2].concat()), [(41, "xdp/generic")]);
        let two = [attribute(IFLA_XDP_ATTACHED, &[4]), id(5, 41), id(7, 42)].concat();
        assert_eq!(xdp(&two), [(41, "xdp/driver"), (42, "xdp/offload")]);
    }

    #[test]
    fn reads_a_bridge_port() {
        let mut body = vec![0; LINK_FIXED];
        body[4..8].copy_from_slice(&7u32.to_ne_bytes());
        body.extend(attribute(IFLA_IFNAME, b"veth3\0"));
        body.extend(attribute(IFLA_LINK, &2u32.to_ne_bytes()));
        body.extend(attribute(IFLA_LINK_NETNSID, &0u32.to_ne_bytes()));
        body.extend(attribute(IFLA_MASTER, &3u32.to_ne_bytes()));
        body.extend(attribute(IFLA_PROMISCUITY, &1u32.to_ne_bytes()));
        let info =
            [attribute(IFLA_INFO_KIND, b"veth\0"), attribute(IFLA_INFO_SLAVE_KIND, b"bridge\0")];
        body.extend(attribute(IFLA_LINKINFO | 0x8000, &info.concat()));
        let bytes = message(NEW_LINK, 2, 1, &body);
        let got = link(&Messages::new(&bytes).next().unwrap()).unwrap();
        let want = Link {
            index: 7,
            name: b"veth3".to_vec(),
            promiscuity: Some(1),
            kind: Some(b"veth".to_vec()),
            port_of: Some(b"bridge".to_vec()),
            master: Some(3),
            lower: None,
            xdp: Vec::new(),
        };
        assert_eq!(got, want);
        let cut = message(NEW_LINK, 2, 1, &[0; 15]);
        assert_eq!(link(&Messages::new(&cut).next().unwrap()), None);
    }
}
