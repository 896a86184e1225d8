//! Opens that were told by the node's watch and of which no look found a process. Pure: the caller has the
//! clock, in milliseconds since any moment.
//!
//! The watch says that a node was opened and by which mount, not by whom. Each open waits for a new descriptor
//! of that place, one for one; what waited in vain is said without a process. A descriptor that is found
//! in another place than it was opened in makes one open too many to be said, and none too few.

use std::collections::{BTreeMap, VecDeque};

use bpfwatch_core::logged::{Fields, Log, Logged, Value};
use bpfwatch_core::scope::Scope;
use bpfwatch_core::text::Text;

use crate::watches::Node;

/// How long after an open a look may find whose it is: the last look after an event comes a second after it.
pub const PATIENCE: u64 = 1_100;
/// How long a descriptor that was found may wait for its open to be told: the watches have their own thread.
const AHEAD: u64 = 250;
/// Places that are followed.
const MAX_PLACES: usize = 1024;
/// Opens that wait in one place; more are counted only.
const MAX_WAITING: usize = 4096;
/// Descriptors that wait for their open.
const MAX_AHEAD: usize = 1024;
/// Opens of one place that are said one by one at a time.
const MAX_SAID: u64 = 256;
/// Executions that are remembered.
const MAX_RECENT: usize = 64;
/// How long they are.
const RECENT: u64 = 3_000;
/// Executions that are named with an open.
const MAX_NAMED: usize = 8;

/// One node.
#[derive(Debug, Default)]
struct Place {
    /// When each open was told for which nothing was found yet, oldest first.
    waiting: VecDeque<u64>,
    /// Opens that found no room there.
    beyond: u64,
    /// When a descriptor of this place was found last.
    found: Option<u64>,
}

/// A program that was executed.
#[derive(Debug)]
struct Executed {
    at: u64,
    jid: u32,
    what: String,
}

/// Opens that wait for somebody, by place.
#[derive(Debug, Default)]
pub struct Opens {
    places: BTreeMap<Node, Place>,
    /// Jail and time of descriptors that were found before their open was told.
    ahead: VecDeque<(u32, u64)>,
    recent: VecDeque<Executed>,
}

/// Opens of one node that nobody could be found for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unnamed {
    /// Which node.
    pub node: Node,
    /// How many.
    pub count: u64,
    /// A descriptor of the same place was found about the same time, for another open.
    pub beside: bool,
    /// What was executed in that jail, or on the host, shortly before: newest first.
    pub recent: Vec<String>,
}

/// Whether a process of jail `jid` is one that opened a node of jail `of`: a process of the host may open any.
fn explains(jid: u32, of: u32) -> bool {
    jid == 0 || jid == of
}

impl Opens {
    /// A node was opened.
    pub fn opened(&mut self, node: Node, now: u64) {
        if self.places.len() >= MAX_PLACES && !self.places.contains_key(&node) {
            return;
        }
        self.ahead.retain(|(_, at)| now.saturating_sub(*at) <= AHEAD);
        let exact = self.ahead.iter().position(|(jid, _)| *jid == node.jid);
        let found = exact.or_else(|| self.ahead.iter().position(|(jid, _)| *jid == 0));
        let place = self.places.entry(node).or_default();
        if let Some((_, at)) = found.and_then(|index| self.ahead.remove(index)) {
            place.found = Some(at);
        } else if place.waiting.len() < MAX_WAITING {
            place.waiting.push_back(now);
        } else {
            place.beyond += 1;
        }
    }

    /// A look found a new descriptor of a process in that jail; 0 for the host.
    pub fn found(&mut self, jid: u32, now: u64) {
        let mut open: Vec<(&Node, &mut Place)> = self
            .places
            .iter_mut()
            .filter(|(node, place)| explains(jid, node.jid) && !place.waiting.is_empty())
            .collect();
        // Its own place before any other, then who waits longest.
        open.sort_by_key(|(node, place)| (node.jid != jid, place.waiting.front().copied()));
        if let Some((_, place)) = open.into_iter().next() {
            place.waiting.pop_front();
            place.found = Some(now);
        } else if self.ahead.len() < MAX_AHEAD {
            self.ahead.push_back((jid, now));
        }
    }

