//! The configuration: its keys, their defaults, and errors that name file, line and key.
//!
//! | module | duty |
//! |---|---|
//! | [`layers`] | the files that it is read from, and how they come together |
//! | [`input`] | `[[input]]`: files that are followed |
//! | [`sink`], [`kind`], [`network`] | `[[sink]]`; which keys a transport takes; what sinks over the network have in common |
//! | [`default`] | the default sinks, and the defaults as a file |
//! | [`daemon`] | heartbeat, status, metrics, hardening |
//! | [`secret`] | files of secrets |
//! | [`wrong`] | what is wrong, and where |

mod daemon;
mod default;
mod input;
mod kind;
mod layers;
pub mod managed;
mod network;
mod secret;
mod sink;
mod syslog;
mod wrong;

use std::path::{Path, PathBuf};

use bpfwatch_core::finding::Level;
use bpfwatch_core::platform::{Audit, Ebpf, SensorSettings};
use serde::Deserialize;

pub use self::daemon::{Hardening, Heartbeat, Metrics, Status};
pub use self::default::text as default_text;
pub use self::input::Input;
pub use self::network::{Http, Spool};
pub use self::secret::SecretFile;
pub use self::sink::{Format, Sink, Sync, Transport};
pub use self::syslog::{Header, Layout, Receiver, Wire};
pub use self::wrong::nearest;
use crate::exit::{Code, Failure};
use crate::{platform, trust};

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Findings of a lower level are not written.
    pub level: Level,
    /// Take secrets out of command lines before anything is written.
    pub redact: bool,
    /// Where the daemon keeps what must survive a restart.
    pub state_dir: PathBuf,
    /// Which rules.
    pub rules: Rules,
    /// How the system is watched.
    pub sensors: Sensors,
    /// Sign of life.
    pub heartbeat: Heartbeat,
    /// What answers `bpfwatch status`.
    pub status: Status,
    /// Figures for Prometheus.
    pub metrics: Metrics,
    /// What the daemon gives up once it watches.
    pub hardening: Hardening,
    /// Log files that are followed.
    #[serde(rename = "input")]
    pub inputs: Vec<Input>,
    /// Where lines go.
    #[serde(rename = "sink")]
    pub sinks: Vec<Sink>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            level: Level::Low,
            redact: true,
            state_dir: PathBuf::from(platform::STATE_DIR),
            rules: Rules::default(),
            sensors: Sensors::default(),
            heartbeat: Heartbeat::default(),
            status: Status::default(),
            metrics: Metrics::default(),
            hardening: Hardening::default(),
            inputs: Vec::new(),
            sinks: default::sinks(platform::SINKS),
        }
    }
}

/// Which rules.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Use the rules that come with the program.
    pub shipped: bool,
    /// Directories of more.
    #[serde(deserialize_with = "daemon::directories")]
    pub dirs: Vec<PathBuf>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { shipped: true, dirs: Vec::new() }
    }
}

/// How the system is watched.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sensors {
    /// Time between steady scans, in milliseconds.
    #[serde(deserialize_with = "scan_interval")]
    pub scan_interval_ms: u64,
    /// How eBPF programs hook the kernel (Linux).
    pub ebpf: Ebpf,
    /// Size of their ring of process events, in KiB.
    #[serde(deserialize_with = "ebpf_ring")]
    pub ebpf_ring_kib: u32,
    /// What is read of an audit pipe (FreeBSD).
    #[serde(deserialize_with = "audit")]
    pub audit: Audit,
}

impl Default for Sensors {
    fn default() -> Self {
        let SensorSettings { scan_interval_ms, ebpf, ebpf_ring_kib, audit } =
            SensorSettings::default();
        Self { scan_interval_ms, ebpf, ebpf_ring_kib, audit }
    }
}

impl Sensors {
    /// As the platform wants it.
    pub fn settings(&self) -> SensorSettings {
        let Self { scan_interval_ms, ebpf, ebpf_ring_kib, audit } = *self;
        SensorSettings { scan_interval_ms, ebpf, ebpf_ring_kib, audit }
    }
}

/// Shorter, and the scans are all that the machine does; longer, and nothing is seen in time.
fn scan_interval<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = u64::deserialize(deserializer)?;
    if (50..=3_600_000).contains(&value) {
        return Ok(value);
    }
    Err(serde::de::Error::custom(format!("{value} ms is out of range: use 50 to 3600000")))
}

