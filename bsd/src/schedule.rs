//! When to look: at once and some times more after an event, and steadily in between. Pure: the caller has
//! the clock, in milliseconds since any moment.

use std::collections::BTreeSet;

/// After an event, looks at these times in milliseconds. In 1 to 2 of 100 opens the event comes before the
/// descriptor is there, and a program attaches, and asks for promiscuous mode, a little after it opened.
pub const AFTER_EVENT: [u64; 6] = [0, 5, 20, 100, 500, 1000];
/// Time between steady looks while somebody holds a descriptor, or may open one where no event tells.
pub const BUSY: u64 = 250;
/// Time between them otherwise.
pub const IDLE: u64 = 1000;
/// Looks closer than this are one.
const MERGE: u64 = 2;

/// The looks that are due.
#[derive(Debug, Clone)]
pub struct Schedule {
    due: BTreeSet<u64>,
    steady: u64,
    idle: u64,
}

impl Schedule {
    /// Begins with a look at `now`; `idle` is the time between steady looks when nothing goes on.
    pub fn new(now: u64, idle: u64) -> Self {
        Self { due: BTreeSet::new(), steady: now, idle }
    }

    /// Something happened at `now`.
    pub fn event(&mut self, now: u64) {
        for after in AFTER_EVENT {
            let at = now + after;
            // A flood of events must not make a flood of looks.
            if self.due.range(at.saturating_sub(MERGE)..=at + MERGE).next().is_none() {
                self.due.insert(at);
            }
        }
    }

    /// When the next look is due.
    pub fn next(&self) -> u64 {
        self.due.first().map_or(self.steady, |first| self.steady.min(*first))
    }

    /// Whether a look is due at `now`. What was due until then is done with it. `busy` says how long to the
    /// next steady one.
    pub fn take(&mut self, now: u64, busy: bool) -> bool {
        let was_due = self.next() <= now;
        if was_due {
            self.due = self.due.split_off(&(now + 1));
            self.steady = now + if busy { BUSY.min(self.idle) } else { self.idle };
        } else if busy {
            self.steady = self.steady.min(now + BUSY.min(self.idle));
        }
        was_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of the looks up to `end`.
    fn looks(schedule: &mut Schedule, end: u64, busy: bool) -> Vec<u64> {
        let mut at = Vec::new();
        while schedule.next() <= end {
            let now = schedule.next();
            assert!(schedule.take(now, busy));
            at.push(now);
        }
        at
    }

    #[test]
    fn steadily_and_more_often_while_something_goes_on() {
        let mut schedule = Schedule::new(0, IDLE);
        assert_eq!(looks(&mut schedule, 3500, false), [0, 1000, 2000, 3000]);
        assert!(!schedule.take(3600, true));
        assert_eq!(schedule.next(), 3850);
        assert_eq!(looks(&mut schedule, 4500, true), [3850, 4100, 4350]);
    }

    #[test]
    fn at_once_and_again_after_an_event() {
        let mut schedule = Schedule::new(0, 10_000);
        assert!(schedule.take(0, false));
        schedule.event(100);
        assert_eq!(looks(&mut schedule, 5000, false), [100, 105, 120, 200, 600, 1100]);
    }

    #[test]
    fn a_flood_of_events_is_no_flood_of_looks() {
        let mut schedule = Schedule::new(0, 10_000);
        assert!(schedule.take(0, false));
        for _ in 0..100_000 {
            schedule.event(100);
            schedule.event(101);
        }
        assert!(looks(&mut schedule, 5000, false).len() <= AFTER_EVENT.len());
        for now in 0..2000 {
            schedule.event(10_000 + now);
        }
        assert!(looks(&mut schedule, 20_000, false).len() <= 3000 / MERGE as usize);
    }
}
