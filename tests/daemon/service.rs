//! What a service manager is told: sd_notify(3) over a socket of the test's own.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::harness::{Daemon, PATIENCE, folder};

struct Manager(UnixDatagram);

impl Manager {
    /// Reads until a message has `word`; all that came until then.
    #[track_caller]
    fn wait_for(&self, word: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {word}: {all:?}");
            self.0.set_read_timeout(Some(left)).unwrap();
            let Ok(length) = self.0.recv(&mut buffer) else { continue };
            all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            if all.last().unwrap().contains(word) {
                return all;
            }
        }
    }
}

#[test]
fn it_is_told_of_every_state_and_hears_the_watchdog() {
    let path = folder("notify").join("notify.sock");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    let mut daemon = Daemon::start_with("service", "", |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    let ready = manager.wait_for("READY=1");
    assert!(ready.last().unwrap().contains("\nSTATUS=1 of 1 sensors"), "{ready:?}");
    // Each at most half the time that it waits, as sd_watchdog_enabled(3) advises.
    manager.wait_for("WATCHDOG=1");
    for _ in 0..5 {
        let start = Instant::now();
        manager.wait_for("WATCHDOG=1");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    daemon.signal("HUP");
    let all = manager.wait_for("RELOADING=1");
    assert!(all.last().unwrap().contains("MONOTONIC_USEC="), "{all:?}");
    manager.wait_for("READY=1");
    assert_eq!(daemon.stop(), Some(0));
    manager.wait_for("STOPPING=1");
}
