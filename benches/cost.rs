//! What watching costs a busy machine: the same load with and without bpfwatch, in pairs.
//!
//! `cargo bench --bench cost [-- PAIRS]`, as root on Linux. The load is 1,000 executions and 10,000 ordinary
//! sockets a second for 10 s; its own CPU time, children included, holds what the hooks add to each system
//! call, and bpfwatch's own comes on top. Aims: under 1 % of a core beyond the load, under 25 MB of memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::usage;
use nix::sys::resource::UsageWho;

/// How long each half of a pair takes.
const SPAN: Duration = Duration::from_secs(10);
/// A step of the load, what is done in it, and how many there are.
const STEP: Duration = Duration::from_millis(10);
const EXECUTIONS: u32 = 10;
const SOCKETS: u32 = 100;
const PAIRS: usize = 5;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let pairs = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [pairs] => pairs.parse().unwrap(),
        [] => PAIRS,
        _ => panic!("usage: cargo bench --bench cost [-- PAIRS]"),
    };
    if !cfg!(target_os = "linux") || !nix::unistd::geteuid().is_root() {
        println!("skipped: needs Linux and root");
        return;
    }
    println!(
        "{:>5}{:>14}{:>14}{:>13}{:>12}{:>9}",
        "pair", "load alone", "load watched", "bpfwatch", "beyond", "RSS MB"
    );
    let mut beyond = Vec::new();
    for pair in 1..=pairs {
        let alone = load();
        let (watcher, before) = watch();
        let watched = load();
        let own = share(watcher_cpu(&watcher) - before);
        let memory = resident_mb(&watcher);
        end(watcher);
        let more = watched - alone + own;
        println!(
            "{pair:>5}{alone:>12.2} %{watched:>12.2} %{own:>11.2} %{more:>10.2} %{memory:>9.1}"
        );
        beyond.push(more);
    }
    beyond.sort_by(f64::total_cmp);
    println!(
        "beyond the load, median: {:.2} % of a core (aim: under 1 %)",
        beyond[beyond.len() / 2]
    );
}

fn share(cpu: Duration) -> f64 {
    cpu.as_secs_f64() / SPAN.as_secs_f64() * 100.0
}

/// The load; its CPU time as a share of a core.
fn load() -> f64 {
    let before = used();
    let began = Instant::now();
    let mut late = 0;
    for step in 0..(SPAN.as_millis() / STEP.as_millis()) as u32 {
        let children: Vec<Child> =
            (0..EXECUTIONS).map(|_| Command::new("/bin/true").spawn().unwrap()).collect();
        for _ in 0..SOCKETS / 2 {
            drop(UdpSocket::bind("127.0.0.1:0").unwrap());
            drop(UnixDatagram::unbound().unwrap());
        }
        for mut child in children {
            child.wait().unwrap();
        }
        match (began + STEP * (step + 1)).checked_duration_since(Instant::now()) {
            Some(rest) => std::thread::sleep(rest),
            None => late += 1,
        }
    }
    if began.elapsed() > SPAN + SPAN / 20 {
        eprintln!(
            "the machine is too slow for this load: {late} steps late, {:?}",
            began.elapsed()
        );
    }
    share(used() - before)
}

/// CPU time of this process and of the children that it waited for.
fn used() -> Duration {
    usage::cpu() + usage::cpu_of(UsageWho::RUSAGE_CHILDREN)
}

/// bpfwatch, up and settled, with the CPU time that it had used by then.
fn watch() -> (Child, Duration) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bpfwatch"))
        .args(["watch", "--format", "json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("watching") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
    }
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(drop));
    std::thread::sleep(Duration::from_secs(5));
    let before = watcher_cpu(&child);
    (child, before)
}

/// CPU time of all threads, from the scheduler (proc(5), schedstat).
fn watcher_cpu(child: &Child) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn resident_mb(child: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1000.0
}

/// Between two loads, because its CPU time then counts as a child's.
fn end(mut child: Child) {
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    let _ = child.wait();
}
