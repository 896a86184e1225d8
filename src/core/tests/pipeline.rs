//! Observations in, lines out: what becomes one alert, what becomes a second line, what stays quiet.

use std::sync::Arc;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::finding::{Finding, Level, Line, Verdict};
use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::{Interface, Kind, Observation, Origin, Os};
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use bpfwatch_core::process::Process;
use bpfwatch_core::rules::{RuleFile, RuleSet};
use bpfwatch_core::time::Timestamp;

const RULES: &str = r"
title: Capture tool executed
id: 11111111-1111-4111-8111-111111111111
author: A. Author
license: MIT
logsource: {category: process_creation}
detection:
    tool: {Image|endswith: [/tcpdump, /tshark, /dumpcap]}
    condition: tool
level: low
---
title: Handle attached
id: 22222222-2222-4222-8222-222222222222
logsource: {category: packet_capture}
detection:
    attached: {Stage: attached}
    condition: attached
level: medium
---
title: Capture from a writable directory
id: 33333333-3333-4333-8333-333333333333
logsource: {category: packet_capture}
detection:
    state: {Stage: attached, Promiscuous: true, Image|startswith: /tmp/}
    condition: state
level: high
---
title: Promiscuous interface
id: 44444444-4444-4444-8444-444444444444
logsource: {category: capture_posture}
detection:
    event: {EventType: interface_promiscuous}
    condition: event
level: low
";

const FILTER: &str = r"
title: Address client
id: 55555555-5555-4555-8555-555555555555
logsource: {category: packet_capture}
filter:
    rules: [22222222-2222-4222-8222-222222222222]
    client: {Image: /usr/sbin/dhclient, FilterAttached: true}
    condition: not client
";

fn rules() -> Arc<RuleSet> {
    let file = |path: &str, text: &str| RuleFile {
        path: path.to_owned(),
        text: text.to_owned(),
        page: None,
    };
    let (rules, problems) =
        RuleSet::load(&[file("rules.yml", RULES), file("expected/filter.yml", FILTER)]);
    assert_eq!(problems, []);
    Arc::new(rules)
}

struct Bench {
    pipeline: Pipeline,
    origin: Arc<Origin>,
    seq: u64,
    lines: Vec<Line>,
}

impl Bench {
    fn new() -> Self {
        let origin = Origin {
            host: "web-1".into(),
            os: Os::Linux,
            os_version: None,
            boot_id: Some("boot".into()),
        };
        let pipeline = Pipeline::new(rules(), Settings::default());
        Self { pipeline, origin: Arc::new(origin), seq: 0, lines: Vec::new() }
    }

    fn see(&mut self, millis: i64, actor: Option<&Process>, kind: Kind) {
        self.seq += 1;
        let observation = Observation {
            at: millis_at(millis),
            seq: self.seq,
            sensor: Arc::from("test"),
            actor: actor.cloned().map(Arc::new),
            kind,
        };
        let batch = Batch { origin: Arc::clone(&self.origin), observations: vec![observation] };
        self.pipeline.feed(batch, &mut |line| self.lines.push(line));
    }

    /// A capture as the Linux sensor reports it.
    fn capture(&mut self, millis: i64, process: &Process, id: u64, promiscuous: bool) {
        self.see(millis, Some(process), opened(packet(id)));
        self.see(millis + 1, Some(process), Kind::HandleAttached { handle: packet(id) });
        if promiscuous {
            let kind = Kind::Promiscuous { handle: packet(id), on: true };
            self.see(millis + 2, Some(process), kind);
        }
    }

    fn close(&mut self, millis: i64, id: u64) {
        self.see(millis, None, Kind::HandleClosed { handle: packet(id) });
    }

    fn pass(&mut self, millis: i64) {
        self.pipeline.advance(millis_at(millis), &mut |line| self.lines.push(line));
    }

    fn finish(&mut self) -> Vec<Line> {
        self.pipeline.finish(&mut |line| self.lines.push(line));
        std::mem::take(&mut self.lines)
    }
}

fn millis_at(millis: i64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000 + millis * 1_000_000)
}

fn process(pid: u32, ppid: u32, image: &str, args: &[&str]) -> Process {
    Process {
        pid,
        start: Some(u64::from(pid) + 1000),
        ppid: Some(ppid),
        uid: Some(0),
        image: Some(image.into()),
        args: Some(Arguments::from_list(args)),
        ..Process::default()
    }
}

