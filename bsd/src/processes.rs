//! The processes that are known, from events of kqueue (EVFILT_PROC) and from lists. No system calls.
//!
//! Every process is followed with NOTE_EXEC and NOTE_TRACK, and the kernel follows its children before they
//! run. What that misses: a child that the kernel had no memory to follow (NOTE_TRACKERR), one whose parent's
//! event was just being delivered, and the execution of a program that ended at that moment. So the list is
//! read again every few seconds, and always until nothing is new in it. The list may also be ahead: it shows
//! a process whose events are still in the queue. Those tell nothing new then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;

use crate::poll::Said;
use crate::raw::ProcRow;

/// Rounds of listing and following until nothing is new; a host that makes processes faster is left to the
/// next reconciliation.
pub const MAX_ROUNDS: usize = 8;

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcEvent {
    /// NOTE_CHILD: a followed process was copied.
    Child {
        /// The copy.
        pid: u32,
        /// Of which.
        parent: u32,
    },
    /// NOTE_EXEC: it executed a program.
    Execute(u32),
    /// NOTE_EXIT: it ended.
    Exit(u32),
    /// NOTE_TRACKERR: a child of it is not followed.
    Untracked(u32),
}

/// How following a process went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Its events come, and its children's.
    Yes,
    /// It has ended.
    Gone,
    /// The system refused.
    No,
}

/// What the table asks of the system.
pub trait System {
    /// All processes.
    fn list(&mut self) -> Option<Vec<ProcRow>>;

    /// Asks for the events of a process that is not followed yet.
    fn follow(&mut self, pid: u32) -> Followed;

    /// All about a process. Where it is gone, what of it could still be read.
    fn read(&mut self, pid: u32) -> Process;
}

/// The processes that are known.
#[derive(Debug, Default)]
pub struct Processes {
    /// Start of each, where it could be read.
    known: BTreeMap<u32, Option<u64>>,
    /// Those that the kernel follows. One that is followed already must not be asked for again: for that
    /// moment the kernel would pass over its children in silence.
    followed: BTreeSet<u32>,
    /// Those that the last lists found first, as they were said.
    listed: BTreeMap<u32, Arc<Process>>,
    /// The list is to be read again soon.
    pub doubtful: bool,
}

impl Processes {
    /// At the start: follows and names every process, until nothing is new.
    pub fn begin(&mut self, system: &mut dyn System, said: &mut Vec<Said>) -> Reconciled {
        self.converge(system, said, |_, _| Kind::Running)
    }

    /// Later: follows what was missed, and says what came and went meanwhile.
    pub fn reconcile(&mut self, system: &mut dyn System, said: &mut Vec<Said>) -> Reconciled {
        self.converge(system, said, |system, process| {
            // A copy looks like its parent until it executes something.
            let parent = process.ppid.map(|ppid| system.read(ppid));
            let same = parent
                .is_some_and(|parent| parent.image == process.image && parent.args == process.args);
            if same { Kind::Forked } else { Kind::Executed }
        })
    }

    fn converge(
        &mut self,
        system: &mut dyn System,
        said: &mut Vec<Said>,
        kind: fn(&mut dyn System, &Process) -> Kind,
    ) -> Reconciled {
        let mut out = Reconciled::default();
        self.listed.clear();
        for _ in 0..MAX_ROUNDS {
            let Some(rows) = system.list() else { return out };
            out.complete = true;
            let mut new = Vec::new();
            for row in &rows {
                // Following comes before reading: what it does from here on is an event.
                if self.followed.contains(&row.pid) {
                    if !self.is_other(row) {
                        continue;
                    }
                    self.followed.remove(&row.pid);
                }
                match system.follow(row.pid) {
                    Followed::Yes => _ = self.followed.insert(row.pid),
                    Followed::Gone => continue,
                    Followed::No => out.refused += 1,
                }
                if !self.known.contains_key(&row.pid) || self.is_other(row) {
                    new.push(row);
                }
            }
            self.forget(&rows, said);
            let any = !new.is_empty();
            new.sort_by_key(|row| (row.start, row.pid));
            for row in new {
                self.known.insert(row.pid, Some(row.start));
                let process = Arc::new(system.read(row.pid));
                let kind = kind(system, &process);
                self.listed.insert(row.pid, Arc::clone(&process));
                said.push((Some(process), kind));
            }
            if !any {
                break;
            }
        }
        self.doubtful = false;
        out
    }

