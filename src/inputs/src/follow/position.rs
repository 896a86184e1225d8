//! How far a file was read: what is written down, and where to begin.

use serde::{Deserialize, Serialize};

/// Which file, and how far it was read: what survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Byte after the last whole line or record that was delivered.
    pub(super) offset: u64,
    /// What stood before it, or how the record of that number begins; in hexadecimal.
    pub(super) mark: String,
    /// Number of the last record that was delivered, of a format that is rewritten in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<u64>,
}

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the start of the file.
    Beginning,
    /// At its end: what is there already is not looked at.
    End,
    /// Where an earlier run ended, also if the file was renamed since.
    At(Position),
}
