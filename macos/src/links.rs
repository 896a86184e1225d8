//! Interfaces that are promiscuous though no BPF descriptor made them so. Pure: the caller has the clock, in
//! milliseconds since any moment.
//!
//! The flag alone proves nothing: awdl0 has it from the start and members of a bridge must have it. Where a
//! descriptor asked for it, the session says more; what is left is said as a change of the interface.

use std::collections::BTreeMap;

use bpfwatch_core::observation::{Interface, Kind};
use bpfwatch_core::text::Text;

/// How long it must be so: the flag is set a little before the table of descriptors shows who asked.
pub const SETTLE: u64 = 1000;

#[derive(Debug)]
struct Link {
    since: u64,
    is_said: bool,
}

/// Interfaces that are promiscuous, and whether that was said.
#[derive(Debug, Default)]
pub struct Links {
    links: BTreeMap<String, Link>,
}

impl Links {
    /// Compares with the interfaces that have IFF_PROMISC at `now`; `is_held` tells whether a descriptor made
    /// one so.
    pub fn update(
        &mut self,
        promiscuous: &[String],
        is_held: impl Fn(&str) -> bool,
        now: u64,
    ) -> Vec<Kind> {
        let mut out = Vec::new();
        self.links.retain(|name, link| {
            let stays = promiscuous.contains(name);
            if !stays && link.is_said {
                out.push(kind(name, false));
            }
            stays
        });
        for name in promiscuous {
            let fresh = Link { since: now, is_said: false };
            let link = self.links.entry(name.clone()).or_insert(fresh);
            if link.is_said {
                continue;
            }
            if is_held(name) {
                link.since = now;
            } else if now.saturating_sub(link.since) >= SETTLE {
                link.is_said = true;
                out.push(kind(name, true));
            }
        }
        out
    }

    /// Whether one of them is yet to be judged.
    pub fn is_pending(&self) -> bool {
        self.links.values().any(|link| !link.is_said)
    }
}

fn kind(name: &str, on: bool) -> Kind {
    let role = role(name).map(Text::from);
    let interface = Interface { name: Text::from(name), netns: None, count: None, role };
    Kind::InterfacePromiscuous { interface, on }
}

/// Why an interface of that name is promiscuous for good reason.
fn role(name: &str) -> Option<&'static str> {
    let is = |kind: &str| {
        name.strip_prefix(kind)
            .is_some_and(|unit| !unit.is_empty() && unit.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match () {
        // Apple's peer-to-peer links are so by design.
        () if is("awdl") || is("llw") => Some("awdl"),
        // Links of virtual machines are made as members of a bridge (vmnet).
        () if is("vmenet") => Some("bridge port"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(links: &mut Links, now: u64, names: &[&str], held: &[&str]) -> Vec<String> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let said = links.update(&names, |name| held.contains(&name), now);
        said.iter()
            .map(|kind| {
                let Kind::InterfacePromiscuous { interface, on } = kind else { panic!("{kind:?}") };
                format!("{} {on} {}", interface.name.as_str(), interface.role.is_some())
            })
            .collect()
    }

    #[test]
    fn only_without_a_holder_and_only_once() {
        let mut links = Links::default();
        let all = ["awdl0", "en0"];
        assert_eq!(look(&mut links, 0, &all, &["en0"]), [""; 0]);
        assert!(links.is_pending());
        assert_eq!(look(&mut links, SETTLE, &all, &["en0"]), ["awdl0 true true"]);
        assert_eq!(look(&mut links, SETTLE + 1, &all, &[]), [""; 0]);
        assert_eq!(look(&mut links, 2 * SETTLE, &all, &[]), ["en0 true false"]);
        assert_eq!(look(&mut links, 3 * SETTLE, &all, &[]), [""; 0]);
        assert!(!links.is_pending());
        assert_eq!(look(&mut links, 4 * SETTLE, &["awdl0"], &[]), ["en0 false false"]);
    }

    #[test]
    fn a_role_is_told_by_the_whole_name() {
        assert_eq!([role("awdl0"), role("llw0")], [Some("awdl"); 2]);
        assert_eq!(role("vmenet12"), Some("bridge port"));
        assert_eq!([role("en0"), role("awdl"), role("awdl0x"), role("vmenet")], [None; 4]);
    }

    #[test]
    fn a_capture_that_comes_and_goes_is_no_matter_of_the_interface() {
        let mut links = Links::default();
        assert_eq!(look(&mut links, 0, &["en0"], &[]), [""; 0]);
        assert_eq!(look(&mut links, 50, &["en0"], &["en0"]), [""; 0]);
        assert_eq!(look(&mut links, 9000, &["en0"], &["en0"]), [""; 0]);
        assert_eq!(look(&mut links, 9001, &[], &[]), [""; 0]);
    }
}
