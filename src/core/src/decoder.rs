//! What a recorded format with one record a line is to the replay: a name, a way to recognise it and a
//! function from a line to observations.
//!
//! Decoders of what an operating system itself writes live in that system's package; the program hands
//! them to the replay reader, which knows none of them by name.

use crate::observation::{Observation, Origin, Os};

/// A format with one record a line.
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

    /// Decodes one line, without its newline, and appends what it says to `out`.
    ///
    /// # Errors
    /// When the line is none of this format. What was appended before is then dropped by the reader.
    fn decode(&self, line: &[u8], out: &mut Vec<Observation>) -> Result<Decoded, LineError>;
}

/// What a source's observations have to pass one after the other, where a line alone does not say
/// enough, such as whether the descriptor that a process closed was the last one.
pub trait Sequence {
    /// Takes the next observation and appends what becomes of it to `out`.
    fn pass(&mut self, observation: Observation, out: &mut Vec<Observation>);
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
