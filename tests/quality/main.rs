//! The quality bar of the shipped rules, on real activity: ordinary programs raise no alarm, captures
//! among them are all found. `README.md` says how, and what came out.
//!
//! It needs Linux and root; what cannot run says so on standard error with the word `skipped`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test is a failed test")]

#[path = "../bundle/mod.rs"]
mod bundle;
mod injected;
mod judge;
mod lab;
mod ordinary;
mod plan;
mod process;
mod volume;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plan::Plan;

/// What `inside` says last when all went well.
const PASSED: &str = "quality: passed";
/// Set by the test for the process that does the work.
const INSIDE: &str = "BPFWATCH_QUALITY_INSIDE";

#[test]
fn ordinary_activity_is_quiet_and_captures_are_found() {
    // Whoever asks for the full form must not take a skip for a pass.
    let skip = |why: &str| {
        assert!(!Plan::from_environment().install, "the full form cannot run: {why}");
        eprintln!("skipped: ordinary_activity: {why}");
    };
    if !process::is_root() {
        return skip("needs root");
    }
    for tool in ["python3", "tcpdump", "ip", "setsid", "unshare", "setpriv", "ping"] {
        if process::find(tool).is_none() {
            return skip(&format!("{tool} is not installed"));
        }
    }
    if !lab::Lab::is_possible() {
        return skip("network namespaces and interfaces cannot be made here");
    }
    // What runs here must not look like a descendant of the terminal, build agent or editor that runs
    // the tests: setsid(1) forks, and its child is left to init before anybody watches.
    let mut setsid = Command::new("setsid")
        .arg("--fork")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inside", "--ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut passed = false;
    for line in BufReader::new(setsid.stdout.take().unwrap()).lines().map_while(Result::ok) {
        passed |= line.ends_with(PASSED);
        eprintln!("{line}");
    }
    setsid.wait().unwrap();
    assert!(passed, "see above");
}

/// The work itself. Its descendants stay below it, whatever they do (prctl(2),
/// PR_SET_CHILD_SUBREAPER): so all of them can be told from the rest of the machine, and ended.
#[test]
#[ignore = "runs as a process of its own, started by the other test"]
fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        println!(
            "skipped: inside: is started by ordinary_activity_is_quiet_and_captures_are_found"
        );
        return;
    }
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let plan = Plan::from_environment();
    let file = match &plan.judge {
        Some(file) => file.clone(),
        None => record(&plan),
    };
    let verdict = judge::judge(&file, &plan);
    if !plan.keep && plan.judge.is_none() {
        std::fs::remove_file(&file).unwrap();
    }
    for line in &verdict.report {
        println!("{line}");
    }
    assert!(verdict.wrong.is_empty(), "{}", verdict.wrong.join("\n"));
    println!("{PASSED}");
}

/// Records until the plan is fulfilled; where the recording is.
fn record(plan: &Plan) -> std::path::PathBuf {
    let lab = lab::Lab::new(plan);
    let recording = lab::Recording::start(plan);
    let over = AtomicBool::new(false);
    let injected = AtomicBool::new(false);
    let started = Instant::now();
    // A thread that fails ends the scope, and so the test; the others must not wait for it for ever.
    std::thread::scope(|scope| {
        let (lab, over, injected) = (&lab, &over, &injected);
        for worker in 0..plan.ordinary_workers {
            scope.spawn(move || ordinary::work(lab, worker, plan, over));
        }
        for worker in 0..plan.volume_workers {
            scope.spawn(move || volume::work(lab, worker, plan, over));
        }
        scope.spawn(move || {
            let _done = Flag(injected);
            injected::work(lab, plan, over);
        });
        let mut count = lab::Count::new(&recording.file);
        let mut said = Instant::now();
        let mut rounds = false;
        while started.elapsed() < plan.limit {
            std::thread::sleep(Duration::from_millis(500));
            count.read_on();
            if said.elapsed() > Duration::from_secs(30) {
                said = Instant::now();
                println!("{:?}: {count}", started.elapsed());
            }
            rounds |= ordinary::rounds_done() >= plan.ordinary_workers;
            if injected.load(Ordering::Relaxed)
                && rounds
                && count.observations >= plan.observations
                && count.handles >= plan.handles
            {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    println!("recorded for {:.0?}", started.elapsed());
    recording.stop();
    drop(lab);
    plan.recording.clone()
}

/// Raised when dropped, also by a panic.
struct Flag<'a>(&'a AtomicBool);

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
