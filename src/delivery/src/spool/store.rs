//! The state of an open spool: appending, and dropping what is too much or too old.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpfwatch_core::time::Timestamp;

use super::position::{Acked, Position};
use super::record::{self, HEADER, Header};
use super::segment::Segment;
use super::settings::{Settings, Sync};

/// What became of records since the spool was opened. Each is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the receiver.
    pub delivered: u64,
    /// Dropped, oldest first, because the spool reached its size.
    pub oversize: u64,
    /// Dropped because they waited too long.
    pub expired: u64,
    /// Not accepted because the disk was full or failed, or because they were too large.
    pub refused: u64,
    /// Found damaged or missing on the disk.
    pub damaged: u64,
    /// Refused by the receiver for good; set aside in the poison folder.
    pub poisoned: u64,
    /// Refused by the receiver for good within a batch that it took.
    pub rejected: u64,
}

impl Counts {
    /// All that will never reach the receiver.
    pub fn lost(&self) -> u64 {
        self.oversize + self.expired + self.refused + self.damaged + self.poisoned + self.rejected
    }
}

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// First number of its segment.
    pub segment: u64,
    /// Byte in the file.
    pub offset: u64,
}

/// An open spool.
pub struct Store {
    pub(super) dir: PathBuf,
    pub(super) settings: Settings,
    pub(super) stream: [u8; 16],
    /// Oldest first. The last one is written to while `active` is there.
    pub(super) segments: VecDeque<Segment>,
    pub(super) active: Option<File>,
    /// Number of the next record.
    pub(super) next: u64,
    /// Everything up to this number is done with.
    pub(super) acked: u64,
    /// Where record `acked + 1` is, or will be.
    pub(super) cursor: Cursor,
    pub(super) position: Position,
    pub(super) counts: Counts,
    /// Something was appended that is not synced.
    pub(super) unsynced: bool,
    pub(super) scratch: Vec<u8>,
    /// The segment that was read last.
    pub(super) reading: Option<(u64, File)>,
    /// Held while the spool is open.
    pub(super) _lock: File,
}

