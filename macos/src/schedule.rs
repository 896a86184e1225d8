//! When to look at the kernel's tables: some times after an event, and steadily in between. Pure: the caller
//! has the clock, in milliseconds since any moment.

use std::collections::BTreeSet;

/// After an event, looks at these times in milliseconds: there is no event for BIOCSETIF and BIOCPROMISC,
/// which a program asks for a little after it opened.
pub const AFTER_EVENT: [u64; 4] = [50, 250, 1000, 5000];
/// Time between steady looks while somebody holds a descriptor.
pub const BUSY: u64 = 1000;
/// Looks closer than this are one.
const MERGE: u64 = 10;

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

    /// From now on `idle` is the time between steady looks when nothing goes on.
    pub fn set_idle(&mut self, idle: u64) {
        self.idle = idle;
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

    /// Whether a look is due at `now`. What was due until then is done with it.
    pub fn take(&mut self, now: u64, busy: bool) -> bool {
        let was_due = self.next() <= now;
        if was_due {
            self.due = self.due.split_off(&(now + 1));
            self.steady = now + if busy { BUSY.min(self.idle) } else { self.idle };
        }
        was_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn looks_again_after_an_event() {
        let mut schedule = Schedule::new(0, 60_000);
        assert_eq!(looks(&mut schedule, 0, false), [0]);
        schedule.event(100);
        assert_eq!(looks(&mut schedule, 20_000, false), [150, 350, 1100, 5100]);
        assert!(!schedule.take(20_000, false));
    }

    #[test]
    fn more_often_while_somebody_holds_one() {
        let mut schedule = Schedule::new(0, 5000);
        assert_eq!(looks(&mut schedule, 10_000, false), [0, 5000, 10_000]);
        assert_eq!(looks(&mut schedule, 17_000, true), [15_000, 16_000, 17_000]);
        schedule.set_idle(100);
        assert_eq!(looks(&mut schedule, 18_150, true), [18_000, 18_100]);
    }

    #[test]
    fn a_flood_of_events_is_no_flood_of_looks() {
        let mut schedule = Schedule::new(0, 60_000);
        assert!(schedule.take(0, false));
        for now in 0..1000 {
            schedule.event(now);
        }
        assert!(looks(&mut schedule, 20_000, false).len() < 500);
    }
}
