//! Sinks for tests, and what to ask them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Finding, Line};
use bpfwatch_core::sink::{BacklogState, Sink};
use bpfwatch_delivery::backoff::Pace;
use bpfwatch_delivery::http::{Proxy, Setup};
use bpfwatch_delivery::spool::{Settings, Spool};
use bpfwatch_delivery::transport::SpooledSink;
use bpfwatch_delivery::{Format, Json, Otlp, OtlpRecord, Remote, Webhook};

use crate::fixtures;
use crate::receiver::Request;

/// A directory that is removed at the end.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("bpfwatch-network-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    pub fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }
    pub fn secret(&self, name: &str, value: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        fs::write(&path, value).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub const PACE: Pace = Pace { first: Duration::from_millis(10), cap: Duration::from_millis(100) };

pub fn setup(url: String) -> Setup {
    Setup { url, proxy: Proxy::None, ..Setup::default() }
}

/// No linger, so that tests need not wait for it.
pub struct Eager(Webhook);

impl Remote for Eager {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn linger(&self) -> Duration {
        Duration::ZERO
    }
    fn deliver(
        &mut self,
        batch: &[bpfwatch_delivery::Record],
    ) -> Result<(), bpfwatch_delivery::Refused> {
        self.0.deliver(batch)
    }
}

pub fn webhook_with(dir: &Dir, setup: &Setup, key: Option<&PathBuf>) -> SpooledSink<Json> {
    let spool = Spool::open(&dir.spool(), Settings::default(), 1).unwrap();
    let remote = Eager(Webhook::open(setup, key, spool.stream()).unwrap());
    SpooledSink::with(spool, Json, Box::new(remote), PACE, 1).unwrap()
}

pub fn webhook(dir: &Dir, url: String) -> SpooledSink<Json> {
    webhook_with(dir, &setup(url), None)
}

pub fn otlp(dir: &Dir, setup: &Setup) -> SpooledSink<OtlpRecord> {
    let spool = Spool::open(&dir.spool(), Settings::default(), 1).unwrap();
    let host = fixtures::host("web-1", bpfwatch_core::observation::Os::Macos);
    let remote = Otlp::open(setup, &host, spool.stream()).unwrap();
    SpooledSink::with(spool, OtlpRecord, Box::new(remote), PACE, 1).unwrap()
}

pub fn finding(number: u64) -> Line {
    Line::Finding(Box::new(Finding { id: format!("id-{number}"), ..fixtures::full() }))
}

pub fn state<F: Format>(sink: &SpooledSink<F>) -> BacklogState {
    sink.backlog().unwrap().state()
}

/// Waits until it holds; fails after half a minute.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "still waiting: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Numbers and ids of the lines of webhook requests.
pub fn lines(requests: &[Request]) -> Vec<(u64, String)> {
    let mut out = Vec::new();
    for request in requests {
        let value: serde_json::Value = serde_json::from_slice(&request.content()).unwrap();
        for line in value["lines"].as_array().unwrap() {
            assert_eq!(line["line"]["id"], line["id"]);
            out.push((line["seq"].as_u64().unwrap(), line["id"].as_str().unwrap().to_owned()));
        }
    }
    out
}

/// Fails unless the lines, repeats apart, are 1 to `last` without a gap.
pub fn assert_contiguous(lines: &[(u64, String)], last: u64) {
    let unique: BTreeMap<u64, &String> = lines.iter().map(|(seq, id)| (*seq, id)).collect();
    let gaps: Vec<u64> = (1..=last).filter(|seq| !unique.contains_key(seq)).take(9).collect();
    assert!(gaps.is_empty() && unique.len() as u64 == last, "never came: {gaps:?} ...");
    for (seq, id) in unique {
        assert_eq!(*id, format!("id-{seq}"));
    }
}
