//! Interfaces that are promiscuous, and those that are so for good reason.

use std::collections::HashMap;

use bpfwatch_core::observation::{Interface, Kind};
use bpfwatch_core::text::Text;

use crate::raw::Link;

/// What an interface is part of, where that alone makes it promiscuous: the kernel sets the mode on a
/// bridge's and a bond's ports (net/bridge/br_if.c, drivers/net/bonding/bond_main.c), and programs set
/// it on a bridge itself.
pub fn role(link: &Link, all: &[Link]) -> Option<Text> {
    let is = |field: &Option<Vec<u8>>, value: &str| field.as_deref() == Some(value.as_bytes());
    if let Some(switch) = &link.port_of {
        let role = match switch.as_slice() {
            b"bridge" if is(&link.kind, "veth") => "veth on a bridge",
            b"bridge" => "bridge port",
            b"bond" => "bond port",
            b"team" => "team port",
            b"openvswitch" => "openvswitch port",
            _ => "",
        };
        if !role.is_empty() {
            return Some(Text::from(role));
        }
    }
    for kind in ["bridge", "bond", "team", "openvswitch"] {
        if is(&link.kind, kind) {
            return Some(Text::from(kind));
        }
    }
    let carries = |upper: &Link| upper.lower == Some(link.index) && is(&upper.kind, "macvlan");
    all.iter().any(carries).then(|| Text::from("macvlan parent"))
}

/// Promiscuity of all interfaces as last reported.
#[derive(Debug, Default)]
pub struct Promiscuity {
    seen: HashMap<u64, HashMap<u32, (u32, Text)>>,
}

impl Promiscuity {
    /// What is new in the namespace `netns`: an interface with more users of promiscuous mode than
    /// before, or with none where there were some. `shown` is the inode where it is not the host's.
    pub fn update(&mut self, netns: u64, shown: Option<u64>, links: &[Link]) -> Vec<Kind> {
        let before = self.seen.remove(&netns).unwrap_or_default();
        let mut now = HashMap::new();
        let mut said = Vec::new();
        for link in links {
            let count = link.promiscuity.unwrap_or(0);
            let name = Text::from_bytes_limited(&link.name, 256);
            let old = before.get(&link.index).map_or(0, |(count, _)| *count);
            if count > old || (count == 0 && old > 0) {
                let interface = Interface {
                    name: name.clone(),
                    netns: shown,
                    count: Some(count),
                    role: role(link, links),
                };
                said.push(Kind::InterfacePromiscuous { interface, on: count > 0 });
            }
            if count > 0 {
                now.insert(link.index, (count, name));
            }
        }
        let mut gone: Vec<_> = before
            .into_iter()
            .filter(|(index, _)| links.iter().all(|link| link.index != *index))
            .collect();
        gone.sort_unstable_by_key(|(index, _)| *index);
        for (_, (_, name)) in gone {
            let interface = Interface { name, netns: shown, count: Some(0), role: None };
            said.push(Kind::InterfacePromiscuous { interface, on: false });
        }
        if !now.is_empty() {
            self.seen.insert(netns, now);
        }
        said
    }

    /// Forgets namespaces that are gone.
    pub fn keep(&mut self, there: impl Fn(u64) -> bool) {
        self.seen.retain(|netns, _| there(*netns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, promiscuity: u32) -> Link {
        let name = name.as_bytes().to_vec();
        Link { index, name, promiscuity: Some(promiscuity), ..Link::default() }
    }

    fn said(kinds: Vec<Kind>) -> Vec<(String, bool, Option<u32>)> {
        let one = |kind| match kind {
            Kind::InterfacePromiscuous { interface, on } => {
                (interface.name.to_string(), on, interface.count)
            }
            other => panic!("{other:?}"),
        };
        kinds.into_iter().map(one).collect()
    }

    #[test]
    fn says_what_rises_and_what_ends() {
        let mut watch = Promiscuity::default();
        let mut step =
            |count| said(watch.update(1, None, &[link(1, "lo", 0), link(2, "eth0", count)]));
        assert_eq!(step(0), []);
        assert_eq!(step(1), [("eth0".to_owned(), true, Some(1))]);
        assert_eq!(step(1), []);
        assert_eq!(step(2), [("eth0".to_owned(), true, Some(2))]);
        assert_eq!(step(1), []);
        assert_eq!(step(0), [("eth0".to_owned(), false, Some(0))]);
        step(3);
        assert_eq!(said(watch.update(1, None, &[])), [("eth0".to_owned(), false, Some(0))]);
    }

    #[test]
    fn namespaces_are_apart() {
        let mut watch = Promiscuity::default();
        assert_eq!(watch.update(1, None, &[link(2, "eth0", 1)]).len(), 1);
        assert_eq!(watch.update(9, Some(9), &[link(2, "eth0", 1)]).len(), 1);
        watch.keep(|netns| netns == 1);
        assert_eq!(watch.update(9, Some(9), &[link(2, "eth0", 1)]).len(), 1);
        assert_eq!(watch.update(1, None, &[link(2, "eth0", 1)]).len(), 0);
    }

    #[test]
    fn good_reasons() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let plain = link(2, "eth0", 1);
        let port = Link { port_of: text("bridge"), ..plain.clone() };
        let veth = Link { kind: text("veth"), ..port.clone() };
        let bridge = Link { kind: text("bridge"), ..plain.clone() };
        let vrf = Link { port_of: text("vrf"), ..plain.clone() };
        let upper = Link { index: 3, lower: Some(2), kind: text("macvlan"), ..Link::default() };
        let role_of = |link: &Link, all: &[Link]| role(link, all).map(|role| role.to_string());
        assert_eq!(role_of(&plain, &[]), None);
        assert_eq!(role_of(&vrf, &[]), None);
        assert_eq!(role_of(&port, &[]).as_deref(), Some("bridge port"));
        assert_eq!(role_of(&veth, &[]).as_deref(), Some("veth on a bridge"));
        assert_eq!(role_of(&bridge, &[]).as_deref(), Some("bridge"));
        assert_eq!(role_of(&plain, &[plain.clone(), upper]).as_deref(), Some("macvlan parent"));
    }
}
