//! A file that grows: followed over rotation by renaming, over truncation and over restarts.
//!
//! The file is looked at by path and by identity (device and inode). When another one stands at the path,
//! the old one is read to its end, waited for a moment, because its writer may not have noticed, and
//! then let go. When it is shorter than what was read, or the bytes before the place are other ones, it
//! was truncated (copytruncate) and is read from its start. What may have been lost then is said.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::decoder::{IDLE, LineDecoder};
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::pipeline::Batch;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::chunk;
use crate::deliver::{Counting, Deliverer, Receive};
use crate::detect;
use crate::error::ReadError;
use crate::reader::{Delivery, Options, Summary};
use crate::source::{CHUNK, Chunk, LINE_CAP};

/// How long a file that was renamed is still waited for.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes before the place that must stay as they were.
const MARK: usize = 64;

/// Which file, and how far it was read: what survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    device: u64,
    inode: u64,
    /// Byte after the last whole line that was delivered.
    offset: u64,
    /// What stood before it, in hexadecimal.
    mark: String,
}

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the start of the file.
    Beginning,
    /// At its end: what is there already is not looked at.
    End,
    /// Where an earlier run ended, also if the file was renamed since.
    At(Position),
}

/// The file that is read now.
struct Open {
    file: File,
    device: u64,
    inode: u64,
    offset: u64,
    mark: Vec<u8>,
    /// When another file was first seen at the path.
    replaced: Option<Instant>,
}

