//! What is attached to the interfaces of one network namespace: programs of tc, tcx, netkit and XDP, and
//! mirrors. For a thread that is in that namespace.

use std::collections::{BTreeMap, BTreeSet};

use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::text::Text;

use crate::netlink::Message;
use crate::netlink_tc::{self, Effect, Hook};
use crate::programs::{ffi, info};
use crate::raw::Link;
use crate::sensor_scan::{Sockets, whole};

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of a program, where it is attached, and the index of the interface.
    pub programs: BTreeSet<(u32, &'static str, u32)>,
    /// Interfaces whose packets are copied or sent to another: from and to. `true` where it is a copy.
    pub mirrors: BTreeMap<(u32, u32), bool>,
}

/// Looks. `None` where traffic control could not be read whole.
pub fn look(sockets: &mut Sockets, buffer: &mut [u8], links: &[Link]) -> Option<Traffic> {
    let mut traffic = Traffic::default();
    let mut hooks: Vec<Hook> = Vec::new();
    let row = |message: &Message<'_>| hooks.extend(netlink_tc::hooks(message));
    whole(sockets.route()?.dump(netlink_tc::qdiscs_request, buffer, row))?;
    hooks.sort_unstable();
    hooks.dedup();
    for hook in hooks {
        let Ok(from) = u32::try_from(hook.ifindex) else { continue };
        let row = |message: &Message<'_>| {
            for effect in netlink_tc::effects(message) {
                match effect {
                    Effect::Program(id) => {
                        traffic.programs.insert((id, hook.name(), from));
                    }
                    Effect::Mirror(to) => {
                        traffic.mirrors.insert((from, to), true);
                    }
                    Effect::Redirect(to) => {
                        traffic.mirrors.entry((from, to)).or_insert(false);
                    }
                }
            }
        };
        let request = |seq| netlink_tc::filters_request(seq, hook);
        // One that is gone meanwhile has no filters any more.
        if let Ok(answer) = sockets.route()?.dump(request, buffer, row) {
            whole(Ok(answer))?;
        }
    }
    for link in links {
        traffic.programs.extend(link.xdp.iter().map(|(id, mode)| (*id, *mode, link.index)));
        queries(link, &mut traffic);
    }
    Some(traffic)
}

/// Programs that neither rtnetlink nor a link's description ties to an interface of this namespace.
fn queries(link: &Link, traffic: &mut Traffic) {
    let netkit = link.kind.as_deref() == Some(b"netkit");
    let more: &[(u32, &'static str)] = if netkit { &info::NETKIT } else { &[] };
    for (kind, name) in info::TCX.iter().chain(more) {
        // A kernel without them says so at the first one.
        let Ok(programs) = ffi::attached(link.index, *kind) else { return };
        traffic.programs.extend(programs.into_iter().map(|id| (id, *name, link.index)));
    }
}

impl Traffic {
    /// Handles of the mirrors. A redirection to an `ifb` device is how incoming traffic is shaped
    /// (tc-mirred(8)), and shows it to nobody.
    pub fn mirrors(&self, netns: u64, shown: Option<u64>, links: &[Link]) -> Vec<Handle> {
        let find = |index: u32| links.iter().find(|link| link.index == index);
        let name = |index| find(index).map(|link| Text::from_bytes_limited(&link.name, 256));
        let is_shaping = |to| find(to).is_some_and(|link| link.kind.as_deref() == Some(b"ifb"));
        let shown_ones = self.mirrors.iter().filter(|((_, to), copy)| **copy || !is_shaping(*to));
        shown_ones
            .map(|((from, to), _)| Handle {
                interface: name(*from),
                peer: name(*to).or_else(|| Some(Text::from(format!("if{to}")))),
                netns: shown,
                ..Handle::new(HandleKind::TcMirror, id(netns, *from, *to))
            })
            .collect()
    }
}

/// A number for what the kernel gives none: FNV-1a of what tells it from others.
pub fn id(netns: u64, from: u32, to: u32) -> u64 {
    let bytes = netns.to_le_bytes().into_iter().chain(from.to_le_bytes()).chain(to.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Handles of TAP devices that are ports of a bridge.
pub fn taps(netns: u64, shown: Option<u64>, links: &[Link]) -> Vec<Handle> {
    let is_bridge =
        |link: &&Link| matches!(link.port_of.as_deref(), Some(b"bridge" | b"openvswitch"));
    let taps = links.iter().filter(|link| link.kind.as_deref() == Some(b"tun")).filter(is_bridge);
    taps.map(|tap| {
        let bridge = links.iter().find(|link| Some(link.index) == tap.master);
        Handle {
            interface: Some(Text::from_bytes_limited(&tap.name, 256)),
            device: Some(Text::from("/dev/net/tun")),
            peer: bridge.map(|bridge| Text::from_bytes_limited(&bridge.name, 256)),
            netns: shown,
            ..Handle::new(HandleKind::TapPort, id(netns, tap.index, 0))
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &[u8], kind: Option<&[u8]>) -> Link {
        Link { index, name: name.to_vec(), kind: kind.map(<[u8]>::to_vec), ..Link::default() }
    }

    #[test]
    fn copies_are_mirrors_and_shaping_is_none() {
        let links =
            [link(2, b"eth0", None), link(3, b"ifb0", Some(b"ifb")), link(4, b"mon0", None)];
        let mirrors =
            BTreeMap::from([((2, 3), false), ((2, 4), false), ((4, 3), true), ((4, 99), true)]);
        let traffic = Traffic { mirrors, ..Traffic::default() };
        let handles = traffic.mirrors(7, None, &links);
        let names = |handle: &Handle| {
            let text = |text: &Option<Text>| text.as_ref().map(Text::to_string).unwrap_or_default();
            (text(&handle.interface), text(&handle.peer))
        };
        let got: Vec<_> = handles.iter().map(names).collect();
        let want = [("eth0", "mon0"), ("mon0", "ifb0"), ("mon0", "if99")];
        assert_eq!(got, want.map(|(from, to)| (from.to_owned(), to.to_owned())));
        assert_ne!(handles[0].id, handles[1].id);
        assert_ne!(id(7, 2, 4), id(8, 2, 4));
    }

    #[test]
    fn a_tap_on_a_bridge() {
        let mut tap = link(5, b"tap0", Some(b"tun"));
        let bridge = link(6, b"br0", Some(b"bridge"));
        assert_eq!(taps(7, Some(7), &[tap.clone(), bridge.clone()]), []);
        (tap.port_of, tap.master) = (Some(b"bridge".to_vec()), Some(6));
        let handles = taps(7, Some(7), &[tap, bridge]);
        assert_eq!(handles[0].peer, Some(Text::from("br0")));
        assert_eq!((handles.len(), handles[0].netns), (1, Some(7)));
    }
}
