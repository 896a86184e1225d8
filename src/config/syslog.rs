//! Keys of sinks that speak syslog: over the local socket, UDP, TCP and TLS.

use std::path::PathBuf;

use bpfwatch_delivery::envelope;
use bpfwatch_delivery::limit::LEAST_LIMIT;
use bpfwatch_delivery::tls::TlsFiles;
use bpfwatch_delivery::transport::{DATAGRAM_MOST, Framing, Tls};
use bpfwatch_delivery::{rfc3164, rfc5424};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::network::{Spool, SpoolKeys};
use super::sink::Format;

/// authpriv (RFC 5424, 6.2.1).
const AUTHPRIV: u8 = 10;

/// What FreeBSD calls LOG_SECURITY (sys/syslog.h), and RFC 5424 log audit.
pub const SECURITY: u8 = 13;

/// Bytes of a record over TCP and TLS, and of JSON anywhere: what rsyslogd takes unless told, and every
/// receiver of RFC 5425 should (section 4.3.1).
const STREAM_LIMIT: usize = 8192;

/// The longest record that is ever worth sending.
const MOST_LIMIT: usize = 1024 * 1024;

/// How a syslog record looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// What stands before the text.
    pub header: Header,
    /// Syslog facility number.
    pub facility: u8,
    /// Bytes at most.
    pub limit: usize,
}

/// What stands before the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Header {
    /// Priority and tag: what daemons expect on the local socket.
    Local,
    /// That of RFC 5424.
    Rfc5424,
    /// That of RFC 3164.
    Rfc3164,
}

/// A receiver over the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Receiver {
    /// `host:port`.
    pub address: String,
    /// How it is reached.
    pub wire: Wire,
    /// How records look.
    pub layout: Layout,
    /// Where lines wait for it.
    pub spool: Spool,
}

/// How a receiver is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum Wire {
    /// A datagram a record.
    Udp,
    /// A stream.
    Tcp(Framing),
    /// A stream within TLS.
    Tls(Framing, Tls),
}

/// The keys of syslog, as written.
#[derive(Debug, Default)]
pub struct SyslogKeys {
    pub address: Option<String>,
    pub facility: Option<Facility>,
    pub header: Option<Header>,
    pub limit: Option<usize>,
    pub framing: Option<FramingKey>,
    pub server_name: Option<String>,
}

/// The value of `framing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FramingKey {
    /// A length before each record.
    OctetCounting,
    /// A newline behind it.
    Newline,
}

/// A facility by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

/// By number (RFC 5424, 6.2.1), under the names of syslog.conf(5).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

impl<'de> Deserialize<'de> for Facility {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = (0_u8..).zip(FACILITIES).find(|(_, known)| *known == name);
        known
            .map(|(number, _)| Self(number))
            // FreeBSD's name of audit.
            .or_else(|| (name == "security").then_some(Self(SECURITY)))
            .ok_or_else(|| D::Error::unknown_variant(&name, &FACILITIES))
    }
}

impl SyslogKeys {
    /// The layout of records on the local socket.
    pub fn local(&self, format: Format) -> Result<Layout, String> {
        let header = self.header.unwrap_or(Header::Local);
        self.layout(format, header, rfc5424::DEFAULT_LIMIT)
    }

    /// A receiver over UDP, TCP or TLS, whose name is `kind`.
    pub fn receiver(
        self,
        kind: &str,
        format: Format,
        tls: Option<TlsFiles>,
        spool: &SpoolKeys,
    ) -> Result<Box<Receiver>, String> {
        let address = self.address.clone().ok_or_else(|| {
            format!("a sink with transport = \"{kind}\" needs an `address`, such as logs.example.com:6514")
        })?;
        check_address(&address)?;
        let header = match (self.header, format) {
            (Some(Header::Local), _) => {
                return Err("`header` is \"rfc5424\" or \"rfc3164\" over the network".to_owned());
            }
            (Some(header), _) => header,
            (None, Format::Rfc3164) => Header::Rfc3164,
            (None, _) => Header::Rfc5424,
        };
        let framing = match self.framing {
            Some(FramingKey::Newline) => Framing::Newline,
            Some(FramingKey::OctetCounting) | None => Framing::OctetCounting,
        };
        let is_udp = kind == "udp";
        let usual = if is_udp { rfc5424::DEFAULT_LIMIT } else { STREAM_LIMIT };
        let layout = self.layout(format, header, usual)?;
        if is_udp && layout.limit > DATAGRAM_MOST {
            return Err(format!("`limit` is at most {DATAGRAM_MOST}, which a datagram can carry"));
        }
        let wire = match tls {
            Some(files) => Wire::Tls(framing, Tls { files, server_name: self.server_name }),
            None if is_udp => Wire::Udp,
            None => Wire::Tcp(framing),
        };
        let spool = spool.spool(kind, &address)?;
        Ok(Box::new(Receiver { address, wire, layout, spool }))
    }

