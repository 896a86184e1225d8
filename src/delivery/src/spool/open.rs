//! Opening a spool: whose it is, what is in it, and where a torn end is cut off.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use bpfwatch_core::ids;
use bpfwatch_core::time::Timestamp;

use super::position::Position;
use super::private;
use super::record::HEADER;
use super::segment::{Records, Segment};
use super::settings::Settings;
use super::store::{Counts, Cursor, Store};

impl Store {
    /// Opens the spool in a directory, which is made for its owner alone where it is missing. `seed`
    /// tells one new stream from another; the same `seed` and `now` give the same stream id.
    ///
    /// # Errors
    /// When the directory belongs to somebody else, another process has the spool, or the disk fails.
    pub fn open(dir: &Path, settings: Settings, now: Timestamp, seed: u64) -> io::Result<Self> {
        make_private(dir)?;
        let lock = lock(dir)?;
        let (position, acked) = Position::open(dir)?;
        let mut counts = Counts::default();
        let found = Found::read(dir, &mut counts)?;
        let stream = found.stream.or(acked.map(|acked| acked.stream));
        let stream = stream.unwrap_or_else(|| new_stream(dir, now, seed));
        let acked = acked.filter(|acked| acked.stream == stream).map_or(0, |acked| acked.seq);
        let last = found.segments.back().map_or(0, |segment| segment.last);
        let first = found.segments.front().map_or(last + 1, |segment| segment.first);
        // The first number of a spool is 1. What lies before the first segment was acknowledged or
        // dropped, and told of, by whoever had the spool before.
        let acked = acked.max(first.saturating_sub(1));
        let next = last.max(acked) + 1;
        let mut store = Self {
            dir: dir.to_owned(),
            settings,
            stream,
            segments: found.segments,
            // After a power failure the disk may know less than the receiver: numbers go on behind what
            // it acknowledged, in a segment of their own.
            active: found.active.filter(|_| next == last + 1),
            next,
            acked,
            cursor: Cursor { segment: next, offset: HEADER as u64 },
            position,
            counts,
            unsynced: false,
            scratch: Vec::new(),
            reading: None,
            _lock: lock,
        };
        store.find_cursor()?;
        Ok(store)
    }

    /// Finds where record `acked + 1` is.
    fn find_cursor(&mut self) -> io::Result<()> {
        let wanted = self.acked + 1;
        let holds = |segment: &&Segment| segment.last >= wanted;
        if let Some(segment) = self.segments.iter().find(holds).copied() {
            let file = Segment::open(&self.dir, segment.first, false)?;
            let mut records = Records::new(&file, HEADER as u64, segment.bytes);
            let mut offset = records.at();
            while let Some(Ok(seq)) = records.skip()?
                && seq < wanted
            {
                offset = records.at();
            }
            self.cursor = Cursor { segment: segment.first, offset };
        } else if self.active.is_some()
            && let Some(segment) = self.segments.back()
        {
            self.cursor = Cursor { segment: segment.first, offset: segment.bytes };
        }
        let (acked, cursor) = (self.acked, self.cursor);
        self.advance(acked, cursor);
        Ok(())
    }
}

/// The segments of a directory.
struct Found {
    stream: Option<[u8; 16]>,
    segments: VecDeque<Segment>,
    active: Option<File>,
}

impl Found {
    fn read(dir: &Path, counts: &mut Counts) -> io::Result<Self> {
        let mut found = Self { stream: None, segments: VecDeque::new(), active: None };
        // The newest one says which stream it is.
        for first in Segment::list(dir)?.into_iter().rev() {
            let file = Segment::open(dir, first, true)?;
            let metadata = file.metadata()?;
            let header =
                Segment::header(&file)?.filter(|header| header.first == first && first > 0);
            let Some(header) =
                header.filter(|header| found.stream.is_none_or(|stream| stream == header.stream))
            else {
                // Without records it is what a program that was killed left; else its records are gone.
                counts.damaged += u64::from(metadata.len() > HEADER as u64);
                fs::remove_file(Segment::path(dir, first))?;
                continue;
            };
            let newest = Timestamp::from_secs(metadata.mtime());
            let mut segment = Segment { first, last: first - 1, bytes: metadata.len(), newest };
            match found.segments.front() {
                Some(after) => segment.last = after.first - 1,
                None => {
                    cut_torn_end(&file, &mut segment, counts)?;
                    found.active = Some(file);
                }
            }
            found.stream = Some(header.stream);
            found.segments.push_front(segment);
        }
        Ok(found)
    }
}

/// Reads the newest segment through and cuts it off behind its last whole record.
fn cut_torn_end(file: &File, segment: &mut Segment, counts: &mut Counts) -> io::Result<()> {
    let mut records = Records::new(file, HEADER as u64, segment.bytes);
    while let Some(Ok(seq)) = records.skip()?
        && seq == segment.last + 1
    {
        segment.last = seq;
        segment.bytes = records.at();
    }
    if segment.last < segment.first {
        segment.bytes = HEADER as u64;
    }
    if file.metadata()?.len() > segment.bytes {
        // How many there were cannot be told any more; one at least began here.
        counts.damaged += 1;
        file.set_len(segment.bytes)?;
    }
    Ok(())
}

fn new_stream(dir: &Path, now: Timestamp, seed: u64) -> [u8; 16] {
    let path = dir.as_os_str().as_encoded_bytes();
    let id = ids::derive(&[b"spool", path, &now.nanos().to_le_bytes(), &seed.to_le_bytes()]);
    let mut stream = [0; 16];
    let digits: Vec<u8> = id.bytes().filter_map(hex).collect();
    for (byte, pair) in stream.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    stream
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Makes the directory with mode 0700, or takes the permissions of others away from it.
fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() {
        return Err(refuse(dir, "is no directory of its own (a link leads elsewhere)"));
    }
    if metadata.mode() & 0o077 != 0 {
        // Fails where it belongs to somebody else.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Takes the lock, which the kernel gives back when the process ends, however it ends.
fn lock(dir: &Path) -> io::Result<File> {
    let mut file =
        private().read(true).write(true).create(true).truncate(false).open(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message.
            let _ = (&file).take(20).read_to_string(&mut pid);
            let who = if pid.is_empty() { String::new() } else { format!(" (pid {})", pid.trim()) };
            return Err(refuse(dir, &format!("is in use by another bpfwatch{who}: stop it first")));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Who holds it is only a help for the reader of that message: a full disk is no reason to fail.
    let _ = file.set_len(0).and_then(|()| file.rewind());
    let _ = writeln!(file, "{}", std::process::id());
    Ok(file)
}

fn refuse(dir: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, format!("the spool {} {why}", dir.display()))
}
