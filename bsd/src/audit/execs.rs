//! Executions that an audit record and kqueue both tell, said once.
//!
//! kqueue tells first and has the process read while it lives: start, parent, terminal, jail. The record comes
//! some milliseconds later and has what was executed, exactly. So what kqueue tells waits for its record, and
//! everything that came after it waits too, because a child must not overtake its parent. A record of which
//! kqueue told nothing is said by itself; what came without a record within [`HOLD`] (the arguments of some are
//! longer than a record may be) is said as kqueue has it. Either one's double is dropped later.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;
use bpfwatch_core::sensor::Offer;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;

use crate::poll::Said;

/// How long an execution waits for its record, in milliseconds.
pub const HOLD: u64 = 250;
/// How long what only one source told is remembered: longer than between two lists of all processes.
const REMEMBERED: u64 = 6_000;
/// How long the other's is its double whatever image it shows.
const CLOSE: u64 = 1_000;
/// Bytes of what waits; over it the oldest is said without its record.
const MAX_HELD: usize = 4 * 1024 * 1024;
/// What is remembered of each sort.
const MAX_REMEMBERED: usize = 1_024;

#[derive(Debug)]
struct Held {
    since: u64,
    offer: Offer,
    /// It is an execution, and its record is not there yet.
    waits: bool,
    /// Its bytes.
    weight: usize,
}

/// What only one source told so far.
#[derive(Debug)]
struct Alone {
    since: u64,
    pid: u32,
    image: Option<Text>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Execs {
    held: VecDeque<Held>,
    /// Bytes of all of them.
    weight: usize,
    /// How many were ever taken out at its front: the number of the first one.
    gone: u64,
    /// Numbers of those that wait, by pid.
    waiting: HashMap<u32, BTreeSet<u64>>,
    by_kqueue: VecDeque<Alone>,
    by_record: VecDeque<Alone>,
    /// Processes that ended not long ago.
    ended: VecDeque<Alone>,
}

impl Execs {
    /// Takes what kqueue or a list tells, seen at `at`.
    pub fn heard(&mut self, said: Vec<Said>, at: Timestamp, now: u64) {
        self.forget(now);
        for (actor, kind) in said {
            let mut waits = false;
            if let Some(process) = &actor {
                let pid = process.pid;
                match kind {
                    Kind::Executed if take(&mut self.by_record, process, now).is_some() => continue,
                    Kind::Executed => waits = true,
                    Kind::Exited => remember(&mut self.ended, process, now),
                    // Its program was told before itself.
                    Kind::Forked if is_recent(&self.by_record, pid, now) => continue,
                    // The number is another process's now.
                    Kind::Forked => {
                        self.settle(pid);
                        for list in [&mut self.ended, &mut self.by_record, &mut self.by_kqueue] {
                            list.retain(|alone| alone.pid != pid);
                        }
                    }
                    _ => {}
                }
            }
            self.push(Offer { at, actor, kind }, waits, now);
        }
    }

    /// Takes a record of an execution. `read` says what is known of a process now.
    pub fn recorded(
        &mut self,
        at: Timestamp,
        record: Process,
        now: u64,
        read: &mut dyn FnMut(u32) -> Process,
    ) {
        self.forget(now);
        if take(&mut self.by_kqueue, &record, now).is_some() {
            return;
        }
        if let Some(number) = self.find(&record) {
            self.arrived(record.pid, number);
            let index = usize::try_from(number - self.gone).unwrap_or(usize::MAX);
            if let Some(held) = self.held.get_mut(index) {
                held.waits = false;
                let seen = held.offer.actor.take().map(Arc::unwrap_or_clone).unwrap_or_default();
                held.offer.actor = Some(Arc::new(merged(seen, record)));
                held.offer.at = at;
                self.weight -= held.weight;
                held.weight = weight(&held.offer);
                self.weight += held.weight;
            }
            return;
        }
        remember(&mut self.by_record, &record, now);
        let has_ended = self.ended.iter().any(|alone| alone.pid == record.pid);
        let seen = if has_ended { Process::from_pid(record.pid) } else { read(record.pid) };
        let actor = Arc::new(merged(seen, record));
        self.push(Offer { at, actor: Some(Arc::clone(&actor)), kind: Kind::Executed }, false, now);
        // Its end was told already: else it would live for ever.
        if has_ended {
            self.push(Offer { at, actor: Some(actor), kind: Kind::Exited }, false, now);
        }
    }

    /// Takes something else that must keep its place in the order.
    pub fn beside(&mut self, offer: Offer, now: u64) {
        self.push(offer, false, now);
    }

    /// When the first one has waited long enough, if any waits.
    pub fn next(&self) -> Option<u64> {
        self.held.front().map(|held| if held.waits { held.since + HOLD } else { held.since })
    }

