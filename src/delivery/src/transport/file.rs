//! A file that grows, and is opened anew when it was rotated away.
//!
//! Each record is one `write(2)` in append mode, so records of several writers do not mix. By default
//! nothing is synced to the disk before [`Sink::flush`]: a record survives the end of the program at
//! once, and a power failure after the kernel's write-back (Linux: 30 s, `dirty_expire_centisecs`).
//! [`Durability::EachRecord`] syncs after every record.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bpfwatch_core::finding::Line;
use bpfwatch_core::sink::Sink;

use crate::format::Format;

/// Permission bits of a new file, less the umask, unless told: findings name what others run.
pub const MODE: u32 = 0o640;

/// When records are synced to the disk (`fdatasync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On `flush` only.
    #[default]
    OnFlush,
    /// After each record; `write` returns once it is on the disk.
    EachRecord,
    /// Not at all: the system does it in its own time.
    Never,
}

/// Appends records to a file.
pub struct FileSink<F> {
    name: String,
    path: PathBuf,
    mode: u32,
    format: F,
    durability: Durability,
    file: Output,
    record: Vec<u8>,
}

/// An open file and what it is.
struct Output {
    file: File,
    device: u64,
    inode: u64,
    /// The last write ended within a record: the next one begins on a line of its own.
    torn: bool,
}

impl Output {
    /// Opens without following a symbolic link in the last component and without waiting for the
    /// reader of a FIFO; anything but a regular file with one name is refused, so that nobody who may
    /// write to the directory can lead a root process to another file.
    fn open(path: &Path, mode: u32) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                // ELOOP: Linux, macOS; EMLINK: FreeBSD (open(2)).
                Some(libc::ELOOP | libc::EMLINK) => refuse(path, "is a symbolic link"),
                _ => error,
            })?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(refuse(path, "is no regular file"));
        }
        if metadata.nlink() > 1 {
            return Err(refuse(path, "has a second name (hard link)"));
        }
        Ok(Self { file, device: metadata.dev(), inode: metadata.ino(), torn: false })
    }

    fn is(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }

    fn append(&mut self, record: &mut Vec<u8>) -> io::Result<()> {
        if self.torn {
            record.insert(0, b'\n');
        }
        let mut written = 0;
        while written < record.len() {
            match self.file.write(&record[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.take_back(written);
                    return Err(error);
                }
            }
        }
        if written < record.len() {
            self.take_back(written);
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.torn = false;
        Ok(())
    }
}

impl Output {
    /// Cuts off what was written of a record that did not fit the disk, unless another writer came after it.
    fn take_back(&mut self, written: usize) {
        if written == 0 {
            return;
        }
        // In append mode the position is the end of our last write (Linux, FreeBSD, macOS: write(2)).
        let cut = self.file.stream_position().and_then(|end| {
            if self.file.metadata()?.len() != end {
                return Err(io::ErrorKind::Other.into());
            }
            self.file.set_len(end.saturating_sub(written as u64))
        });
        self.torn |= cut.is_err();
    }
}

fn refuse(path: &Path, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{} {why}: records go only to a plain file of their own", path.display()),
    )
}

impl<F: Format> FileSink<F> {
    /// Opens the file, or makes it with mode 0640.
    ///
    /// # Errors
    /// When the path cannot be opened, is a symbolic link, is no regular file, or has a second name.
    pub fn open(path: impl Into<PathBuf>, format: F, durability: Durability) -> io::Result<Self> {
        Self::open_with_mode(path, MODE, format, durability)
    }

    /// As [`FileSink::open`], but makes the file with these permission bits, less the umask.
    ///
    /// # Errors
    /// As for `open`.
    pub fn open_with_mode(
        path: impl Into<PathBuf>,
        mode: u32,
        format: F,
        durability: Durability,
    ) -> io::Result<Self> {
        let path = path.into();
        let file = Output::open(&path, mode)?;
        let name = format!("file {}", path.display());
        Ok(Self { name, path, mode, format, durability, file, record: Vec::new() })
    }

    /// Opens the path anew where it no longer leads to the open file: it was renamed, removed or
    /// replaced. So rotation needs no signal.
    fn follow_rotation(&mut self) -> io::Result<()> {
        // Not following links: one put in the file's place is a change, and is refused on opening.
        let in_place = self.path.symlink_metadata().is_ok_and(|metadata| self.file.is(&metadata));
        if in_place {
            return Ok(());
        }
        match Output::open(&self.path, self.mode) {
            Ok(file) => {
                self.file = file;
                Ok(())
            }
            // A record in the file that was moved aside can still be found; one in a removed file
            // cannot.
            Err(error) => match self.file.file.metadata() {
                Ok(metadata) if metadata.nlink() > 0 => Ok(()),
                _ => Err(error),
            },
        }
    }
}

impl<F: Format> Sink for FileSink<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        super::render(&self.format, line, &mut self.record)?;
        self.follow_rotation()?;
        self.file.append(&mut self.record)?;
        match self.durability {
            Durability::OnFlush | Durability::Never => Ok(()),
            Durability::EachRecord => self.file.file.sync_data(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.durability {
            Durability::Never => Ok(()),
            Durability::OnFlush | Durability::EachRecord => self.file.file.sync_data(),
        }
    }
}
