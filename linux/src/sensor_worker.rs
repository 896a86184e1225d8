//! The thread that looks for handles: each second everywhere, and soon after something happened there
//! where it happened.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;
use bpfwatch_core::sensor::Outlet;

use crate::clock;
use crate::netns::Stranded;
use crate::sensor_state::{Look, State};
use crate::sensor_table::{Said, Shared};

/// After an execution, looks at these times in milliseconds: a tool opens its handle within them.
const AFTER_EXEC: [u64; 7] = [5, 20, 40, 80, 160, 320, 500];
/// A namespace is not looked into more often than this, in milliseconds.
const PACE: u64 = 20;
/// A change of an interface makes all namespaces be looked into; for many of them, not more often than
/// this for each, in milliseconds.
const PACE_EACH: u64 = 5;
/// Notes that may wait; more means that processes are to be listed anew.
const NOTES: usize = 100_000;

/// After a handle was opened, where nobody tells of its close.
const AFTER_OPEN: [u64; 4] = [50, 150, 400, 700];

/// What the event loop tells the worker.
#[derive(Debug, Clone)]
pub enum Note {
    /// A process is in that network namespace, which was not known.
    Namespace(u32, u64),
    /// A handle was opened in that network namespace; nobody will tell of its close.
    Opened(u64),
    /// Something happened there that only a look can tell more of.
    Look(u64),
    /// Somebody set or cleared IFF_PROMISC of an interface: namespace, name, which, who.
    Flags(u64, Vec<u8>, bool, Arc<Process>),
    /// A process executed something, in that network namespace.
    Exec(u32, u64),
    /// A process was copied: parent and child.
    Fork(u32, u32),
    /// A process ended.
    Exit(u32),
    /// An interface changed.
    Link,
    /// Events were lost.
    Resync,
}

#[derive(Default)]
struct Inbox {
    notes: Vec<Note>,
    overflowed: bool,
    /// Until when the worker sleeps; a note that is due earlier wakes it.
    asleep_until: Option<Instant>,
    stop: bool,
}

/// Where notes go. Never blocks for longer than a lock.
pub struct Desk {
    /// Forks and ends of those who hold a handle matter at once.
    table: Shared,
    inbox: Mutex<Inbox>,
    bell: Condvar,
}

impl Desk {
    /// For handles in `table`. Who holds its lock leaves no note of a fork or an end but one that cannot wait.
    pub fn new(table: Shared) -> Self {
        Self { table, inbox: Mutex::default(), bell: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a note, and wakes the worker where it cannot wait until it wakes by itself.
    pub fn leave(&self, note: Note) {
        let patience = match note {
            Note::Fork(pid, _) | Note::Exit(pid) if !self.table.lock().is_holder(pid) => None,
            Note::Exec(..) | Note::Opened(_) => Some(Duration::from_millis(PACE)),
            Note::Namespace(..) => None,
            _ => Some(Duration::ZERO),
        };
        self.put(self.lock(), note, patience);
    }

    /// Leaves a note that cannot wait.
    pub fn leave_now(&self, note: Note) {
        self.put(self.lock(), note, Some(Duration::ZERO));
    }

    fn put(&self, mut inbox: MutexGuard<'_, Inbox>, note: Note, patience: Option<Duration>) {
        if inbox.notes.len() < NOTES {
            inbox.notes.push(note);
        } else {
            inbox.overflowed = true;
        }
        if let (Some(patience), Some(until)) = (patience, inbox.asleep_until)
            && Instant::now() + patience < until
        {
            inbox.asleep_until = None;
            drop(inbox);
            self.bell.notify_one();
        }
    }

    /// Ends the worker.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.bell.notify_one();
    }

    /// Sleeps until `until` or until a note cannot wait; gives the notes, or `None` at the end.
    fn wait(&self, until: Instant, notes: &mut Vec<Note>) -> Option<bool> {
        let mut inbox = self.lock();
        inbox.asleep_until = Some(until);
        while !inbox.stop && inbox.asleep_until.is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inbox = self.bell.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        inbox.asleep_until = None;
        notes.append(&mut inbox.notes);
        let overflowed = std::mem::take(&mut inbox.overflowed);
        (!inbox.stop).then_some(overflowed)
    }
}

/// See the module.
pub struct Worker {
    state: State,
    interval: Duration,
    sensor: Arc<str>,
    links: Arc<str>,
    start: Instant,
    /// Looks that are due: milliseconds since the start, and namespace.
    due: BTreeSet<(u64, u64)>,
    last: HashMap<u64, u64>,
    /// The next look that is due is to list interfaces too.
    link: bool,
}

impl Worker {
    /// Before the first look.
    pub fn new(state: State, interval: Duration) -> Self {
        Self {
            state,
            interval,
            sensor: Arc::from("linux.sockets"),
            links: Arc::from("linux.links"),
            start: Instant::now(),
            due: BTreeSet::new(),
            last: HashMap::new(),
            link: false,
        }
    }