    /// Forgets descriptors whose open was never told.
    pub fn begin(&mut self) {
        self.ahead.clear();
    }

    /// A program was executed in that jail; 0 for the host.
    pub fn executed(&mut self, jid: u32, what: String, now: u64) {
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Executed { at: now, jid, what });
    }

    /// When the next open has waited long enough, if there is any.
    pub fn next(&self) -> Option<u64> {
        self.places.values().filter_map(|place| place.waiting.front()).min().map(|at| at + PATIENCE)
    }

    /// Ends the wait of those that waited long enough at `now`.
    pub fn take(&mut self, now: u64) -> Vec<Unnamed> {
        let mut out = Vec::new();
        let recent = &self.recent;
        self.places.retain(|node, place| {
            let (mut count, mut first) = (0, None);
            while let Some(at) = place.waiting.front().copied().filter(|at| now >= at + PATIENCE) {
                place.waiting.pop_front();
                first.get_or_insert(at);
                count += 1;
            }
            if let Some(first) = first {
                count += std::mem::take(&mut place.beyond);
                let beside = place.found.is_some_and(|found| found + PATIENCE >= first);
                let there = recent.iter().rev().filter(|executed| {
                    executed.jid == node.jid && executed.at <= now && executed.at + RECENT >= first
                });
                let recent = there.take(MAX_NAMED).map(|executed| executed.what.clone()).collect();
                out.push(Unnamed { node: node.clone(), count, beside, recent });
            }
            let fresh = place.found.is_some_and(|found| found + 2 * PATIENCE > now);
            fresh || !place.waiting.is_empty()
        });
        out
    }
}

impl Unnamed {
    /// One record for each open, and how many more there were than are said.
    pub fn records(&self, scope: &Scope) -> (impl Iterator<Item = Logged> + use<>, u64) {
        let said = self.count.min(MAX_SAID);
        let record = self.record(scope);
        ((0..said).map(move |_| record.clone()), self.count - said)
    }

