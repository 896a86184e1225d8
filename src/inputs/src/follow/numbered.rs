//! What is rewritten in place as it grows: blocks of numbered records, of which those above the last number
//! are given.
//!
//! A log is known by its last record that was given, not by its file: a copy that replaces the file goes on,
//! and another log in the same file starts over. Blocks are found by their heads; only those with newer
//! records are read, one at a time. The newest one may be half written: what of it is not there to its end
//! is waited for, and is bad only when it stays so.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use bpfwatch_core::decoder::{Blocks, Held, LineDecoder, Places, Record};

use super::open::{MARK, Open, Stamp};

/// How long a file must be left alone before it is looked at, and how long it is waited for at most.
const SETTLE: Duration = Duration::from_millis(100);
const SETTLE_AT_MOST: Duration = Duration::from_secs(2);
/// How long a file that lacks what it had must be left alone: it may be in the middle of being copied.
const GONE: Duration = Duration::from_secs(1);
/// How long what is half written is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Blocks of a file at most: 16 GiB of an EVTX file, whose header counts to 65535. Whoever writes the file can
/// make it seem of any size.
const MAX_BLOCKS: u64 = 1 << 18;

/// What a turn brought.
pub(super) enum Step {
    /// Nothing, and nothing is waited for.
    Nothing,
    /// Nothing yet.
    Wait,
    /// Something changed here: look again.
    Again,
    /// So many records are lost, or it cannot be known how many.
    Lost(u64, &'static str),
    /// The new records of a block, counted from 0.
    Records(u64, Vec<Record>),
}

/// A block to be read.
struct Found {
    index: u64,
    /// Its first number; `None` where it cannot be read.
    first: Option<u64>,
    last: u64,
    newest: bool,
}

/// See the module.
pub(super) struct Numbered {
    header: u64,
    size: usize,
    held: fn(&[u8]) -> Held,
    whole: fn(&[u8]) -> Places,
    /// Number of the last record that was given, and how it begins.
    pub(super) last: u64,
    pub(super) mark: Vec<u8>,
    /// What is there at first is not given.
    from_end: bool,
    /// The file was followed to its end, and this is the next one.
    is_next: bool,
    /// As the file was when it was looked through, and whether it had settled by then.
    seen: Option<(Stamp, bool)>,
    /// As it is now, since when, and since when it has not settled.
    now: Option<(Stamp, Instant, Instant)>,
    queue: VecDeque<Found>,
    /// Since when something half written is waited for.
    waiting: Option<Instant>,
    /// Blocks that cannot be read, and of which that was said.
    unreadable: BTreeSet<u64>,
}

impl Numbered {
    /// For a format that is cut so, and after that record; `None` for a format that is cut otherwise.
    pub(super) fn of(
        blocks: Option<Blocks>,
        last: u64,
        mark: Vec<u8>,
        from_end: bool,
    ) -> Option<Self> {
        let Some(Blocks::Fixed { header, size, held, whole }) = blocks else { return None };
        Some(Self {
            header: header as u64,
            size,
            held,
            whole,
            last,
            mark,
            from_end,
            is_next: false,
            seen: None,
            now: None,
            queue: VecDeque::new(),
            waiting: None,
            unreadable: BTreeSet::new(),
        })
    }

    /// The next file stands at the path.
    pub(super) fn moved(&mut self) {
        self.is_next = true;
        self.forget();
    }

    fn forget(&mut self) {
        (self.seen, self.now, self.waiting) = (None, None, None);
        self.queue.clear();
        self.unreadable.clear();
    }

