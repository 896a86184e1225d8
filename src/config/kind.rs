//! The transports by name, and which keys of a `[[sink]]` each takes.

use serde::Deserialize;

/// The value of `transport`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Standard output.
    Stdout,
    /// A file.
    File,
    /// A named pipe.
    Pipe,
    /// The local syslog socket.
    Syslog,
    /// The unified log of macOS.
    Oslog,
    /// Syslog over UDP.
    Udp,
    /// Syslog over TCP.
    Tcp,
    /// Syslog over TLS.
    Tls,
    /// OTLP over HTTP.
    Otlp,
    /// Batches of JSON by POST.
    Webhook,
}

/// The keys of TLS.
const TLS: [&str; 3] = ["ca", "certificate", "key"];

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Stdout,
        Self::File,
        Self::Pipe,
        Self::Syslog,
        Self::Oslog,
        Self::Udp,
        Self::Tcp,
        Self::Tls,
        Self::Otlp,
        Self::Webhook,
    ];

    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File => "file",
            Self::Pipe => "pipe",
            Self::Syslog => "syslog",
            Self::Oslog => "oslog",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Otlp => "otlp",
            Self::Webhook => "webhook",
        }
    }

    /// Whether it takes a key beside `format` and `transport`.
    pub fn takes(self, key: &str) -> bool {
        let own: &[&str] = match self {
            Self::Stdout | Self::Oslog => &[],
            Self::File => &["path", "mode", "sync"],
            Self::Pipe => &["path", "mode"],
            Self::Syslog => &["socket", "facility", "header", "limit"],
            Self::Udp => &["address", "facility", "header", "limit", "spool"],
            Self::Tcp => &["address", "facility", "header", "limit", "framing", "spool"],
            Self::Tls => {
                &["address", "facility", "header", "limit", "framing", "server_name", "spool"]
            }
            Self::Otlp => &["url", "proxy", "compression", "token_file", "spool"],
            Self::Webhook => {
                &["url", "proxy", "compression", "token_file", "signing_key_file", "spool"]
            }
        };
        let tls = matches!(self, Self::Tls | Self::Otlp | Self::Webhook);
        own.contains(&key) || (tls && TLS.contains(&key))
    }

    /// Whether it takes formats of several lines.
    pub fn takes_blocks(self) -> bool {
        matches!(self, Self::Stdout | Self::File)
    }
}
