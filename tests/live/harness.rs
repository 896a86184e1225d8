//! Starts the program and other people's programs, and reads what the first says about the second.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

static ALONE: Mutex<()> = Mutex::new(());

/// Waits until no other live test runs; `None`, with a message, where live tests cannot run.
pub fn alone(test: &str, tools: &[&str]) -> Option<MutexGuard<'static, ()>> {
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_root() {
        eprintln!("skipped: {test}: needs root");
        return None;
    }
    for tool in tools {
        if find(tool).is_none() {
            eprintln!("skipped: {test}: {tool} is not installed");
            return None;
        }
    }
    Some(guard)
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|l| l.starts_with("Uid:") && l.contains("\t0\t0\t")))
}

/// The tool's path.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|dir| dir.join(tool)).find(|file| file.is_file())
}

/// A folder of its own, removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("bpfwatch-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child, with all that it starts, that does not outlive its test: tshark leaves its dumpcap behind.
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.process_group(0).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// `bpfwatch watch --format json`, up and watching.
pub struct Watch {
    child: Child,
    lines: Receiver<(Instant, Value)>,
    seen: Vec<Value>,
    /// What it said on standard error until it watched.
    pub said: String,
}

impl Watch {
    pub fn start(arguments: &[&str]) -> Self {
        let arguments = [&["watch", "--format", "json"], arguments].concat();
        Self::program(&arguments, "watching")
    }

    /// `bpfwatch run` with a configuration whose sink is standard output.
    pub fn daemon(config: &Path) -> Self {
        Self::program(&["run", "--config", config.to_str().unwrap()], "started: ")
    }

    fn program(arguments: &[&str], ready: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bpfwatch"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                if sender.send((Instant::now(), value)).is_err() {
                    break;
                }
            }
        });
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        loop {
            let before = said.len();
            assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended: {said}");
            if said[before..].contains(ready) {
                break;
            }
        }
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(drop));
        // What is there already has been read when this is over.
        std::thread::sleep(Duration::from_millis(600));
        Self { child, lines, seen: Vec::new(), said }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads on until `wanted` says yes to a line that came within `limit`, whenever it is read; how long
    /// that took.
    pub fn wait_for(
        &mut self,
        since: Instant,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<(Value, Duration)> {
        let end = since + limit;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((at, line)) => {
                    self.seen.push(line.clone());
                    if at > end {
                        return None;
                    }
                    if wanted(&line) {
                        return Some((line, at.saturating_duration_since(since)));
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Reads on for `time`.
    pub fn read_for(&mut self, time: Duration) {
        let _ = self.wait_for(Instant::now(), time, |_| false);
    }

    /// All lines so far that `wanted` says yes to.
    pub fn seen(&self, wanted: impl Fn(&Value) -> bool) -> Vec<&Value> {
        self.seen.iter().filter(|line| wanted(line)).collect()
    }

    /// SIGINT; how long it took to end, and everything that it still said.
    pub fn stop(mut self) -> (Duration, Vec<Value>) {
        let asked = Instant::now();
        signal(self.pid(), "INT");
        self.child.wait().unwrap();
        let took = asked.elapsed();
        while let Ok((_, line)) = self.lines.recv() {
            self.seen.push(line);
        }
        (took, std::mem::take(&mut self.seen))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that the test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.unwrap().success());
}

/// Whether the line is a finding about a process with `mark` in its command line, or about a
/// descendant of one.
pub fn about(line: &Value, mark: &str) -> bool {
    line["type"] == "finding" && {
        let process = &line["process"];
        let own = process["command_line"].as_str();
        let ancestors = process["ancestors"].as_array();
        let above = ancestors.into_iter().flatten().filter_map(|a| a["command_line"].as_str());
        own.into_iter().chain(above).any(|command_line| command_line.contains(mark))
    }
}

/// User and system time that a process has used, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// Resident memory of a process, in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends small datagrams over loopback until dropped, so that a capture there has something to read.
pub struct Traffic(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Traffic {
    pub fn start() -> Self {
        use std::sync::atomic::{AtomicBool, Ordering};
        let on = std::sync::Arc::new(AtomicBool::new(true));
        let flag = std::sync::Arc::clone(&on);
        std::thread::spawn(move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            while flag.load(Ordering::Relaxed) {
                let _ = socket.send_to(b"x", "127.0.0.1:9");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self(on)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.store(false, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Writes a Python program that opens a socket and keeps it for some seconds.
pub fn python(scratch: &Scratch, mark: &str, open: &str) -> PathBuf {
    scratch.file(
        &format!("{mark}.py"),
        &format!("import socket, struct, time\n{open}\ntime.sleep(4)\n"),
    )
}

/// A file to run, beside the interpreter.
pub fn python_command(program: &Path) -> Command {
    let mut command = Command::new("python3");
    command.arg(program);
    command
}
