//! Who descends from whom: a bounded table of processes with their ancestors.
//!
//! An ancestor stays known while a descendant does, also when it has ended. All that is kept is
//! counted in bytes; over the limit the oldest entries go, ended ones first, so a fork bomb costs
//! ancestry and never memory.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::process::{ANCESTOR_ARGS_LIMIT, Ancestor, Process, ProcessKey};
use crate::text::Text;
use crate::time::Timestamp;

/// Ancestors kept of a process.
pub const MAX_ANCESTORS: usize = 16;
/// Bytes that the table may take.
const BYTES_LIMIT: usize = 8 * 1024 * 1024;
/// Bytes of arguments kept of a process in the table.
const ARGS_LIMIT: usize = 4 * 1024;
/// How long an ended process can still be asked for.
const GRACE: Duration = Duration::from_secs(10);

/// One process as it was between two executions.
#[derive(Debug)]
struct Node {
    /// Shared with the observation where that keeps no more than the table does. Its ancestors, if any,
    /// are not looked at here: `parent` tells.
    process: Arc<Process>,
    /// Made when a descendant first shows it: most processes have none.
    shown: OnceLock<Arc<Ancestor>>,
    parent: Option<Arc<Node>>,
    executed_at: Option<Timestamp>,
    weight: usize,
    gauge: Arc<AtomicUsize>,
}