    /// Whether there are blocks to be read.
    pub(super) fn is_reading(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Looks whether there is something new, and reads one block of it.
    pub(super) fn step(&mut self, open: &Open, decoder: &dyn LineDecoder) -> io::Result<Step> {
        if let Some(next) = self.queue.pop_front() {
            return self.block(&next, open, decoder);
        }
        let stamp = Stamp::from(&open.file.metadata()?);
        let (quiet, restless) = self.quiet(stamp);
        match self.seen {
            Some((seen, true)) if seen == stamp => match self.waiting {
                None => return Ok(Step::Nothing),
                Some(since) if since.elapsed() < PATIENCE => return Ok(Step::Wait),
                Some(_) => {}
            },
            Some((seen, _)) if quiet < SETTLE && restless < SETTLE_AT_MOST => {
                return Ok(if seen == stamp { Step::Nothing } else { Step::Wait });
            }
            _ => {}
        }
        self.look(open, stamp, quiet)
    }

    /// How long the file is as it is, and how long it has been changing.
    fn quiet(&mut self, stamp: Stamp) -> (Duration, Duration) {
        let (since, restless) = match self.now {
            Some((now, since, restless)) if now == stamp => (since, restless),
            Some((_, since, restless)) if since.elapsed() < SETTLE => (Instant::now(), restless),
            _ => (Instant::now(), Instant::now()),
        };
        self.now = Some((stamp, since, restless));
        (since.elapsed(), restless.elapsed())
    }

    fn is_out_of_patience(&self) -> bool {
        self.waiting.is_some_and(|since| since.elapsed() >= PATIENCE)
    }

    /// Finds the blocks that have something new.
    fn look(&mut self, open: &Open, stamp: Stamp, quiet: Duration) -> io::Result<Step> {
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        let count = stamp.size.saturating_sub(self.header).div_ceil(self.size as u64);
        if count > MAX_BLOCKS {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it is too large to be followed",
            ));
        }
        for index in 0..count {
            let mut head = [0; Held::HEAD];
            let read = open.read(self.place(index), &mut head)?;
            match (self.held)(&head[..read]) {
                Held::Unreadable => unreadable.push(index),
                Held::Nothing => {}
                Held::Records(numbers) => {
                    let (first, last) = numbers.into_inner();
                    found.push(Found { index, first: Some(first), last, newest: false });
                }
            }
        }
        found.sort_unstable_by_key(|block| (block.first, block.last));
        if let Some(newest) = found.last_mut() {
            newest.newest = true;
        }
        if std::mem::take(&mut self.from_end) {
            self.skip(found.last(), open)?;
            self.unreadable.extend(unreadable);
            self.seen = Some((stamp, false));
            return Ok(Step::Nothing);
        }
        // Behind the last block is what is not used yet, whatever stands there, or is being written.
        let used = found.iter().map(|block| block.index).max();
        unreadable.retain(|index| Some(*index) < used);
        self.unreadable.retain(|index| unreadable.contains(index));
        unreadable.retain(|index| !self.unreadable.contains(index));
        let lost = match self.compare(&found, open)? {
            Log::Same => None,
            Log::Overwritten(missed) => (!self.is_next)
                .then_some((missed, "records were overwritten before they were read")),
            Log::Another => {
                if !self.is_next && quiet < GONE {
                    // Not yet seen: it is looked at again.
                    self.seen = self.seen.map(|(seen, _)| (seen, false)).or(Some((stamp, false)));
                    return Ok(Step::Wait);
                }
                (self.last, self.waiting) = (0, None);
                self.mark.clear();
                let why =
                    "the log was cleared or replaced; what was not read until then is not known";
                (!self.is_next).then_some((0, why))
            }
        };
        self.is_next &= found.is_empty();
        self.seen = Some((stamp, quiet >= SETTLE));
        found.retain(|block| block.last > self.last);
        let is_out = self.is_out_of_patience();
        if found.is_empty() && unreadable.is_empty() {
            self.waiting = None;
        } else if !unreadable.is_empty() {
            self.waiting.get_or_insert_with(Instant::now);
        }
        self.queue.extend(found);
        if is_out {
            let bad = |index| Found { index, first: None, last: 0, newest: false };
            self.queue.extend(unreadable.into_iter().map(bad));
        }
        Ok(match lost {
            Some((count, why)) => Step::Lost(count, why),
            None if self.queue.is_empty() && self.waiting.is_none() => Step::Nothing,
            None if self.queue.is_empty() => Step::Wait,
            None => Step::Again,
        })
    }

    /// Goes to the last record that is there.
    fn skip(&mut self, newest: Option<&Found>, open: &Open) -> io::Result<()> {
        let Some(newest) = newest else { return Ok(()) };
        let block = self.read(newest.index, open)?;
        self.last = newest.first.unwrap_or_default().saturating_sub(1);
        if let Some((number, _)) = (self.whole)(&block).last() {
            self.last = *number;
        }
        self.remember(&block);
        Ok(())
    }