fn packet(id: u64) -> Handle {
    Handle { interface: Some("lo".into()), ..Handle::new(HandleKind::PacketSocket, id) }
}

fn opened(handle: Handle) -> Kind {
    Kind::HandleOpened { handle, pre_existing: false }
}

fn findings(lines: &[Line]) -> Vec<&Finding> {
    lines
        .iter()
        .filter_map(|line| match line {
            Line::Finding(finding) => Some(&**finding),
            _ => None,
        })
        .collect()
}

#[test]
fn one_tcpdump_is_one_alert() {
    let mut bench = Bench::new();
    let tcpdump = process(7, 1, "/usr/bin/tcpdump", &["tcpdump", "-i", "lo"]);
    bench.see(0, Some(&tcpdump), Kind::Executed);
    bench.capture(20, &tcpdump, 1, true);
    bench.pass(2000);
    bench.close(5000, 1);
    let lines = bench.finish();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let finding = findings(&lines)[0];
    assert_eq!(finding.rule.title, "Handle attached");
    assert_eq!(finding.rules[0].title, "Capture tool executed");
    assert_eq!(finding.rules[0].author.as_deref(), Some("A. Author"));
    assert_eq!(finding.rules[0].license.as_deref(), Some("MIT"));
    assert!(finding.session.as_ref().unwrap().promiscuous);
    assert_eq!(finding.process.as_ref().unwrap().command_line.as_deref(), Some("tcpdump -i lo"));
    let kinds: Vec<_> = finding.evidence.iter().map(|evidence| evidence.kind).collect();
    assert_eq!(kinds, ["executed", "handle_opened", "handle_attached", "promiscuous"]);
    let Line::Closed(closed) = &lines[1] else { panic!("{lines:?}") };
    assert_eq!(closed.finding, finding.id);
    assert_eq!(closed.duration_ms, 4980);
}

#[test]
fn a_child_that_captures_belongs_to_its_parents_alert() {
    let mut bench = Bench::new();
    let tshark = process(7, 1, "/usr/bin/tshark", &["tshark"]);
    let dumpcap = process(8, 7, "/usr/bin/dumpcap", &["dumpcap", "-i", "lo"]);
    bench.see(0, Some(&tshark), Kind::Executed);
    bench.see(300, Some(&dumpcap), Kind::Executed);
    bench.capture(400, &dumpcap, 1, false);
    bench.pass(9000);
    let lines = bench.finish();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let finding = findings(&lines)[0];
    assert_eq!(finding.process.as_ref().unwrap().pid, 8);
    assert_eq!(finding.process.as_ref().unwrap().ancestors[0].pid, 7);
}

#[test]
fn an_execution_alone_is_an_alert_within_a_second_and_a_half() {
    let mut bench = Bench::new();
    let tcpdump = process(7, 1, "/usr/bin/tcpdump", &["tcpdump", "-D"]);
    bench.see(0, Some(&tcpdump), Kind::Executed);
    bench.see(50, Some(&tcpdump), Kind::Exited);
    bench.pass(1500);
    assert_eq!(findings(&bench.lines).len(), 1);
    assert!(bench.lines.len() == 1 && bench.finish().len() == 1);
}

#[test]
fn a_higher_level_is_an_update_and_the_same_level_is_not() {
    let mut bench = Bench::new();
    let copy = process(7, 1, "/tmp/x", &["/tmp/x"]);
    bench.capture(0, &copy, 1, false);
    bench.pass(1000);
    let kind = Kind::Promiscuous { handle: packet(1), on: true };
    bench.see(2000, Some(&copy), kind.clone());
    bench.pass(3000);
    bench.see(4000, Some(&copy), Kind::Promiscuous { handle: packet(1), on: false });
    bench.see(5000, Some(&copy), kind);
    bench.pass(6000);
    let lines = bench.finish();
    let findings = findings(&lines);
    assert_eq!(findings.len(), 2, "{lines:#?}");
    assert_eq!(findings[1].rule.level, Level::High);
    assert_eq!(findings[1].update_of.as_deref(), Some(&*findings[0].id));
}

