//! `[[sink]]`: where lines go and how they look there. Each transport has keys of its own; one that
//! belongs to another transport is an error that says to which.

use std::path::{Path, PathBuf};

use bpfwatch_delivery::tls::TlsFiles;
use bpfwatch_delivery::transport::FILE_MODE;
use serde::Deserialize;

use super::kind::Kind;
use super::network::{self, Compression, Http, HttpKeys, Spool, SpoolKeys};
use super::secret::SecretFile;
use super::syslog::{self, Facility, FramingKey, Header, Layout, Receiver, SyslogKeys};

/// Where lines go, and how they look there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Keys")]
pub struct Sink {
    /// How they look.
    pub format: Format,
    /// Where they go.
    pub transport: Transport,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Native JSON, one object a line.
    Json,
    /// Elastic Common Schema, one object a line.
    Ecs,
    /// OCSF, one object a line.
    Ocsf,
    /// JSON as Falco writes it, one object a line.
    Falco,
    /// Blocks for people.
    Human,
    /// RFC 5424 with structured data.
    Rfc5424,
    /// RFC 3164, for receivers that know no newer syslog.
    Rfc3164,
    /// The log records of OTLP, for the transport of that name.
    #[serde(skip)]
    Otlp,
}

impl Format {
    /// Whether a record is one JSON object.
    pub fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Ecs | Self::Ocsf | Self::Falco)
    }
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    /// Standard output: the service manager's log.
    Stdout,
    /// A file, appended to.
    File {
        /// Its path.
        path: PathBuf,
        /// Its permission bits, where it is made anew.
        mode: u32,
        /// When records are brought to the disk.
        sync: Sync,
    },
    /// A named pipe.
    Pipe {
        /// Its path.
        path: PathBuf,
        /// Its permission bits, where it is made anew.
        mode: u32,
    },
    /// A local syslog socket.
    Syslog {
        /// Its path; the first one of the system where `None`.
        socket: Option<PathBuf>,
        /// How records look.
        layout: Layout,
    },
    /// The system's own log, where it has one: the unified log of macOS.
    Native,
    /// A syslog receiver over the network.
    Receiver(Box<Receiver>),
    /// OTLP over HTTP.
    Otlp(Box<Http>),
    /// Batches of JSON by POST.
    Webhook(Box<Http>),
}

/// When records of a file are brought to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// As soon as no more wait.
    #[default]
    Idle,
    /// After each.
    Always,
    /// When the system does it by itself.
    Never,
}

impl Transport {
    /// Where its lines wait on disk, for one that sends over the network.
    pub fn spool(&self) -> Option<&Spool> {
        match self {
            Self::Stdout
            | Self::File { .. }
            | Self::Pipe { .. }
            | Self::Syslog { .. }
            | Self::Native => None,
            Self::Receiver(receiver) => Some(&receiver.spool),
            Self::Otlp(http) | Self::Webhook(http) => Some(&http.spool),
        }
    }
}

impl Sink {
    /// The directory in which it makes files, where it does.
    pub fn directory(&self) -> Option<&Path> {
        match &self.transport {
            Transport::File { path, .. } | Transport::Pipe { path, .. } => path.parent(),
            _ => None,
        }
    }
}

/// A `[[sink]]` as written: the keys of all transports.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    format: Option<Format>,
    transport: Kind,
    path: Option<PathBuf>,
    mode: Option<u32>,
    sync: Option<Sync>,
    socket: Option<PathBuf>,
    address: Option<String>,
    facility: Option<Facility>,
    header: Option<Header>,
    limit: Option<usize>,
    framing: Option<FramingKey>,
    server_name: Option<String>,
    url: Option<String>,
    proxy: Option<String>,
    compression: Option<Compression>,
    token_file: Option<SecretFile>,
    signing_key_file: Option<SecretFile>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    spool: Option<SpoolKeys>,
}