    /// Whether these blocks are of the log of which the last record is.
    fn compare(&self, found: &[Found], open: &Open) -> io::Result<Log> {
        // A file without records does not say yet which log it becomes.
        if self.last == 0 || found.is_empty() {
            return Ok(Log::Same);
        }
        let holds = |block: &&Found| {
            block.first.is_some_and(|first| first <= self.last) && block.last >= self.last
        };
        if let Some(block) = found.iter().find(holds) {
            let block = self.read(block.index, open)?;
            let mark = self.mark_in(&block);
            let is_other = mark.is_some_and(|mark| !self.mark.is_empty() && mark != self.mark);
            return Ok(if is_other { Log::Another } else { Log::Same });
        }
        let next = found.iter().filter_map(|block| block.first).find(|first| *first > self.last);
        Ok(match next {
            None => Log::Another,
            Some(next) if next - self.last > 1 => Log::Overwritten(next - self.last - 1),
            Some(_) => Log::Same,
        })
    }

    /// Reads a block and gives what is new in it.
    fn block(&mut self, next: &Found, open: &Open, decoder: &dyn LineDecoder) -> io::Result<Step> {
        let block = self.read(next.index, open)?;
        let mut all = Vec::new();
        let Some(first) = next.first else {
            self.unreadable.insert(next.index);
            self.waiting = None;
            decoder.decode_block(&block, &mut |record| all.push(record));
            return Ok(Step::Records(next.index, all));
        };
        // Rewritten since: the file is looked through again.
        let Held::Records(numbers) = (self.held)(&block[..Held::HEAD.min(block.len())]) else {
            return Ok(Step::Again);
        };
        if *numbers.start() != first {
            return Ok(Step::Again);
        }
        let is_done = !next.newest || self.is_out_of_patience();
        let whole = (self.whole)(&block).last().map_or(0, |(number, _)| *number);
        let mut is_half = !is_done && whole < *numbers.end();
        let until = if is_half { whole } else { *numbers.end() };
        decoder.decode_block(&block, &mut |record| all.push(record));
        // A bad record may not say its number: it is the next one then.
        let is_one = all.iter().any(|record| record.number.is_some());
        let mut before = first.saturating_sub(1);
        if !is_one {
            before = before.max(self.last);
        }
        let (given, mut new) = (self.last, Vec::new());
        for record in all {
            let number = record.number.unwrap_or(before.saturating_add(1));
            before = number;
            if number <= self.last || number > until {
                continue;
            }
            if record.decoded.is_err() && !is_done {
                is_half = true;
                break;
            }
            self.last = number;
            new.push(Record { number: Some(number), ..record });
        }
        if !is_half {
            self.last = self.last.max(*numbers.end());
        }
        self.remember(&block);
        if !is_half && next.newest {
            self.waiting = None;
        } else if is_half && (self.last > given || self.waiting.is_none()) {
            self.waiting = Some(Instant::now());
        }
        Ok(Step::Records(next.index, new))
    }

    fn place(&self, index: u64) -> u64 {
        self.header + index * self.size as u64
    }

    /// A whole block; what is not there of it is zero, as what is not used yet.
    fn read(&self, index: u64, open: &Open) -> io::Result<Vec<u8>> {
        let mut block = vec![0; self.size];
        open.read(self.place(index), &mut block)?;
        Ok(block)
    }

    /// How the last record that was given begins.
    fn mark_in(&self, block: &[u8]) -> Option<Vec<u8>> {
        let records = (self.whole)(block);
        let (_, place) = records.into_iter().find(|(number, _)| *number == self.last)?;
        block.get(place.start..place.end.min(place.start + MARK)).map(<[u8]>::to_vec)
    }

    fn remember(&mut self, block: &[u8]) {
        self.mark = self.mark_in(block).unwrap_or_default();
    }
}

/// What a file has to do with the log that was read until now.
enum Log {
    Same,
    /// The same, but so many of its records are gone.
    Overwritten(u64),
    Another,
}