/// Follows one file.
pub struct Follower<'a> {
    path: PathBuf,
    name: Arc<str>,
    formats: Vec<&'a dyn LineDecoder>,
    options: Options,
    start: Start,
    open: Option<Open>,
    deliverer: Option<(&'a dyn LineDecoder, Deliverer<'a>)>,
    /// Bytes of a line that is not whole yet, and bytes of a line too long that are thrown away.
    rest: Vec<u8>,
    skipping: u64,
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
    /// When `options.input` names no format, or one that is no line by line.
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
        if let [only] = formats[..]
            && only.blocks().is_some()
        {
            return Err(ReadError::NotFollowed { name: only.name() });
        }
        Ok(Self {
            name: path.display().to_string().into(),
            path: path.to_owned(),
            formats: formats.into_iter().filter(|format| format.blocks().is_none()).collect(),
            options,
            start,
            open: None,
            deliverer: None,
            rest: Vec::new(),
            skipping: 0,
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
        // A line that is not whole yet is read again.
        let unread = self.rest.len() as u64 + self.skipping;
        let mut mark = open.mark.clone();
        mark.truncate(mark.len().saturating_sub(self.rest.len()));
        if unread > 0 && self.rest.len() >= open.mark.len() {
            mark.clear();
        }
        Some(Position {
            device: open.device,
            inode: open.inode,
            offset: open.offset.saturating_sub(unread),
            mark: hex(&mark),
        })
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
                    if self.lose(now, loss, receive).is_break() {
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
        let failed = |name: &Arc<str>, bytes, error| ReadError::Read {
            source_name: Arc::clone(name),
            bytes,
            error,
        };
        let Some(open) = &mut self.open else { return Ok(ControlFlow::Continue(false)) };
        let size = open.file.metadata().map_err(|e| failed(&self.name, open.offset, e))?.len();
        let kept = open.is_as_it_was().map_err(|e| failed(&self.name, open.offset, e))?;
        if size < open.offset || !kept {
            (open.offset, self.skipping) = (0, 0);
            open.mark.clear();
            self.rest.clear();
            let why = "the file was truncated; what was not read until then is not known";
            let flow = self.lose(now, why, receive);
            return Ok(flow.map_continue(|()| true));
        }
        let mut bytes = vec![0; CHUNK.min(usize::try_from(size - open.offset).unwrap_or(CHUNK))];
        let mut read = 0;
        while read < bytes.len() {
            match open.file.read_at(&mut bytes[read..], open.offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&self.name, open.offset, error)),
            }
        }
        bytes.truncate(read);
        if read > 0 {
            open.advance(&bytes);
            open.replaced = None;
            return Ok(self.take(&bytes, receive)?.map_continue(|()| true));
        }
        self.rotate(receive)
    }

    /// Opens the file and finds the place to begin; gives what may have been lost before.
    fn begin(&mut self) -> io::Result<Option<&'static str>> {
        let mut open = Open::at(&self.path)?;
        let start = std::mem::replace(&mut self.start, Start::Beginning);
        let mut loss = None;
        match start {
            Start::Beginning => {}
            Start::End => {
                open.offset = open.file.metadata()?.len();
                open.remember()?;
            }
            Start::At(position) => {
                if !open.is_at(&position)? {
                    // Renamed while nobody looked: the rest of it, then the new one.
                    match renamed(&self.path, &position) {
                        Some(old) => open = old,
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
        // The last line of the old one has no newline, and gets none any more.
        let rest = std::mem::take(&mut self.rest);
        self.skipping = 0;
        if rest.is_empty() {
            return Ok(ControlFlow::Continue(true));
        }
        Ok(self.lines(rest, receive)?.map_continue(|()| true))
    }

    /// Takes bytes that follow the last ones.
    fn take(
        &mut self,
        bytes: &[u8],
        receive: &mut Receive<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut bytes = bytes;
        if self.skipping > 0 {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.skipping += bytes.len() as u64;
                return Ok(ControlFlow::Continue(()));
            };
            let length = std::mem::take(&mut self.skipping) + end as u64;
            bytes = &bytes[end + 1..];
            let chunk = Chunk { bytes: Vec::new(), overlong: Some(length) };
            if self.chunk(&chunk, receive)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let Some(end) = memchr::memrchr(b'\n', bytes) else {
            self.rest.extend_from_slice(bytes);
            if self.rest.len() > LINE_CAP {
                self.skipping = self.rest.len() as u64;
                self.rest = Vec::new();
            }
            return Ok(ControlFlow::Continue(()));
        };
        let mut whole = std::mem::take(&mut self.rest);
        whole.extend_from_slice(&bytes[..=end]);
        self.rest.extend_from_slice(&bytes[end + 1..]);
        self.lines(whole, receive)
    }

    fn lines(
        &mut self,
        bytes: Vec<u8>,
        receive: &mut Receive<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        self.chunk(&Chunk { bytes, overlong: None }, receive)
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
            let deliverer = Deliverer::new(&self.name, decoder, Counting::Lines, &self.options);
            self.deliverer = Some((decoder, deliverer));
        }
        let Some((decoder, deliverer)) = &mut self.deliverer else {
            return Ok(ControlFlow::Continue(()));
        };
        Ok(deliverer.chunk(chunk::parse(chunk, *decoder), receive))
    }

    /// Says that something may have been lost.
    fn lose(&mut self, now: Timestamp, why: &str, receive: &mut Receive<'_>) -> ControlFlow<()> {
        let why = Text::from(format!("{}: {why}", self.name));
        let kind = Kind::Lost { count: 0, why };
        let sensor = Arc::clone(&self.sensor);
        let observation = Observation { at: now, seq: 0, sensor, actor: None, kind };
        let origin = match &self.deliverer {
            Some((_, deliverer)) => Arc::clone(deliverer.origin()),
            None => Arc::new(crate::deliver::default_origin(&self.options, None)),
        };
        receive(Delivery::Batch(Batch { origin, observations: vec![observation] }))
    }
}

impl Open {
    /// Opens a regular file, from its start.
    fn at(path: &Path) -> io::Result<Self> {
        // A pipe in its place must not make the opening wait (open(2), O_NONBLOCK).
        let file =
            std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self { file, device, inode, offset: 0, mark: Vec::new(), replaced: None })
    }

    fn advance(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.mark.extend_from_slice(&bytes[bytes.len().saturating_sub(MARK)..]);
        let over = self.mark.len().saturating_sub(MARK);
        self.mark.drain(..over);
    }

    /// Takes the bytes before the place as its mark.
    fn remember(&mut self) -> io::Result<()> {
        let length = self.offset.min(MARK as u64);
        let mut mark = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut mark, self.offset - length)?;
        self.mark = mark;
        Ok(())
    }

    /// Whether the bytes before the place are those that were read.
    fn is_as_it_was(&self) -> io::Result<bool> {
        let mut there = [0; MARK];
        let there = &mut there[..self.mark.len().min(MARK)];
        match self.file.read_exact_at(there, self.offset.saturating_sub(there.len() as u64)) {
            Ok(()) => Ok(*there == self.mark[..]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_at(&self, position: &Position) -> io::Result<bool> {
        Ok((self.device, self.inode) == (position.device, position.inode)
            && self.file.metadata()?.len() >= position.offset)
    }
}

/// The file that was at `path`, under the name that rotation gave it (`audit.log.1`).
fn renamed(path: &Path, position: &Position) -> Option<Open> {
    let name = path.file_name()?.as_encoded_bytes();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = std::fs::read_dir(directory.unwrap_or(Path::new("."))).ok()?;
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(name))
        .filter_map(|entry| Open::at(&entry.path()).ok())
        .find(|open| open.is_at(position).unwrap_or(false))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of a position that somebody changed: what cannot be read is no mark.
fn unhex(text: &str) -> Vec<u8> {
    crate::text::unhex(text.as_bytes()).filter(|mark| mark.len() <= MARK).unwrap_or_default()
}
