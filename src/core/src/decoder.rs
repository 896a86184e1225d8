//! What a recorded format is to the replay: a name, a way to recognise it and a function from a line, or a
//! block of bytes, to observations.
//!
//! Decoders of what an operating system itself writes live in that system's package; the program hands
//! them to the replay reader, which knows none of them by name.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use crate::observation::{Observation, Origin, Os};

/// A format with one record a line, or several in a block of bytes.
///
/// Lines are decoded on several threads at once and put back in order afterwards, so a decoder keeps
/// nothing from one line to the next.
pub trait LineDecoder: Send + Sync {
    /// Value of `--input`, and the format's name in messages.
    fn name(&self) -> &'static str;

    /// Whether `line`, the first one that is not blank, looks like this format. Of a very long line
    /// only the start is shown.
    fn sniff(&self, line: &[u8]) -> bool;

    /// The system that writes this format; `None` where the records themselves tell or it may be any.
    fn os(&self) -> Option<Os>;

    /// Whether the records carry [`Observation::seq`]. Otherwise the reader numbers them.
    fn keeps_seq(&self) -> bool {
        false
    }

    /// What the observations of one source pass in order after decoding; `None` where each line says
    /// all.
    fn sequence(&self) -> Option<Box<dyn Sequence>> {
        None
    }

    /// Of a binary format: how its bytes are cut. `None` for lines.
    fn blocks(&self) -> Option<Blocks> {
        None
    }

    /// Decodes one block of a binary format and hands each of its records to `receive`, in order.
    fn decode_block(&self, block: &[u8], receive: &mut dyn FnMut(Record)) {
        let _ = (block, receive);
    }

    /// Decodes one line, without its newline, and appends what it says to `out`.
    ///
    /// # Errors
    /// When the line is none of this format. What was appended before is then dropped by the reader.
    fn decode(&self, line: &[u8], out: &mut Vec<Observation>) -> Result<Decoded, LineError>;
}

/// What a source's observations have to pass one after the other, where a line alone does not say
/// enough, such as whether the descriptor that a process closed was the last one.
pub trait Sequence: Send {
    /// Takes the next observation and appends what becomes of it to `out`.
    fn pass(&mut self, observation: Observation, out: &mut Vec<Observation>);

    /// Nothing more comes, or nothing has for [`IDLE`]: what waits for more of itself does so in vain.
    fn flush(&mut self, out: &mut Vec<Observation>) {
        let _ = out;
    }
}

/// How long a followed file is silent before its [`Sequence`] gives out what it holds.
pub const IDLE: Duration = Duration::from_secs(2);

/// How a binary format is cut.
#[derive(Debug, Clone, Copy)]
pub enum Blocks {
    /// Into blocks of one size, which are rewritten in place as the file grows, and whose records are
    /// numbered.
    Fixed {
        /// Bytes before the first block.
        header: usize,
        /// Bytes of each block.
        size: usize,
        /// Which records a block says to hold; asked of its first [`Held::HEAD`] bytes alone.
        held: fn(&[u8]) -> Held,
        /// Number and place of the records of a block that are there to their ends, up to the first one
        /// that is not.
        whole: fn(&[u8]) -> Places,
    },
    /// After records that say themselves how long they are: how many bytes from the start are whole
    /// records, damage between them included. 0 only where more bytes are needed; within a number of bytes
    /// that the format bounds it says more.
    Records(fn(&[u8]) -> usize),
}

/// Numbers of records, and where within a block each stands.
pub type Places = Vec<(u64, Range<usize>)>;

/// What the head of a block says about its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// None are there yet.
    Nothing,
    /// These numbers.
    Records(RangeInclusive<u64>),
    /// It is no head of a block, or one that is half written.
    Unreadable,
}

impl Held {
    /// Bytes of a block that say it: a disk's sector.
    pub const HEAD: usize = 512;
}

/// One record of a block.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// The number that the format gives it; of a record that cannot be read, where that is known.
    pub number: Option<u64>,
    /// What it says.
    pub observations: Vec<Observation>,
    /// What it is, or why it could not be decoded.
    pub decoded: Result<Decoded, LineError>,
}

/// What a line was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// It was understood; its observations are appended.
    Observed,
    /// It is a well-formed record of something that bpfwatch has no use for.
    Skipped,
    /// It says where the following lines come from.
    Origin(Box<Origin>),
    /// It was understood, its observations are appended, and it says where they come from.
    From(Box<Origin>),
}

/// Why a line could not be decoded. The reader adds file and line number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}", .column.map(|column| format!(" (column {column})")).unwrap_or_default())]
pub struct LineError {
    /// What is wrong.
    pub what: Box<str>,
    /// Byte of the line, from 1, where it was noticed.
    pub column: Option<usize>,
}

impl LineError {
    /// An error that concerns the whole line.
    pub fn new(what: impl Into<Box<str>>) -> Self {
        Self { what: what.into(), column: None }
    }
}

impl From<serde_json::Error> for LineError {
    /// Keeps the column; serde_json's line number is always 1 here and would mislead.
    fn from(error: serde_json::Error) -> Self {
        let column = (error.column() > 0).then_some(error.column());
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let what = text.strip_suffix(&place).unwrap_or(&text);
        let what = if error.is_eof() { format!("cut short: {what}") } else { what.to_owned() };
        Self { what: what.into(), column }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_column_once() {
        let error = serde_json::from_str::<u32>("12x").unwrap_err();
        let error = LineError::from(error);
        assert_eq!(error.to_string(), "trailing characters (column 3)");
        assert_eq!(LineError::new("not UTF-8").to_string(), "not UTF-8");
    }
}
