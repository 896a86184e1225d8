//! Opens that were told by the node's watch and of which no look found a process. Pure: the caller has the
//! clock, in milliseconds since any moment.
//!
//! The watch says that a node was opened and by which mount, not by whom. Opens that come close together in
//! one place are one burst: tcpdump opens the device some times to learn what it can do. When a look finds a
//! new descriptor of that place, the burst is that process's; when none does, it is said without a process.

use std::collections::BTreeMap;

use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::text::Text;

use crate::poll::Said;
use crate::watches::Node;

/// How long after a burst began a look may find whose it is: the last look after an event comes a second
/// after it.
pub const PATIENCE: u64 = 1_100;
/// Bursts of different places that are followed.
const MAX_PLACES: usize = 1024;
/// Ids of handles that nobody saw begin here: below those in flight, above any of another source.
const SHORT_IDS: u64 = 1 << 61;

#[derive(Debug)]
struct Burst {
    count: u64,
    since: u64,
    named: bool,
}

/// Bursts of opens, by place.
#[derive(Debug, Default)]
pub struct Opens {
    bursts: BTreeMap<Node, Burst>,
    next: u64,
}

/// Opens that nobody could be found for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unnamed {
    /// Which node.
    pub node: Node,
    /// How many.
    pub count: u64,
}

impl Opens {
    /// A node was opened.
    pub fn opened(&mut self, node: Node, now: u64) {
        if self.bursts.len() >= MAX_PLACES && !self.bursts.contains_key(&node) {
            return;
        }
        let new = Burst { count: 0, since: now, named: false };
        self.bursts.entry(node).or_insert(new).count += 1;
    }

    /// A look found a new descriptor of a process in that jail; 0 for the host. A process of the host may
    /// have opened any node.
    pub fn named(&mut self, jid: u32) {
        for (node, burst) in &mut self.bursts {
            if jid == 0 || node.jid == jid {
                burst.named = true;
            }
        }
    }

    /// When the next burst is over, if there is any.
    pub fn next(&self) -> Option<u64> {
        self.bursts.values().map(|burst| burst.since + PATIENCE).min()
    }

    /// Ends the bursts that are over at `now`; those of nobody come back.
    pub fn take(&mut self, now: u64) -> Vec<Unnamed> {
        let mut out = Vec::new();
        self.bursts.retain(|node, burst| {
            let over = now >= burst.since + PATIENCE;
            if over && !burst.named {
                out.push(Unnamed { node: node.clone(), count: burst.count });
            }
            !over
        });
        out
    }

    /// What is to be said of them: a handle that was opened and closed, and nobody who had it.
    pub fn say(&mut self, unnamed: &Unnamed, said: &mut Vec<Said>) {
        let id = SHORT_IDS | self.next;
        self.next += 1;
        let device = Some(Text::from_bytes_limited(&unnamed.node.path, 1024));
        let handle = Handle { device, ..Handle::new(HandleKind::Bpf, id) };
        said.push((None, Kind::HandleOpened { handle: handle.clone(), pre_existing: false }));
        said.push((None, Kind::HandleClosed { handle }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(jid: u32) -> Node {
        Node { path: format!("/jails/{jid}/dev/bpf").into(), jid }
    }

    #[test]
    fn a_burst_that_nobody_is_found_for_is_said_once() {
        let mut opens = Opens::default();
        for now in [100, 101, 400] {
            opens.opened(node(3), now);
        }
        assert_eq!(opens.next(), Some(100 + PATIENCE));
        assert_eq!(opens.take(100 + PATIENCE - 1), []);
        let unnamed = opens.take(100 + PATIENCE);
        assert_eq!(unnamed, [Unnamed { node: node(3), count: 3 }]);
        assert_eq!((opens.take(9_000), opens.next()), (vec![], None));
        let mut said = Vec::new();
        opens.say(&unnamed[0], &mut said);
        opens.say(&unnamed[0], &mut said);
        let ids: Vec<u64> = said.iter().filter_map(|(_, kind)| Some(kind.handle()?.id)).collect();
        assert_eq!(ids, [SHORT_IDS, SHORT_IDS, SHORT_IDS + 1, SHORT_IDS + 1]);
        assert_eq!(said[0].1.handle().unwrap().device, Some(Text::from("/jails/3/dev/bpf")));
    }

    #[test]
    fn a_descriptor_of_the_same_place_explains_it() {
        let mut opens = Opens::default();
        opens.opened(node(3), 0);
        opens.opened(node(4), 0);
        opens.named(3);
        assert_eq!(opens.take(PATIENCE), [Unnamed { node: node(4), count: 1 }]);
        opens.opened(node(3), 5_000);
        opens.named(0);
        assert_eq!(opens.take(9_000), []);
    }
}