impl Keys {
    /// The keys that may not be there, and whether they are.
    fn given(&self) -> [(&'static str, bool); 19] {
        [
            ("path", self.path.is_some()),
            ("mode", self.mode.is_some()),
            ("sync", self.sync.is_some()),
            ("socket", self.socket.is_some()),
            ("address", self.address.is_some()),
            ("facility", self.facility.is_some()),
            ("header", self.header.is_some()),
            ("limit", self.limit.is_some()),
            ("framing", self.framing.is_some()),
            ("server_name", self.server_name.is_some()),
            ("url", self.url.is_some()),
            ("proxy", self.proxy.is_some()),
            ("compression", self.compression.is_some()),
            ("token_file", self.token_file.is_some()),
            ("signing_key_file", self.signing_key_file.is_some()),
            ("ca", self.ca.is_some()),
            ("certificate", self.certificate.is_some()),
            ("key", self.key.is_some()),
            ("spool", self.spool.is_some()),
        ]
    }

    /// Refuses keys of other transports.
    fn refuse_foreign(&self) -> Result<(), String> {
        for (key, is_given) in self.given() {
            if !is_given || self.transport.takes(key) {
                continue;
            }
            let owners = Kind::ALL.into_iter().filter(|kind| kind.takes(key));
            let owners: Vec<String> = owners.map(|kind| format!("\"{}\"", kind.name())).collect();
            return Err(format!(
                "`{key}` belongs to a sink with transport = {}, not \"{}\"",
                owners.join(" or "),
                self.transport.name()
            ));
        }
        Ok(())
    }

    fn needs(&self, key: &str) -> String {
        format!("a sink with transport = \"{}\" needs a `{key}`", self.transport.name())
    }

    /// `path` and `mode`.
    fn place(&self) -> Result<(PathBuf, u32), String> {
        let path = self.path.clone().ok_or_else(|| self.needs("path"))?;
        absolute("path", &path)?;
        let mode = self.mode.unwrap_or(FILE_MODE);
        if mode > 0o777 {
            return Err("`mode` must be permission bits, such as 0o640".to_owned());
        }
        Ok((path, mode))
    }

    fn file(&self) -> Result<Transport, String> {
        let (path, mode) = self.place()?;
        Ok(Transport::File { path, mode, sync: self.sync.unwrap_or_default() })
    }

    fn pipe(&self) -> Result<Transport, String> {
        let (path, mode) = self.place()?;
        Ok(Transport::Pipe { path, mode })
    }

    fn syslog_keys(&mut self) -> SyslogKeys {
        SyslogKeys {
            address: self.address.take(),
            facility: self.facility,
            header: self.header,
            limit: self.limit,
            framing: self.framing,
            server_name: self.server_name.take(),
        }
    }

    fn syslog(&mut self, format: Format) -> Result<Transport, String> {
        let layout = self.syslog_keys().local(format)?;
        Ok(Transport::Syslog { socket: syslog::socket(self.socket.take())?, layout })
    }

    fn receiver(&mut self, format: Format) -> Result<Transport, String> {
        let tls = if self.transport == Kind::Tls { Some(self.tls()?) } else { None };
        let spool = self.spool.take().unwrap_or_default();
        let keys = self.syslog_keys();
        keys.receiver(self.transport.name(), format, tls, &spool).map(Transport::Receiver)
    }

    /// The files of TLS.
    fn tls(&mut self) -> Result<TlsFiles, String> {
        network::tls_files(self.ca.take(), self.certificate.take(), self.key.take())
    }

    /// The receiver of a transport over HTTP; `gzip` where nothing is said of compression.
    fn http(&mut self, gzip: bool) -> Result<Box<Http>, String> {
        let tls = self.tls()?;
        let keys = HttpKeys {
            url: self.url.take(),
            proxy: self.proxy.take(),
            compression: self.compression,
            token_file: self.token_file.take(),
            signing_key_file: self.signing_key_file.take(),
        };
        let spool = self.spool.take().unwrap_or_default();
        keys.receiver(self.transport.name(), tls, spool, gzip).map(Box::new)
    }

    /// The format, which OTLP and the unified log have of their own.
    fn format(&self) -> Result<Format, String> {
        let name = self.transport.name();
        match (self.transport, self.format) {
            (Kind::Otlp, None) => Ok(Format::Otlp),
            (Kind::Otlp, Some(_)) => {
                Err("otlp has a format of its own: leave `format` out".to_owned())
            }
            (Kind::Oslog, None) => Ok(Format::Json),
            (Kind::Oslog, Some(_)) => {
                Err("oslog writes JSON in parts of its own: leave `format` out".to_owned())
            }
            (_, None) => Err(format!("a sink with transport = \"{name}\" needs a `format`")),
            (kind, Some(Format::Human)) if !kind.takes_blocks() => Err(format!(
                "{name} takes one line for each finding: use json, ecs, ocsf, falco or rfc5424"
            )),
            (Kind::Webhook, Some(format)) if !format.is_json() => {
                Err("webhook sends JSON: use json, ecs, ocsf or falco".to_owned())
            }
            (_, Some(format)) => Ok(format),
        }
    }
}

fn absolute(key: &str, path: &Path) -> Result<(), String> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(format!("`{key}` must be absolute: {}", path.display()))
}

