//! Of which format a file is, and so how it is read.

use std::sync::Arc;

use bpfwatch_core::decoder::{Blocks, LineDecoder};

use super::numbered::Numbered;
use super::open::{Open, unhex};
use super::position::{Position, Start};
use super::stream::Stream;
use crate::error::ReadError;
use crate::source::CHUNK;

/// Bytes of a file that are needed to tell a binary one.
const HEAD_MIN: usize = 16;

/// How a format is read.
pub(super) enum Reading {
    /// It grows at its end.
    Stream(Stream),
    /// It is rewritten in place.
    Numbered(Box<Numbered>),
}

impl Reading {
    /// A format that is cut so, from there on.
    pub(super) fn of(blocks: Option<Blocks>, begun: &Start) -> Self {
        let (last, mark) = match begun {
            Start::At(Position { number: Some(number), mark, .. }) => (*number, unhex(mark)),
            _ => (0, Vec::new()),
        };
        match Numbered::of(blocks, last, mark, *begun == Start::End) {
            Some(numbered) => Self::Numbered(Box::new(numbered)),
            None => Self::Stream(Stream::of(blocks)),
        }
    }
}

/// What a file is.
pub(super) enum Choice<'a> {
    /// There is too little of it yet.
    NotYet,
    /// Lines, of a format that they tell.
    Lines,
    /// Of this format.
    Format(&'a dyn LineDecoder),
}

/// What the file is: of the only format there is, of the binary one that its start tells, or else lines.
///
/// # Errors
/// When it cannot be read, or does not begin as the only format there is.
pub(super) fn choose<'a>(
    formats: &[&'a dyn LineDecoder],
    name: &Arc<str>,
    open: &Open,
) -> Result<Choice<'a>, ReadError> {
    let only = match formats {
        [only] => Some(*only),
        _ => None,
    };
    if let Some(only) = only
        && !matches!(only.blocks(), Some(Blocks::Fixed { .. }))
    {
        return Ok(Choice::Format(only));
    }
    let mut head = vec![0; CHUNK];
    let source_name = Arc::clone(name);
    match open.read(0, &mut head) {
        Ok(read) => head.truncate(read),
        Err(error) => return Err(ReadError::Read { source_name, bytes: 0, error }),
    }
    if head.len() < HEAD_MIN || head.iter().all(|byte| *byte == 0) {
        return Ok(Choice::NotYet);
    }
    let binary = formats.iter().find(|format| format.blocks().is_some() && format.sniff(&head));
    match (binary, only) {
        (Some(binary), _) => Ok(Choice::Format(*binary)),
        (None, Some(only)) => Err(ReadError::NotFollowed { source_name, name: only.name() }),
        (None, None) => Ok(Choice::Lines),
    }
}
