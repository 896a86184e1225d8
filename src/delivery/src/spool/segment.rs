//! One segment: a file of records that are numbered without a gap, appended to and read in order.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bpfwatch_core::time::Timestamp;

use super::private;
use super::record::{self, Broken, HEADER, Header, PREFIX};

/// End of a segment's file name; before it stands the number of its first record, in 20 digits.
const SUFFIX: &str = ".seg";
/// What is read in one go, unless a record is larger.
const CHUNK: usize = 128 * 1024;

/// What is known of a segment without reading it.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Number of its first record.
    pub first: u64,
    /// Number of its last record; one less than `first` where it has none.
    pub last: u64,
    /// Bytes up to the end of its last whole record.
    pub bytes: u64,
    /// When its last record was appended.
    pub newest: Timestamp,
}

impl Segment {
    /// Path of a segment.
    pub fn path(dir: &Path, first: u64) -> PathBuf {
        dir.join(format!("{first:020}{SUFFIX}"))
    }

    /// Numbers of all segments in a directory, lowest first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(dir: &Path) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            if let Some(first) = digits.filter(|digits| digits.len() == 20)
                && let Ok(first) = first.parse()
            {
                found.push(first);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Makes a new segment with its header.
    ///
    /// # Errors
    /// When it cannot be made or written; nothing is left of it then.
    pub fn create(dir: &Path, header: Header) -> io::Result<File> {
        let path = Self::path(dir, header.first);
        let file = private().read(true).write(true).create_new(true).open(&path)?;
        if let Err(error) = file.write_all_at(&header.encode(), 0) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(file)
    }

    /// Opens a segment, to append to it as well where `write`.
    ///
    /// # Errors
    /// When it cannot be opened or is no regular file.
    pub fn open(dir: &Path, first: u64, write: bool) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(Self::path(dir, first))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a segment is no regular file"));
        }
        Ok(file)
    }

    /// The header of a segment's file; `None` where it has none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn header(file: &File) -> io::Result<Option<Header>> {
        let mut bytes = [0; HEADER];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Header::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads the records of a file in order, holding one piece of it in memory.
pub struct Records<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl<'a> Records<'a> {
    /// The records from byte `at` to byte `end`.
    pub fn new(file: &'a File, at: u64, end: u64) -> Self {
        Self { file, at, end, buffer: Vec::new(), used: 0 }
    }

    /// Where the next record begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Passes over the next record: its number, and `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn skip(&mut self) -> io::Result<Option<Result<u64, Broken>>> {
        self.step(record::peek)
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self) -> io::Result<Option<Result<crate::remote::Record, Broken>>> {
        self.step(record::decode)
    }

    fn step<T>(
        &mut self,
        decode: impl Fn(&[u8]) -> Result<(T, usize), Broken>,
    ) -> io::Result<Option<Result<T, Broken>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        loop {
            match decode(&self.buffer[self.used..]) {
                // At most twice: a record larger than one piece says so only once it is here.
                Err(Broken::Short) if self.fill()? => {}
                Err(broken) => return Ok(Some(Err(broken))),
                Ok((value, len)) => {
                    self.used += len;
                    self.at += len as u64;
                    return Ok(Some(Ok(value)));
                }
            }
        }
    }

    /// Gets more of the file, from the next record on; false where there is no more.
    fn fill(&mut self) -> io::Result<bool> {
        let have = self.buffer.len() - self.used;
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let announced = match self.buffer.get(self.used..self.used + 4) {
            Some(len) => u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize + PREFIX,
            None => 0,
        };
        let want = CHUNK.max(announced.min(record::MAX_RECORD)).min(left);
        if want <= have {
            return Ok(false);
        }
        self.buffer.resize(want, 0);
        self.used = 0;
        let mut got = 0;
        while got < want {
            match self.file.read_at(&mut self.buffer[got..], self.at + got as u64) {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.buffer.truncate(got);
        Ok(got > have)
    }
}