    fn record(&self, scope: &Scope) -> Logged {
        let path = Text::from_bytes_limited(&self.node.path, 1024);
        let mut fields = Fields::default();
        fields.push("Path", Value::Text(path.clone()));
        let mut message = "opened and closed before it could be seen by which process".to_owned();
        if let Scope::Jail { jid, name, vnet, .. } = scope {
            fields.push("ScopeKind", Value::text("jail"));
            if let Some(jid) = jid {
                fields.push("JailId", Value::Number(i64::from(*jid)));
            }
            message = format!("{message}, in jail {}", name.as_str());
            fields.push("JailName", Value::Text(name.clone()));
            if let Some(vnet) = vnet {
                fields.push("JailVnet", Value::Bool(*vnet));
            }
        } else {
            fields.push("ScopeKind", Value::text("host"));
        }
        fields.push("FoundBeside", Value::Bool(self.beside));
        if !self.recent.is_empty() {
            fields.push("RecentImages", Value::texts(&self.recent));
        }
        let message = Text::from(message.as_str());
        Logged { fields, ..Logged::new(Log::BpfOpens, Some(path), message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(jid: u32) -> Node {
        Node { path: format!("/jails/{jid}/dev/bpf").into(), jid }
    }

    fn unnamed(jid: u32, count: u64, beside: bool) -> Unnamed {
        Unnamed { node: node(jid), count, beside, recent: Vec::new() }
    }

    #[test]
    fn each_open_that_nobody_is_found_for_is_said() {
        let mut opens = Opens::default();
        for now in [100, 101, 400] {
            opens.opened(node(3), now);
        }
        assert_eq!(opens.next(), Some(100 + PATIENCE));
        assert_eq!(opens.take(100 + PATIENCE - 1), []);
        assert_eq!(opens.take(101 + PATIENCE), [unnamed(3, 2, false)]);
        assert_eq!(opens.take(400 + PATIENCE), [unnamed(3, 1, false)]);
        assert_eq!((opens.take(9_000), opens.next()), (vec![], None));
    }

    #[test]
    fn a_descriptor_explains_one_open_of_its_place() {
        let mut opens = Opens::default();
        opens.opened(node(3), 0);
        opens.opened(node(4), 0);
        opens.found(3, 1);
        assert_eq!(opens.take(PATIENCE), [unnamed(4, 1, false)]);
        // A process of the host may have opened the node of a jail.
        opens.opened(node(3), 5_000);
        opens.found(0, 5_001);
        assert_eq!(opens.take(9_000), []);
        // One of another jail may not.
        opens.opened(node(3), 20_000);
        opens.found(4, 20_001);
        assert_eq!(opens.take(22_000), [unnamed(3, 1, false)]);
    }

    #[test]
    fn a_short_open_beside_a_capture_is_said() {
        let mut opens = Opens::default();
        opens.opened(node(0), 0);
        opens.found(0, 5);
        opens.opened(node(0), 700);
        assert_eq!(opens.take(700 + PATIENCE), [unnamed(0, 1, true)]);
        opens.opened(node(0), 60_000);
        assert_eq!(opens.take(70_000), [unnamed(0, 1, false)]);
    }

    #[test]
    fn a_descriptor_may_be_found_before_its_open_is_told() {
        let mut opens = Opens::default();
        opens.found(0, 100);
        opens.opened(node(0), 104);
        assert_eq!((opens.next(), opens.take(9_000)), (None, vec![]));
        opens.found(0, 10_000);
        opens.opened(node(0), 10_000 + AHEAD + 1);
        assert_eq!(opens.take(20_000).len(), 1, "that was another one's");
    }

    #[test]
    fn what_was_open_before_explains_nothing_later() {
        let mut opens = Opens::default();
        opens.opened(node(0), 0);
        opens.found(0, 1);
        opens.found(0, 1);
        opens.begin();
        opens.opened(node(0), 2);
        assert_eq!(opens.take(PATIENCE + 2), [unnamed(0, 1, true)]);
    }

    #[test]
    fn what_was_executed_there_shortly_before_is_named() {
        let mut opens = Opens::default();
        opens.executed(3, "/bin/old".to_owned(), 0);
        opens.executed(3, "/bin/a".to_owned(), 9_000);
        opens.executed(0, "/bin/host".to_owned(), 9_001);
        opens.executed(3, "/bin/b".to_owned(), 9_002);
        opens.opened(node(3), 9_003);
        assert_eq!(opens.take(11_000)[0].recent, ["/bin/b", "/bin/a"]);
    }

    #[test]
    fn a_flood_is_counted() {
        let mut opens = Opens::default();
        for _ in 0..10_000 {
            opens.opened(node(3), 0);
        }
        let [all] = opens.take(PATIENCE).try_into().unwrap();
        assert_eq!(all.count, 10_000);
        let (records, more) = all.records(&Scope::Host);
        assert_eq!((records.count() as u64, more), (MAX_SAID, 10_000 - MAX_SAID));
    }

    #[test]
    fn a_record_says_where() {
        let (mut records, more) = unnamed(3, 1, true).records(&Scope::Jail {
            jid: Some(3),
            name: Text::from("web"),
            hostname: None,
            path: None,
            vnet: Some(false),
        });
        let record = records.next().unwrap();
        assert_eq!((records.count(), more), (0, 0));
        assert_eq!(record.subject, Some(Text::from("/jails/3/dev/bpf")));
        assert!(record.message.as_str().ends_with(", in jail web"));
        assert_eq!(record.fields.get("FoundBeside"), Some(&Value::Bool(true)));
        assert_eq!(record.fields.get("JailId"), Some(&Value::Number(3)));
    }
}
