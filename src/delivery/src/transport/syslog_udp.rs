//! Syslog over UDP (RFC 5426): one datagram a record, and nobody who says that it came.
//!
//! Where the receiver's machine says that nobody listens (ICMP port unreachable), the datagrams that
//! went out before are sent once more when somebody does. Everything else that a network loses is lost
//! silently: TCP and TLS are there for that.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::remote::{Limits, Record, Refused, Remote};

/// The longest text of a UDP datagram over IPv4: 65,535 less the headers of both (RFC 768, RFC 791).
pub const MOST: usize = 65_507;

/// How long a refusal of a machine near by takes at most.
const REFUSAL: Duration = Duration::from_millis(20);

/// Datagrams in one call: few enough for the receiver's buffer.
const BATCH: usize = 64;

/// Sends records to a syslog receiver over UDP.
pub struct SyslogUdp {
    name: String,
    address: String,
    socket: Option<UdpSocket>,
    /// What went out last.
    last: Vec<Vec<u8>>,
    /// It found nobody.
    unheard: bool,
}

impl SyslogUdp {
    /// To `address`, which is `host:port`.
    pub fn new(address: &str) -> Self {
        Self {
            name: format!("syslog udp://{address}"),
            address: address.to_owned(),
            socket: None,
            last: Vec::new(),
            unheard: false,
        }
    }

    fn connect(&self) -> io::Result<UdpSocket> {
        let mut last = ErrorKind::AddrNotAvailable.into();
        for address in self.address.to_socket_addrs()? {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).and_then(|socket| {
                // Connected, so that refusals come back to this socket.
                socket.connect(address)?;
                socket.set_write_timeout(Some(Duration::from_secs(5)))?;
                Ok(socket)
            });
            match socket {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends what has found nobody once more; fails while there is still nobody.
    fn make_good(&mut self, socket: &UdpSocket) -> io::Result<()> {
        if let Some(error) = socket.take_error()? {
            if error.kind() != ErrorKind::ConnectionRefused {
                return Err(error);
            }
            self.unheard = true;
        }
        if !self.unheard {
            return Ok(());
        }
        for datagram in &self.last {
            send(socket, datagram)?;
        }
        thread::sleep(REFUSAL);
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        self.unheard = false;
        Ok(())
    }

    fn send(&mut self, socket: &UdpSocket, batch: &[Record]) -> Result<(), Refused> {
        self.make_good(socket).map_err(|error| self.later(0, &error))?;
        self.last.clear();
        for (taken, record) in batch.iter().enumerate() {
            let text = record.bytes.strip_suffix(b"\n").unwrap_or(&record.bytes);
            match send(socket, text) {
                Ok(()) => self.last.push(text.to_vec()),
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && taken == 0 => {
                    let (address, length) = (&self.address, text.len());
                    return Err(Refused::TooLarge {
                        why: format!(
                            "{address}: {length} bytes are too many for a datagram: lower `limit`, \
                             or use tcp"
                        ),
                    });
                }
                Err(error) => {
                    self.unheard |= error.kind() == ErrorKind::ConnectionRefused;
                    return Err(self.later(taken, &error));
                }
            }
        }
        Ok(())
    }

    fn later(&self, taken: usize, error: &io::Error) -> Refused {
        let why = match error.kind() {
            ErrorKind::ConnectionRefused => {
                format!("{}: nobody listens there: is the receiver running?", self.address)
            }
            _ => format!("{}: {error}", self.address),
        };
        Refused::Later { taken, after: None, why }
    }
}

/// A refusal of an earlier datagram is told by the next call, which then sends nothing.
fn send(socket: &UdpSocket, text: &[u8]) -> io::Result<()> {
    match socket.send(text) {
        Err(error) if error.kind() == ErrorKind::Interrupted => send(socket, text),
        result => result.map(|_| ()),
    }
}

impl Remote for SyslogUdp {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        Limits { records: BATCH, bytes: 256 * 1024 }
    }

    /// A datagram needs no batch.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }

    fn deliver(&mut self, batch: &[Record]) -> Result<(), Refused> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect().map_err(|error| self.later(0, &error))?,
        };
        let result = self.send(&socket, batch);
        // With another failure than a refusal, the route or the address may be another one now.
        let is_good = match &result {
            Ok(()) | Err(Refused::TooLarge { .. }) => true,
            Err(_) => self.unheard,
        };
        self.socket = is_good.then_some(socket);
        result
    }
}
