//! A file that grows: followed over rotation by renaming, over truncation and over restarts.
//!
//! | file | duty |
//! |---|---|
//! | `position` | how far it was read, as it is written down |
//! | `open` | which file it is, and whether what was read still stands there |
//! | `reading` | of which format it is, and so how it is read |
//! | `stream` | what grows at its end: lines and records, cut where they are whole |
//! | `numbered` | what is rewritten in place: blocks of numbered records |
//!
//! The file is looked at by path and by identity (device and inode). When another one stands at the path,
//! the old one is read to its end, waited for a moment, because its writer may not have noticed, and
//! then let go. When one that grows at its end is shorter than what was read, or the bytes before the place
//! are other ones, it was truncated (copytruncate) and is read from its start. What may have been lost then
//! is said.

mod numbered;
mod open;
mod position;
mod reading;
mod stream;

use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::decoder::{IDLE, LineDecoder};
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::pipeline::Batch;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;

pub use self::position::{Position, Start};

use self::numbered::Step;
use self::open::{Open, hex, renamed, unhex};
use self::reading::{Choice, Reading};
use crate::chunk::{self, Parsed};
use crate::deliver::{Counting, Deliverer, Receive};
use crate::detect;
use crate::error::ReadError;
use crate::reader::{Delivery, Options, Summary};
use crate::source::{CHUNK, Chunk};

/// How long a file that was renamed is still waited for.
const GRACE: Duration = Duration::from_secs(1);

/// Follows one file.
pub struct Follower<'a> {
    path: PathBuf,
    name: Arc<str>,
    formats: Vec<&'a dyn LineDecoder>,
    options: Options,
    start: Start,
    /// Where the file that is open was begun.
    begun: Start,
    open: Option<Open>,
    reading: Option<Reading>,
    deliverer: Option<(&'a dyn LineDecoder, Deliverer<'a>)>,
    quiet_since: Option<Instant>,
    sensor: Arc<str>,
}

/// Whether there may be more at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Something was read: look again.
    More,
    /// Nothing new.
    Idle,
    /// The receiver wants no more.
    Stopped,
}

