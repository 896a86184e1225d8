//! Where lines go: a sink takes each in turn and must not hold up the others.

use std::sync::Arc;

use crate::finding::Line;
use crate::time::Timestamp;

/// A destination of output lines.
pub trait Sink: Send {
    /// Name in health and in messages, such as `file /var/log/bpfwatch.json`.
    fn name(&self) -> &str;

    /// Writes one line.
    ///
    /// # Errors
    /// When it could not be written; the caller counts it and goes on.
    fn write(&mut self, line: &Line) -> std::io::Result<()>;

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// As for `write`.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    /// What tells how much waits, for a sink that takes a line before its receiver has it.
    fn backlog(&self) -> Option<Arc<dyn Backlog>> {
        None
    }
}

/// What a sink has taken and not delivered yet; asked while another thread owns the sink.
pub trait Backlog: Send + Sync {
    /// How it fares now.
    fn state(&self) -> BacklogState;
}

/// How a [`Backlog`] fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BacklogState {
    /// Lines that wait.
    pub waiting: u64,
    /// Bytes that they take.
    pub waiting_bytes: u64,
    /// Lines that the receiver took since the sink was opened.
    pub delivered: u64,
    /// Lines that were taken by `write` and will never be delivered.
    pub lost: u64,
    /// Why they were lost, in words; empty where none was.
    pub why: String,
    /// Why the last try to deliver failed; `None` while all is well.
    pub trouble: Option<String>,
    /// When the receiver last took something.
    pub last_delivery: Option<Timestamp>,
    /// Whether the lines that wait survive the end of the sink.
    pub is_kept: bool,
    /// What becomes of the lines that wait when the program ends, in words.
    pub fate: &'static str,
}
