//! Opens that an audit record and `kern.file` both tell, said once.
//!
//! The record says which process got which descriptor; a look, which process has which open file. Both know
//! process and descriptor, so each new file answers one record. A look that begins after the record was read and
//! does not find the descriptor proves that it is closed, or was passed on: then the record is all that
//! there is of this open. A file may also be found by a look before its record is read.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::audit::stream::Opened;
use crate::raw::FileRow;

/// How long a file waits for its record, in milliseconds.
const AHEAD: u64 = 2_000;
/// Files that wait.
const MAX_AHEAD: usize = 1_024;
/// Copies of processes that are remembered.
const MAX_FORKS: usize = 4_096;
/// Generations between who opened a file and who has it.
const MAX_GENERATIONS: usize = 16;

/// Process and descriptor.
pub type Place = (u32, u32);

/// An open file that was found and of which no record came yet.
#[derive(Debug)]
struct Ahead {
    since: u64,
    places: Vec<Place>,
}

/// An open file that a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What tells it from others.
    pub id: u64,
    /// This look is the first that found it.
    pub is_new: bool,
    /// Processes and their descriptors of it.
    pub places: Vec<Place>,
}

/// What a look says of opens.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Opens of which no process has a descriptor any more.
    pub short: Vec<Opened>,
    /// Files that answered a record.
    pub recorded: BTreeSet<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Openers {
    waiting: Vec<Opened>,
    ahead: VecDeque<Ahead>,
    parents: HashMap<u32, u32>,
    forks: VecDeque<u32>,
}

impl Openers {
    /// A process was copied, with its descriptors.
    pub fn forked(&mut self, child: u32, parent: u32) {
        if self.parents.insert(child, parent).is_none() {
            self.forks.push_back(child);
        }
        if self.forks.len() > MAX_FORKS
            && let Some(oldest) = self.forks.pop_front()
        {
            self.parents.remove(&oldest);
        }
    }

    /// Takes a record, which waits for the next look. Whether no look has found its file yet.
    pub fn opened(&mut self, open: Opened, now: u64) -> bool {
        self.ahead.retain(|ahead| ahead.since + AHEAD >= now);
        let place = (open.process.pid, open.fd);
        let is_of = |ahead: &Ahead| ahead.places.iter().any(|held| self.comes_from(*held, place));
        if let Some(index) = self.ahead.iter().position(is_of) {
            self.ahead.remove(index);
            return false;
        }
        self.waiting.push(open);
        true
    }

    /// Takes a look.
    pub fn looked(&mut self, files: &[File], now: u64) -> Answers {
        let mut answers = Answers::default();
        // Of several opens that had one descriptor after the other, the last one has it.
        for open in std::mem::take(&mut self.waiting).into_iter().rev() {
            let place = (open.process.pid, open.fd);
            let found = files.iter().find(|file| {
                // One that was there before had its record: closed and opened again between two looks, a
                // file often has the address of the one before it.
                let free = file.is_new && !answers.recorded.contains(&file.id);
                free && file.places.iter().any(|held| self.comes_from(*held, place))
            });
            match found {
                Some(file) => _ = answers.recorded.insert(file.id),
                None => answers.short.push(open),
            }
        }
        answers.short.reverse();
        let unrecorded = files.iter().filter(|file| !answers.recorded.contains(&file.id));
        for file in unrecorded.filter(|file| file.is_new) {
            if self.ahead.len() < MAX_AHEAD {
                self.ahead.push_back(Ahead { since: now, places: file.places.clone() });
            }
        }
        answers
    }

    /// Gives up waiting for looks, which cannot be had.
    pub fn give_up(&mut self) -> Vec<Opened> {
        std::mem::take(&mut self.waiting)
    }

    /// Forgets what was found: the files were open before the pipe was.
    pub fn begin(&mut self) {
        self.ahead.clear();
    }

    /// Whether a descriptor is the one that was opened, or a copy of it that a child has.
    fn comes_from(&self, held: Place, opened: Place) -> bool {
        let mut pid = held.0;
        for _ in 0..MAX_GENERATIONS {
            if pid == opened.0 {
                return held.1 == opened.1;
            }
            let Some(parent) = self.parents.get(&pid) else { break };
            pid = *parent;
        }
        false
    }
}