    /// What can be said at `now`, in order.
    pub fn take(&mut self, now: u64) -> Vec<Offer> {
        let mut out = Vec::new();
        while let Some(first) = self.held.front()
            && (!first.waits || now >= first.since + HOLD || self.weight > MAX_HELD)
        {
            if first.waits
                && let Some(process) = first.offer.actor.clone()
            {
                self.arrived(process.pid, self.gone);
                remember(&mut self.by_kqueue, &process, now);
            }
            let Some(first) = self.held.pop_front() else { break };
            self.gone += 1;
            self.weight -= first.weight;
            out.push(first.offer);
        }
        out
    }

    fn push(&mut self, offer: Offer, waits: bool, now: u64) {
        if waits && let Some(process) = &offer.actor {
            let number = self.gone + self.held.len() as u64;
            self.waiting.entry(process.pid).or_default().insert(number);
        }
        let weight = weight(&offer);
        self.weight += weight;
        self.held.push_back(Held { since: now, offer, waits, weight });
    }

    /// The one that the record is of: of several of one process the same program, else the first.
    fn find(&self, record: &Process) -> Option<u64> {
        let numbers = self.waiting.get(&record.pid)?;
        let of = |number: &&u64| {
            let held = self.held.get(usize::try_from(**number - self.gone).ok()?)?;
            held.offer.actor.as_deref()
        };
        let same =
            numbers.iter().find(|number| of(number).is_some_and(|seen| is_same(seen, record)));
        same.or_else(|| numbers.first()).copied()
    }

    /// One waits no longer.
    fn arrived(&mut self, pid: u32, number: u64) {
        if let Some(numbers) = self.waiting.get_mut(&pid) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.waiting.remove(&pid);
            }
        }
    }

    /// Nothing of that process waits any longer.
    fn settle(&mut self, pid: u32) {
        for number in self.waiting.remove(&pid).unwrap_or_default() {
            let index = usize::try_from(number - self.gone).unwrap_or(usize::MAX);
            if let Some(held) = self.held.get_mut(index) {
                held.waits = false;
            }
        }
    }

    fn forget(&mut self, now: u64) {
        for list in [&mut self.by_kqueue, &mut self.by_record, &mut self.ended] {
            while list.len() > MAX_REMEMBERED
                || list.front().is_some_and(|alone| alone.since + REMEMBERED < now)
            {
                list.pop_front();
            }
        }
    }
}

fn weight(offer: &Offer) -> usize {
    size_of::<Held>() + offer.actor.as_ref().map_or(0, |process| process.own_weight())
}

fn remember(list: &mut VecDeque<Alone>, process: &Process, since: u64) {
    list.push_back(Alone { since, pid: process.pid, image: process.image.clone() });
}

/// Whether a process of that number did it just now.
fn is_recent(list: &VecDeque<Alone>, pid: u32, now: u64) -> bool {
    list.iter().any(|alone| alone.pid == pid && now.saturating_sub(alone.since) <= CLOSE)
}

/// Takes out what is the double of the process's execution.
fn take(list: &mut VecDeque<Alone>, process: &Process, now: u64) -> Option<Alone> {
    let is_double = |alone: &Alone| {
        let close = now.saturating_sub(alone.since) <= CLOSE;
        let other =
            alone.image.is_some() && process.image.is_some() && alone.image != process.image;
        alone.pid == process.pid && (close || !other)
    };
    let index = list.iter().position(is_double)?;
    list.remove(index)
}

/// Whether what was read of a process is of the execution of the record, and of no later one.
fn is_same(seen: &Process, record: &Process) -> bool {
    let (Some(read), Some(told)) = (&seen.args, &record.args) else {
        return seen.image.is_none() || record.image.is_none() || seen.image == record.image;
    };
    // A script is executed by its own name and arguments, and becomes its interpreter with them.
    read == told || (seen.image == record.image && ends_with(read, told))
}

fn ends_with(read: &Arguments, told: &Arguments) -> bool {
    let tail: Vec<&str> = told.head().skip(1).collect();
    let all: Vec<&str> = read.head().collect();
    !told.is_cut() && !read.is_cut() && all.len() > tail.len() && all.ends_with(&tail)
}

/// What both know: the record of what was executed, the read of who it is.
fn merged(seen: Process, record: Process) -> Process {
    let same = is_same(&seen, &record);
    let scope = seen.scope.clone().or(record.scope);
    let uid = seen.uid.or(record.uid);
    if same {
        // The kernel's own path has no symbolic link in it, and a script's is its interpreter.
        return Process {
            image_owner: seen.image_owner.or(record.image_owner),
            image: seen.image.or(record.image),
            args: seen.args.or(record.args),
            scope,
            uid,
            ..seen
        };
    }
    Process {
        name: None,
        image: record.image,
        args: record.args,
        image_owner: record.image_owner,
        image_deleted: None,
        image_writable_dir: None,
        scope,
        uid,
        ..seen
    }
}

#[cfg(test)]
mod tests;
