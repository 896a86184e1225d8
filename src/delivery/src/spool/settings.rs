//! How large and how old a spool may become, and how safe from a power failure it is.

use std::time::Duration;

/// When what was appended is brought to the disk (`fdatasync`). A killed program loses nothing under
/// any of them: the kernel has the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before `append` returns: nothing that was accepted is lost in a power failure.
    Always,
    /// Within this time, and before anything is sent: a power failure takes the last moment with it.
    Interval(Duration),
    /// When the kernel likes (Linux: within 30 s). After a power failure a receiver may see a number
    /// twice, for two records of different ids.
    Never,
}

/// Limits of a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes on disk; beyond it the oldest segment is dropped and counted.
    pub max_bytes: u64,
    /// A record that waited longer is dropped and counted. While the program runs this is measured, not
    /// told by the clock; of what it finds at its start, the age is that of the file.
    pub max_age: Duration,
    /// When to sync.
    pub sync: Sync,
}

/// The least `max_bytes` that is any use: sixteen segments, each with room for a record.
pub const LEAST_BYTES: u64 = 1024 * 1024;

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_bytes: 256 * 1024 * 1024,
            max_age: Duration::from_secs(7 * 24 * 3600),
            sync: Sync::Interval(Duration::from_secs(1)),
        }
    }
}

impl Settings {
    /// Bytes at which a new segment is begun: a sixteenth of the whole, so that dropping the oldest one
    /// takes little, and at most 16 MiB.
    pub fn segment_bytes(&self) -> u64 {
        (self.max_bytes / 16).clamp(64 * 1024, 16 * 1024 * 1024)
    }
}
