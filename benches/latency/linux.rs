//! Watchers, captures, and the time between them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Captures, unless told otherwise.
const COUNT: usize = 200;
/// Key of the rule that auditd is given.
const KEY: &str = "bpfwatch-bench";

/// Measures, or is one of the captures.
pub fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--capture", _] => capture(),
        [count] => all(count.parse().unwrap()),
        [] => all(COUNT),
        _ => panic!("usage: cargo bench --bench latency [-- COUNT]"),
    }
}

/// One capture: prints when it began.
fn capture() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    let began = monotonic();
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll);
    println!("{}", began.as_nanos());
    assert!(socket.is_ok(), "{socket:?}");
    std::thread::sleep(Duration::from_millis(20));
}

fn monotonic() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap().into()
}

/// A watcher: what it prints, each line with the process that it is about and when it came.
struct Watcher {
    children: Vec<Child>,
    lines: Receiver<(Duration, u32)>,
}

impl Watcher {
    /// Reads what `child` prints; `pid` finds the process in a line.
    fn reading(mut child: Child, pid: fn(&str) -> Option<u32>) -> Self {
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let at = monotonic();
                if let Some(pid) = pid(&line)
                    && sender.send((at, pid)).is_err()
                {
                    break;
                }
            }
        });
        Self { children: vec![child], lines }
    }

    /// CPU time so far: all threads, from the scheduler (proc(5), schedstat).
    fn cpu(&self) -> Duration {
        let threads = self.children.iter().flat_map(|child| {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id()));
            tasks.into_iter().flatten().flatten()
        });
        let nanos = threads.filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

fn all(count: usize) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    println!("{count} captures each");
    println!(
        "{:<10}{:>7}{:>12}{:>9}{:>15}",
        "watcher", "seen", "median ms", "p99 ms", "CPU us each"
    );
    measure("bpftrace", count, bpftrace());
    measure("bpfwatch", count, bpfwatch());
    let scratch = std::env::temp_dir().join(format!("bpfwatch-latency-{}", std::process::id()));
    let watcher = auditd(&scratch);
    let has_rule = watcher.is_ok();
    measure("auditd", count, watcher);
    if has_rule {
        rule("-d");
        let _ = Command::new("auditctl").args(["-e", "0"]).output();
    }
    let _ = std::fs::remove_dir_all(&scratch);
}

