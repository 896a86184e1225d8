//! Starts a daemon with a configuration of its own and reads what it says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Whether the tests run as root; says so where they do not.
pub fn is_root(test: &str) -> bool {
    let root = fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|l| l.starts_with("Uid:") && l.contains("\t0\t0\t"))
    });
    if !root {
        eprintln!("skipped: {test}: needs root");
    }
    root
}

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfwatch"));
    command.stdin(Stdio::null()).env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
    command
}

/// A running daemon with a directory of its own.
pub struct Daemon {
    pub dir: PathBuf,
    child: Child,
    said: Receiver<String>,
}

impl Daemon {
    /// Starts it with `more` beside what every test needs, and waits until it watches.
    pub fn start(name: &str, more: &str) -> Self {
        Self::start_with(name, more, |_| {})
    }

    pub fn start_with(name: &str, more: &str, change: impl FnOnce(&mut Command)) -> Self {
        let dir = folder(name);
        let daemon = Self::spawn(dir, more, change);
        daemon.wait_for("started: ");
        daemon
    }

    fn spawn(dir: PathBuf, more: &str, change: impl FnOnce(&mut Command)) -> Self {
        write(&dir.join("bpfwatch.toml"), &config(&dir, more));
        let mut command = program();
        command.args(["run", "--config"]).arg(dir.join("bpfwatch.toml"));
        change(&mut command);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { dir, child, said }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads its messages until one contains `word`, and gives that one.
    #[track_caller]
    pub fn wait_for(&self, word: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut all = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) if line.contains(word) => return line,
                Ok(line) => all = all + &line + "\n",
                Err(error) => panic!("no `{word}`: {error}\n{all}"),
            }
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/status.sock")
    }

    pub fn status(&self) -> Value {
        let socket = self.socket();
        let args = ["status", "--format", "json", "--socket", socket.to_str().unwrap()];
        let output = program().args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Asks again and again until `wanted` says yes.
    #[track_caller]
    pub fn status_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "it never came: {status:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Every line of its file so far.
    pub fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.join("out.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until a line of its file is `wanted`.
    #[track_caller]
    pub fn line_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.lines().into_iter().find(&wanted) {
                return line;
            }
            assert!(Instant::now() < deadline, "it never came: {:#?}", self.lines());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Writes another configuration and has it read.
    pub fn reload(&self, more: &str) {
        write(&self.dir.join("bpfwatch.toml"), &config(&self.dir, more));
        self.signal("HUP");
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// SIGKILL, and another start in the same directory.
    pub fn killed_and_started(&mut self, more: &str) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        *self = Self::spawn(self.dir.clone(), more, |_| {});
        self.wait_for("started: ");
    }

    /// SIGTERM; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of its own for a test, writable by its owner alone.
pub fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("daemon-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("rules")).unwrap();
    for dir in [&dir, &dir.join("rules")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

pub fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn config(dir: &Path, more: &str) -> String {
    let dir = dir.display();
    format!(
        "state_dir = \"{dir}/state\"\n{more}\n\
         [status]\nsocket = \"{dir}/run/status.sock\"\n\
         [rules]\ndirs = [\"{dir}/rules\"]\n\
         [[sink]]\nformat = \"json\"\ntransport = \"file\"\npath = \"{dir}/out.jsonl\"\n"
    )
}

/// Runs `status` against a socket.
pub fn ask(socket: &Path) -> Output {
    program().args(["status", "--socket"]).arg(socket).output().unwrap()
}

/// A rule that matches executions with `mark` in their command line.
pub fn rule(mark: &str, level: &str) -> String {
    format!(
        "title: Marked {mark}\nid: 0b6f3f0a-6d0e-4b5e-9a53-0a9c4f1f7c11\nstatus: test\n\
         description: Matches what the tests start.\nauthor: bpfwatch\ndate: 2026-11-24\n\
         logsource:\n    category: process_creation\n\
         detection:\n    selection:\n        CommandLine|contains: {mark}\n    condition: selection\n\
         level: {level}\n"
    )
}