#[test]
fn a_thousand_short_captures_are_five_lines_at_most() {
    let mut bench = Bench::new();
    for n in 0..1000u32 {
        let at = i64::from(n) * 100;
        let tcpdump = process(100 + n, 1, "/usr/bin/tcpdump", &["tcpdump", "-c", "1"]);
        bench.see(at, Some(&tcpdump), Kind::Executed);
        // The polling sensor misses some, and sees promiscuous mode of others.
        if n % 7 != 0 {
            bench.capture(at + 20, &tcpdump, u64::from(n), n % 3 == 0);
            bench.close(at + 60, u64::from(n));
        }
        bench.see(at + 61, Some(&tcpdump), Kind::Exited);
    }
    let lines = bench.finish();
    assert!(lines.len() <= 5, "{} lines: {lines:#?}", lines.len());
}

#[test]
fn an_expected_holder_is_quiet_also_when_its_filter_comes_late() {
    let mut bench = Bench::new();
    let client = process(7, 1, "/usr/sbin/dhclient", &["dhclient", "eth0"]);
    bench.capture(0, &client, 1, false);
    let filtered = Handle { filter: Some(true), ..packet(1) };
    bench.see(50, Some(&client), Kind::HandleAttached { handle: filtered });
    bench.pass(2000);
    let sessions = bench.pipeline.sessions(millis_at(2000));
    assert_eq!(sessions[0].verdict, Verdict::Expected);
    assert_eq!(sessions[0].expected_by.as_deref(), Some("55555555-5555-4555-8555-555555555555"));
    assert_eq!(bench.finish(), []);
}

#[test]
fn what_a_snapshot_shows_has_its_verdict_when_all_is_brought_out() {
    let mut bench = Bench::new();
    Arc::make_mut(&mut bench.origin).os = Os::Freebsd;
    let sniffer = process(7, 1, "/usr/local/bin/sniffer", &["sniffer"]);
    let bpf = Handle { interface: Some("em0".into()), ..Handle::new(HandleKind::Bpf, 1) };
    bench.see(0, Some(&sniffer), Kind::HandleOpened { handle: bpf.clone(), pre_existing: true });
    bench.see(0, Some(&sniffer), Kind::HandleAttached { handle: bpf });
    let verdicts = |bench: &Bench| {
        let sessions = bench.pipeline.sessions(millis_at(0));
        sessions.into_iter().map(|session| session.verdict).collect::<Vec<_>>()
    };
    assert_eq!(verdicts(&bench), [Verdict::Unknown], "it may be a listing of interfaces");
    bench.finish();
    assert_eq!(verdicts(&bench), [Verdict::Unexpected]);
}

#[test]
fn a_promiscuous_interface_is_explained_by_its_session() {
    let mut bench = Bench::new();
    let interface = Interface { name: "lo".into(), netns: None, count: Some(1), role: None };
    let on = Kind::InterfacePromiscuous { interface, on: true };
    let program = process(7, 1, "/opt/sniffer", &["sniffer"]);
    bench.see(0, None, on.clone());
    bench.capture(800, &program, 1, true);
    bench.pass(5000);
    bench.close(6000, 1);
    assert_eq!(findings(&bench.lines).len(), 1);
    bench.see(60_000, None, on);
    bench.pass(70_000);
    let lines = bench.finish();
    assert_eq!(findings(&lines).len(), 2);
    assert_eq!(findings(&lines)[1].rule.title, "Promiscuous interface");
}

#[test]
fn the_end_of_a_session_refers_to_a_finding_that_was_shown() {
    let mut bench = Bench::new();
    let copy = process(7, 1, "/tmp/x", &["/tmp/x"]);
    let like_it = process(8, 1, "/tmp/x", &["/tmp/x"]);
    bench.capture(0, &copy, 1, false);
    bench.pass(1000);
    bench.capture(2000, &like_it, 2, true);
    bench.pass(3000);
    // The first session reaches the level that the second one has shown: a repeat, not an update.
    bench.see(4000, Some(&copy), Kind::Promiscuous { handle: packet(1), on: true });
    bench.pass(5000);
    bench.close(6000, 1);
    let lines = bench.finish();
    let findings = findings(&lines);
    assert_eq!(findings.len(), 2, "{lines:#?}");
    let Some(Line::Closed(closed)) = lines.iter().find(|line| matches!(line, Line::Closed(_)))
    else {
        panic!("{lines:#?}")
    };
    assert_eq!(closed.finding, findings[0].id);
}

