//! A named pipe: for a program on the same machine that reads records from one.
//!
//! Nothing waits for the reader to come: while there is none, each record fails and is counted, and the
//! pipe is tried at most once in [`PATIENCE`]. A reader that is slow is given as long. What a reader
//! that went away had not read is lost with the pipe's buffer, as pipes have it (pipe(7)).

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::Line;
use bpfwatch_core::sink::Sink;
use nix::sys::stat::Mode;

use crate::format::Format;

/// The longest wait for a reader that does not read, and for the next try without one.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Between two looks whether there is room again.
const LOOK: Duration = Duration::from_millis(5);

/// Writes records to a named pipe.
pub struct PipeSink<F> {
    name: String,
    path: PathBuf,
    mode: u32,
    format: F,
    pipe: Option<File>,
    /// Of a record that went out in part: the reader must get the rest before the next.
    rest: Vec<u8>,
    /// After a failure: not before then.
    retry_at: Option<Instant>,
    record: Vec<u8>,
}

impl<F: Format> PipeSink<F> {
    /// To the pipe at `path`, which is made with these permission bits, less the umask, if it is not
    /// there.
    ///
    /// # Errors
    /// When it cannot be made, or is something else than a pipe.
    pub fn open(path: impl Into<PathBuf>, mode: u32, format: F) -> io::Result<Self> {
        let path = path.into();
        make(&path, mode)?;
        let name = format!("pipe {}", path.display());
        let (rest, record) = (Vec::new(), Vec::new());
        Ok(Self { name, path, mode, format, pipe: None, rest, retry_at: None, record })
    }

    /// Writes what is in `record`, or says why not.
    fn send(&mut self) -> io::Result<()> {
        let mut pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => {
                self.rest.clear();
                make(&self.path, self.mode)?;
                connect(&self.path)?
            }
        };
        let deadline = Instant::now() + PATIENCE;
        let rest = std::mem::take(&mut self.rest);
        let result = match write(&mut pipe, &rest, deadline) {
            Ok(()) => write(&mut pipe, &self.record, deadline).map_err(|(error, written)| {
                if written > 0 {
                    self.rest = self.record.split_off(written);
                }
                error
            }),
            Err((error, written)) => {
                self.rest = rest.get(written..).unwrap_or_default().to_vec();
                Err(error)
            }
        };
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(self.nobody()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.pipe = Some(pipe);
                Err(io::Error::new(ErrorKind::TimedOut, "its reader does not keep up"))
            }
            result => {
                self.pipe = Some(pipe);
                result
            }
        }
    }

    /// Not `BrokenPipe`: another reader may come.
    fn nobody(&self) -> io::Error {
        let why = format!("nobody reads {}", self.path.display());
        io::Error::new(ErrorKind::NotConnected, why)
    }
}

/// Makes the pipe where there is nothing; refuses anything else than a pipe.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    #[allow(clippy::useless_conversion, reason = "mode_t has 16 bits on macOS and FreeBSD")]
    let bits = Mode::from_bits_truncate(mode.try_into().unwrap_or(0o600));
    match path.symlink_metadata() {
        Ok(metadata) if metadata.file_type().is_fifo() => Ok(()),
        Ok(_) => Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("{} is no named pipe", path.display()),
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(nix::unistd::mkfifo(path, bits)?),
        Err(error) => Err(error),
    }
}

/// Without waiting for a reader: open(2) fails with ENXIO where there is none.
fn connect(path: &Path) -> io::Result<File> {
    let pipe = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENXIO) => {
                io::Error::new(ErrorKind::NotConnected, format!("nobody reads {}", path.display()))
            }
            _ => error,
        })?;
    if !pipe.metadata()?.file_type().is_fifo() {
        let why = format!("{} is no named pipe", path.display());
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    Ok(pipe)
}

/// Writes all, or says how much.
fn write(pipe: &mut File, bytes: &[u8], deadline: Instant) -> Result<(), (io::Error, usize)> {
    let mut written = 0;
    while let Some(left) = bytes.get(written..).filter(|left| !left.is_empty()) {
        match pipe.write(left) {
            Ok(0) => return Err((ErrorKind::WriteZero.into(), written)),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(LOOK);
            }
            Err(error) => return Err((error, written)),
        }
    }
    Ok(())
}

impl<F: Format> Sink for PipeSink<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        super::render(&self.format, line, &mut self.record)?;
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            let why = format!("{} failed a moment ago", self.name);
            return Err(io::Error::new(ErrorKind::NotConnected, why));
        }
        let result = self.send();
        self.retry_at = result.is_err().then(|| Instant::now() + PATIENCE);
        result
    }
}
