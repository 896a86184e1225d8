//! A daemon that is killed while findings flow: what the spool accepted comes out of it, whole and in
//! order. The test runs itself as the program that is killed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bpfwatch_core::time::Timestamp;
use bpfwatch_delivery::Limits;
use bpfwatch_delivery::spool::{Done, Settings, Store, Sync};

const RUNS: u64 = 100;
const CHILD: &str = "BPFWATCH_TEST_SPOOL";

/// Not a test of its own: appends and delivers until it is killed, and tells what was accepted.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let sync = match std::env::var("BPFWATCH_TEST_SYNC").as_deref() {
        Ok("always") => Sync::Always,
        _ => Sync::Never,
    };
    let settings = Settings { max_bytes: 1 << 20, sync, ..Settings::default() };
    let mut store = Store::open(Path::new(&dir), settings, Timestamp::default(), 1).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "ready").unwrap();
    for round in 0_u64.. {
        let payload = vec![b'a' + (round % 26) as u8; 100 + (round % 700) as usize];
        let seq = store.append(Timestamp::default(), "id", Timestamp::default(), &payload).unwrap();
        // One write for each line, so that a line is there whole or not at all.
        out.write_all(format!("accepted {seq}\n").as_bytes()).unwrap();
        if round % 3 == 0 {
            let batch = store.peek(Limits { records: 2, bytes: 1 << 20 }).unwrap();
            let last = batch.records.last().unwrap().seq;
            out.write_all(format!("delivered {last}\n").as_bytes()).unwrap();
            store.ack(&batch, batch.records.len(), Done::Delivered);
        }
    }
}

#[test]
fn what_was_accepted_survives_a_hundred_kills() {
    let dir = std::env::temp_dir().join(format!("bpfwatch-killed-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let (mut accepted, mut delivered, mut torn) = (0, 0, 0);
    for run in 0..RUNS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, &dir)
            .env("BPFWATCH_TEST_SYNC", if run % 10 == 0 { "always" } else { "never" })
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Its test runner writes before it, on the same line.
        while !lines.next().unwrap().unwrap().ends_with("ready") {}
        let killer = thread::spawn(move || {
            // Between none and some milliseconds, at another point in each run.
            thread::sleep(Duration::from_micros(run * 7919 % 9000));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        for line in lines.map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("accepted", seq)) => accepted = seq.parse().unwrap(),
                Some(("delivered", seq)) => delivered = seq.parse().unwrap(),
                _ => panic!("{line}"),
            }
        }
        killer.join().unwrap();
        let settings = Settings { max_bytes: 1 << 20, sync: Sync::Never, ..Settings::default() };
        let mut store = Store::open(&dir, settings, Timestamp::default(), 1).unwrap();
        // One more may have been accepted whose line was not written any more.
        let last = store.last();
        assert!(last == accepted || last == accepted + 1, "run {run}: {last} for {accepted}");
        assert!(store.acked() <= delivered, "run {run}");
        torn += store.counts().damaged;
        let (mut seen, dropped) = (store.acked(), store.counts().oversize);
        assert_eq!(dropped, 0);
        // Everything that was not taken is there, in order; look at it, and leave it for the next run.
        let batch = store.peek(Limits { records: usize::MAX, bytes: usize::MAX }).unwrap();
        for record in &batch.records {
            assert_eq!(record.seq, seen + 1, "run {run}");
            let first = record.bytes[0];
            assert!(record.bytes.iter().all(|byte| *byte == first), "run {run}: {}", record.seq);
            seen = record.seq;
        }
        assert_eq!(seen, last, "run {run}");
        // Dropping the oldest would hide what this test looks for: take half of what waits.
        store.ack(&batch, batch.records.len() / 2, Done::Delivered);
        delivered = delivered.max(store.acked());
        accepted = last;
    }
    println!("{RUNS} kills: {accepted} accepted, {torn} torn ends cut off, nothing lost");
    assert!(accepted > RUNS, "{accepted}");
    std::fs::remove_dir_all(&dir).unwrap();
}
