//! Syslog over TCP (RFC 6587) and over TLS (RFC 5425).
//!
//! The protocol has no acknowledgement: what the kernel took may still be lost with the receiver. What
//! can be done is done: before each batch the connection is asked whether the other end is gone. If it
//! closed in order, everything before was read. If it broke, the last batch goes out once more over
//! the new connection, and a receiver may see it twice, with the same ids.

use std::io::Write as _;
use std::time::Duration;

use super::connection::{Connection, State, Tls};
use crate::remote::{Limits, Record, Refused, Remote};

/// How records are told apart in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// The length of a record before it (RFC 6587, 3.4.1; RFC 5425, 4.3).
    #[default]
    OctetCounting,
    /// A newline after it (RFC 6587, 3.4.2), for receivers that know nothing else.
    Newline,
}

/// Sends records to a syslog receiver over TCP or TLS.
pub struct SyslogTcp {
    name: String,
    address: String,
    framing: Framing,
    tls: Option<Tls>,
    connection: Option<Connection>,
    /// The batch that went out last, framed.
    last: Vec<u8>,
    /// It may be lost.
    resend: bool,
}

impl SyslogTcp {
    /// To `address`, which is `host:port`. Connects when there is something to send.
    pub fn new(address: &str, framing: Framing, tls: Option<Tls>) -> Self {
        let scheme = if tls.is_some() { "tls" } else { "tcp" };
        Self {
            name: format!("syslog {scheme}://{address}"),
            address: address.to_owned(),
            framing,
            tls,
            connection: None,
            last: Vec::new(),
            resend: false,
        }
    }

    /// An open connection, a new one where the old one is gone.
    fn connection(&mut self) -> Result<&mut Connection, String> {
        match self.connection.as_mut().map(Connection::state) {
            Some(State::Open) => {}
            Some(State::Closed) => {
                self.connection = None;
                self.last.clear();
            }
            Some(State::Broken(_)) => {
                self.connection = None;
                self.resend = true;
            }
            None => {}
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.address, self.tls.as_ref())?,
        };
        Ok(self.connection.insert(connection))
    }
}

impl Remote for SyslogTcp {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        Limits { records: 1024, bytes: 256 * 1024 }
    }

    /// A stream needs no batches.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }

    fn deliver(&mut self, batch: &[Record]) -> Result<(), Refused> {
        let framing = self.framing;
        self.connection().map_err(Refused::later)?;
        let mut bytes = Vec::new();
        if self.resend {
            bytes.append(&mut self.last);
        }
        let again = bytes.len();
        batch.iter().for_each(|record| frame(framing, &record.bytes, &mut bytes));
        let written = match self.connection.as_mut() {
            Some(connection) => connection.write(&bytes),
            None => Ok(()),
        };
        if let Err(why) = written {
            self.connection = None;
            // The one before may be lost too; this batch is the caller's to try again.
            if self.resend {
                bytes.truncate(again);
                self.last = bytes;
            }
            self.resend = true;
            return Err(Refused::later(why));
        }
        self.resend = false;
        self.last = bytes.split_off(again);
        Ok(())
    }
}

/// Appends one record in its frame.
fn frame(framing: Framing, record: &[u8], out: &mut Vec<u8>) {
    let text = record.strip_suffix(b"\n").unwrap_or(record);
    match framing {
        Framing::OctetCounting => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{} ", text.len());
            out.extend_from_slice(text);
        }
        Framing::Newline => {
            out.extend_from_slice(text);
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_rfc_6587() {
        let framed = |framing| {
            let mut out = Vec::new();
            frame(framing, b"<34>1 one\n", &mut out);
            frame(framing, "zwei ü".as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(framed(Framing::OctetCounting), "9 <34>1 one7 zwei ü");
        assert_eq!(framed(Framing::Newline), "<34>1 one\nzwei ü\n");
    }
}
