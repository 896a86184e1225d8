//! What a restart must not say again: sessions that were reported, at which level.

use serde::{Deserialize, Serialize};

use crate::finding::Level;
use crate::handle::{HandleKey, HandleKind};
use crate::session::CaptureSession;

/// A session that was reported before the restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Mechanism of its handle.
    pub kind: HandleKind,
    /// Id of its handle.
    pub handle: u64,
    /// Process id of its owner.
    pub pid: Option<u32>,
    /// Start of its owner.
    pub start: Option<u64>,
    /// The finding.
    pub finding: String,
    /// Level that was reported.
    pub level: Level,
}

impl Remembered {
    /// Of a session that was reported.
    pub fn of(session: &CaptureSession, finding: &str, level: Level) -> Self {
        Self {
            kind: session.handle.kind,
            handle: session.handle.id,
            pid: session.owner().map(|owner| owner.pid),
            start: session.owner().and_then(|owner| owner.start),
            finding: finding.to_owned(),
            level,
        }
    }

    /// Key of its handle.
    pub fn key(&self) -> HandleKey {
        HandleKey { kind: self.kind, id: self.handle }
    }

    /// Whether the session is that one: it was there before, and the same process holds it.
    pub fn is_of(&self, session: &CaptureSession) -> bool {
        let holder = |pid| session.holders.iter().any(|h| h.pid == pid && h.start == self.start);
        session.pre_existing && self.pid.map_or(session.holders.is_empty(), holder)
    }
}
