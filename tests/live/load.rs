//! Load: floods of executions, a thousand captures, a minute of nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{
    Running, Scratch, Traffic, Watch, about, alone, cpu_seconds, python, python_command,
    resident_kib,
};

#[test]
fn an_exec_flood_hides_no_capture_and_loses_nothing_in_silence() {
    let Some(_alone) = alone("an_exec_flood", &["python3"]) else { return };
    let scratch = Scratch::new("flood");
    let recording = scratch.0.join("flood.jsonl");
    let mut watch = Watch::start(&["--record", recording.to_str().unwrap()]);
    let program = python(
        &scratch,
        "live-flood",
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))",
    );
    let cpu = cpu_seconds(watch.pid());
    let since = Instant::now();
    let mut capture = None;
    let mut launched = 0u32;
    // A thousand a second for ten seconds, in steps of ten milliseconds; a slow machine does fewer.
    for step in 0..1000u32 {
        if since.elapsed() > Duration::from_secs(12) {
            break;
        }
        if capture.is_none() && since.elapsed() > Duration::from_secs(5) {
            capture = Some((Instant::now(), Running::start(&mut python_command(&program))));
        }
        let children: Vec<_> = (0..10)
            .map(|_| Command::new("/bin/true").arg("live-flood-true").spawn().unwrap())
            .collect();
        launched += 10;
        for mut child in children {
            child.wait().unwrap();
        }
        if let Some(rest) = (since + Duration::from_millis(u64::from(step) * 10))
            .checked_duration_since(Instant::now())
        {
            std::thread::sleep(rest);
        }
    }
    let took = since.elapsed();
    let used = cpu_seconds(watch.pid()) - cpu;
    let (began, running) = capture.unwrap();
    let found = watch.wait_for(began, Duration::from_secs(7), |line| about(line, "live-flood.py"));
    assert!(found.is_some(), "the flood hid the capture");
    drop(running);
    watch.read_for(Duration::from_millis(1500));
    let (_, lines) = watch.stop();
    let lost: u64 = lines
        .iter()
        .filter(|line| line["type"] == "lost")
        .map(|line| line["count"].as_u64().unwrap_or(0).max(1))
        .sum();
    let text = std::fs::read_to_string(&recording).unwrap();
    let executed = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| {
            line["kind"] == "executed" && line["process"]["args"][1] == "live-flood-true"
        })
        .count();
    let any = text.lines().filter(|line| line.contains("\"executed\"")).count();
    let share = used / took.as_secs_f64();
    eprintln!(
        "{launched} executions in {took:?}: {any} seen, {executed} with arguments, {lost} lost, {:.1} % of a core",
        share * 100.0
    );
    assert!(any as u64 + lost >= u64::from(launched), "{any} seen, {lost} lost of {launched}");
    let limit = if cfg!(debug_assertions) { 1.0 } else { 0.25 };
    assert!(share < limit, "{share}");
}

#[test]
fn a_thousand_short_tcpdumps_are_five_lines() {
    let Some(_alone) = alone("a_thousand_short_tcpdumps", &["tcpdump"]) else { return };
    let _traffic = Traffic::start();
    let watch = Watch::start(&[]);
    // Without immediate mode each waits a second for its ring to be handed over.
    for _ in 0..1000 {
        let ended = Command::new("tcpdump")
            .args(["-n", "-i", "lo", "--immediate-mode", "-c", "1", "udp"])
            .output()
            .unwrap();
        assert!(ended.status.success());
    }
    std::thread::sleep(Duration::from_millis(1500));
    let (_, lines) = watch.stop();
    let mine: Vec<&Value> = lines
        .iter()
        .filter(|line| {
            about(line, "-c 1 udp")
                || (line["type"] != "finding"
                    && line["image"].as_str().is_some_and(|i| i.ends_with("/tcpdump")))
        })
        .collect();
    for line in &mine {
        eprintln!("{} {} {}", line["type"], line["rule"]["title"], line["repeats"]);
    }
    assert!((1..=5).contains(&mine.len()), "{} lines: {mine:#?}", mine.len());
}

#[test]
fn idle_costs_next_to_nothing() {
    let Some(_alone) = alone("idle", &[]) else { return };
    let scratch = Scratch::new("idle");
    let config = scratch.0.join("looks.toml");
    std::fs::write(
        &config,
        format!(
            "state_dir = {:?}\n[status]\nsocket = \"\"\n[sensors]\nebpf = \"off\"\n\
             [[sink]]\nformat = \"json\"\ntransport = \"stdout\"\n",
            scratch.0
        ),
    )
    .unwrap();
    idle(&Watch::daemon(&config), "looks", 15);
    idle(&Watch::start(&[]), "eBPF where the kernel takes it", 25);
}

/// CPU time and memory of one that has nothing to do; in a release build they have to keep the promises.
fn idle(watch: &Watch, how: &str, mib: u64) {
    // What only the start needs is given back after five seconds.
    std::thread::sleep(Duration::from_secs(7));
    let (cpu, since) = (cpu_seconds(watch.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(20));
    let share = (cpu_seconds(watch.pid()) - cpu) / since.elapsed().as_secs_f64();
    let resident = resident_kib(watch.pid());
    eprintln!("idle, {how}: {:.2} % of a core, {resident} KiB resident", share * 100.0);
    if cfg!(debug_assertions) {
        eprintln!("(a debug build: the promises of 0.5 % and {mib} MiB are for a release build)");
        assert!(share < 0.05 && resident < 120 * 1024, "{share} {resident}");
    } else {
        assert!(share < 0.005, "{share}");
        assert!(resident < mib * 1024, "{resident}");
    }
}
