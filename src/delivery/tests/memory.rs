//! Memory stays flat, however much goes through a spool and however much waits in it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::time::Timestamp;
use bpfwatch_delivery::backoff::Pace;
use bpfwatch_delivery::courier::Courier;
use bpfwatch_delivery::spool::{Settings, Spool};
use bpfwatch_delivery::{Record, Refused, Remote};

/// Takes everything, in order; or nothing while it is shut.
struct Counting {
    got: Arc<AtomicU64>,
    shut: bool,
}

impl Remote for Counting {
    fn name(&self) -> &str {
        "counting"
    }
    fn linger(&self) -> Duration {
        Duration::ZERO
    }
    fn deliver(&mut self, batch: &[Record]) -> Result<(), Refused> {
        if self.shut {
            return Err(Refused::later("shut"));
        }
        self.got.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Resident memory in KiB (proc_pid_status(5)).
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_million_records_leave_memory_as_it_was() {
    let Some(_) = resident() else {
        println!("skipped a_million_records_leave_memory_as_it_was: no /proc/self/status");
        return;
    };
    let dir = std::env::temp_dir().join(format!("bpfwatch-memory-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    let pace = Pace { first: Duration::from_millis(10), cap: Duration::from_millis(100) };
    for (shut, total) in [(false, 1_000_000), (true, 100_000)] {
        // Less than what waits in the second round, so that the oldest is dropped.
        let settings = Settings { max_bytes: 16 << 20, ..Settings::default() };
        let spool = Spool::open(&dir.join(shut.to_string()), settings, 1).unwrap();
        let got = Arc::new(AtomicU64::new(0));
        let remote = Box::new(Counting { got: Arc::clone(&got), shut });
        let courier = Courier::start(spool.clone(), remote, pace, 1).unwrap();
        let payload = vec![b'x'; 300];
        let put = |count: u64| {
            for _ in 0..count {
                spool
                    .append("0d3b6d2a-91c4-8e77-a1b2-c3d4e5f60718", Timestamp::default(), &payload)
                    .unwrap();
            }
        };
        put(20_000);
        let before = resident().unwrap();
        let start = Instant::now();
        put(total - 20_000);
        let after = resident().unwrap();
        println!(
            "shut {shut}: {total} records in {:?}, resident {before} to {after} KiB",
            start.elapsed()
        );
        assert!(after < before + 8 * 1024, "resident {before} to {after} KiB");
        if !shut {
            while got.load(Ordering::Relaxed) + spool.state().counts.lost() < total {
                thread::sleep(Duration::from_millis(10));
            }
        }
        let state = spool.state();
        assert_eq!(state.waiting + state.counts.delivered + state.counts.lost(), total);
        assert!(state.waiting_bytes <= 16 << 20);
        courier.stop(Duration::from_secs(1));
    }
    fs::remove_dir_all(&dir).unwrap();
}
