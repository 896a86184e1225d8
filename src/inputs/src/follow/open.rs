//! The file that is followed: which one it is, and whether what was read of it still stands there.

use std::fs::{DirEntry, File, Metadata};
use std::io;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::position::Position;

/// Bytes before the place, or from the start of the last record, that must stay as they were.
pub(super) const MARK: usize = 64;

/// The file that is read now.
pub(super) struct Open {
    pub(super) file: File,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) offset: u64,
    pub(super) mark: Vec<u8>,
    /// When another file was first seen at the path.
    pub(super) replaced: Option<Instant>,
}

impl Open {
    /// Opens a regular file, from its start.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
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

    /// Reads from a place until `bytes` are full or the file ends: how many there were.
    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < bytes.len() {
            match self.file.read_at(&mut bytes[read..], at + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    pub(super) fn advance(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.mark.extend_from_slice(&bytes[bytes.len().saturating_sub(MARK)..]);
        let over = self.mark.len().saturating_sub(MARK);
        self.mark.drain(..over);
    }

    /// Takes the bytes before the place as its mark.
    pub(super) fn remember(&mut self) -> io::Result<()> {
        let length = self.offset.min(MARK as u64);
        let mut mark = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut mark, self.offset - length)?;
        self.mark = mark;
        Ok(())
    }

    /// Whether the bytes before the place are those that were read.
    pub(super) fn is_as_it_was(&self) -> io::Result<bool> {
        let mut there = [0; MARK];
        let there = &mut there[..self.mark.len().min(MARK)];
        match self.file.read_exact_at(there, self.offset.saturating_sub(there.len() as u64)) {
            Ok(()) => Ok(*there == self.mark[..]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn is_at(&self, position: &Position) -> io::Result<bool> {
        Ok((self.device, self.inode) == (position.device, position.inode)
            && self.file.metadata()?.len() >= position.offset)
    }
}

/// The file that was at `path`, under the name that rotation gave it: `audit.log.1`, or any other, as
/// auditd of FreeBSD names what its link `current` pointed to.
pub(super) fn renamed(path: &Path, position: &Position) -> Option<Open> {
    let name = path.file_name()?.as_encoded_bytes();
    let may_be = |entry: &DirEntry| {
        // Where files systems lie upon each other, an entry may have another inode than its file.
        entry.ino() == position.inode || entry.file_name().as_encoded_bytes().starts_with(name)
    };
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let directories =
        [Some(parent(path)), std::fs::canonicalize(path).ok().map(|path| parent(&path))];
    directories
        .iter()
        .flatten()
        .filter_map(|directory| std::fs::read_dir(directory).ok())
        .flat_map(|entries| entries.filter_map(Result::ok))
        .filter(may_be)
        .filter_map(|entry| Open::at(&entry.path()).ok())
        .find(|open| open.is_at(position).unwrap_or(false))
}

/// What changes when somebody writes to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    /// When its content was written, and when anything of it was: a copy may set the former.
    written: [(i64, i64); 2],
}

impl From<&Metadata> for Stamp {
    fn from(of: &Metadata) -> Self {
        let written = [(of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec())];
        Self { size: of.len(), written }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of a position that somebody changed: what cannot be read is no mark.
pub(super) fn unhex(text: &str) -> Vec<u8> {
    crate::text::unhex(text.as_bytes()).filter(|mark| mark.len() <= MARK).unwrap_or_default()
}
