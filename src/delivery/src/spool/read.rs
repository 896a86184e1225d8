//! Reading what waits, in order and in batches, and noting what was taken.

use std::io;

use super::record::HEADER;
use super::segment::{Records, Segment};
use super::store::{Cursor, Store};
use crate::remote::{Limits, Record};

/// Records that wait, from the first one on.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records.
    pub records: Vec<Record>,
    /// Where what follows each of them begins.
    ends: Vec<Cursor>,
}

impl Store {
    /// The first records that wait, within the limits but at least one. Empty when none does. They
    /// stay until [`Store::ack`]. What is damaged on the disk is passed over and counted.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn peek(&mut self, limits: Limits) -> io::Result<Batch> {
        loop {
            let mut batch = Batch::default();
            if self.waiting() == 0 || self.fill(limits, &mut batch)? || !batch.records.is_empty() {
                return Ok(batch);
            }
            // Nothing could be read where something has to be: go on behind it.
            self.pass_damage();
        }
    }

    /// Reads into the batch; false when it met something that is no record.
    fn fill(&mut self, limits: Limits, batch: &mut Batch) -> io::Result<bool> {
        let (mut at, mut expected, mut bytes) = (self.cursor, self.acked + 1, 0);
        while expected < self.next {
            let found = self.segments.iter().find(|segment| segment.first == at.segment).copied();
            let Some(segment) = found.filter(|segment| segment.first <= expected) else {
                return Ok(false);
            };
            if !self.open_for_reading(segment.first)? {
                return Ok(false);
            }
            let Some((_, file)) = &self.reading else { return Ok(false) };
            let mut records = Records::new(file, at.offset, segment.bytes);
            while let Some(read) = records.read()? {
                let Some(record) = read.ok().filter(|record| record.seq == expected) else {
                    return Ok(false);
                };
                bytes += record.bytes.len();
                let full = batch.records.len() >= limits.records.max(1) || bytes > limits.bytes;
                if full && !batch.records.is_empty() {
                    return Ok(true);
                }
                batch.records.push(record);
                batch.ends.push(Cursor { segment: segment.first, offset: records.at() });
                expected += 1;
            }
            let Some(next) = self.segments.iter().find(|next| next.first > segment.first) else {
                return Ok(expected == self.next);
            };
            at = Cursor { segment: next.first, offset: HEADER as u64 };
        }
        Ok(true)
    }

    fn open_for_reading(&mut self, first: u64) -> io::Result<bool> {
        if self.reading.as_ref().is_some_and(|(open, _)| *open == first) {
            return Ok(true);
        }
        match Segment::open(&self.dir, first, false) {
            Ok(file) => {
                self.reading = Some((first, file));
                Ok(true)
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Counts the rest of the segment at the cursor as damaged, and goes on at the next one.
    fn pass_damage(&mut self) {
        let next = self
            .segments
            .iter()
            .find(|segment| segment.first > self.cursor.segment && segment.first > self.acked);
        let (acked, cursor) = match next {
            Some(next) => (next.first - 1, Cursor { segment: next.first, offset: HEADER as u64 }),
            // The segment that is written to: what follows goes into a new one.
            None => {
                self.active = None;
                (self.next - 1, Cursor { segment: self.next, offset: HEADER as u64 })
            }
        };
        self.counts.damaged += acked.saturating_sub(self.acked);
        self.advance(acked, cursor);
    }

    /// The first `count` records of a batch are done with, in this way. Those that were meanwhile
    /// dropped for room stay counted as dropped.
    pub fn ack(&mut self, batch: &Batch, count: usize, how: Done) {
        let count = count.min(batch.records.len());
        let last = count.checked_sub(1);
        let last = last.and_then(|at| batch.records.get(at).zip(batch.ends.get(at)));
        let Some((last, end)) = last.filter(|(last, _)| last.seq > self.acked) else { return };
        let done = (last.seq - self.acked).min(count as u64);
        let (counter, other) = match how {
            Done::Delivered => (&mut self.counts.delivered, 0),
            Done::Poisoned => (&mut self.counts.poisoned, 0),
            Done::AllBut(rejected) => (&mut self.counts.delivered, rejected.min(done)),
        };
        *counter += done - other;
        self.counts.rejected += other;
        self.advance(last.seq, *end);
    }
}

/// How records came to be done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The receiver has them.
    Delivered,
    /// The receiver has them but for this many, which it does not want.
    AllBut(u64),
    /// The receiver refused them for good.
    Poisoned,
}