/// Descriptors by open file; `is_new` says of a file's id whether this look found it first.
pub fn by_file(
    rows: &[FileRow],
    id: impl Fn(&FileRow) -> u64,
    is_new: impl Fn(u64) -> bool,
) -> Vec<File> {
    let mut files: BTreeMap<u64, Vec<Place>> = BTreeMap::new();
    for row in rows {
        files.entry(id(row)).or_default().push((row.pid, row.fd.cast_unsigned()));
    }
    files.into_iter().map(|(id, places)| File { id, is_new: is_new(id), places }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfwatch_core::process::Process;
    use bpfwatch_core::time::Timestamp;

    fn open(pid: u32, fd: u32, second: i64) -> Opened {
        let at = Timestamp::from_secs(second);
        Opened { at, process: Process::from_pid(pid), fd, path: None }
    }

    fn new(places: &[Place]) -> File {
        let id = u64::from(places[0].0) << 32 | u64::from(places[0].1);
        File { id, is_new: true, places: places.to_vec() }
    }

    fn nothing_is_said(answers: Answers) {
        assert_eq!(answers.short, []);
    }

    #[test]
    fn a_file_that_a_look_finds_is_said_by_the_look() {
        let mut openers = Openers::default();
        assert!(openers.opened(open(7, 3, 1), 10));
        let file = new(&[(7, 3)]);
        let answers = openers.looked(std::slice::from_ref(&file), 11);
        assert_eq!((answers.short, answers.recorded), (vec![], BTreeSet::from([file.id])));
        let before = File { is_new: false, ..file };
        nothing_is_said(openers.looked(std::slice::from_ref(&before), 12));
        assert!(openers.opened(open(7, 3, 2), 13), "it waits for nothing");
        assert_eq!(openers.looked(&[before], 14).short, [open(7, 3, 2)], "another at its address");
    }

    #[test]
    fn what_no_look_finds_is_said_by_its_record_once() {
        let mut openers = Openers::default();
        openers.opened(open(7, 3, 1), 10);
        openers.opened(open(7, 3, 2), 10);
        openers.opened(open(8, 3, 3), 10);
        let said = openers.looked(&[new(&[(7, 3)])], 11);
        assert_eq!(said.short, [open(7, 3, 1), open(8, 3, 3)], "the last one of 7 is open");
        nothing_is_said(openers.looked(&[], 12));
    }

    #[test]
    fn a_look_may_come_before_the_record() {
        let mut openers = Openers::default();
        assert_eq!(openers.looked(&[new(&[(7, 3)])], 10).recorded, BTreeSet::new());
        assert!(!openers.opened(open(7, 3, 1), 15), "it was found already");
        nothing_is_said(openers.looked(&[], 16));
        // The next one of the same process is another open.
        assert!(openers.opened(open(7, 3, 2), 20));
        assert_eq!(openers.looked(&[], 21).short, [open(7, 3, 2)]);
    }

    #[test]
    fn a_file_of_which_no_record_comes_waits_not_for_ever() {
        let mut openers = Openers::default();
        openers.looked(&[new(&[(7, 3)])], 10);
        assert!(openers.opened(open(7, 3, 9), 10 + AHEAD + 1));
        openers.looked(&[new(&[(9, 3)])], 20);
        openers.begin();
        assert!(openers.opened(open(9, 3, 9), 21));
    }

    #[test]
    fn a_child_has_what_its_parent_opened() {
        let mut openers = Openers::default();
        openers.forked(8, 7);
        openers.forked(9, 8);
        openers.opened(open(7, 3, 1), 10);
        nothing_is_said(openers.looked(&[new(&[(9, 3)])], 11));
        nothing_is_said(openers.looked(&[new(&[(8, 4)])], 20));
        assert!(!openers.opened(open(7, 4, 2), 21));
        // A circle ends too, and what is remembered is bounded.
        openers.forked(7, 9);
        assert!(openers.opened(open(6, 3, 3), 22));
        for pid in 0..10_000 {
            openers.forked(pid, 1);
        }
        assert!(openers.parents.len() <= MAX_FORKS && openers.forks.len() <= MAX_FORKS);
    }

    #[test]
    fn several_descriptors_of_one_file_are_one_file() {
        let row =
            |pid, fd, file| FileRow { pid, uid: 0, fd, file, kind: 1, data: 1, vnode: 1, flags: 1 };
        let rows = [row(7, 3, 70), row(8, 3, 80), row(9, 3, 70)];
        let files = by_file(&rows, |row| row.file, |id| id == 80);
        let file = |id, is_new, places: &[Place]| File { id, is_new, places: places.to_vec() };
        assert_eq!(files, [file(70, false, &[(7, 3), (9, 3)]), file(80, true, &[(8, 3)])]);
    }

    #[test]
    fn without_looks_records_say_it() {
        let mut openers = Openers::default();
        openers.opened(open(7, 3, 1), 10);
        assert_eq!(openers.give_up(), [open(7, 3, 1)]);
        assert!(openers.give_up().is_empty());
    }
}