    /// Looks until told to stop.
    ///
    /// # Errors
    /// When the thread is stranded in a foreign namespace.
    pub fn run(mut self, desk: &Desk, outlet: &Outlet) -> Result<(), Stranded> {
        let mut said = Vec::new();
        self.state.look(Look::First, &mut said)?;
        self.offer(&mut said, outlet);
        let mut steady = Instant::now() + self.interval;
        let mut notes = Vec::new();
        loop {
            let woken = self.due.first().map(|(at, _)| self.start + Duration::from_millis(*at));
            let until = woken.map_or(steady, |woken| woken.min(steady));
            let Some(overflowed) = desk.wait(until, &mut notes) else { return Ok(()) };
            if overflowed {
                self.state.forget_processes();
            }
            for note in notes.drain(..) {
                self.note(note, &mut said);
            }
            if Instant::now() >= steady {
                self.state.look(Look::Steady, &mut said)?;
                steady = Instant::now() + self.interval;
            } else {
                let namespaces = self.take_due();
                if !namespaces.is_empty() {
                    let link = std::mem::take(&mut self.link);
                    let look = if link { Look::Changed } else { Look::Woken };
                    self.state.look_into(look, &namespaces, &mut said)?;
                }
            }
            self.offer(&mut said, outlet);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&mut self, note: Note, said: &mut Vec<Said>) {
        match note {
            Note::Exec(pid, netns) => {
                self.state.executed(pid, netns);
                let now = self.now();
                // On a grid, so that a thousand executions a second are one look each 20 ms.
                self.due
                    .extend(AFTER_EXEC.map(|after| ((now + after).next_multiple_of(PACE), netns)));
            }
            Note::Namespace(pid, netns) => self.state.executed(pid, netns),
            Note::Opened(netns) => {
                let now = self.now();
                self.due
                    .extend(AFTER_OPEN.map(|after| ((now + after).next_multiple_of(PACE), netns)));
            }
            Note::Look(netns) => self.soon(netns, PACE),
            Note::Flags(netns, interface, on, actor) => {
                self.state.setters.add(netns, interface, on, actor);
                self.soon(netns, PACE);
                self.link = true;
            }
            Note::Fork(parent, child) => self.state.forked(parent, child, said),
            Note::Exit(pid) => {
                for netns in self.state.exited(pid) {
                    self.soon(netns, PACE);
                }
            }
            Note::Link => {
                let (home, others) = self.state.namespaces();
                let pace = PACE.max(PACE_EACH * others.len() as u64);
                self.soon(home, PACE);
                others.into_iter().for_each(|netns| self.soon(netns, pace));
                self.link = true;
            }
            Note::Resync => self.state.forget_processes(),
        }
    }

    /// A look at once, or as soon as the pace allows.
    fn soon(&mut self, netns: u64, pace: u64) {
        let earliest = self.last.get(&netns).map_or(0, |last| last + pace);
        self.due.insert((self.now().max(earliest), netns));
    }

    fn take_due(&mut self) -> Vec<u64> {
        let now = self.now();
        let later = self.due.split_off(&(now + 1, 0));
        let namespaces: BTreeSet<u64> =
            std::mem::replace(&mut self.due, later).into_iter().map(|(_, netns)| netns).collect();
        if self.last.len() > 4096 {
            self.last.clear();
        }
        self.last.extend(namespaces.iter().map(|netns| (*netns, now)));
        namespaces.into_iter().collect()
    }

    fn offer(&mut self, said: &mut Vec<Said>, outlet: &Outlet) {
        if said.is_empty() {
            return;
        }
        let at = clock::now();
        for (actor, kind) in said.drain(..) {
            let sensor = match kind {
                Kind::InterfacePromiscuous { .. } => &self.links,
                _ => &self.sensor,
            };
            outlet.offer(at, sensor, actor, kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use bpfwatch_core::handle::{Handle, HandleKind};

    use super::*;
    use crate::sensor_table::{Holder, Seen};

    fn waits(desk: &Desk, note: Note) -> Duration {
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                desk.leave(note);
            });
            let mut notes = Vec::new();
            let overflowed = desk.wait(start + Duration::from_millis(600), &mut notes);
            assert_eq!(overflowed, Some(false));
            assert_eq!(notes.len(), 1);
        });
        start.elapsed()
    }

    #[test]
    fn only_what_matters_wakes() {
        let table = Shared::default();
        let process = Arc::new(Process { start: Some(1), ..Process::from_pid(7) });
        let handle = Handle::new(HandleKind::PacketSocket, 3);
        let seen = Seen { handle, promiscuous: None };
        let holders = vec![Holder { process, fd: 3 }];
        table.lock().open(1, seen, holders, false, &mut Vec::new());
        let desk = Desk::new(table);
        for note in [Note::Exec(1, 2), Note::Link, Note::Resync, Note::Fork(7, 8), Note::Exit(7)] {
            assert!(waits(&desk, note.clone()) < Duration::from_millis(500), "{note:?}");
        }
        for note in [Note::Fork(1, 7), Note::Exit(1)] {
            assert!(waits(&desk, note.clone()) >= Duration::from_millis(600), "{note:?}");
        }
    }

    #[test]
    fn too_many_notes_are_told_and_the_end_is_the_end() {
        let desk = Desk::new(Shared::default());
        for pid in 0..=NOTES as u32 {
            desk.leave(Note::Exit(pid));
        }
        let mut notes = Vec::new();
        assert_eq!(desk.wait(Instant::now(), &mut notes), Some(true));
        assert_eq!(notes.len(), NOTES);
        assert_eq!(desk.wait(Instant::now(), &mut notes), Some(false));
        desk.stop();
        assert_eq!(desk.wait(Instant::now() + Duration::from_secs(60), &mut notes), None);
    }
}