/// A ring of the kernel is a power of two and at least a page (kernel/bpf/ringbuf.c: ringbuf_map_alloc).
fn ebpf_ring<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let value = u32::deserialize(deserializer)?;
    if value.is_power_of_two() && (128..=65_536).contains(&value) {
        return Ok(value);
    }
    let message = format!("{value} KiB does not do: use a power of two from 128 to 65536");
    Err(serde::de::Error::custom(message))
}

/// Only one system has audit pipes; elsewhere what is asked for would silently not be seen.
fn audit<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Audit, D::Error> {
    let value = Audit::deserialize(deserializer)?;
    if value == Audit::Off || platform::HAS_AUDIT_PIPE {
        return Ok(value);
    }
    Err(serde::de::Error::custom("only FreeBSD has an audit pipe: use \"off\" here"))
}

impl Config {
    /// Reads the file and those of the folder beside it; gives the files that were read. Without a name
    /// the platform's own is read, which need not be there: the defaults work.
    ///
    /// # Errors
    /// When one cannot be read, has an unknown key or a wrong value.
    pub fn load(path: Option<&Path>) -> Result<(Self, Vec<PathBuf>), Failure> {
        layers::load(path, false)
    }

    /// As [`Config::load`], for the daemon: no file and no directory on the way to one may be such that
    /// others can write it.
    ///
    /// # Errors
    /// As `load`, and when somebody else could write one.
    pub fn load_trusted(path: Option<&Path>) -> Result<(Self, Vec<PathBuf>), Failure> {
        layers::load(path, true)
    }

    /// The keys of one configuration file, as they stand in it.
    ///
    /// # Errors
    /// When it cannot be read, has an unknown key or a wrong value.
    pub fn keys(file: &Path) -> Result<toml::Table, Failure> {
        layers::file_keys(file)
    }

    /// Reads the text of a configuration.
    #[cfg(test)]
    fn parse(text: &str) -> Result<Self, wrong::Wrong> {
        toml::from_str(text).map_err(|error| wrong::Wrong::new(text, &error))
    }
}

/// Turns distrust into a failure that says how to mend it.
///
/// # Errors
/// When there is any.
pub fn refuse_untrusted(name: &str, result: Result<(), trust::Distrust>) -> Result<(), Failure> {
    result.map_err(|distrust| {
        Failure::new(Code::Config, format!("{name} is not believed: {distrust}"))
            .next("give it to root and take the write permission away: chown root, chmod go-w")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_line_key_and_the_nearest_one() {
        let wrong = Config::parse("redact = true\nlvel = \"low\"\n").unwrap_err();
        assert_eq!(wrong.line, Some(2));
        assert!(wrong.what.contains("`lvel`"), "{}", wrong.what);
        assert_eq!(wrong.next, "did you mean `level`?");
        let wrong = Config::parse("[sensors]\n\nscan_interval_ms = 1\n").unwrap_err();
        assert_eq!(wrong.line, Some(3));
        assert!(wrong.what.contains("out of range"), "{}", wrong.what);
        let audit = |value: &str| Config::parse(&format!("[sensors]\naudit = \"{value}\""));
        assert_eq!(audit("off").unwrap(), Config::default());
        for value in ["exec", "exec+open"] {
            match audit(value) {
                Ok(config) => {
                    assert!(platform::HAS_AUDIT_PIPE && config.sensors.audit != Audit::Off);
                }
                Err(wrong) => assert!(wrong.what.contains("only FreeBSD"), "{}", wrong.what),
            }
        }
        assert!(audit("all").unwrap_err().what.contains("exec+open"));
        let wrong = Config::parse("level = \"loud\"").unwrap_err();
        assert_eq!(wrong.line, Some(1));
        assert!(wrong.what.contains("critical"), "{}", wrong.what);
        assert!(Config::parse("level = ").unwrap_err().line.is_some());
        // Of a whole table it is the line of the key that is wrong.
        let otlp = "level = \"low\"\n[[sink]]\ntransport = \"otlp\"\nurl = \"https://c\"\n";
        for (keys, line) in [
            ("spool.max_mib = 0\n", 5),
            ("\nspool = { memory = true, max_mib = 0 }\n", 6),
            ("ca = \"/a\"\nkey = \"k\"\n", 6),
        ] {
            let wrong = Config::parse(&format!("{otlp}{keys}")).unwrap_err();
            assert_eq!(wrong.line, Some(line), "{}", wrong.what);
        }
        for text in ["[heartbeat]\ninterval_s = -5", "[rules]\ndirs = \"/a\""] {
            let wrong = Config::parse(text).unwrap_err();
            assert!(
                !wrong.what.contains("u64") && !wrong.what.contains("sequence"),
                "{}",
                wrong.what
            );
        }
    }
}