#[test]
fn an_expected_execution_is_counted_as_withheld() {
    const EXPECTED: &str = r"
title: The site's own tcpdump
id: 66666666-6666-4666-8666-666666666666
logsource: {category: process_creation}
filter:
    rules: [11111111-1111-4111-8111-111111111111]
    own: {Image: /opt/site/tcpdump}
    condition: not own
";
    let files = [("rules.yml", RULES), ("filter.yml", EXPECTED)].map(|(path, text)| RuleFile {
        path: path.to_owned(),
        text: text.to_owned(),
        page: None,
    });
    let mut bench = Bench::new();
    bench.pipeline = Pipeline::new(Arc::new(RuleSet::load(&files).0), Settings::default());
    bench.see(0, Some(&process(7, 1, "/opt/site/tcpdump", &["tcpdump"])), Kind::Executed);
    assert_eq!(bench.finish(), []);
    assert_eq!(bench.pipeline.counters().withheld, 1);
}

#[test]
fn a_restart_is_silent_about_what_was_reported() {
    let mut bench = Bench::new();
    let program = process(7, 1, "/opt/sniffer", &["sniffer"]);
    bench.capture(0, &program, 1, false);
    bench.pass(1000);
    assert_eq!(findings(&bench.lines).len(), 1);
    let state = bench.pipeline.state();

    let mut after = Bench::new();
    after.pipeline.restore(&state).unwrap();
    let before = Kind::HandleOpened { handle: packet(1), pre_existing: true };
    after.see(5000, Some(&program), before.clone());
    after.see(5001, Some(&program), Kind::HandleAttached { handle: packet(1) });
    // Another process with the same handle number is another session.
    let other = process(8, 1, "/opt/other", &["other"]);
    let handle = packet(2);
    after.see(5002, Some(&other), Kind::HandleOpened { handle, pre_existing: true });
    after.see(5003, Some(&other), Kind::HandleAttached { handle: packet(2) });
    after.pass(9000);
    let lines = after.finish();
    assert_eq!(findings(&lines).len(), 1, "{lines:#?}");
    assert_eq!(findings(&lines)[0].process.as_ref().unwrap().pid, 8);
    assert!(after.pipeline.restore(&serde_json::json!({"schema": 2})).is_err());
}

