//! The configuration file: its keys, their defaults, and errors that name file, line and key.

mod sink;

use std::fs;
use std::path::{Path, PathBuf};

use bpfwatch_core::finding::Level;
use bpfwatch_core::platform::{Ebpf, SensorSettings};
use serde::Deserialize;

pub use self::sink::{Format, Sink, Transport};
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
            sinks: vec![Sink { format: Format::Json, transport: Transport::Stdout }],
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
}

impl Default for Sensors {
    fn default() -> Self {
        let SensorSettings { scan_interval_ms, ebpf, ebpf_ring_kib } = SensorSettings::default();
        Self { scan_interval_ms, ebpf, ebpf_ring_kib }
    }
}

impl Sensors {
    /// As the platform wants it.
    pub fn settings(&self) -> SensorSettings {
        let Self { scan_interval_ms, ebpf, ebpf_ring_kib } = *self;
        SensorSettings { scan_interval_ms, ebpf, ebpf_ring_kib }
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

impl Config {
    /// Reads the file. Without a name the platform's own is read, which need not be there: the
    /// defaults work.
    ///
    /// # Errors
    /// When it cannot be read, has an unknown key or a wrong value.
    pub fn load(path: Option<&Path>) -> Result<(Self, Option<PathBuf>), Failure> {
        let file = path.unwrap_or(Path::new(platform::CONFIG));
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Self::default(), None));
            }
            Err(error) => {
                let failure = Failure::file("read the configuration", file, &error);
                return Err(failure.next("`bpfwatch config default` prints one to begin with"));
            }
        };
        let config = Self::parse(&text)
            .map_err(|wrong| Failure::new(Code::Config, wrong.at(file)).next(wrong.next))?;
        Ok((config, Some(file.to_owned())))
    }

    /// As [`Config::load`], for the daemon: neither the file nor a rule directory that it names may be
    /// one that others can write.
    ///
    /// # Errors
    /// As `load`, and when somebody else could write it.
    pub fn load_trusted(path: Option<&Path>) -> Result<(Self, Option<PathBuf>), Failure> {
        let file = path.unwrap_or(Path::new(platform::CONFIG));
        if file.exists() {
            refuse_untrusted("the configuration", trust::check(file))?;
        }
        let (config, file) = Self::load(path)?;
        for dir in &config.rules.dirs {
            if !dir.is_absolute() {
                let what = format!("rules.dirs: `{}` is not absolute", dir.display());
                return Err(Failure::new(Code::Config, what).next("write the whole path"));
            }
        }
        Ok((config, file))
    }

    /// Reads the text of a configuration.
    fn parse(text: &str) -> Result<Self, Wrong> {
        toml::from_str(text).map_err(|error| Wrong::new(text, &error))
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

/// What is wrong with a configuration, and where.
#[derive(Debug)]
struct Wrong {
    line: Option<usize>,
    what: String,
    next: String,
}

impl Wrong {
    fn new(text: &str, error: &toml::de::Error) -> Self {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| before.matches('\n').count() + 1);
        let message = error.message().trim_end().replace('\n', ", ");
        let nearest = message.strip_prefix("unknown ").and_then(|rest| {
            let mut names = rest.split('`').skip(1).step_by(2);
            let given = names.next()?;
            nearest(given, names)
        });
        let next = match nearest {
            Some(name) => format!("did you mean `{name}`?"),
            None => "`bpfwatch config default` shows every key with its default".to_owned(),
        };
        Self { line, what: message, next }
    }

    fn at(&self, file: &Path) -> String {
        match self.line {
            Some(line) => format!("{}:{line}: {}", file.display(), self.what),
            None => format!("{}: {}", file.display(), self.what),
        }
    }
}

/// The name that was most likely meant: at most a third of it is mistyped.
pub fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::osa_distance(given, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(given.len()).div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// The defaults as a file, each with its reason.
pub fn default_text() -> String {
    include_str!("default.toml")
        .replace("@CONFIG@", platform::CONFIG)
        .replace("@STATE_DIR@", platform::STATE_DIR)
        .replace("@SYSLOG@", platform::SYSLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_default_is_the_built_in_one() {
        assert_eq!(Config::parse(&default_text()).unwrap(), Config::default());
        assert_eq!(Config::parse("").unwrap(), Config::default());
        // Uncommented, the examples are right too.
        let text: String = default_text()
            .lines()
            .map(|line| {
                let bare = line.strip_prefix("# ").unwrap_or(line);
                let is_key = bare.starts_with("[[") || bare.contains(" = ");
                if is_key { format!("{bare}\n") } else { format!("{line}\n") }
            })
            .collect();
        let full = Config::parse(&text).unwrap();
        assert!(full.sinks.len() >= 3, "{text}");
    }

    #[test]
    fn errors_name_line_key_and_the_nearest_one() {
        let wrong = Config::parse("redact = true\nlvel = \"low\"\n").unwrap_err();
        assert_eq!(wrong.line, Some(2));
        assert!(wrong.what.contains("`lvel`"), "{}", wrong.what);
        assert_eq!(wrong.next, "did you mean `level`?");
        let wrong = Config::parse("[sensors]\n\nscan_interval_ms = 1\n").unwrap_err();
        assert_eq!(wrong.line, Some(3));
        assert!(wrong.what.contains("out of range"), "{}", wrong.what);
        let wrong = Config::parse("level = \"loud\"").unwrap_err();
        assert_eq!(wrong.line, Some(1));
        assert!(wrong.what.contains("critical"), "{}", wrong.what);
        assert!(Config::parse("level = ").unwrap_err().line.is_some());
    }
}
