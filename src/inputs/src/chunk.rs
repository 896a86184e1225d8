//! A chunk of lines, or a block of a binary format, to observations: the part of a replay that runs on several cores.

use bpfwatch_core::decoder::{Decoded, LineDecoder, LineError, Record};
use bpfwatch_core::observation::{Observation, Origin};

use crate::source::{Chunk, LINE_CAP};

/// One thing found in a chunk, in the order of its lines.
#[derive(Debug, PartialEq)]
pub(crate) enum Item {
    /// Where what follows comes from.
    Origin(Box<Origin>),
    /// Observations, never none.
    Observations(Vec<Observation>),
    /// A line that could not be used, counted from 0 within the chunk.
    Problem { line: u64, error: LineError },
    /// A record of a block that could not be used, counted from 0 within the chunk, with its number where
    /// the format gives it one.
    BadRecord { record: u64, number: Option<u64>, error: LineError },
}

/// What a chunk held.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Parsed {
    pub(crate) items: Vec<Item>,
    /// Lines in it, blank ones too.
    pub(crate) lines: u64,
    /// Lines of which nothing was wanted.
    pub(crate) skipped: u64,
    /// Bytes of the source read up to its end.
    pub(crate) read: u64,
    /// Where the last observations came from, if they said so.
    pub(crate) origin: Option<Box<Origin>>,
}

/// Decodes every line of `chunk`.
pub(crate) fn parse(chunk: &Chunk, decoder: &dyn LineDecoder) -> Parsed {
    let mut parsed = Parsed::default();
    if let Some(length) = chunk.overlong {
        parsed.lines = 1;
        parsed.items.push(Item::Problem { line: 0, error: too_long(length) });
        return parsed;
    }
    let mut found = Vec::new();
    if decoder.blocks().is_some() {
        decoder.decode_block(&chunk.bytes, &mut |record| parsed.record(record, &mut found));
        parsed.flush(&mut found);
        return parsed;
    }
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', &chunk.bytes).chain(
        // The last line of a cut file has no newline.
        (chunk.bytes.last().is_some_and(|byte| *byte != b'\n')).then_some(chunk.bytes.len()),
    );
    for end in ends {
        let line = &chunk.bytes[start..end];
        start = end + 1;
        parsed.line(line, decoder, &mut found);
    }
    parsed.flush(&mut found);
    parsed
}

impl Parsed {
    /// Records of a block that are decoded already.
    pub(crate) fn of(records: Vec<Record>) -> Self {
        let mut parsed = Self::default();
        let mut found = Vec::new();
        records.into_iter().for_each(|record| parsed.record(record, &mut found));
        parsed.flush(&mut found);
        parsed
    }

    fn line(&mut self, line: &[u8], decoder: &dyn LineDecoder, found: &mut Vec<Observation>) {
        let number = self.lines;
        self.lines += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let before = found.len();
        let decoded = if line.len() > LINE_CAP {
            Err(too_long(line.len() as u64))
        } else {
            decoder.decode(line, found)
        };
        match decoded {
            Ok(Decoded::Observed) => {}
            Ok(Decoded::Skipped) => self.skipped += 1,
            Ok(Decoded::Origin(origin)) => {
                self.flush(found);
                self.origin = None;
                self.items.push(Item::Origin(origin));
            }
            Ok(Decoded::From(origin)) => self.came_from(origin, before, found),
            Err(error) => {
                found.truncate(before);
                self.flush(found);
                self.items.push(Item::Problem { line: number, error });
            }
        }
    }

    fn record(&mut self, record: Record, found: &mut Vec<Observation>) {
        let Record { number, mut observations, decoded } = record;
        let record = self.lines;
        self.lines += 1;
        let before = found.len();
        match decoded {
            Ok(Decoded::Observed) => found.append(&mut observations),
            Ok(Decoded::Skipped) => self.skipped += 1,
            Ok(Decoded::Origin(origin)) => {
                self.flush(found);
                self.origin = None;
                self.items.push(Item::Origin(origin));
            }
            Ok(Decoded::From(origin)) => {
                found.append(&mut observations);
                self.came_from(origin, before, found);
            }
            Err(error) => {
                self.flush(found);
                self.items.push(Item::BadRecord { record, number, error });
            }
        }
    }

    /// What was found from `before` on comes from `origin`, as what comes next does as a rule.
    fn came_from(&mut self, origin: Box<Origin>, before: usize, found: &mut Vec<Observation>) {
        if self.origin.as_ref() == Some(&origin) || found.len() == before {
            return;
        }
        let its_own = found.split_off(before);
        self.flush(found);
        *found = its_own;
        self.items.push(Item::Origin(origin.clone()));
        self.origin = Some(origin);
    }

    fn flush(&mut self, found: &mut Vec<Observation>) {
        if !found.is_empty() {
            self.items.push(Item::Observations(std::mem::take(found)));
        }
    }
}

fn too_long(length: u64) -> LineError {
    LineError::new(format!("line of {length} bytes skipped; at most {LINE_CAP} are read"))
}
