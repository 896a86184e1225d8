//! What grows at its end: cut after whole lines, or after whole records that say how long they are.

use bpfwatch_core::decoder::Blocks;

use crate::source::{Chunk, LINE_CAP};

/// What was read of a line or a record that is not whole yet.
#[derive(Default)]
pub(super) struct Stream {
    /// How many bytes are whole records; `None` for lines.
    whole: Option<fn(&[u8]) -> usize>,
    rest: Vec<u8>,
    /// Bytes of a line too long that are thrown away.
    skipping: u64,
}

impl Stream {
    /// For a format that is cut so.
    pub(super) fn of(blocks: Option<Blocks>) -> Self {
        let whole = match blocks {
            Some(Blocks::Records(whole)) => Some(whole),
            _ => None,
        };
        Self { whole, ..Self::default() }
    }

    /// Bytes that were read and not given out, and how many of them are kept.
    pub(super) fn unread(&self) -> (u64, usize) {
        (self.rest.len() as u64 + self.skipping, self.rest.len())
    }

    /// Nothing of what was read counts any more.
    pub(super) fn clear(&mut self) {
        self.rest.clear();
        self.skipping = 0;
    }

    /// What there is of the last line or record, which is never whole.
    pub(super) fn end(&mut self) -> Option<Chunk> {
        self.skipping = 0;
        let bytes = std::mem::take(&mut self.rest);
        (!bytes.is_empty()).then_some(Chunk { bytes, overlong: None })
    }

    /// Takes bytes that follow the last ones; what is whole.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Chunk> {
        match self.whole {
            Some(whole) => self.records(bytes, whole),
            None => self.lines(bytes),
        }
    }

    fn records(&mut self, bytes: &[u8], whole: fn(&[u8]) -> usize) -> Vec<Chunk> {
        self.rest.extend_from_slice(bytes);
        let end = whole(&self.rest).min(self.rest.len());
        if end == 0 {
            return Vec::new();
        }
        let rest = self.rest.split_off(end);
        let bytes = std::mem::replace(&mut self.rest, rest);
        vec![Chunk { bytes, overlong: None }]
    }

    fn lines(&mut self, mut bytes: &[u8]) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        if self.skipping > 0 {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.skipping += bytes.len() as u64;
                return chunks;
            };
            let length = std::mem::take(&mut self.skipping) + end as u64;
            bytes = &bytes[end + 1..];
            chunks.push(Chunk { bytes: Vec::new(), overlong: Some(length) });
        }
        let Some(end) = memchr::memrchr(b'\n', bytes) else {
            self.rest.extend_from_slice(bytes);
            if self.rest.len() > LINE_CAP {
                self.skipping = self.rest.len() as u64;
                self.rest = Vec::new();
            }
            return chunks;
        };
        let mut whole = std::mem::take(&mut self.rest);
        whole.extend_from_slice(&bytes[..=end]);
        self.rest.extend_from_slice(&bytes[end + 1..]);
        chunks.push(Chunk { bytes: whole, overlong: None });
        chunks
    }
}
