//! What a sensor that tells every step lets be said at once, and what waits all the same.

mod common;

use std::sync::Arc;

use bpfwatch_core::finding::{Finding, Line};
use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::{Kind, Observation, Origin, Os};
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use bpfwatch_core::process::Process;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;

use common::{documents, file, filter, load_clean, process, rule, uuid};

const EXACT: &str = "linux.ebpf";
const LOOKS: &str = "linux.sockets";

fn pipeline() -> Pipeline {
    let capture = "category: packet_capture";
    let rules = documents(&[
        rule(1, "medium", capture, "attached: {Stage: attached}\ncondition: attached"),
        rule(
            2,
            "high",
            capture,
            "state: {Stage: attached, Promiscuous: true, Image|startswith: /tmp/}\ncondition: state",
        ),
        rule(
            3,
            "low",
            "category: process_creation",
            "tool: {Image|endswith: /tcpdump}\ncondition: tool",
        ),
    ]);
    let client = format!("[{}]", uuid(1));
    let client = filter(
        4,
        capture,
        &client,
        "client: {Image: /usr/sbin/dhclient, FilterAttached: true}\ncondition: not client",
    );
    let rules = load_clean(&[file("rules.yml", &rules), file("expected/filter.yml", &client)]);
    Pipeline::new(Arc::new(rules), Settings::default())
}

/// Feeds a handle of this process, step by step, and gives what came out with no further time passing.
fn at_once(pipeline: &mut Pipeline, sensor: &str, image: &str, steps: &[Kind]) -> Vec<Finding> {
    let actor = Arc::new(Process { start: Some(1), ..process(image, &[image]) });
    let observations = steps.iter().enumerate().map(|(seq, kind)| Observation {
        at: Timestamp::from_secs(1_000),
        seq: seq as u64,
        sensor: Arc::from(sensor),
        actor: Some(Arc::clone(&actor)),
        kind: kind.clone(),
    });
    let origin = Origin { host: "h".into(), os: Os::Linux, os_version: None, boot_id: None };
    let batch = Batch { origin: Arc::new(origin), observations: observations.collect() };
    let mut findings = Vec::new();
    pipeline.feed(batch, &mut |line| {
        if let Line::Finding(finding) = line {
            findings.push(*finding);
        }
    });
    findings
}

fn handle() -> Handle {
    Handle {
        protocol: Some(Text::from("ETH_P_ALL")),
        interface: Some(Text::from("eth0")),
        filter: Some(false),
        ..Handle::new(HandleKind::PacketSocket, 7)
    }
}

fn steps() -> Vec<Kind> {
    vec![
        Kind::Executed,
        Kind::HandleOpened { handle: handle(), pre_existing: false },
        Kind::HandleAttached { handle: handle() },
    ]
}

#[test]
fn what_nothing_to_come_can_change_is_said_at_once_with_its_execution() {
    let found = at_once(&mut pipeline(), EXACT, "/usr/bin/tcpdump", &steps());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].rule.title, "Rule 1");
    assert!(found[0].rules.iter().any(|rule| rule.title == "Rule 3"), "{found:?}");
    // A filter that is set a moment later is no lie now: whether there is one is left open.
    assert_eq!(found[0].session.as_ref().unwrap().handle.filter, None);
}

#[test]
fn a_sensor_that_looks_is_waited_for() {
    assert!(at_once(&mut pipeline(), LOOKS, "/usr/bin/tcpdump", &steps()).is_empty());
}

#[test]
fn who_may_turn_out_to_be_expected_is_waited_for() {
    let mut lines = pipeline();
    assert!(at_once(&mut lines, EXACT, "/usr/sbin/dhclient", &steps()).is_empty());
    let filtered = Handle { filter: Some(true), ..handle() };
    let steps = [Kind::HandleAttached { handle: filtered }];
    assert!(at_once(&mut lines, EXACT, "/usr/sbin/dhclient", &steps).is_empty());
    let mut late = 0;
    lines.finish(&mut |line| late += usize::from(matches!(line, Line::Finding(_))));
    assert_eq!(late, 0, "a client that filters is expected");
}

#[test]
fn a_level_that_may_rise_is_waited_for_and_then_said_once() {
    let mut lines = pipeline();
    assert!(at_once(&mut lines, EXACT, "/tmp/x", &steps()).is_empty());
    let on = [Kind::Promiscuous { handle: handle(), on: true }];
    let found = at_once(&mut lines, EXACT, "/tmp/x", &on);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].rule.title, "Rule 2");
}
