//! How the daemon fares, as one value that the main loop puts up now and then and that others read:
//! the status socket and the metrics.

use std::sync::{Arc, Mutex, PoisonError};

use bpfwatch_core::finding::Heartbeat;
use bpfwatch_core::pipeline::WithheldBy;
use bpfwatch_core::platform::Check;
use bpfwatch_core::sensor::CHANNEL_BYTES;
use bpfwatch_core::time::Timestamp;
use serde::Serialize;

/// Everything that there is to say about a running daemon. Its JSON is what `status --format json`
/// prints.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "status")]
pub struct Status {
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// Files that the configuration was read from; none for the defaults.
    pub files: Vec<String>,
    /// What a heartbeat tells.
    #[serde(flatten)]
    pub health: Heartbeat,
    /// Bytes that may wait for the engine.
    pub backlog_limit_bytes: u64,
    /// What each source sees.
    pub sources: Vec<Check>,
    /// What was given up.
    pub hardening: Vec<Check>,
    /// How often each expected filter withheld a finding.
    pub withheld_by: Vec<WithheldBy>,
    /// Rules that were left out, each with its place.
    pub refused_rules: Vec<String>,
    /// Configurations that were taken while it runs.
    pub reloads_taken: u64,
    /// Configurations that were not.
    pub reloads_refused: u64,
}

impl Status {
    /// The size of the channel between sensors and engine.
    pub const BACKLOG_LIMIT: u64 = CHANNEL_BYTES as u64;
}

/// Where the newest status hangs.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Option<Arc<Status>>>>);

impl Board {
    /// Puts up a new one.
    pub fn put(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(status));
    }

    /// The newest one.
    pub fn newest(&self) -> Option<Arc<Status>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
