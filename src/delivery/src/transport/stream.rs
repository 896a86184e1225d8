//! Standard output, or anything else that takes bytes one after another.

use std::io::{self, Write};

use bpfwatch_core::finding::Line;
use bpfwatch_core::sink::Sink;

use crate::format::Format;

/// Bytes that wait at most before they are written, where records are held.
const HOLD: usize = 64 * 1024;

/// Writes records to a stream.
pub struct StreamSink<F, W: Write> {
    name: String,
    format: F,
    writer: W,
    pending: Vec<u8>,
    hold: usize,
    record: Vec<u8>,
}

impl<F: Format> StreamSink<F, io::Stdout> {
    /// Standard output; each record is written at once, so that a reader in a pipe sees it live.
    pub fn stdout(format: F) -> Self {
        Self::new("standard output", format, io::stdout(), false)
    }

    /// Standard output; records are written in pieces of 64 KiB, for many at once. Call `flush` at
    /// the end.
    pub fn stdout_held(format: F) -> Self {
        Self::new("standard output", format, io::stdout(), true)
    }
}

impl<F: Format, W: Write> StreamSink<F, W> {
    /// Any stream. `held`: records wait until there are 64 KiB of them, or for `flush`.
    pub fn new(name: &str, format: F, writer: W, held: bool) -> Self {
        let hold = if held { HOLD } else { 0 };
        Self {
            name: name.to_owned(),
            format,
            writer,
            pending: Vec::new(),
            hold,
            record: Vec::new(),
        }
    }

    fn write_out(&mut self) -> io::Result<()> {
        // Whatever becomes of it, it is not written twice: half a record before a whole one would
        // spoil both.
        let pending = std::mem::take(&mut self.pending);
        let result = self.writer.write_all(&pending).and_then(|()| self.writer.flush());
        self.pending = pending;
        self.pending.clear();
        result
    }
}

impl<F: Format, W: Write + Send> Sink for StreamSink<F, W> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        super::render(&self.format, line, &mut self.record)?;
        self.pending.extend_from_slice(&self.record);
        if self.pending.len() >= self.hold { self.write_out() } else { Ok(()) }
    }

    /// Writes out held records.
    ///
    /// # Errors
    /// `BrokenPipe` when the reader is gone: the caller ends then, quietly.
    fn flush(&mut self) -> io::Result<()> {
        self.write_out()
    }
}

impl<F, W: Write> Drop for StreamSink<F, W> {
    fn drop(&mut self) {
        // Held records of a caller that forgot to flush; nobody is left to hear of an error.
        let _ = self.writer.write_all(&self.pending).and_then(|()| self.writer.flush());
    }
}
