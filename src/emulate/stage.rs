//! What a technique needs and what must be gone when it is over: a temporary directory with a copy of
//! this program, and other processes that run it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bpfwatch_core::sensor::SensorError;

use super::failed;
use super::part::{Duty, Reply, VARIABLE};

/// Where a copy of this program is put, in the order in which they are tried: a place may be mounted
/// `noexec`. A rule looks at these places, so that `TMPDIR` has no say.
const PLACES: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// How long another process may take until it has done its part.
const PATIENCE: Duration = Duration::from_secs(10);

/// A temporary directory of our own; dropping it removes it.
#[derive(Debug)]
pub struct Stage(PathBuf);

impl Stage {
    fn new(place: &str) -> io::Result<Self> {
        Ok(Self(nix::unistd::mkdtemp(&Path::new(place).join("bpfwatch-emulate-XXXXXX"))?))
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn copy(&self, name: &str) -> io::Result<PathBuf> {
        let copy = self.file(name);
        fs::copy(std::env::current_exe()?, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        Ok(copy)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            crate::output::warn(&format!("{} could not be removed: {error}", self.0.display()));
        }
    }
}

/// Another process of this program; dropping it ends it.
#[derive(Debug)]
pub struct Part {
    child: Child,
    /// Its standard input: while this is open, it goes on.
    pub line: UnixStream,
}

impl Part {
    /// Starts `program`, which is this one or a copy, under the name `arg0`. `handle` becomes its standard
    /// output.
    ///
    /// # Errors
    /// As execve(2) has them.
    pub fn start<S: AsRef<OsStr>>(
        program: &Path,
        arg0: &str,
        arguments: &[S],
        duty: &Duty,
        handle: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let (line, theirs) = UnixStream::pair()?;
        line.set_read_timeout(Some(PATIENCE))?;
        line.set_write_timeout(Some(PATIENCE))?;
        let child = Command::new(program)
            .arg0(arg0)
            .args(arguments)
            .env(VARIABLE, serde_json::to_string(duty)?)
            .stdin(OwnedFd::from(theirs))
            .stdout(handle.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, line })
    }

    /// Starts this program itself.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn own(name: &str, duty: &Duty, handle: Option<OwnedFd>) -> Result<Self, SensorError> {
        let start = || {
            let arguments = ["emulate", name];
            Self::start(&std::env::current_exe()?, "bpfwatch", &arguments, duty, handle)
        };
        start().map_err(|error| {
            failed(
                format!("cannot start another process: {error}"),
                "see which limits apply to you",
            )
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it do its part, and waits until it has.
    ///
    /// # Errors
    /// Its own, or that it ended or takes too long.
    pub fn perform(&mut self) -> Result<(), SensorError> {
        let silent = |error: &io::Error| {
            failed(format!("another process did not do its part: {error}"), "please report it")
        };
        self.line.write_all(b"\n").map_err(|error| silent(&error))?;
        self.reply()
    }

    /// Waits until it has done its part.
    ///
    /// # Errors
    /// As [`Part::perform`].
    pub fn reply(&mut self) -> Result<(), SensorError> {
        let mut text = String::new();
        let read = BufReader::new(&self.line).read_line(&mut text);
        let reply = read.and_then(|_| Ok(serde_json::from_str::<Reply>(&text)?));
        match reply {
            Ok(Reply::Done) => Ok(()),
            Ok(Reply::Failed { what, mend }) => Err(SensorError { sensor: "emulate", what, mend }),
            Err(error) => Err(failed(
                format!("another process did not do its part: {error}"),
                "please report it",
            )),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a copy of this program that has the name `name`, in a temporary directory. Arguments may name
/// the directory as `{}`.
///
/// # Errors
/// When there is no place to run a program from.
pub fn copy(
    name: &str,
    arg0: &str,
    arguments: &[&str],
    duty: impl Fn(&Stage) -> Duty,
) -> Result<(Stage, Part), SensorError> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for place in PLACES.iter().filter(|place| Path::new(place).is_dir()) {
        let start = || {
            let stage = Stage::new(place)?;
            let copy = stage.copy(name)?;
            let folder = stage.0.display().to_string();
            let arguments: Vec<_> =
                arguments.iter().map(|text| text.replace("{}", &folder)).collect();
            let part = Part::start(&copy, arg0, &arguments, &duty(&stage), None)?;
            Ok((stage, part))
        };
        match start() {
            Ok(done) => return Ok(done),
            Err(error) => last = error,
        }
    }
    Err(failed(
        format!("no copy of this program runs from {}: {last}", PLACES.join(", ")),
        "make room there, and mount one of them without noexec; that it is refused is a good sign \
         otherwise",
    ))
}
