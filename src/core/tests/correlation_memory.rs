//! A million groups must not fill memory. A test binary of its own: it reads the process's memory.

mod common;

use std::sync::Arc;

use bpfwatch_core::events::ProcessEvent;
use bpfwatch_core::observation::Os;
use bpfwatch_core::process::ProcessKey;
use bpfwatch_core::rules::correlate::{Correlator, Moment};
use bpfwatch_core::time::Timestamp;
use common::{documents, file, load_clean, process, rule, uuid};

/// Unoptimised code gets fewer: the bounds are reached after ten thousand.
const GROUPS: u32 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
const LIMIT: usize = 25 << 20;

/// Resident memory in bytes (proc(5): the second field of statm, in pages).
fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse::<usize>().ok().map(|pages| pages * 4096)
}

#[test]
fn a_million_groups_stay_small() {
    if resident().is_none() {
        println!("skipped: this system has no /proc/self/statm to read memory from");
        return;
    }
    let logsource = "product: linux, category: process_creation";
    let base = |id| rule(id, "low", logsource, "s: {Image: /a}\ncondition: s");
    let correlation = |id: u32, body: &str| {
        format!(
            "title: C{id}\nid: {}\nlevel: high\ncorrelation:\n  rules: [{}, {}]\n  \
             group-by: [LineageId]\n  timespan: 10m\n  {body}\n",
            uuid(id),
            uuid(1),
            uuid(2)
        )
    };
    let texts = [
        base(1),
        base(2),
        correlation(10, "type: temporal_ordered"),
        correlation(11, "type: event_count\n  condition: {gte: 900}"),
        correlation(12, "type: value_count\n  condition: {gte: 900, field: LineageId}"),
    ];
    let set = Arc::new(load_clean(&[file("rules.yml", &documents(&texts))]));
    let mut correlator = Correlator::new(Arc::clone(&set));
    let process = process("/a", &["a"]);
    let key = |pid| Some(ProcessKey { pid, start: Some(0) });
    let hits = set.evaluate(&ProcessEvent::new(&process, Os::Linux, key(0))).correlated;
    assert_eq!(hits.len(), 2);

    let before = resident().unwrap_or(0);
    let mut highest = 0;
    let what = "w".repeat(400);
    for number in 0..GROUPS {
        let event = ProcessEvent::new(&process, Os::Linux, key(number));
        let at = Timestamp::from_nanos(i64::from(number) * 10_000);
        let fired =
            correlator.feed(&event, Moment { at, seq: u64::from(number), what: &what }, &hits);
        // One event is both rules, but not one after the other.
        assert!(fired.is_empty());
        if number % 10_000 == 0 {
            highest = highest.max(resident().unwrap_or(usize::MAX));
        }
    }
    let grown = highest.saturating_sub(before);
    println!("{GROUPS} groups: {} KiB", grown / 1024);
    assert!(grown < LIMIT, "{grown} bytes");
    assert!(correlator.forgotten() > 0);

    // The same group over and over: nothing but the cap of entries holds it.
    for number in 0..GROUPS {
        let event = ProcessEvent::new(&process, Os::Linux, key(number % 100));
        let at = Timestamp::from_nanos(i64::from(GROUPS + number) * 10_000);
        correlator.feed(&event, Moment { at, seq: u64::from(number), what: &what }, &hits);
    }
    let grown = resident().unwrap_or(usize::MAX).saturating_sub(before);
    assert!(grown < LIMIT, "{grown} bytes");
}
