//! The wall clock, and the wall time of a moment that the kernel gives in monotonic time.

use std::time::{Duration, SystemTime};

use bpfwatch_core::time::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Now.
pub fn now() -> Timestamp {
    // A clock before 1970 is no reason to stop.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Wall time of a moment of the monotonic clock; now for one that lies ahead.
pub fn at_monotonic(nanos: u64) -> Timestamp {
    Clocks::read().wall(nanos)
}

/// Both clocks at one moment, to tell the wall time of many.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    wall: Timestamp,
    monotonic: Option<Duration>,
}

impl Clocks {
    /// Now.
    pub fn read() -> Self {
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).ok().map(Duration::from);
        Self { wall: now(), monotonic }
    }

    /// Wall time of a moment of the monotonic clock; that of the reading for one that lies after it.
    pub fn wall(&self, nanos: u64) -> Timestamp {
        let Some(monotonic) = self.monotonic else { return self.wall };
        self.wall - monotonic.saturating_sub(Duration::from_nanos(nanos))
    }
}

/// Wall time of a moment of the boot-time clock, to the millisecond: readings of both clocks differ by less
/// from one time to the next. `None` where there is no such clock.
pub fn wall_of_boot(nanos: u64) -> Option<Timestamp> {
    let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    let at = now() - boot.saturating_sub(Duration::from_nanos(nanos));
    Some(Timestamp::from_nanos(at.nanos() / 1_000_000 * 1_000_000))
}