/// Captures, and how long the watcher took for each.
fn measure(name: &str, count: usize, watcher: Result<Watcher, String>) {
    let watcher = match watcher {
        Ok(watcher) => watcher,
        Err(why) => {
            println!("{name:<10}skipped: {why}");
            return;
        }
    };
    let program = std::env::current_exe().unwrap();
    let cpu = watcher.cpu();
    let mut began = HashMap::new();
    for number in 0..count {
        let mut child = Command::new(&program)
            .args(["--capture", &number.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut at = String::new();
        child.stdout.take().unwrap().read_to_string(&mut at).unwrap();
        assert!(child.wait().unwrap().success());
        began.insert(child.id(), Duration::from_nanos(at.trim().parse().unwrap()));
    }
    std::thread::sleep(Duration::from_secs(1));
    let used = watcher.cpu() - cpu;
    let mut took = HashMap::new();
    while let Ok((at, pid)) = watcher.lines.try_recv() {
        if let Some(began) = began.get(&pid) {
            took.entry(pid).or_insert(at.saturating_sub(*began));
        }
    }
    let mut took: Vec<Duration> = took.into_values().collect();
    took.sort_unstable();
    let ms = |part: usize| match took.get((took.len() * part / 100).min(took.len().max(1) - 1)) {
        Some(took) => format!("{:.2}", took.as_secs_f64() * 1e3),
        None => "-".to_owned(),
    };
    println!(
        "{name:<10}{:>7}{:>12}{:>9}{:>15.0}",
        took.len(),
        ms(50),
        ms(99),
        used.as_secs_f64() * 1e6 / count as f64
    );
}

fn bpfwatch() -> Result<Watcher, String> {
    let child = Command::new(env!("CARGO_BIN_EXE_bpfwatch"))
        .args(["watch", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // {"type":"finding",... "process":{"pid":42,...
    let watcher = started(child, "watching", |line| {
        let line = line.strip_prefix(r#"{"type":"finding""#)?;
        number_after(line, r#""process":{"pid":"#)
    });
    std::thread::sleep(Duration::from_secs(3));
    Ok(watcher)
}

fn bpftrace() -> Result<Watcher, String> {
    let program = "BEGIN { printf(\"up\\n\"); } \
                   tracepoint:syscalls:sys_enter_socket /args->family == 17/ { printf(\"pid %d\\n\", pid); }";
    let mut child = Command::new("bpftrace")
        .args(["-B", "line", "-e", program])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("bpftrace: {error}"))?;
    // It says two lines before it traces.
    let mut byte = [0];
    let mut said = String::new();
    while !said.ends_with("up\n") {
        if child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 0 {
            let _ = child.wait();
            return Err(format!("bpftrace does not run here: {said}"));
        }
        said.push(char::from(byte[0]));
    }
    Ok(Watcher::reading(child, |line| number_after(line, "pid ")))
}

/// auditd with its log in a folder of its own, and somebody who follows that.
fn auditd(scratch: &Path) -> Result<Watcher, String> {
    let status = Command::new("auditctl").arg("-s").output();
    let status = status.map_err(|error| format!("auditctl: {error}"))?;
    if !String::from_utf8_lossy(&status.stdout).lines().any(|line| line == "pid 0") {
        return Err("another auditd is in charge here, or the kernel has no audit".to_owned());
    }
    std::fs::create_dir_all(scratch).unwrap();
    let log: PathBuf = scratch.join("audit.log");
    let text = format!(
        "local_events = yes\nwrite_logs = yes\nlog_file = {}\nlog_format = RAW\nflush = NONE\n\
         max_log_file = 64\nmax_log_file_action = IGNORE\nspace_left = 1\n\
         space_left_action = IGNORE\nadmin_space_left_action = IGNORE\n\
         disk_full_action = IGNORE\ndisk_error_action = IGNORE\n",
        log.display()
    );
    std::fs::write(scratch.join("auditd.conf"), text).unwrap();
    let mut daemon = Command::new("auditd")
        .args(["-n", "-c"])
        .arg(scratch)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("auditd: {error}"))?;
    std::thread::sleep(Duration::from_secs(1));
    if daemon.try_wait().unwrap().is_some() || !rule("-a") {
        let _ = daemon.kill();
        let _ = daemon.wait();
        return Err("auditd does not run here".to_owned());
    }
    let follower = Command::new("tail")
        .args(["-n", "0", "-F"])
        .arg(&log)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut watcher = Watcher::reading(follower, |line| {
        let line = line.strip_prefix("type=SYSCALL").filter(|line| line.contains(KEY))?;
        number_after(line, " pid=")
    });
    watcher.children.push(daemon);
    Ok(watcher)
}

/// Adds or takes away the rule; whether that went.
fn rule(how: &str) -> bool {
    let rule = [
        how,
        "always,exit",
        "-F",
        "arch=b64",
        "-S",
        "socket",
        "-F",
        "a0=17",
        "-F",
        "key=bpfwatch-bench",
    ];
    Command::new("auditctl").args(rule).output().is_ok_and(|output| output.status.success())
}

/// Waits until it says `ready` on standard error.
fn started(mut child: Child, ready: &str, pid: fn(&str) -> Option<u32>) -> Watcher {
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(ready) {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
    }
    eprint!("{line}");
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(drop));
    Watcher::reading(child, pid)
}

fn number_after(line: &str, key: &str) -> Option<u32> {
    let rest = &line[line.find(key)? + key.len()..];
    rest.split(|byte: char| !byte.is_ascii_digit()).next()?.parse().ok()
}
