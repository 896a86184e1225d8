//! `[heartbeat]`, `[status]`, `[metrics]` and `[hardening]`: how the daemon tells of itself and what it
//! gives up.

use std::net::SocketAddr;
use std::path::PathBuf;

use bpfwatch_core::platform::HardeningSettings;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::platform;

/// Sign of life.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heartbeat {
    /// Time between heartbeat lines, in seconds; 0 for none.
    pub interval_s: u64,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval_s: 300 }
    }
}

/// What answers `bpfwatch status`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Status {
    /// Path of the socket; `None` (written as an empty text) for no socket.
    #[serde(deserialize_with = "socket")]
    pub socket: Option<PathBuf>,
}

impl Default for Status {
    fn default() -> Self {
        Self { socket: Some(PathBuf::from(platform::STATUS_SOCKET)) }
    }
}

/// Figures for Prometheus.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// File for node_exporter's textfile collector.
    #[serde(deserialize_with = "textfile")]
    pub textfile: Option<PathBuf>,
    /// Address to answer `GET /metrics` at; loopback only.
    #[serde(deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
    /// Time between two versions of the file, in seconds.
    #[serde(deserialize_with = "interval")]
    pub interval_s: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { textfile: None, listen: None, interval_s: 15 }
    }
}

/// What the daemon gives up once it watches.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hardening {
    /// Give up what is not needed.
    pub enabled: bool,
    /// Capabilities to keep all the same, such as `CAP_DAC_OVERRIDE`.
    pub keep_capabilities: Vec<String>,
    /// Directories that sinks may come to write in after a reload.
    #[serde(deserialize_with = "directories")]
    pub writable: Vec<PathBuf>,
}

impl Default for Hardening {
    fn default() -> Self {
        Self { enabled: true, keep_capabilities: Vec::new(), writable: Vec::new() }
    }
}

impl Hardening {
    /// As the platform wants it; `writable` are the directories that the rest of the configuration names.
    pub fn settings(&self, writable: Vec<PathBuf>) -> HardeningSettings {
        HardeningSettings {
            enabled: self.enabled,
            keep_capabilities: self.keep_capabilities.clone(),
            writable: [writable, self.writable.clone()].concat(),
        }
    }
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Error::custom(format!("`{}` is not absolute: write the whole path", path.display())))
}

fn socket<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    match path {
        path if path.as_os_str().is_empty() => Ok(None),
        // sun_path holds 108 bytes on Linux and 104 elsewhere, with the final zero (unix(7), unix(4)).
        path if path.as_os_str().len() > 103 => {
            Err(Error::custom("the path of a socket has at most 103 bytes"))
        }
        path if path.is_absolute() => Ok(Some(path)),
        path => Err(Error::custom(format!("`{}` is not absolute", path.display()))),
    }
}

fn textfile<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = absolute(deserializer)?;
    // The collector reads no other files (node_exporter, collector/textfile.go).
    if path.extension().is_some_and(|end| end == "prom") {
        return Ok(Some(path));
    }
    Err(Error::custom(format!("`{}` must end in .prom", path.display())))
}

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address: SocketAddr = text.parse().map_err(|_| {
        Error::custom(format!("`{text}` is no address with a port, such as 127.0.0.1:9464"))
    })?;
    if address.ip().is_loopback() {
        return Ok(Some(address));
    }
    Err(Error::custom(format!(
        "`{text}` is not a loopback address: there is no access control, put a proxy before it"
    )))
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = u64::deserialize(deserializer)?;
    if (1..=3600).contains(&value) {
        return Ok(value);
    }
    Err(Error::custom(format!("{value} s is out of range: use 1 to 3600")))
}

/// A list of absolute paths.
pub fn directories<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(deserializer)?;
    match paths.iter().find(|path| !path.is_absolute()) {
        None => Ok(paths),
        Some(path) => Err(Error::custom(format!(
            "`{}` is not absolute: write the whole path",
            path.display()
        ))),
    }
}