#[test]
fn a_loss_is_said_at_once_and_then_added_up() {
    let mut bench = Bench::new();
    for n in 0..100 {
        bench.see(n, None, Kind::Lost { count: 2, why: "ENOBUFS".into() });
    }
    bench.pass(20_000);
    let lines = bench.finish();
    let counts: Vec<u64> = lines
        .iter()
        .map(|line| match line {
            Line::Lost(lost) => lost.count,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [2, 198]);
    assert_eq!(bench.pipeline.counters().lost, 200);
}

#[test]
fn twenty_replays_are_the_same_to_the_byte() {
    let run = || {
        let mut bench = Bench::new();
        for n in 0..200u32 {
            let at = i64::from(n) * 40;
            let name = format!("/usr/bin/{}", if n % 2 == 0 { "tcpdump" } else { "dumpcap" });
            let program = process(10 + n, 1, &name, &["x", &n.to_string()]);
            bench.see(at, Some(&program), Kind::Executed);
            bench.capture(at + 1, &program, u64::from(n), n % 5 == 0);
            if n % 3 == 0 {
                bench.close(at + 9, u64::from(n));
            }
        }
        let lines = bench.finish();
        assert!(lines.len() >= 200, "{}", lines.len());
        lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect::<Vec<_>>()
    };
    let first = run();
    for _ in 1..20 {
        assert_eq!(run(), first);
    }
}

fn only(rule: &str) -> Arc<RuleSet> {
    let text = RULES.split("---\n").find(|text| text.contains(rule)).unwrap_or_default();
    assert!(!text.is_empty(), "no rule {rule}");
    let file = RuleFile { path: "new.yml".to_owned(), text: text.to_owned(), page: None };
    let (rules, problems) = RuleSet::load(&[file]);
    assert_eq!(problems, []);
    Arc::new(rules)
}

#[test]
fn other_rules_find_what_is_open_and_repeat_nothing() {
    let mut bench = Bench::new();
    let copy = process(7, 1, "/tmp/x", &["/tmp/x"]);
    bench.capture(0, &copy, 1, true);
    bench.pass(1000);
    assert_eq!(findings(&bench.lines)[0].rule.level, Level::High);
    // The same rules in another order: nothing new to say.
    bench.pipeline.set_rules(&rules(), Settings::default());
    bench.pass(2000);
    assert_eq!(findings(&bench.lines).len(), 1);
    // Lower ones alone say nothing either, and the end still comes.
    bench.pipeline.set_rules(&only("Handle attached"), Settings::default());
    bench.pass(3000);
    assert_eq!(findings(&bench.lines).len(), 1);
    bench.close(4000, 1);
    bench.pass(5000);
    assert!(matches!(bench.lines.last(), Some(Line::Closed(_))), "{:#?}", bench.lines);

    // What no rule matched before, one does now.
    let mut bench = Bench::new();
    bench.pipeline.set_rules(&only("Capture tool"), Settings::default());
    bench.capture(0, &copy, 1, true);
    bench.pass(1000);
    assert_eq!(findings(&bench.lines).len(), 0);
    bench.pipeline.set_rules(&rules(), Settings::default());
    bench.pass(2000);
    assert_eq!(findings(&bench.lines)[0].rule.level, Level::High);
    assert_eq!(bench.pipeline.counters().findings, 1);
}

#[test]
fn a_rule_that_is_gone_takes_what_was_not_said_with_it() {
    let mut bench = Bench::new();
    let tcpdump = process(7, 1, "/usr/bin/tcpdump", &["tcpdump"]);
    bench.see(0, Some(&tcpdump), Kind::Executed);
    bench.pipeline.set_rules(&only("Promiscuous interface"), Settings::default());
    bench.pass(3000);
    assert_eq!(bench.finish(), []);
}

#[test]
fn each_filter_tells_how_often_it_withheld() {
    let mut bench = Bench::new();
    let client = process(7, 1, "/usr/sbin/dhclient", &["dhclient"]);
    for id in 1..=2 {
        let handle = Handle { filter: Some(true), ..packet(id) };
        bench.see(0, Some(&client), opened(handle.clone()));
        bench.see(1, Some(&client), Kind::HandleAttached { handle });
    }
    let withheld = bench.pipeline.withheld();
    assert_eq!(withheld.len(), 1);
    assert_eq!((withheld[0].title.as_str(), withheld[0].count), ("Address client", 2));
    assert_eq!(bench.pipeline.counters().withheld, 2);
}

/// A log that many hosts were collected into: each keeps its own memory, however they take turns, and what
/// has to go is what was silent for longest.
#[test]
fn hosts_take_turns_and_the_silent_one_goes() {
    let mut bench = Bench::new();
    let host = |n: usize| {
        let origin = Origin {
            host: format!("host-{n}").as_str().into(),
            os: Os::Linux,
            os_version: None,
            boot_id: None,
        };
        Arc::new(origin)
    };
    let tool = process(7, 1, "/tmp/x", &["x"]);
    let client = process(8, 1, "/usr/sbin/dhclient", &["dhclient"]);
    let filtered = Handle { filter: Some(true), ..packet(9) };
    // The first host withholds something, and then says nothing more.
    bench.origin = host(0);
    bench.see(0, Some(&client), opened(filtered.clone()));
    bench.see(1, Some(&client), Kind::HandleAttached { handle: filtered });
    let all = 1..1025;
    for n in all.clone() {
        bench.origin = host(n);
        bench.see(2, Some(&tool), opened(packet(1)));
        bench.see(3, Some(&tool), Kind::HandleAttached { handle: packet(1) });
    }
    for n in all {
        bench.origin = host(n);
        bench.see(4, Some(&tool), Kind::Promiscuous { handle: packet(1), on: true });
    }
    let lines = bench.finish();
    let of = |host: &str| {
        let own = findings(&lines).into_iter().filter(|found| found.host.name.as_str() == host);
        own.map(|found| found.rule.level).collect::<Vec<_>>()
    };
    // Forgotten in between, its handle would be a new one, and promiscuous alone matches no rule.
    for n in [1, 512, 1024] {
        assert_eq!(of(&format!("host-{n}")).last(), Some(&Level::High), "host {n}");
    }
    let withheld = bench.pipeline.withheld();
    assert_eq!((withheld.len(), withheld[0].count), (1, 1), "what is gone is counted");
}