impl TryFrom<Keys> for Sink {
    type Error = String;

    fn try_from(mut keys: Keys) -> Result<Self, String> {
        keys.refuse_foreign()?;
        let format = keys.format()?;
        let transport = match keys.transport {
            Kind::Stdout => Transport::Stdout,
            Kind::File => keys.file()?,
            Kind::Pipe => keys.pipe()?,
            Kind::Syslog => keys.syslog(format)?,
            Kind::Oslog => Transport::Native,
            Kind::Udp | Kind::Tcp | Kind::Tls => keys.receiver(format)?,
            Kind::Otlp => Transport::Otlp(keys.http(true)?),
            // Not compressed: the signature is over what was sent, and many receivers see only what
            // was unpacked.
            Kind::Webhook => Transport::Webhook(keys.http(false)?),
        };
        Ok(Self { format, transport })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn a_sink_takes_only_its_own_keys() {
        for (text, word) in [
            ("format = \"json\"\ntransport = \"stdout\"\npath = \"/x\"", "\"file\""),
            ("format = \"json\"\ntransport = \"file\"", "needs a `path`"),
            ("format = \"json\"\ntransport = \"file\"\npath = \"x\"", "absolute"),
            ("format = \"json\"\ntransport = \"file\"\npath = \"/x\"\nmode = 0o4755", "0o640"),
            ("format = \"human\"\ntransport = \"syslog\"", "one line"),
            ("format = \"json\"\ntransport = \"pigeon\"", "pigeon"),
            ("transport = \"otlp\"", "needs a `url`"),
            ("transport = \"otlp\"\nformat = \"json\"\nurl = \"https://c\"", "of its own"),
            ("transport = \"oslog\"\nformat = \"json\"", "leave `format` out"),
            ("transport = \"file\"\npath = \"/x\"", "needs a `format`"),
            ("format = \"rfc5424\"\ntransport = \"webhook\"\nurl = \"https://c\"", "JSON"),
            ("transport = \"otlp\"\nurl = \"https://c\"\nca = \"x\"", "absolute"),
            ("transport = \"otlp\"\nurl = \"https://c\"\nkey = \"/x\"", "go together"),
            ("transport = \"otlp\"\nurl = \"https://c\"\nspool.max_mib = 0", "1 to"),
            ("transport = \"otlp\"\nurl = \"https://c\"\nspool.mib = 9", "`mib`"),
            ("format = \"json\"\ntransport = \"stdout\"\nurl = \"https://c\"", "\"otlp\" or"),
        ] {
            let wrong = Config::parse(&format!("[[sink]]\n{text}\n")).unwrap_err();
            assert!(wrong.what.contains(word), "{}", wrong.what);
            assert!(wrong.line.is_some(), "{text}");
        }
    }
}
