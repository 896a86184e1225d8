//! Which bpf nodes are watched for opens, by whose mount each is. Pure.
//!
//! Each mount of devfs has its own nodes: an open in a jail is told of the jail's mount only. A watch keeps
//! the mount busy, so one in a jail is held only while the jail's own end is watched too, and only where the
//! mount lies below the root of a jail that lives.

use std::collections::{BTreeMap, BTreeSet};

use crate::mounts::{Place, place};
use crate::raw::JailRow;

/// A node and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Path on the host, such as `/jails/web/dev/bpf`.
    pub path: Vec<u8>,
    /// The jail; 0 for the host.
    pub jid: u32,
}

/// What should be watched, of the mounts of devfs: the host's node, and those of jails in `guarded`.
pub fn wanted(devfs: &[Vec<u8>], jails: &[JailRow], guarded: &BTreeSet<u32>) -> BTreeSet<Node> {
    let alive: Vec<JailRow> = jails.iter().filter(|jail| !jail.dying).cloned().collect();
    let node = |on: &[u8]| [on, b"/bpf"].concat();
    let mut out = BTreeSet::new();
    for on in devfs {
        match place(on, &alive) {
            Place::Host => _ = out.insert(Node { path: node(on), jid: 0 }),
            // Of a jail whose end is not watched too the mount would stay busy at its stop.
            Place::Jail(jail) if guarded.contains(&jail.jid) => {
                out.insert(Node { path: node(on), jid: jail.jid });
            }
            Place::Jail(_) | Place::Elsewhere => {}
        }
    }
    out
}

/// The watches that are held, by the number that the kernel gave each.
#[derive(Debug, Default)]
pub struct Held {
    watches: BTreeMap<i32, Node>,
}

impl Held {
    /// What to let go and what to add, so that `wanted` is watched.
    pub fn differs(&self, wanted: &BTreeSet<Node>) -> (Vec<i32>, Vec<Node>) {
        let gone = self.watches.iter().filter(|(_, node)| !wanted.contains(*node));
        let has: BTreeSet<&Node> = self.watches.values().collect();
        let new = wanted.iter().filter(|node| !has.contains(node));
        (gone.map(|(watch, _)| *watch).collect(), new.cloned().collect())
    }

    /// A watch was added.
    pub fn add(&mut self, watch: i32, node: Node) {
        self.watches.insert(watch, node);
    }

    /// A watch is gone.
    pub fn remove(&mut self, watch: i32) -> Option<Node> {
        self.watches.remove(&watch)
    }

    /// What a watch is of.
    pub fn of(&self, watch: i32) -> Option<&Node> {
        self.watches.get(&watch)
    }

    /// Watches in a jail, or in one that is within it.
    pub fn within(&self, jid: u32, jails: &[JailRow]) -> Vec<i32> {
        let parent = |of: u32| jails.iter().find(|jail| jail.jid == of).map(|jail| jail.parent);
        let inside = |mut of: u32| {
            for _ in 0..=jails.len() {
                if of == jid {
                    return true;
                }
                match parent(of) {
                    Some(up) if up != 0 => of = up,
                    _ => return false,
                }
            }
            false
        };
        let all = self.watches.iter().filter(|(_, node)| node.jid != 0 && inside(node.jid));
        all.map(|(watch, _)| *watch).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail(jid: u32, parent: u32, path: &str) -> JailRow {
        JailRow { jid, parent, path: path.into(), ..JailRow::default() }
    }

    fn node(path: &str, jid: u32) -> Node {
        Node { path: path.into(), jid }
    }

    #[test]
    fn nodes_of_the_host_and_of_jails_whose_end_is_watched() {
        let mounts =
            ["/dev", "/jails/a/dev", "/jails/b/dev", "/compat/linux/dev"].map(|on| on.into());
        let jails = [jail(1, 0, "/jails/a"), jail(2, 0, "/jails/b")];
        let of = |guarded: &[u32]| wanted(&mounts, &jails, &guarded.iter().copied().collect());
        assert_eq!(of(&[]), BTreeSet::from([node("/dev/bpf", 0)]));
        assert_eq!(of(&[2]), BTreeSet::from([node("/dev/bpf", 0), node("/jails/b/dev/bpf", 2)]));
        let dying = [JailRow { dying: true, ..jail(2, 0, "/jails/b") }];
        assert_eq!(wanted(&mounts, &dying, &BTreeSet::from([2])).len(), 1);
    }

    #[test]
    fn only_what_changed_is_changed() {
        let mut held = Held::default();
        held.add(1, node("/dev/bpf", 0));
        held.add(2, node("/jails/a/dev/bpf", 1));
        let wanted = BTreeSet::from([node("/dev/bpf", 0), node("/jails/b/dev/bpf", 2)]);
        assert_eq!(held.differs(&wanted), (vec![2], vec![node("/jails/b/dev/bpf", 2)]));
    }

    #[test]
    fn a_jail_takes_the_jails_in_it_with_it() {
        let mut held = Held::default();
        held.add(1, node("/dev/bpf", 0));
        held.add(2, node("/jails/a/dev/bpf", 1));
        held.add(3, node("/jails/a/in/dev/bpf", 4));
        held.add(4, node("/jails/b/dev/bpf", 2));
        let jails = [jail(1, 0, "/jails/a"), jail(4, 1, "/jails/a/in"), jail(2, 0, "/jails/b")];
        assert_eq!(held.within(1, &jails), [2, 3]);
        assert_eq!(held.within(4, &jails), [3]);
        // A list of jails that goes in a circle ends too.
        assert!(held.within(9, &[jail(1, 4, "/a"), jail(4, 1, "/b")]).is_empty());
    }
}