impl Store {
    /// Records that wait.
    pub fn waiting(&self) -> u64 {
        (self.next - 1).saturating_sub(self.acked)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes of what waits, but for what was sent of the oldest segment.
    pub fn waiting_bytes(&self) -> u64 {
        let read = self.cursor.offset;
        self.bytes().saturating_sub(read)
    }

    /// Puts a record at the end. Once this returns its number, a killed program loses it no more.
    ///
    /// # Errors
    /// When the disk is full or fails, or the record is too large; it is counted, and the next append
    /// tries anew.
    pub fn append(
        &mut self,
        now: Timestamp,
        id: &str,
        time: Timestamp,
        payload: &[u8],
    ) -> io::Result<u64> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let result = record::encode(self.next, time, id, payload, &mut bytes)
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))
            .and_then(|()| match self.append_bytes(now, &bytes) {
                Err(error) if is_full(&error) && self.free_what_is_sent() => {
                    self.append_bytes(now, &bytes)
                }
                result => result,
            });
        self.scratch = bytes;
        // One large record is not to hold a megabyte for ever.
        self.scratch.shrink_to(64 * 1024);
        if result.is_err() {
            self.counts.refused += 1;
        }
        result.map(|()| self.next - 1)
    }

    fn append_bytes(&mut self, now: Timestamp, bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len() as u64;
        while self.bytes() + len > self.settings.max_bytes && self.segments.len() > 1 {
            self.counts.oversize += self.drop_oldest();
        }
        let full = self.segments.back().is_some_and(|segment| {
            segment.bytes + len > self.settings.segment_bytes() && segment.last >= segment.first
        });
        if self.active.is_none() || full {
            self.begin_segment(now)?;
        }
        let (Some(file), Some(segment)) = (&self.active, self.segments.back_mut()) else {
            return Err(io::Error::other("the spool has no segment"));
        };
        if let Err(error) = file.write_all_at(bytes, segment.bytes) {
            // Whatever was written of it is beyond the end: nobody reads it, the next one goes over it.
            let _ = file.set_len(segment.bytes);
            return Err(error);
        }
        if self.settings.sync == Sync::Always
            && let Err(error) = file.sync_data()
        {
            let _ = file.set_len(segment.bytes);
            return Err(error);
        }
        segment.bytes += len;
        segment.last = self.next;
        segment.newest = now;
        self.next += 1;
        self.unsynced = self.settings.sync != Sync::Always;
        Ok(())
    }

    fn begin_segment(&mut self, now: Timestamp) -> io::Result<()> {
        self.sync()?;
        let header = Header { stream: self.stream, first: self.next };
        let file = Segment::create(&self.dir, header)?;
        if self.settings.sync != Sync::Never {
            // The name has to be on the disk too, before any record in it counts as accepted.
            let synced = file.sync_data().and_then(|()| File::open(&self.dir)?.sync_all());
            if let Err(error) = synced {
                let _ = fs::remove_file(Segment::path(&self.dir, self.next));
                return Err(error);
            }
        }
        self.active = Some(file);
        self.segments.push_back(Segment {
            first: self.next,
            last: self.next - 1,
            bytes: HEADER as u64,
            newest: now,
        });
        self.remove_sent();
        Ok(())
    }

    /// A handle of the file that holds what is not synced yet, to sync it while others append.
    pub fn unsynced(&self) -> Option<io::Result<File>> {
        let file = self.active.as_ref().filter(|_| self.unsynced)?;
        Some(file.try_clone())
    }

    /// Everything up to this number is on the disk, as far as the caller synced it.
    pub fn note_synced(&mut self, last: u64) {
        if last + 1 == self.next {
            self.unsynced = false;
        }
    }

    /// When to sync.
    pub fn sync_policy(&self) -> Sync {
        self.settings.sync
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Brings what was appended to the disk.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unsynced
            && let Some(file) = &self.active
        {
            file.sync_data()?;
        }
        self.unsynced = false;
        Ok(())
    }

    /// Notes that everything up to the number is done with, and removes segments that hold nothing else.
    pub(super) fn advance(&mut self, acked: u64, cursor: Cursor) {
        self.acked = acked;
        self.cursor = cursor;
        self.remove_sent();
        // If it cannot be written some records are sent again: that is allowed, and stopping is worse.
        let _ = self.position.save(Acked { stream: self.stream, seq: acked });
    }

    /// Removes segments that hold nothing that waits; the last one stays, to be appended to.
    fn remove_sent(&mut self) {
        while self.segments.len() > 1
            && self.segments.front().is_some_and(|segment| segment.last <= self.acked)
        {
            if let Some(segment) = self.segments.pop_front() {
                let _ = fs::remove_file(Segment::path(&self.dir, segment.first));
            }
            let oldest = self.segments.front().map_or(self.next, |segment| segment.first);
            if self.cursor.segment < oldest {
                self.cursor = Cursor { segment: oldest, offset: HEADER as u64 };
            }
        }
    }

    /// Ends work for now: syncs, and where nothing waits leaves no record behind on the disk.
    ///
    /// # Errors
    /// When the system cannot sync; then everything stays.
    pub fn rest(&mut self) -> io::Result<()> {
        self.sync()?;
        self.position.sync()?;
        self.free_what_is_sent();
        Ok(())
    }

    /// On a full disk: where nothing waits, gives back what the sent records still take.
    fn free_what_is_sent(&mut self) -> bool {
        if self.waiting() > 0 || self.segments.is_empty() {
            return false;
        }
        self.active = None;
        self.reading = None;
        self.unsynced = false;
        for segment in self.segments.drain(..) {
            let _ = fs::remove_file(Segment::path(&self.dir, segment.first));
        }
        true
    }

    /// Drops the oldest segment; how many records nobody received because of that.
    fn drop_oldest(&mut self) -> u64 {
        let Some(segment) = self.segments.pop_front() else { return 0 };
        let _ = fs::remove_file(Segment::path(&self.dir, segment.first));
        if self.segments.is_empty() {
            self.active = None;
            self.unsynced = false;
        }
        let lost = segment.last.saturating_sub(self.acked.max(segment.first - 1));
        if segment.last >= self.acked {
            let next = self.segments.front().map_or(self.next, |segment| segment.first);
            self.advance(segment.last, Cursor { segment: next, offset: HEADER as u64 });
        }
        lost
    }

    /// Drops what waited too long.
    pub fn expire(&mut self, now: Timestamp) {
        while self.waiting() > 0
            && self.segments.front().is_some_and(|oldest| {
                now.since(oldest.newest) > self.settings.max_age && oldest.last > self.acked
            })
        {
            self.counts.expired += self.drop_oldest();
        }
    }

    /// How soon `expire` has something to do, at the earliest.
    pub fn expires_in(&self, now: Timestamp) -> Option<Duration> {
        let oldest = self.segments.front().filter(|_| self.waiting() > 0)?;
        Some(self.settings.max_age.saturating_sub(now.since(oldest.newest)))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
