//! One run of a technique: how long, on which interface, and what has been reported meanwhile.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::platform::OpenHandle;
use bpfwatch_core::sensor::SensorError;

use crate::platform;
use crate::signals::Signals;

/// How soon a signal or a report ends a hold.
const STEP: Duration = Duration::from_millis(5);

/// What a technique is given, and what it tells while it runs.
#[derive(Debug)]
pub struct Run {
    interface: String,
    hold: Duration,
    signals: Signals,
    known: Mutex<Known>,
}

/// What is known of a technique that runs.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Processes that it is done by.
    pub pids: BTreeSet<u32>,
    /// The process that is to hold the handle in the end, where that is the point of it.
    pub handed_to: Option<u32>,
    /// Ids of rules that reported it; only verification fills this and the next.
    pub rules: BTreeSet<String>,
    /// Processes that were seen to hold its handle.
    pub holders: BTreeSet<u32>,
}

impl Known {
    /// Whether all these rules reported it.
    pub fn has(&self, rules: &[&str]) -> bool {
        rules.iter().all(|id| self.rules.contains(*id))
    }

    /// Whether the process that the handle was handed to was seen to hold it.
    pub fn is_handed(&self) -> bool {
        self.handed_to.is_none_or(|pid| self.holders.contains(&pid))
    }
}

impl Run {
    /// On an interface, for at most a time.
    pub fn new(interface: &str, hold: Duration, signals: Signals) -> Self {
        Self { interface: interface.to_owned(), hold, signals, known: Mutex::default() }
    }

    /// The interface to capture on.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// What is known so far.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process takes part in it.
    pub fn involve(&self, pid: u32) {
        self.known().pids.insert(pid);
    }

    /// Whether a signal asks to stop.
    pub fn is_stopped(&self) -> bool {
        self.signals.stop()
    }

    /// Opens a handle in a way that the platform has.
    pub fn open(&self, technique: &str) -> Result<OpenHandle, SensorError> {
        platform::current().open_handle(technique, &self.interface)
    }

    /// Waits for the hold time, or until `done` says that no more is waited for; in words how long.
    pub fn hold(&self, done: impl Fn(&Known) -> bool) -> String {
        self.hold_at_least(Duration::ZERO, done)
    }

    /// The same, with a hold time that does not fall below `least`.
    pub fn hold_at_least(&self, least: Duration, done: impl Fn(&Known) -> bool) -> String {
        let started = Instant::now();
        let hold = self.hold.max(least);
        while started.elapsed() < hold && !self.is_stopped() && !done(&self.known()) {
            thread::sleep(STEP);
        }
        format!("{} ms", started.elapsed().as_millis())
    }
}
