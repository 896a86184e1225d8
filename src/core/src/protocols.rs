//! Names of the protocols that a capture handle can be for.

use std::fmt::Write as _;

use crate::text::Text;

/// EtherTypes by name, from include/uapi/linux/if_ether.h.
const ETHER_TYPES: &[(u16, &str)] = &[
    (0x0001, "ETH_P_802_3"),
    (0x0003, "ETH_P_ALL"),
    (0x0004, "ETH_P_802_2"),
    (0x0800, "ETH_P_IP"),
    (0x0806, "ETH_P_ARP"),
    (0x0842, "ETH_P_WOL"),
    (0x8035, "ETH_P_RARP"),
    (0x8100, "ETH_P_8021Q"),
    (0x86DD, "ETH_P_IPV6"),
    (0x8808, "ETH_P_PAUSE"),
    (0x8809, "ETH_P_SLOW"),
    (0x8863, "ETH_P_PPP_DISC"),
    (0x8864, "ETH_P_PPP_SES"),
    (0x888E, "ETH_P_PAE"),
    (0x8892, "ETH_P_PROFINET"),
    (0x88A8, "ETH_P_8021AD"),
    (0x88B5, "ETH_P_802_EX1"),
    (0x88B8, "ETH_P_GOOSE"),
    (0x88C7, "ETH_P_PREAUTH"),
    (0x88CA, "ETH_P_TIPC"),
    (0x88CC, "ETH_P_LLDP"),
    (0x88E3, "ETH_P_MRP"),
    (0x88F7, "ETH_P_1588"),
    (0x8902, "ETH_P_CFM"),
    (0x8906, "ETH_P_FCOE"),
    (0x8914, "ETH_P_FIP"),
    (0x892F, "ETH_P_HSR"),
    (0x893A, "ETH_P_1905"),
    (0x9000, "ETH_P_LOOPBACK"),
];

/// IP protocols by name, from include/uapi/linux/{in,in6}.h; OSPF, VRRP and others, which have no name
/// there, as in IANA's list.
const IP_PROTOCOLS: &[(u8, &str)] = &[
    (0, "IPPROTO_IP"),
    (1, "IPPROTO_ICMP"),
    (2, "IPPROTO_IGMP"),
    (4, "IPPROTO_IPIP"),
    (6, "IPPROTO_TCP"),
    (8, "IPPROTO_EGP"),
    (17, "IPPROTO_UDP"),
    (41, "IPPROTO_IPV6"),
    (46, "IPPROTO_RSVP"),
    (47, "IPPROTO_GRE"),
    (50, "IPPROTO_ESP"),
    (51, "IPPROTO_AH"),
    (58, "IPPROTO_ICMPV6"),
    (88, "IPPROTO_EIGRP"),
    (89, "IPPROTO_OSPF"),
    (103, "IPPROTO_PIM"),
    (112, "IPPROTO_VRRP"),
    (115, "IPPROTO_L2TP"),
    (132, "IPPROTO_SCTP"),
    (136, "IPPROTO_UDPLITE"),
    (255, "IPPROTO_RAW"),
];

/// An EtherType by name, or in hexadecimal.
pub fn ether_type(number: u16) -> Text {
    match ETHER_TYPES.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => Text::from(*name),
        None => hex(u32::from(number), 4),
    }
}

/// An IP protocol by name, or in hexadecimal.
pub fn ip_protocol(number: u8) -> Text {
    match IP_PROTOCOLS.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => Text::from(*name),
        None => hex(u32::from(number), 2),
    }
}

fn hex(number: u32, width: usize) -> Text {
    let mut text = String::from("0x");
    // Writing to a String cannot fail.
    let _ = write!(text, "{number:0width$x}");
    Text::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_known() {
        assert!(ETHER_TYPES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(IP_PROTOCOLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(ether_type(3).as_str(), "ETH_P_ALL");
        assert_eq!(ether_type(0x1234).as_str(), "0x1234");
        assert_eq!(ether_type(0xf0).as_str(), "0x00f0");
        assert_eq!(ip_protocol(253).as_str(), "0xfd");
    }
}
