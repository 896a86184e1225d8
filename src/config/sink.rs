//! `[[sink]]`: where lines go and how they look there. Each transport has keys of its own; one that
//! belongs to another transport is an error that says to which.

use std::path::{Path, PathBuf};

use bpfwatch_delivery::transport::FILE_MODE;
use serde::Deserialize;

use crate::platform;

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
    },
    /// A local syslog socket.
    Syslog {
        /// Its path.
        socket: PathBuf,
    },
}

impl Sink {
    /// The directory in which it makes files, where it does.
    pub fn directory(&self) -> Option<&Path> {
        match &self.transport {
            Transport::File { path, .. } => path.parent(),
            _ => None,
        }
    }
}

/// A `[[sink]]` as written: the keys of all transports.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    format: Format,
    transport: Kind,
    path: Option<PathBuf>,
    mode: Option<u32>,
    socket: Option<PathBuf>,
}

/// The value of `transport`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Stdout,
    File,
    Syslog,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Stdout, Self::File, Self::Syslog];

    /// As written.
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File => "file",
            Self::Syslog => "syslog",
        }
    }

    /// The keys that it takes beside `format` and `transport`.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Stdout => &[],
            Self::File => &["path", "mode"],
            Self::Syslog => &["socket"],
        }
    }

    /// Whether it takes formats of several lines.
    fn takes_blocks(self) -> bool {
        matches!(self, Self::Stdout | Self::File)
    }
}

impl Keys {
    /// The keys that may not be there, and whether they are.
    fn given(&self) -> [(&'static str, bool); 3] {
        [
            ("path", self.path.is_some()),
            ("mode", self.mode.is_some()),
            ("socket", self.socket.is_some()),
        ]
    }

    /// Refuses keys of other transports.
    fn refuse_foreign(&self) -> Result<(), String> {
        for (key, is_given) in self.given() {
            if !is_given || self.transport.keys().contains(&key) {
                continue;
            }
            let owners = Kind::ALL.into_iter().filter(|kind| kind.keys().contains(&key));
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

    fn file(&self) -> Result<Transport, String> {
        let path = self.path.clone().ok_or_else(|| self.needs("path"))?;
        absolute("path", &path)?;
        let mode = self.mode.unwrap_or(FILE_MODE);
        if mode > 0o777 {
            return Err("`mode` must be permission bits, such as 0o640".to_owned());
        }
        Ok(Transport::File { path, mode })
    }

    fn syslog(&self) -> Result<Transport, String> {
        let socket = self.socket.clone().unwrap_or_else(|| PathBuf::from(platform::SYSLOG));
        absolute("socket", &socket)?;
        Ok(Transport::Syslog { socket })
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

    fn try_from(keys: Keys) -> Result<Self, String> {
        keys.refuse_foreign()?;
        let transport = match keys.transport {
            Kind::Stdout => Transport::Stdout,
            Kind::File => keys.file()?,
            Kind::Syslog => keys.syslog()?,
        };
        if keys.format == Format::Human && !keys.transport.takes_blocks() {
            return Err(format!(
                "{} takes one line for each finding: use json, ecs, ocsf, falco or rfc5424",
                keys.transport.name()
            ));
        }
        Ok(Self { format: keys.format, transport })
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
        ] {
            let wrong = Config::parse(&format!("[[sink]]\n{text}\n")).unwrap_err();
            assert!(wrong.what.contains(word), "{}", wrong.what);
            assert!(wrong.line.is_some(), "{text}");
        }
    }
}
