//! Exit codes and the errors that lead to them: a contract with scripts and service managers.
//!
//! Numbers from 64 on are those of sysexits(3). They change only with a line in the changelog.

use std::fmt;
use std::io;
use std::process::ExitCode;

use bpfwatch_core::sensor::SensorError;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// It did what was asked.
    Ok = 0,
    /// `emulate --verify`: the technique was not reported; `rules test`: a case came out otherwise.
    NotSeen = 1,
    /// `scan --exit-code`: somebody captures who is not expected to.
    Unexpected = 10,
    /// EX_USAGE: the command line is wrong.
    Usage = 64,
    /// EX_DATAERR: a rule was refused, or a line of a recording could not be read.
    Data = 65,
    /// EX_NOINPUT: a file or rule that was named is not there.
    NoInput = 66,
    /// EX_UNAVAILABLE: no sensor can watch here, or no daemon answers.
    Unavailable = 69,
    /// EX_SOFTWARE: an error in bpfwatch itself.
    Software = 70,
    /// EX_IOERR: reading or writing failed.
    Io = 74,
    /// EX_NOPERM: it takes more privileges.
    NoPermission = 77,
    /// EX_CONFIG: the configuration is wrong, or others may write it.
    Config = 78,
}

/// The table that `--help` and the man page show.
pub const HELP: &str = "\
Exit codes:
   0  done
   1  emulate --verify: the technique was not reported; rules test: a case differs
  10  scan --exit-code: somebody captures who is not expected to
  64  the command line is wrong
  65  a rule was refused, or a line of a recording could not be read
  66  a file or rule that was named is not there
  69  no sensor can watch here, or no daemon answers
  70  an error in bpfwatch itself
  74  reading or writing failed
  77  it takes more privileges
  78  the configuration is wrong, or others may write it";

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

/// Why a command could not do what was asked, and what the user can do about it.
#[derive(Debug)]
pub struct Failure {
    /// What the program exits with.
    pub code: Code,
    what: String,
    next: Option<String>,
}

/// What every command returns.
pub type Outcome = Result<Code, Failure>;

impl Failure {
    /// What went wrong, and where.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), next: None }
    }

    /// What the user can do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// A file could not be read or written.
    pub fn file(doing: &str, path: &std::path::Path, error: &io::Error) -> Self {
        let what = format!("cannot {doing} {}: {}", path.display(), plain(error));
        match error.kind() {
            io::ErrorKind::NotFound => Self::new(Code::NoInput, what),
            io::ErrorKind::PermissionDenied => Self::new(Code::NoPermission, what),
            _ => Self::new(Code::Io, what),
        }
    }

    /// The output could not be written. A reader that went away (`| head`) is no error: the program
    /// ends quietly.
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Code::Ok, "")
        } else {
            Self::new(Code::Io, format!("cannot write the output: {}", plain(error)))
        }
    }

    /// A sensor could not start.
    pub fn sensor(error: &SensorError) -> Self {
        let code =
            if nix::unistd::geteuid().is_root() { Code::Unavailable } else { Code::NoPermission };
        let failure = Self::new(code, format!("{}: {}", error.sensor, error.what));
        match &error.mend {
            Some(mend) => failure.next(mend.clone()),
            None if code == Code::NoPermission => failure.next("run it as root"),
            None => failure.next("`bpfwatch doctor` shows what can be seen here"),
        }
    }

    /// Whether there is nothing to say.
    pub fn is_quiet(&self) -> bool {
        self.what.is_empty()
    }
}

/// The message of an I/O error without Rust's ` (os error 2)`.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let mut parts = text.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(')').map_or("", |(_, rest)| rest));
    }
    plain
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_code() {
        let codes = [
            Code::Ok,
            Code::NotSeen,
            Code::Unexpected,
            Code::Usage,
            Code::Data,
            Code::NoInput,
            Code::Unavailable,
            Code::Software,
            Code::Io,
            Code::NoPermission,
            Code::Config,
        ];
        let listed: Vec<u8> =
            HELP.lines().skip(1).map(|line| line[..4].trim().parse().unwrap()).collect();
        assert_eq!(listed, codes.map(|code| code as u8));
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let failure = Failure::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.is_quiet());
        assert_eq!(failure.code, Code::Ok);
    }
}