impl Node {
    fn shown(&self) -> Arc<Ancestor> {
        let make = || {
            Arc::new(Ancestor {
                pid: self.process.pid,
                start: self.process.start,
                image: self.process.image.clone(),
                args: self.process.args.as_ref().map(|args| args.shortened(ANCESTOR_ARGS_LIMIT)),
            })
        };
        Arc::clone(self.shown.get_or_init(make))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.gauge.fetch_sub(self.weight, Ordering::Relaxed);
        // A chain of parents that only this node kept is taken apart in a loop: its length is
        // bounded, but not by anything that the stack should rely on.
        let mut next = self.parent.take();
        while let Some(node) = next {
            next = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    stamp: u64,
    ended: bool,
}

/// The table. One per origin.
#[derive(Debug, Default)]
pub struct Lineage {
    entries: HashMap<u32, Entry>,
    /// Pids in order of entry, with the stamp that tells whether that is still the same entry.
    order: VecDeque<(u32, u64)>,
    ended: VecDeque<(Timestamp, u32, u64)>,
    stamp: u64,
    gauge: Arc<AtomicUsize>,
}

impl Lineage {
    /// A process that was there already.
    pub fn running(&mut self, process: Arc<Process>) {
        let parent = self.parent_node(&process);
        self.insert(process, parent, None);
    }

    /// A new process, copied from its parent: what the sensor does not say of it, it has from there.
    pub fn forked(&mut self, process: Arc<Process>) {
        let parent = self.parent_node(&process);
        match &parent {
            Some(parent) if process.image.is_none() => {
                let ancestors = Vec::new();
                let mut copy = Process { ancestors, ..Process::clone(&parent.process) };
                (copy.pid, copy.start, copy.ppid) = (process.pid, process.start, process.ppid);
                if process.sid.is_some() {
                    copy.sid = process.sid;
                }
                if process.scope.is_some() {
                    copy.scope.clone_from(&process.scope);
                }
                let parent = Arc::clone(parent);
                self.insert(Arc::new(copy), Some(parent), None);
            }
            _ => self.insert(process, parent, None),
        }
    }

    /// The process runs a new image, and gets its ancestors. Its parent stays who it was, also when the
    /// kernel has since handed the process over to init.
    pub fn executed(&mut self, process: &mut Arc<Process>, at: Timestamp) {
        let parent = match self.find(process.key()) {
            Some(entry) if entry.node.parent.is_some() => entry.node.parent.clone(),
            _ => self.parent_node(process),
        };
        if process.responsible.is_some() {
            self.name_responsible(Arc::make_mut(process));
        }
        let chain = self.ancestors(parent.clone());
        // A log that names the parent knows no more than that: the table may know the rest.
        let given = process.ancestors.first();
        let same_parent = |first: &Arc<Ancestor>| {
            chain.first().is_some_and(|known| known.pid == first.pid && known.image == first.image)
        };
        if given.is_none_or(|first| process.ancestors.len() == 1 && same_parent(first)) {
            Arc::make_mut(process).ancestors = chain;
        }
        self.insert(Arc::clone(process), parent, Some(at));
    }

    /// The process ended; it can be asked for a little longer.
    pub fn exited(&mut self, key: ProcessKey, at: Timestamp) {
        while let Some(&(due, pid, stamp)) = self.ended.front()
            && due <= at
        {
            self.ended.pop_front();
            if self.entries.get(&pid).is_some_and(|entry| entry.stamp == stamp) {
                self.entries.remove(&pid);
            }
        }
        if let Some(entry) = self.entries.get_mut(&key.pid)
            && entry.node.process.is_same(key)
        {
            entry.ended = true;
            self.ended.push_back((at + GRACE, key.pid, entry.stamp));
        }
    }

    /// Adds what the table knows: ancestors, and each field that the source left out.
    pub fn enrich(&self, process: &mut Process) {
        let entry = self.find(process.key());
        if let Some(known) = entry.map(|entry| &entry.node.process) {
            // Another image is another program: then only what outlives an exec is taken over.
            let same_image = process.image.is_none() || process.image == known.image;
            fn take<T: Clone>(mine: &mut Option<T>, theirs: &Option<T>) {
                if mine.is_none() {
                    mine.clone_from(theirs);
                }
            }
            take(&mut process.start, &known.start);
            take(&mut process.ppid, &known.ppid);
            take(&mut process.sid, &known.sid);
            take(&mut process.uid, &known.uid);
            take(&mut process.user, &known.user);
            take(&mut process.tty, &known.tty);
            take(&mut process.cwd, &known.cwd);
            take(&mut process.unit, &known.unit);
            take(&mut process.scope, &known.scope);
            take(&mut process.responsible, &known.responsible);
            if same_image {
                take(&mut process.name, &known.name);
                take(&mut process.image, &known.image);
                take(&mut process.args, &known.args);
                take(&mut process.identity, &known.identity);
                take(&mut process.image_owner, &known.image_owner);
                take(&mut process.image_deleted, &known.image_deleted);
                take(&mut process.image_writable_dir, &known.image_writable_dir);
            }
        }
        self.name_responsible(process);
        if !process.ancestors.is_empty() {
            return;
        }
        let mut next = entry.and_then(|entry| entry.node.parent.clone());
        if next.is_none() {
            next = self.parent_node(process);
        }
        process.ancestors = self.ancestors(next);
    }

    /// Adds what the table knows of the process that is responsible for this one.
    fn name_responsible(&self, process: &mut Process) {
        if let Some(known) = process.responsible.as_ref().filter(|known| known.image.is_none())
            && let Some(entry) = self.find(ProcessKey { pid: known.pid, start: known.start })
        {
            process.responsible = Some(entry.node.shown());
        }
    }

    /// The chain that begins with this one.
    fn ancestors(&self, mut next: Option<Arc<Node>>) -> Vec<Arc<Ancestor>> {
        let mut ancestors = Vec::new();
        while let Some(node) = next {
            if ancestors.len() == MAX_ANCESTORS {
                break;
            }
            ancestors.push(node.shown());
            next = node.parent.clone().or_else(|| self.parent_node(&node.process));
        }
        ancestors
    }

    /// The process that leads the lineage: the nearest ancestor, or the process itself, that leads a
    /// session, or is the first one of its scope.
    pub fn leader(&self, process: &Process) -> ProcessKey {
        let mut leader = process.key();
        if process.sid == Some(process.pid) {
            return leader;
        }
        let mut scope = process.scope.clone();
        let mut next = self
            .find(process.key())
            .and_then(|entry| entry.node.parent.clone())
            .or_else(|| self.parent_node(process));
        for _ in 0..MAX_ANCESTORS {
            let Some(node) = next else { break };
            if node.process.pid <= 1 || node.process.scope != scope {
                break;
            }
            leader = node.process.key();
            if node.process.sid == Some(node.process.pid) {
                break;
            }
            scope.clone_from(&node.process.scope);
            next = node.parent.clone().or_else(|| self.parent_node(&node.process));
        }
        leader
    }

    /// When the process executed its present image, where that was seen.
    pub fn executed_at(&self, key: ProcessKey) -> Option<Timestamp> {
        self.find(key).and_then(|entry| entry.node.executed_at)
    }

    /// Processes in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that the table takes, ended ancestors included.
    pub fn weight(&self) -> usize {
        self.gauge.load(Ordering::Relaxed)
    }

    fn find(&self, key: ProcessKey) -> Option<&Entry> {
        self.entries.get(&key.pid).filter(|entry| entry.node.process.is_same(key))
    }

    fn parent_node(&self, process: &Process) -> Option<Arc<Node>> {
        let ppid = process.ppid.filter(|ppid| *ppid != process.pid && *ppid != 0)?;
        self.entries.get(&ppid).map(|entry| Arc::clone(&entry.node))
    }

    fn insert(
        &mut self,
        mut process: Arc<Process>,
        parent: Option<Arc<Node>>,
        executed_at: Option<Timestamp>,
    ) {
        if process.args.as_ref().is_some_and(|args| args.weight() > ARGS_LIMIT) {
            let args = process.args.as_ref().map(|args| args.shortened(ARGS_LIMIT));
            let ancestors = Vec::new();
            process = Arc::new(Process { args, ancestors, ..Process::clone(&process) });
        }
        // Ancestors are counted where they stand in the table themselves.
        let shown = size_of::<Ancestor>()
            + process.image.as_ref().map_or(0, Text::weight)
            + process.args.as_ref().map_or(0, |args| args.weight().min(ANCESTOR_ARGS_LIMIT));
        let weight = process.own_weight() + size_of::<Node>() + shown;
        self.gauge.fetch_add(weight, Ordering::Relaxed);
        let pid = process.pid;
        let node = Arc::new(Node {
            process,
            shown: OnceLock::new(),
            parent: parent.map(shorten),
            executed_at,
            weight,
            gauge: Arc::clone(&self.gauge),
        });
        self.stamp += 1;
        let before = self.entries.insert(pid, Entry { node, stamp: self.stamp, ended: false });
        match before {
            // An exec keeps the process's place: else a busy shell would push everyone else out.
            Some(before) if !before.ended => {
                if let Some(entry) = self.entries.get_mut(&pid) {
                    entry.stamp = before.stamp;
                }
            }
            _ => self.order.push_back((pid, self.stamp)),
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.weight() > BYTES_LIMIT {
            let oldest = self
                .ended
                .pop_front()
                .map(|(_, pid, stamp)| (pid, stamp))
                .or_else(|| self.order.pop_front());
            let Some((pid, stamp)) = oldest else { break };
            if self.entries.get(&pid).is_some_and(|entry| entry.stamp == stamp) {
                self.entries.remove(&pid);
            }
        }
        // Entries that ended leave their place in the order behind.
        while let Some(&(pid, stamp)) = self.order.front()
            && self.entries.get(&pid).is_none_or(|entry| entry.stamp != stamp)
        {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.entries.len() + 1024 {
            let entries = &self.entries;
            self.order
                .retain(|(pid, stamp)| entries.get(pid).is_some_and(|entry| entry.stamp == *stamp));
        }
    }
}

/// Ends the chain of ancestors after [`MAX_ANCESTORS`], or a process that forks itself on and on would
/// keep all its dead parents.
fn shorten(parent: Arc<Node>) -> Arc<Node> {
    let mut chain = Vec::with_capacity(MAX_ANCESTORS);
    let mut next = Some(&parent);
    while let Some(node) = next {
        if chain.len() == MAX_ANCESTORS {
            break;
        }
        chain.push(node);
        next = node.parent.as_ref();
    }
    if next.is_none() {
        return parent;
    }
    let mut kept: Option<Arc<Node>> = None;
    for node in chain.into_iter().take(MAX_ANCESTORS - 1).rev() {
        node.gauge.fetch_add(node.weight, Ordering::Relaxed);
        kept = Some(Arc::new(Node {
            process: Arc::clone(&node.process),
            shown: node.shown.clone(),
            parent: kept,
            executed_at: node.executed_at,
            weight: node.weight,
            gauge: Arc::clone(&node.gauge),
        }));
    }
    kept.unwrap_or(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Arguments;
    use crate::scope::Scope;

    fn process(pid: u32, ppid: u32, image: &str) -> Process {
        Process {
            pid,
            start: Some(u64::from(pid) * 10),
            ppid: Some(ppid),
            image: Some(image.into()),
            args: Some(Arguments::from_list([image])),
            ..Process::default()
        }
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn images(lineage: &Lineage, pid: u32) -> Vec<String> {
        let mut process = Process::from_pid(pid);
        lineage.enrich(&mut process);
        process.ancestors.iter().filter_map(|a| a.image.as_ref().map(|i| i.to_string())).collect()
    }

    #[test]
    fn ancestors_outlive_their_end() {
        let mut lineage = Lineage::default();
        lineage.running(process(1, 0, "/sbin/init").into());
        lineage.running(process(10, 1, "/usr/sbin/nginx").into());
        lineage.forked(Process { ppid: Some(10), ..Process::from_pid(11) }.into());
        lineage.executed(&mut process(11, 10, "/bin/sh").into(), at(1));
        lineage.forked(Process { ppid: Some(11), ..Process::from_pid(12) }.into());
        lineage.exited(ProcessKey { pid: 11, start: None }, at(2));
        lineage.exited(ProcessKey { pid: 99, start: None }, at(60));
        // By now the kernel says that 12 is a child of init.
        lineage.executed(&mut process(12, 1, "/tmp/x").into(), at(61));
        assert_eq!(images(&lineage, 12), ["/bin/sh", "/usr/sbin/nginx", "/sbin/init"]);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let mut lineage = Lineage::default();
        lineage.running(process(10, 1, "/usr/sbin/cron").into());
        let mut other = Process { pid: 10, start: Some(7777), ..Process::default() };
        lineage.enrich(&mut other);
        assert_eq!(other.image, None);
        let mut same = Process::from_pid(10);
        lineage.enrich(&mut same);
        assert_eq!(same.image.unwrap().as_str(), "/usr/sbin/cron");
    }

    #[test]
    fn who_is_responsible_gets_a_name() {
        let mut lineage = Lineage::default();
        let terminal = Process { start: Some(70), ..process(7, 1, "/Applications/Terminal") };
        lineage.running(terminal.into());
        let by = |start| {
            Some(Arc::new(Ancestor { pid: 7, start: Some(start), image: None, args: None }))
        };
        let image = |process: &Process| process.responsible.as_ref().unwrap().image.clone();
        let mut executed =
            Arc::new(Process { responsible: by(70), ..process(9, 1, "/usr/sbin/tcpdump") });
        lineage.executed(&mut executed, at(1));
        assert_eq!(image(&executed), Some("/Applications/Terminal".into()));
        // Whoever opens a handle later need not be told of again.
        let mut known = Process::from_pid(9);
        lineage.enrich(&mut known);
        assert_eq!(image(&known), Some("/Applications/Terminal".into()));
        let mut other = Process { responsible: by(71), ..process(10, 1, "/bin/zsh") };
        lineage.enrich(&mut other);
        assert_eq!(image(&other), None, "that pid is another process now");
    }

    #[test]
    fn a_chain_of_forks_stays_short() {
        let mut lineage = Lineage::default();
        for pid in 2..5000 {
            lineage.forked(process(pid, pid - 1, "/tmp/fork").into());
            lineage.exited(ProcessKey { pid: pid - 1, start: None }, at(i64::from(pid)));
        }
        assert!(images(&lineage, 4999).len() <= MAX_ANCESTORS);
        assert!(lineage.len() < 20, "{}", lineage.len());
        assert!(lineage.weight() < 200_000, "{}", lineage.weight());
    }

    #[test]
    fn a_fork_bomb_costs_no_memory() {
        let mut lineage = Lineage::default();
        let long = "x".repeat(4000);
        for pid in 2..100_000 {
            let mut bomb = process(pid, pid / 2, "/tmp/bomb");
            bomb.args = Some(Arguments::from_list([&long]));
            lineage.executed(&mut bomb.into(), at(1));
        }
        assert!(lineage.weight() <= BYTES_LIMIT, "{}", lineage.weight());
        assert!(lineage.len() > 100);
    }

    #[test]
    fn the_leader_is_the_session_or_the_scope() {
        let mut lineage = Lineage::default();
        let mut shell = process(20, 10, "/bin/bash");
        shell.sid = Some(20);
        lineage.running(process(10, 1, "/usr/sbin/sshd").into());
        lineage.running(shell.into());
        let mut child = process(21, 20, "/usr/bin/tcpdump");
        child.sid = Some(20);
        lineage.executed(&mut child.clone().into(), at(1));
        assert_eq!(lineage.leader(&child).pid, 20);

        let scope = Some(Arc::new(Scope::Namespace { netns: 1, name: None }));
        let mut first = process(30, 20, "/bin/sh");
        first.scope.clone_from(&scope);
        lineage.executed(&mut first.into(), at(1));
        let mut second = process(31, 30, "/bin/cat");
        second.scope = scope;
        assert_eq!(lineage.leader(&second).pid, 30);
    }
}
