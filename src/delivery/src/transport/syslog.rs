//! The local syslog socket: one datagram a record, or one line where the socket is a stream.
//!
//! A format without a syslog header gets `<PRI>bpfwatch[PID]: ` before it, as `syslog(3)` writes it but
//! for the time, which the receiver sets (RFC 3164, 4.3.2): it would have to be local time without a
//! zone. systemd-journald, rsyslog and syslogd of FreeBSD and macOS take that. A format with a header
//! of its own goes out as it is, but daemons do not expect one on this socket: rsyslog takes that of
//! RFC 5424 for the text (imuxsock, `useSpecialParser`), and so does systemd-journald. So `rfc5424` and
//! `rfc3164` should be bare here.
//!
//! The daemon need not be there yet: it may start later than bpfwatch, or start anew. A datagram socket
//! loses nothing silently: when the receiver is gone or does not keep up, `write` fails and the caller
//! counts it. It never waits longer than [`PATIENCE`], and after a failure tries at most once in that
//! time. A record that is too long for the socket goes as names and values, cut and marked as such.

use std::io::{self, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bpfwatch_core::finding::Line;
use bpfwatch_core::sink::Sink;

use crate::format::{Format, Shape};
use crate::rfc5424::{DEFAULT_LIMIT, Rfc5424, severity};

/// Where `syslog(3)` looks (`_PATH_LOG` and `_PATH_LOG_PRIV` of each system's `sys/syslog.h`): Linux;
/// FreeBSD, for root alone and for everybody; macOS.
pub const SOCKET_PATHS: [&str; 4] =
    ["/dev/log", "/var/run/logpriv", "/var/run/log", "/var/run/syslog"];

/// The longest wait for a receiver that does not read, and for the next try after a failure.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Sends records to the local syslog socket.
pub struct SyslogSocket<F> {
    name: String,
    /// The first that takes a connection is taken.
    paths: Vec<PathBuf>,
    format: F,
    facility: u8,
    socket: Option<Socket>,
    /// After a failure: not before then.
    retry_at: Option<Instant>,
    record: Vec<u8>,
    message: Vec<u8>,
}

enum Socket {
    Datagram(UnixDatagram),
    /// Some daemons listen on a stream (syslog-ng's `unix-stream`); `syslog(3)` tries it second too.
    Stream(UnixStream),
}

impl Socket {
    fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        match socket.connect(path) {
            Ok(()) => Ok(Self::Datagram(socket)),
            Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Stream(stream))
            }
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Datagram(socket) => socket.send(message).map(|_| ()),
            Self::Stream(stream) => {
                let line = [message, b"\n"].concat();
                // Half a line before a whole one would spoil both: not to be kept after a failure.
                stream.write_all(&line).map_err(|error| {
                    io::Error::new(io::ErrorKind::ConnectionAborted, error.to_string())
                })
            }
        }
    }
}

impl<F: Format> SyslogSocket<F> {
    /// To the first socket of [`SOCKET_PATHS`] that takes a connection.
    ///
    /// # Errors
    /// When the format's records are for people and not for a log.
    pub fn local(format: F, facility: u8) -> io::Result<Self> {
        let paths = SOCKET_PATHS.iter().map(PathBuf::from).collect();
        Self::with("syslog".to_owned(), paths, format, facility)
    }

    /// To the given socket. `facility` (10 is authpriv) is for formats without a syslog header.
    ///
    /// # Errors
    /// As for [`SyslogSocket::local`].
    pub fn at(path: impl Into<PathBuf>, format: F, facility: u8) -> io::Result<Self> {
        let path = path.into();
        Self::with(format!("syslog {}", path.display()), vec![path], format, facility)
    }

    fn with(name: String, paths: Vec<PathBuf>, format: F, facility: u8) -> io::Result<Self> {
        if format.shape() == Shape::Block {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a format of several lines does not go to syslog: use rfc5424 or json",
            ));
        }
        Ok(Self {
            name,
            paths,
            format,
            facility: facility.min(23),
            socket: None,
            retry_at: None,
            record: Vec::new(),
            message: Vec::new(),
        })
    }

    /// Puts what is in `record` into `message`, with a header if it has none.
    fn compose(&mut self, line: &Line, shape: Shape) {
        self.message.clear();
        if shape == Shape::Line {
            let priority = u16::from(self.facility) * 8 + u16::from(severity(line));
            let head = format!("<{priority}>bpfwatch[{}]: ", std::process::id());
            self.message.extend_from_slice(head.as_bytes());
        }
        let end = self.record.len() - usize::from(self.record.last() == Some(&b'\n'));
        self.message.extend_from_slice(&self.record[..end]);
    }

    /// Sends what is in `message`, over a new connection where the old one is broken: a restarted
    /// daemon has a new socket under the old path.
    fn send(&mut self) -> io::Result<()> {
        if let Some(socket) = &mut self.socket {
            match socket.send(&self.message) {
                Ok(()) => return Ok(()),
                Err(error) if keeps_connection(&error) => return Err(error),
                Err(_) => self.socket = None,
            }
        }
        let mut socket = self.connect()?;
        let result = socket.send(&self.message);
        if result.as_ref().err().is_none_or(keeps_connection) {
            self.socket = Some(socket);
        }
        result
    }

    fn connect(&self) -> io::Result<Socket> {
        let mut failures = Vec::new();
        for path in &self.paths {
            match Socket::connect(path) {
                Ok(socket) => return Ok(socket),
                Err(error) => failures.push(format!("{}: {error}", path.display())),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{}: is a syslog daemon running?", failures.join("; ")),
        ))
    }
}

/// Failures that a new connection does not mend: the receiver's queue is full (after the wait), the
/// system is out of buffers (FreeBSD, macOS), or the record is too long for a datagram.
fn keeps_connection(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EMSGSIZE))
}

fn is_too_long(result: &io::Result<()>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE))
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
        self.compose(line, self.format.shape());
        let mut result = self.send();
        if is_too_long(&result) {
            // Room for the header that comes before it.
            let short = Rfc5424 { limit: DEFAULT_LIMIT - 64, bare: true, ..Rfc5424::default() };
            super::render(&short, line, &mut self.record)?;
            self.compose(line, Shape::Line);
            result = self.send();
        }
        self.retry_at = match &result {
            Ok(()) => None,
            // The next record may be shorter.
            Err(_) if is_too_long(&result) => None,
            Err(_) => Some(Instant::now() + PATIENCE),
        };
        result
    }
}
