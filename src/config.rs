//! The configuration file: its keys, their defaults, and errors that name file, line and key.

use std::fs;
use std::path::{Path, PathBuf};

use bpfwatch_core::finding::Level;
use bpfwatch_core::platform::SensorSettings;
use bpfwatch_delivery::transport::FILE_MODE;
use serde::Deserialize;

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
}

impl Default for Sensors {
    fn default() -> Self {
        Self { scan_interval_ms: SensorSettings::default().scan_interval_ms }
    }
}

impl Sensors {
    /// As the platform wants it.
    pub fn settings(&self) -> SensorSettings {
        SensorSettings { scan_interval_ms: self.scan_interval_ms }
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

/// Where lines go, and how they look there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "SinkKeys")]
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
    /// Blocks for people.
    Human,
    /// RFC 5424 with structured data.
    Rfc5424,
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

/// A `[[sink]]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SinkKeys {
    format: Format,
    transport: TransportKey,
    path: Option<PathBuf>,
    mode: Option<u32>,
    socket: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum TransportKey {
    Stdout,
    File,
    Syslog,
}

impl TryFrom<SinkKeys> for Sink {
    type Error = String;

    fn try_from(keys: SinkKeys) -> Result<Self, String> {
        let SinkKeys { format, transport, path, mode, socket } = keys;
        let only = |key: &str, transport: &str| {
            Err(format!("`{key}` belongs to a sink with transport = \"{transport}\""))
        };
        let is_file = matches!(transport, TransportKey::File);
        if path.is_some() && !is_file {
            return only("path", "file");
        }
        if mode.is_some() && !is_file {
            return only("mode", "file");
        }
        if socket.is_some() && !matches!(transport, TransportKey::Syslog) {
            return only("socket", "syslog");
        }
        let transport = match transport {
            TransportKey::Stdout => Transport::Stdout,
            TransportKey::File => {
                let path = path.ok_or("a sink with transport = \"file\" needs a `path`")?;
                if !path.is_absolute() {
                    return Err(format!("`path` must be absolute: {}", path.display()));
                }
                let mode = mode.unwrap_or(FILE_MODE);
                if mode > 0o777 {
                    return Err("`mode` must be permission bits, such as 0o640".to_owned());
                }
                Transport::File { path, mode }
            }
            TransportKey::Syslog => Transport::Syslog {
                socket: socket.unwrap_or_else(|| PathBuf::from(platform::SYSLOG)),
            },
        };
        let is_syslog = matches!(transport, Transport::Syslog { .. });
        if is_syslog && format == Format::Human {
            return Err("syslog takes one line for each finding: use json or rfc5424".to_owned());
        }
        Ok(Self { format, transport })
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

    #[test]
    fn a_sink_takes_only_its_own_keys() {
        for (text, word) in [
            ("format = \"json\"\ntransport = \"stdout\"\npath = \"/x\"", "file"),
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