    /// Whether the row is of another process than the one known by its pid.
    fn is_other(&self, row: &ProcRow) -> bool {
        self.known.get(&row.pid).is_some_and(|known| known.is_some_and(|start| start != row.start))
    }

    /// Ends what the list no longer has, or has as another process.
    fn forget(&mut self, rows: &[ProcRow], said: &mut Vec<Said>) {
        let there: BTreeMap<u32, u64> = rows.iter().map(|row| (row.pid, row.start)).collect();
        let gone: Vec<u32> = self
            .known
            .iter()
            .filter(|(pid, start)| match there.get(pid) {
                Some(now) => start.is_some_and(|start| start != *now),
                None => true,
            })
            .map(|(pid, _)| *pid)
            .collect();
        for pid in gone {
            self.ended(pid, said);
        }
        self.followed.retain(|pid| there.contains_key(pid));
    }

    fn ended(&mut self, pid: u32, said: &mut Vec<Said>) {
        if let Some(start) = self.known.remove(&pid) {
            let process = Process { start, ..Process::from_pid(pid) };
            said.push((Some(Arc::new(process)), Kind::Exited));
        }
    }

    /// Takes an event.
    pub fn happened(&mut self, event: ProcEvent, system: &mut dyn System, said: &mut Vec<Said>) {
        match event {
            ProcEvent::Child { pid, .. } if self.listed.contains_key(&pid) => {
                self.followed.insert(pid);
            }
            ProcEvent::Child { pid, parent } => {
                // Whoever had the number has ended, though nobody told.
                self.ended(pid, said);
                self.followed.insert(pid);
                let process = Process { ppid: Some(parent), ..Process::from_pid(pid) };
                self.known.insert(pid, None);
                said.push((Some(Arc::new(process)), Kind::Forked));
            }
            ProcEvent::Execute(pid) => {
                self.followed.insert(pid);
                let process = system.read(pid);
                let start = self.known.entry(pid).or_default();
                *start = process.start.or(*start);
                let process = Process { start: *start, ..process };
                let listed = self.listed.remove(&pid);
                if listed.is_some_and(|listed| is_same_program(&listed, &process)) {
                    return;
                }
                said.push((Some(Arc::new(process)), Kind::Executed));
            }
            ProcEvent::Exit(pid) => {
                self.followed.remove(&pid);
                self.listed.remove(&pid);
                self.ended(pid, said);
            }
            ProcEvent::Untracked(_) => self.doubtful = true,
        }
    }
}

fn is_same_program(one: &Process, other: &Process) -> bool {
    one.is_same(other.key()) && one.image == other.image && one.args == other.args
}

