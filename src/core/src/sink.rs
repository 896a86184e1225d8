//! Where lines go: a sink takes each in turn and must not hold up the others.

use crate::finding::Line;

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
}
