//! A TCP connection, with TLS or without, to a receiver that only listens: it tells as soon as it can
//! that the other end is gone or refuses us.
//!
//! A write to a peer that is gone succeeds once: the kernel takes the bytes and learns later. So who
//! writes asks first, with [`Connection::state`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::tls::{self, TlsFiles};

/// The longest wait for a connection, for each address that a name has.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest wait for an answer in a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long after a handshake is waited for what the server thinks of our certificate: in TLS 1.3 the
/// client is done before the server has looked at it (RFC 8446, 4.4.2.4). A server that likes it sends
/// session tickets at once.
const VERDICT: Duration = Duration::from_millis(500);
/// The longest time that writing one buffer may take.
const WRITE: Duration = Duration::from_secs(20);

/// An open connection.
pub struct Connection {
    wire: Wire,
    /// `host:port`, for messages.
    address: String,
    ca: Option<PathBuf>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// What is known of the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing bad.
    Open,
    /// It closed after it had read all that had come to it.
    Closed,
    /// It went away, or refused us: what was written last may be lost.
    Broken(String),
}

/// TLS of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Whom to trust, and who we are. Read for every connection, so that renewed files are used.
    pub files: TlsFiles,
    /// Name that the server's certificate must be for, where it is not the host of the address.
    pub server_name: Option<String>,
}

impl Tls {
    /// The name that the certificate of `address` must be for.
    pub fn name<'a>(&'a self, address: &'a str) -> &'a str {
        self.server_name.as_deref().unwrap_or_else(|| host(address))
    }
}

impl Connection {
    /// Connects to `address`, which is `host:port`.
    ///
    /// # Errors
    /// Why not, in one line for an operator.
    pub fn open(address: &str, tls: Option<&Tls>) -> Result<Self, String> {
        let stream = connect(address)?;
        let settings =
            stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(WRITE)));
        settings.map_err(|error| format!("{address}: {error}"))?;
        let Some(wanted) = tls else {
            let wire = Wire::Plain(stream);
            return Ok(Self { wire, address: address.to_owned(), ca: None });
        };
        let name = wanted.name(address);
        let server = tls::server_name(name)?;
        let config = wanted.files.client().map_err(|error| error.to_string())?;
        let ca = wanted.files.ca.clone();
        let failed = |error: &io::Error| describe(error, address, name, ca.as_deref());
        let client = ClientConnection::new(config, server).map_err(|error| error.to_string())?;
        let mut stream = StreamOwned::new(client, stream);
        stream.sock.set_read_timeout(Some(HANDSHAKE)).map_err(|error| failed(&error))?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    format!("{address}: no answer to the handshake: does it speak TLS there?")
                }
                _ => failed(&error),
            })?;
        }
        let mut connection =
            Self { wire: Wire::Tls(Box::new(stream)), address: address.to_owned(), ca };
        match connection.listen(Some(VERDICT)) {
            State::Open => Ok(connection),
            State::Closed => Err(format!("{address}: closed right after the handshake")),
            State::Broken(why) => Err(why),
        }
    }

    /// What is known of the other end now; does not wait.
    pub fn state(&mut self) -> State {
        self.listen(None)
    }

    /// Takes in what the other end says, waiting at most `patience` for its first word. Receivers of
    /// logs say nothing but the protocol's own; what else comes is thrown away.
    fn listen(&mut self, patience: Option<Duration>) -> State {
        let socket = match &self.wire {
            Wire::Plain(socket) => socket,
            Wire::Tls(stream) => &stream.sock,
        };
        let blocking = match patience {
            Some(patience) => socket.set_read_timeout(Some(patience)),
            None => socket.set_nonblocking(true),
        };
        let state = blocking.map_err(|error| error.to_string()).map_or_else(State::Broken, |()| {
            loop {
                let heard = match &mut self.wire {
                    Wire::Plain(socket) => socket.read(&mut [0; 1024]).map(|count| count > 0),
                    Wire::Tls(stream) => hear(stream),
                };
                match heard {
                    // With patience the first word is enough.
                    Ok(true) if patience.is_some() => break State::Open,
                    Ok(true) => {}
                    Ok(false) => break State::Closed,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error)
                        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                    {
                        break State::Open;
                    }
                    Err(error) => {
                        let address = &self.address;
                        let why = describe(&error, address, host(address), self.ca.as_deref());
                        break State::Broken(why);
                    }
                }
            }
        });
        let socket = match &self.wire {
            Wire::Plain(socket) => socket,
            Wire::Tls(stream) => &stream.sock,
        };
        match socket.set_nonblocking(false) {
            Ok(()) => state,
            Err(error) => State::Broken(format!("{}: {error}", self.address)),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Why not, in one line. How much went out is not known then: the connection is of no more use.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let deadline = Instant::now() + WRITE;
        let writer: &mut dyn Write = match &mut self.wire {
            Wire::Plain(socket) => socket,
            Wire::Tls(stream) => stream,
        };
        // Pieces, so that a receiver that takes a byte now and then does not hold us for ever.
        let result = bytes.chunks(64 * 1024).try_for_each(|piece| {
            if Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            writer.write_all(piece)
        });
        result
            .and_then(|()| writer.flush())
            .map_err(|error| describe(&error, &self.address, host(&self.address), None))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Wire::Tls(stream) = &mut self.wire {
            // So that the receiver does not take it for an attack (RFC 8446, 6.1); whether it still
            // hears it does not matter.
            stream.conn.send_close_notify();
            let _ = stream.sock.set_nonblocking(true);
            let _ = stream.conn.write_tls(&mut stream.sock);
        }
    }
}

/// One read of TLS; false at its end.
fn hear(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<bool> {
    if stream.conn.read_tls(&mut stream.sock)? == 0 {
        return Ok(false);
    }
    let state = stream.conn.process_new_packets().map_err(io::Error::other)?;
    if state.plaintext_bytes_to_read() > 0 {
        let mut thrown_away = vec![0; state.plaintext_bytes_to_read()];
        stream.conn.reader().read_exact(&mut thrown_away)?;
    }
    Ok(!state.peer_has_closed())
}

fn connect(address: &str) -> Result<TcpStream, String> {
    let addresses = address.to_socket_addrs().map_err(|error| format!("{address}: {error}"))?;
    let mut last = None;
    // A name with many addresses is not worth more patience than this.
    for address in addresses.take(4) {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => describe(&error, address, host(address), None),
        None => format!("{address}: the name has no address"),
    })
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// One line for an operator.
fn describe(error: &io::Error, address: &str, server: &str, ca: Option<&Path>) -> String {
    if let Some(explained) = tls::within(error).and_then(|error| tls::explain(error, server, ca)) {
        return format!("{address}: {explained}");
    }
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("{address}: no answer in time"),
        ErrorKind::ConnectionRefused => {
            format!("{address}: connection refused: is the receiver running?")
        }
        ErrorKind::UnexpectedEof => {
            format!("{address}: closed in the middle of the handshake: does it speak TLS there?")
        }
        _ => format!(
            "{address}: {}",
            tls::within(error).map_or_else(|| error.to_string(), ToString::to_string)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn hosts_of_addresses() {
        for (address, expected) in [
            ("logs.example.com:6514", "logs.example.com"),
            ("[::1]:514", "::1"),
            ("10.0.0.1:1", "10.0.0.1"),
        ] {
            assert_eq!(host(address), expected);
        }
    }
}