impl<'a> Follower<'a> {
    /// Prepares to follow `path`, which need not be there yet.
    ///
    /// # Errors
    /// When `options.input` names no format.
    pub fn new(
        path: &Path,
        formats: &[&'a dyn LineDecoder],
        options: Options,
        start: Start,
    ) -> Result<Self, ReadError> {
        let formats = match &options.input {
            Some(name) => vec![detect::by_name(name, formats)?],
            None => formats.to_vec(),
        };
        Ok(Self {
            name: path.display().to_string().into(),
            path: path.to_owned(),
            formats,
            options,
            begun: start.clone(),
            start,
            open: None,
            reading: None,
            deliverer: None,
            quiet_since: None,
            sensor: Arc::from("input"),
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How far it was read; `None` before there was a file.
    pub fn position(&self) -> Option<Position> {
        let open = self.open.as_ref()?;
        let (device, inode) = (open.device, open.inode);
        let (unread, kept) = match &self.reading {
            Some(Reading::Numbered(numbered)) => {
                let (mark, number) = (hex(&numbered.mark), Some(numbered.last));
                return Some(Position { device, inode, offset: 0, mark, number });
            }
            // A line or record that is not whole yet is read again.
            Some(Reading::Stream(stream)) => stream.unread(),
            None => match &self.begun {
                Start::At(position) if position.number.is_some() => return Some(position.clone()),
                _ => (0, 0),
            },
        };
        let mut mark = open.mark.clone();
        mark.truncate(mark.len().saturating_sub(kept));
        if unread > 0 && kept >= open.mark.len() {
            mark.clear();
        }
        let offset = open.offset.saturating_sub(unread);
        Some(Position { device, inode, offset, mark: hex(&mark), number: None })
    }

    /// What was read so far.
    pub fn summary(&self) -> Summary {
        self.deliverer.as_ref().map(|(_, deliverer)| deliverer.summary).unwrap_or_default()
    }

    /// Reads what is new, at most one chunk. `now` is the time of losses that are found. Never waits.
    ///
    /// # Errors
    /// When the file cannot be read, or its format is not known. It can be tried again.
    pub fn turn(&mut self, now: Timestamp, receive: &mut Receive<'_>) -> Result<Turn, ReadError> {
        let flow = self.step(now, receive)?;
        Ok(match flow {
            ControlFlow::Continue(true) => {
                self.quiet_since = None;
                Turn::More
            }
            ControlFlow::Continue(false) => {
                let since = *self.quiet_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= IDLE
                    && let Some((_, deliverer)) = &mut self.deliverer
                {
                    self.quiet_since = None;
                    if deliverer.flush(receive).is_break() {
                        return Ok(Turn::Stopped);
                    }
                }
                Turn::Idle
            }
            ControlFlow::Break(()) => Turn::Stopped,
        })
    }

    /// Gives out what waits for more of itself.
    pub fn finish(&mut self, receive: &mut Receive<'_>) {
        if let Some((_, deliverer)) = &mut self.deliverer {
            // Nothing is left to stop.
            let _ = deliverer.flush(receive);
        }
    }

    fn step(
        &mut self,
        now: Timestamp,
        receive: &mut Receive<'_>,
    ) -> Result<ControlFlow<(), bool>, ReadError> {
        if self.open.is_none() {
            match self.begin() {
                Ok(None) => {}
                Ok(Some(loss)) => {
                    if self.lose(now, 0, loss, receive).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Nothing that was there before can be missed: all of it is new.
                    if self.start == Start::End {
                        self.start = Start::Beginning;
                    }
                    return Ok(ControlFlow::Continue(false));
                }
                Err(error) => {
                    return Err(ReadError::Open { source_name: Arc::clone(&self.name), error });
                }
            }
        }
        let at = self.open.as_ref().map_or(0, |open| open.offset);
        let failed = |name: &Arc<str>, error| ReadError::Read {
            source_name: Arc::clone(name),
            bytes: at,
            error,
        };
        if self.reading.is_none() && !self.decide()? {
            // Nothing is there yet that could be passed over.
            if self.begun == Start::End {
                self.begun = Start::Beginning;
            }
            return self.rotate(receive);
        }
        let Some(open) = &mut self.open else { return Ok(ControlFlow::Continue(false)) };
        let stream = match &mut self.reading {
            Some(Reading::Stream(stream)) => stream,
            Some(Reading::Numbered(numbered)) => {
                let Some((decoder, _)) = &self.deliverer else {
                    return Ok(ControlFlow::Continue(false));
                };
                if numbered.is_reading() {
                    open.replaced = None;
                }
                let step = numbered.step(open, *decoder).map_err(|e| failed(&self.name, e))?;
                return self.numbered(step, now, receive);
            }
            None => return Ok(ControlFlow::Continue(false)),
        };
        let size = open.file.metadata().map_err(|e| failed(&self.name, e))?.len();
        let kept = open.is_as_it_was().map_err(|e| failed(&self.name, e))?;
        if size < open.offset || !kept {
            open.offset = 0;
            open.mark.clear();
            stream.clear();
            let why = "the file was truncated; what was not read until then is not known";
            return Ok(self.lose(now, 0, why, receive).map_continue(|()| true));
        }
        let mut bytes = vec![0; CHUNK.min(usize::try_from(size - open.offset).unwrap_or(CHUNK))];
        let read = open.read(open.offset, &mut bytes).map_err(|e| failed(&self.name, e))?;
        bytes.truncate(read);
        if read == 0 {
            return self.rotate(receive);
        }
        open.advance(&bytes);
        open.replaced = None;
        for chunk in stream.take(&bytes) {
            if self.chunk(&chunk, receive)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(true))
    }

    /// Finds how the file is read; false where there is too little of it yet.
    fn decide(&mut self) -> Result<bool, ReadError> {
        let Some(open) = &self.open else { return Ok(false) };
        let choice = reading::choose(&self.formats, &self.name, open)?;
        match choice {
            Choice::NotYet => return Ok(false),
            Choice::Lines => {
                // The first new line says of which format they are.
                self.formats.retain(|format| format.blocks().is_none());
                self.reading = Some(Reading::of(None, &self.begun));
            }
            Choice::Format(decoder) => {
                self.reading = Some(Reading::of(decoder.blocks(), &self.begun));
                self.deliver_as(decoder);
            }
        }
        Ok(true)
    }

    fn deliver_as(&mut self, decoder: &'a dyn LineDecoder) {
        let counting = Counting::of(decoder.blocks());
        let deliverer = Deliverer::new(&self.name, decoder, counting, &self.options);
        self.deliverer = Some((decoder, deliverer));
    }

    /// Hands on what a turn of a numbered file brought.
    fn numbered(
        &mut self,
        step: Step,
        now: Timestamp,
        receive: &mut Receive<'_>,
    ) -> Result<ControlFlow<(), bool>, ReadError> {
        let flow = match step {
            Step::Nothing => return self.rotate(receive),
            Step::Wait => return Ok(ControlFlow::Continue(false)),
            Step::Again => ControlFlow::Continue(()),
            Step::Lost(count, why) => self.lose(now, count, why, receive),
            Step::Records(index, records) => match &mut self.deliverer {
                Some((_, deliverer)) => {
                    deliverer.chunks = index;
                    deliverer.chunk(Parsed::of(records), receive)
                }
                None => ControlFlow::Continue(()),
            },
        };
        Ok(flow.map_continue(|()| true))
    }

    /// Opens the file and finds the place to begin; gives what may have been lost before.
    fn begin(&mut self) -> io::Result<Option<&'static str>> {
        let mut open = Open::at(&self.path)?;
        self.begun = std::mem::replace(&mut self.start, Start::Beginning);
        let mut loss = None;
        match &self.begun {
            Start::Beginning => {}
            Start::End => {
                open.offset = open.file.metadata()?.len();
                open.remember()?;
            }
            Start::At(position) => {
                if !open.is_at(position)? {
                    // Renamed while nobody looked: the rest of it, then the new one.
                    match renamed(&self.path, position) {
                        Some(old) => open = old,
                        // A numbered one may be a copy that goes on.
                        None if position.number.is_some() => {}
                        None => {
                            loss = Some("the file was replaced while nobody followed it");
                        }
                    }
                }
                if (open.device, open.inode) == (position.device, position.inode) && loss.is_none()
                {
                    open.offset = position.offset;
                    open.mark = unhex(&position.mark);
                }
            }
        }
        self.open = Some(open);
        Ok(loss)
    }

    /// Looks whether another file stands at the path, and goes over to it when this one is done with.
    fn rotate(&mut self, receive: &mut Receive<'_>) -> Result<ControlFlow<(), bool>, ReadError> {
        let Some(open) = &mut self.open else { return Ok(ControlFlow::Continue(false)) };
        // Between the rename and the new file there may be none.
        let Ok(there) = std::fs::metadata(&self.path) else {
            return Ok(ControlFlow::Continue(false));
        };
        if (there.dev(), there.ino()) == (open.device, open.inode) {
            open.replaced = None;
            return Ok(ControlFlow::Continue(false));
        }
        let since = *open.replaced.get_or_insert_with(Instant::now);
        if since.elapsed() < GRACE {
            return Ok(ControlFlow::Continue(false));
        }
        self.open = None;
        match &mut self.reading {
            // The last line of the old one has no newline, and gets none any more.
            Some(Reading::Stream(stream)) => {
                if let Some(chunk) = stream.end() {
                    return Ok(self.chunk(&chunk, receive)?.map_continue(|()| true));
                }
            }
            Some(Reading::Numbered(numbered)) => numbered.moved(),
            None => {}
        }
        Ok(ControlFlow::Continue(true))
    }

    fn chunk(
        &mut self,
        chunk: &Chunk,
        receive: &mut Receive<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        if self.deliverer.is_none() {
            let decoder = match self.formats[..] {
                [only] => Some(only),
                _ => detect::detect(&chunk.bytes, &self.name, &self.formats)?,
            };
            let Some(decoder) = decoder else { return Ok(ControlFlow::Continue(())) };
            self.deliver_as(decoder);
        }
        let Some((decoder, deliverer)) = &mut self.deliverer else {
            return Ok(ControlFlow::Continue(()));
        };
        Ok(deliverer.chunk(chunk::parse(chunk, *decoder), receive))
    }

    /// Says that something may have been lost.
    fn lose(
        &mut self,
        now: Timestamp,
        count: u64,
        why: &str,
        receive: &mut Receive<'_>,
    ) -> ControlFlow<()> {
        let why = Text::from(format!("{}: {why}", self.name));
        let kind = Kind::Lost { count, why };
        let sensor = Arc::clone(&self.sensor);
        let observation = Observation { at: now, seq: 0, sensor, actor: None, kind };
        let origin = match &self.deliverer {
            Some((_, deliverer)) => Arc::clone(deliverer.origin()),
            None => Arc::new(crate::deliver::default_origin(&self.options, None)),
        };
        receive(Delivery::Batch(Batch { origin, observations: vec![observation] }))
    }
}