    /// `usual` is the limit of RFC 5424.
    fn layout(&self, format: Format, header: Header, usual: usize) -> Result<Layout, String> {
        let (least, usual, own) = match format {
            Format::Rfc5424 => (rfc5424::LEAST_LIMIT, usual, Some(Header::Rfc5424)),
            Format::Rfc3164 => {
                (rfc3164::LEAST_LIMIT, rfc3164::DEFAULT_LIMIT, Some(Header::Rfc3164))
            }
            _ => (LEAST_LIMIT + envelope::MOST, STREAM_LIMIT, None),
        };
        if header != Header::Local && own.is_some_and(|own| own != header) {
            return Err(
                "`header` and `format` name two different headers: leave `header` out".to_owned()
            );
        }
        let limit = self.limit.unwrap_or(usual);
        if !(least..=MOST_LIMIT).contains(&limit) {
            return Err(format!(
                "`limit` must be {least} to {MOST_LIMIT} bytes in this format, not {limit}"
            ));
        }
        Ok(Layout {
            header,
            facility: self.facility.map_or(AUTHPRIV, |facility| facility.0),
            limit,
        })
    }
}

/// `host:port`, the host a name, an IPv4 address, or an IPv6 address in brackets.
fn check_address(address: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("`address` {why}: \"{address}\"; write host:port"));
    let Some((host, port)) = address.rsplit_once(':') else { return wrong("has no port") };
    if host.contains("://") {
        return wrong("is a name and a port, no URL");
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return wrong("needs brackets around an IPv6 address, as in [::1]:514");
    }
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() => Ok(()),
        Ok(_) if host.is_empty() => wrong("has no host"),
        _ => wrong("has no port from 1 to 65535"),
    }
}

/// A socket's path, as written.
pub fn socket(path: Option<PathBuf>) -> Result<Option<PathBuf>, String> {
    match path {
        Some(path) if !path.is_absolute() => {
            Err(format!("`socket` must be absolute: {}", path.display()))
        }
        path => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Transport};

    fn sink(text: &str) -> Transport {
        let config = Config::parse(&format!("[[sink]]\n{text}\n")).unwrap();
        config.sinks[0].transport.clone()
    }

    #[test]
    fn receivers_have_the_limits_of_their_protocol() {
        let limit = |text: &str| match sink(text) {
            Transport::Receiver(receiver) => (receiver.layout.header, receiver.layout.limit),
            Transport::Syslog { layout, .. } => (layout.header, layout.limit),
            other => panic!("{other:?}"),
        };
        let at = "address = \"h:514\"";
        for (text, expected) in [
            (format!("transport = \"udp\"\nformat = \"rfc5424\"\n{at}"), (Header::Rfc5424, 2048)),
            (format!("transport = \"tcp\"\nformat = \"rfc5424\"\n{at}"), (Header::Rfc5424, 8192)),
            (format!("transport = \"tls\"\nformat = \"rfc3164\"\n{at}"), (Header::Rfc3164, 1024)),
            (format!("transport = \"udp\"\nformat = \"ecs\"\n{at}"), (Header::Rfc5424, 8192)),
            ("transport = \"syslog\"\nformat = \"rfc5424\"".to_owned(), (Header::Local, 2048)),
            ("transport = \"syslog\"\nformat = \"json\"".to_owned(), (Header::Local, 8192)),
        ] {
            assert_eq!(limit(&text), expected, "{text}");
        }
    }

    #[test]
    fn errors_name_the_key_and_what_is_right() {
        for (text, word) in [
            ("transport = \"tcp\"\nformat = \"json\"", "needs an `address`"),
            ("transport = \"tcp\"\nformat = \"json\"\naddress = \"h\"", "has no port"),
            ("transport = \"tcp\"\nformat = \"json\"\naddress = \"h:0\"", "1 to 65535"),
            ("transport = \"tcp\"\nformat = \"json\"\naddress = \":514\"", "no host"),
            ("transport = \"tcp\"\nformat = \"json\"\naddress = \"::1:514\"", "[::1]:514"),
            ("transport = \"tcp\"\nformat = \"json\"\naddress = \"tcp://h:514\"", "no URL"),
            ("transport = \"udp\"\nformat = \"json\"\naddress = \"h:1\"\nlimit = 70000", "65507"),
            ("transport = \"tcp\"\nformat = \"json\"\naddress = \"h:1\"\nlimit = 512", "4496 to"),
            ("transport = \"tcp\"\nformat = \"human\"\naddress = \"h:1\"", "one line"),
            ("transport = \"tcp\"\nformat = \"json\"\naddress = \"h:1\"\nca = \"/x\"", "\"tls\""),
            (
                "transport = \"udp\"\nformat = \"json\"\naddress = \"h:1\"\nframing = \"newline\"",
                "\"tcp\" or \"tls\"",
            ),
            (
                "transport = \"tcp\"\nformat = \"json\"\naddress = \"h:1\"\nfacility = \"authprv\"",
                "authpriv",
            ),
            (
                "transport = \"tcp\"\nformat = \"json\"\naddress = \"h:1\"\nheader = \"local\"",
                "over the network",
            ),
            (
                "transport = \"tcp\"\nformat = \"rfc5424\"\naddress = \"h:1\"\nheader = \"rfc3164\"",
                "two different",
            ),
            ("transport = \"syslog\"\nformat = \"json\"\nsocket = \"log\"", "absolute"),
            ("transport = \"pipe\"\nformat = \"json\"", "needs a `path`"),
        ] {
            let wrong = Config::parse(&format!("[[sink]]\n{text}\n")).unwrap_err();
            assert!(wrong.what.contains(word), "{}", wrong.what);
            assert!(wrong.line.is_some(), "{text}");
        }
        let wrong = Config::parse(
            "[[sink]]\ntransport = \"syslog\"\nformat = \"json\"\nfacility = \"authprv\"\n",
        );
        assert_eq!(wrong.unwrap_err().next, "did you mean `authpriv`?");
    }
}
