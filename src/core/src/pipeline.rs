//! The whole way from observations to lines: tracker, rules, correlation, alerts.
//!
//! Live sensors and replay feed the same pipeline. It does nothing by itself: time passes when
//! [`Pipeline::advance`] says so or when an observation carries a later time.

use std::sync::Arc;

use crate::finding::{Line, SessionLine};
use crate::observation::{Observation, Origin};
use crate::rules::RuleSet;
use crate::time::Timestamp;

/// Observations of one origin, in processing order.
#[derive(Debug)]
pub struct Batch {
    /// Where they come from.
    pub origin: Arc<Origin>,
    /// The observations.
    pub observations: Vec<Observation>,
}

/// What can be set about the pipeline.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Take secrets out of command lines before anything is written.
    pub redact: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { redact: true }
    }
}

/// What went through so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Observations fed.
    pub observations: u64,
    /// Findings, updates included.
    pub findings: u64,
    /// Hits that an expected filter withheld.
    pub withheld: u64,
    /// Events that sensors reported as lost.
    pub lost: u64,
}

/// Tracker, rules, correlation and alerts in a row.
pub struct Pipeline {
    counters: Counters,
}

impl Pipeline {
    /// With these rules.
    pub fn new(_rules: Arc<RuleSet>, _settings: Settings) -> Self {
        Self { counters: Counters::default() }
    }

    /// Processes a batch; lines come out in order.
    pub fn feed(&mut self, batch: Batch, _out: &mut dyn FnMut(Line)) {
        self.counters.observations += batch.observations.len() as u64;
    }

    /// Lets engine time pass up to `now`: hold-backs end, folding windows close.
    pub fn advance(&mut self, _now: Timestamp, _out: &mut dyn FnMut(Line)) {}

    /// When something is next due, so that a live caller need not wake before.
    pub fn next_due(&self) -> Option<Timestamp> {
        None
    }

    /// The end of a replay or of the program: whatever is pending comes out.
    pub fn finish(&mut self, _out: &mut dyn FnMut(Line)) {}

    /// Every open session with its verdict, for `scan`, oldest first.
    pub fn sessions(&self, _now: Timestamp) -> Vec<SessionLine> {
        Vec::new()
    }

    /// What went through so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What has to survive a restart: which sessions were reported, at which level. JSON.
    pub fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes back what [`Pipeline::state`] gave; sessions in it that are still there stay silent.
    ///
    /// # Errors
    /// When the value is no state of this version; nothing is changed then.
    pub fn restore(&mut self, _state: &serde_json::Value) -> Result<(), String> {
        Ok(())
    }
}
