//! The local syslog socket: one datagram a record.
//!
//! A format that has a syslog header of its own goes out as it is. Any other gets
//! `<PRI>bpfwatch[PID]: ` before it, as `syslog(3)` writes it but for the time, which the receiver sets
//! (RFC 3164, 4.3.2): it would have to be local time without a zone. systemd-journald, rsyslog and
//! syslogd of FreeBSD and macOS take both.
//!
//! A datagram socket loses nothing silently: when the receiver is gone or does not keep up, `write`
//! fails and the caller counts it. It never waits longer than [`PATIENCE`], and after a failure tries
//! at most once in that time.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bpfwatch_core::finding::Line;
use bpfwatch_core::sink::Sink;

use crate::format::{Format, Shape};
use crate::rfc5424::severity;

/// Where `syslog(3)` looks: Linux; FreeBSD; macOS (`_PATH_LOG` of each system's `sys/syslog.h`).
pub const SOCKET_PATHS: [&str; 3] = ["/dev/log", "/var/run/log", "/var/run/syslog"];

/// The longest wait for a receiver that does not read, and for the next try after a failure.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Sends records to the local syslog socket.
pub struct SyslogSocket<F> {
    name: String,
    path: PathBuf,
    format: F,
    facility: u8,
    tag: String,
    socket: Option<UnixDatagram>,
    /// After a failure: not before then.
    retry_at: Option<Instant>,
    record: Vec<u8>,
    datagram: Vec<u8>,
}

impl<F: Format> SyslogSocket<F> {
    /// Connects to the first socket of [`SOCKET_PATHS`] that takes a connection.
    ///
    /// # Errors
    /// When none does, or the format's records are for people and not for a log.
    pub fn local(format: F, facility: u8) -> io::Result<Self> {
        let mut failures = Vec::new();
        for path in SOCKET_PATHS {
            match connect(Path::new(path)) {
                Ok(socket) => return Self::with(path.into(), format, facility, socket),
                Err(error) => failures.push(format!("{path}: {error}")),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "no local syslog socket ({}): is a syslog daemon running?",
                failures.join("; ")
            ),
        ))
    }

    /// Connects to the given socket. `facility` (10 is authpriv) is for formats without a syslog header.
    ///
    /// # Errors
    /// As for [`SyslogSocket::local`].
    pub fn at(path: impl Into<PathBuf>, format: F, facility: u8) -> io::Result<Self> {
        let path = path.into();
        let socket = connect(&path)?;
        Self::with(path, format, facility, socket)
    }

    fn with(path: PathBuf, format: F, facility: u8, socket: UnixDatagram) -> io::Result<Self> {
        if format.shape() == Shape::Block {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a format of several lines does not go to syslog: use rfc5424 or json",
            ));
        }
        Ok(Self {
            name: format!("syslog {}", path.display()),
            path,
            format,
            facility: facility.min(23),
            tag: format!("bpfwatch[{}]: ", std::process::id()),
            socket: Some(socket),
            retry_at: None,
            record: Vec::new(),
            datagram: Vec::new(),
        })
    }

    /// Sends what is in `datagram`, over a new connection where the old one is broken: a restarted
    /// daemon has a new socket under the old path.
    fn send(&mut self) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            match socket.send(&self.datagram) {
                Ok(_) => return Ok(()),
                Err(error) if keeps_connection(&error) => return Err(error),
                Err(_) => self.socket = None,
            }
        }
        let socket = connect(&self.path)?;
        socket.send(&self.datagram)?;
        self.socket = Some(socket);
        Ok(())
    }
}

/// Failures that a new connection does not mend: the receiver's queue is full (after the wait), the
/// system is out of buffers (FreeBSD, macOS), or the record is too long for a datagram.
fn keeps_connection(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EMSGSIZE))
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(path)?;
    Ok(socket)
}

impl<F: Format> Sink for SyslogSocket<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        super::render(&self.format, line, &mut self.record)?;
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                format!("{} failed a moment ago", self.name),
            ));
        }
        self.datagram.clear();
        if self.format.shape() == Shape::Line {
            let priority = u16::from(self.facility) * 8 + u16::from(severity(line));
            self.datagram.extend_from_slice(format!("<{priority}>{}", self.tag).as_bytes());
        }
        let end = self.record.len() - usize::from(self.record.last() == Some(&b'\n'));
        self.datagram.extend_from_slice(&self.record[..end]);
        let result = self.send();
        self.retry_at = match &result {
            Ok(()) => None,
            // The next record may be shorter.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => None,
            Err(_) => Some(Instant::now() + PATIENCE),
        };
        result
    }
}