/// How a reconciliation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// The list could be read.
    pub complete: bool,
    /// Processes that the system refused to follow.
    pub refused: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists as they are read one after the other, and what is followed.
    #[derive(Default)]
    struct Fake {
        lists: Vec<Vec<(u32, u64)>>,
        asked: Vec<u32>,
        refuses: bool,
    }

    impl System for Fake {
        fn list(&mut self) -> Option<Vec<ProcRow>> {
            let now = if self.lists.len() > 1 {
                self.lists.remove(0)
            } else {
                self.lists.first()?.clone()
            };
            let row = |(pid, start)| ProcRow {
                pid,
                ppid: 1,
                sid: 0,
                uid: 0,
                start,
                flags: 0,
                state: 2,
                comm: b"x".to_vec(),
                tty: 0,
                tracer: 0,
                jid: 0,
            };
            Some(now.into_iter().map(row).collect())
        }

        fn follow(&mut self, pid: u32) -> Followed {
            self.asked.push(pid);
            match pid {
                666 => Followed::Gone,
                _ if self.refuses => Followed::No,
                _ => Followed::Yes,
            }
        }

        fn read(&mut self, pid: u32) -> Process {
            let last = self.lists.last();
            let found = last.and_then(|list| list.iter().find(|(other, _)| *other == pid));
            Process {
                start: found.map(|(_, start)| *start),
                ppid: Some(1),
                image: Some(format!("/bin/{pid}").into()),
                ..Process::from_pid(pid)
            }
        }
    }

    fn short(said: &mut Vec<Said>) -> Vec<(u32, &'static str)> {
        said.drain(..).map(|(actor, kind)| (actor.unwrap().pid, kind.name())).collect()
    }

    #[test]
    fn begins_until_nothing_is_new_and_asks_for_each_once() {
        let mut system = Fake {
            lists: vec![
                vec![(1, 10), (5, 50), (666, 60)],
                vec![(1, 10), (5, 50), (6, 60)],
                vec![(1, 10), (6, 60)],
            ],
            ..Fake::default()
        };
        let (mut table, mut said) = (Processes::default(), Vec::new());
        let how = table.begin(&mut system, &mut said);
        assert_eq!(how, Reconciled { complete: true, refused: 0 });
        assert_eq!(
            short(&mut said),
            [(1, "running"), (5, "running"), (6, "running"), (5, "exited")]
        );
        system.asked.sort_unstable();
        assert_eq!(system.asked, [1, 5, 6, 666]);
    }

    #[test]
    fn follows_a_program_through_events() {
        let mut system = Fake { lists: vec![vec![(1, 10), (7, 70)]], ..Fake::default() };
        let (mut table, mut said) = (Processes::default(), Vec::new());
        table.happened(ProcEvent::Child { pid: 7, parent: 1 }, &mut system, &mut said);
        table.happened(ProcEvent::Execute(7), &mut system, &mut said);
        assert_eq!(said[1].0.as_ref().unwrap().start, Some(70));
        table.happened(ProcEvent::Exit(7), &mut system, &mut said);
        assert_eq!(said[2].0.as_ref().unwrap().start, Some(70));
        assert_eq!(short(&mut said), [(7, "forked"), (7, "executed"), (7, "exited")]);
        table.happened(ProcEvent::Exit(7), &mut system, &mut said);
        assert_eq!(short(&mut said), []);
    }

    #[test]
    fn a_number_that_is_another_process_by_now() {
        let mut system = Fake { lists: vec![vec![(7, 70)], vec![(7, 71)]], ..Fake::default() };
        let (mut table, mut said) = (Processes::default(), Vec::new());
        system.lists = vec![vec![(7, 70)]];
        table.begin(&mut system, &mut said);
        system.lists = vec![vec![(7, 71)]];
        table.reconcile(&mut system, &mut said);
        assert_eq!(short(&mut said), [(7, "running"), (7, "exited"), (7, "executed")]);
        assert_eq!(system.asked, [7, 7]);
    }

    #[test]
    fn what_a_list_told_first_is_not_told_by_its_events_again() {
        let mut system = Fake { lists: vec![vec![(1, 10)]], ..Fake::default() };
        let (mut table, mut said) = (Processes::default(), Vec::new());
        table.begin(&mut system, &mut said);
        system.lists = vec![vec![(1, 10), (7, 70)]];
        table.reconcile(&mut system, &mut said);
        table.happened(ProcEvent::Child { pid: 7, parent: 1 }, &mut system, &mut said);
        table.happened(ProcEvent::Execute(7), &mut system, &mut said);
        assert_eq!(short(&mut said), [(1, "running"), (7, "executed")]);
        // The next program is another one, and so is the next process of that number.
        table.happened(ProcEvent::Execute(7), &mut system, &mut said);
        table.happened(ProcEvent::Exit(7), &mut system, &mut said);
        table.happened(ProcEvent::Child { pid: 7, parent: 1 }, &mut system, &mut said);
        assert_eq!(short(&mut said), [(7, "executed"), (7, "exited"), (7, "forked")]);
    }

    #[test]
    fn what_was_missed_is_found_again() {
        let mut system = Fake { lists: vec![vec![(1, 10)]], ..Fake::default() };
        let (mut table, mut said) = (Processes::default(), Vec::new());
        table.begin(&mut system, &mut said);
        table.happened(ProcEvent::Untracked(1), &mut system, &mut said);
        assert!(table.doubtful);
        system.lists = vec![vec![(1, 10), (8, 80)]];
        table.reconcile(&mut system, &mut said);
        assert!(!table.doubtful);
        assert_eq!(short(&mut said), [(1, "running"), (8, "executed")]);
        system.refuses = true;
        system.lists = vec![vec![(1, 10), (8, 80), (9, 90)]];
        assert_eq!(table.reconcile(&mut system, &mut said).refused, 2, "asked for in each round");
        system.lists.clear();
        assert!(!table.reconcile(&mut system, &mut said).complete);
    }
}
