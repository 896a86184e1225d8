//! Records of logs: which rules see them, what becomes one alert, what folds, what output may show.

mod common;

use std::sync::Arc;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::finding::{Finding, Line};
use bpfwatch_core::logged::{Fields, Log, Logged, Value};
use bpfwatch_core::observation::{Kind, Observation, Origin, Os};
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use bpfwatch_core::process::Process;
use bpfwatch_core::time::Timestamp;
use common::{documents, file, load_clean, process, rule};

/// Rules as SigmaHQ writes them for these logs, and one correlation.
fn rules() -> String {
    let correlation = "title: Rule 90\nid: 00000000-0000-4000-8000-000000000090\nlevel: critical\ngenerate: true\n\
        correlation: {type: event_count, rules: [Rule 1], group-by: [user.username], timespan: 5m, \
        condition: {gte: 3}}\n";
    let exec = "s: {verb: [create, get], objectRef.resource: pods, objectRef.subresource: exec}\ncondition: s";
    documents(&[
        rule(1, "medium", "category: application, product: kubernetes, service: audit", exec)
            .replace("status: test", "name: Rule 1"),
        rule(
            2,
            "high",
            "product: kubernetes, service: audit",
            "s: {capabilities: '*', 'requestObject.spec.containers{}.securityContext.privileged': true}\ncondition: s",
        ),
        rule(
            3,
            "low",
            "product: linux, service: auditd",
            "s: {type: execve, a0: tcpdump}\ncondition: s",
        ),
        rule(
            4,
            "medium",
            "product: windows, service: system",
            "s: {EventID: 7045, ImagePath|contains: npcap}\ncondition: s",
        ),
        rule(
            5,
            "medium",
            "product: windows, category: ps_script",
            "s: {ScriptBlockText|contains: NetEventSession}\ncondition: s",
        ),
        rule(
            6,
            "high",
            "product: cisco, service: aaa",
            "k: ['monitor capture', 'set span']\ncondition: k",
        ),
        rule(
            7,
            "medium",
            "product: windows, category: process_creation",
            "s: {OriginalFileName: PktMon.exe}\ncondition: s",
        ),
        rule(
            8,
            "low",
            "product: linux, category: process_creation",
            "s: {Image|endswith: /tcpdump}\ncondition: s",
        ),
        correlation.to_owned(),
    ])
}

struct Bench {
    pipeline: Pipeline,
    origin: Arc<Origin>,
    seq: u64,
    lines: Vec<Line>,
}

impl Bench {
    fn new(os: Os) -> Self {
        let origin = Origin { host: "h".into(), os, os_version: None, boot_id: None };
        let set = load_clean(&[file("rules.yml", &rules())]);
        let pipeline = Pipeline::new(Arc::new(set), Settings::default());
        Self { pipeline, origin: Arc::new(origin), seq: 0, lines: Vec::new() }
    }

    fn see(&mut self, ms: i64, actor: Option<Process>, kind: Kind) {
        let observation = Observation {
            at: Timestamp::from_nanos(1_800_000_000_000_000_000 + ms * 1_000_000),
            seq: self.seq,
            sensor: "test".into(),
            actor: actor.map(Arc::new),
            kind,
        };
        self.seq += 1;
        let batch = Batch { origin: Arc::clone(&self.origin), observations: vec![observation] };
        self.pipeline.feed(batch, &mut |line| self.lines.push(line));
    }

    fn log(&mut self, ms: i64, actor: Option<Process>, record: Logged) {
        self.see(ms, actor, Kind::Logged { record: Arc::new(record) });
    }

    fn findings(mut self) -> Vec<Finding> {
        self.pipeline.finish(&mut |line| self.lines.push(line));
        let finding = |line| if let Line::Finding(finding) = line { Some(*finding) } else { None };
        self.lines.into_iter().filter_map(finding).collect()
    }
}

fn record(log: Log, subject: &str, message: &str, fields: &[(&'static str, Value)]) -> Logged {
    let mut record = Logged::new(log, Some(subject.into()), message.into());
    for (name, value) in fields {
        record.fields.push(*name, value.clone());
    }
    record
}

fn exec(subject: &str, pod: &str) -> Logged {
    record(
        Log::KubernetesAudit,
        subject,
        &format!("exec into pod prod/{pod}"),
        &[
            ("verb", Value::text("get")),
            ("objectRef.resource", Value::text("pods")),
            ("objectRef.subresource", Value::text("exec")),
            ("user.username", Value::text(subject)),
            ("command", Value::texts(["mysql", "--password", "hunter2"])),
        ],
    )
}

fn titles(finding: &Finding) -> Vec<&str> {
    std::iter::once(&finding.rule).chain(&finding.rules).map(|rule| rule.title.as_str()).collect()
}

#[test]
fn each_log_has_its_rules() {
    let cases: [(Os, Logged, &str); 5] = [
        (Os::Kubernetes, exec("alice", "web-0"), "Rule 1"),
        (
            Os::Kubernetes,
            record(
                Log::KubernetesAudit,
                "alice",
                "create pod",
                &[
                    ("capabilities", Value::texts(["NET_RAW"])),
                    (
                        "requestObject.spec.containers.securityContext.privileged",
                        Value::List(vec![Value::Bool(false), Value::Bool(true)]),
                    ),
                ],
            ),
            "Rule 2",
        ),
        (
            Os::Windows,
            record(
                Log::WindowsSystem,
                "alice",
                "service npcap installed",
                &[
                    ("EventID", Value::Number(7045)),
                    ("ImagePath", Value::text(r"\SystemRoot\system32\DRIVERS\npcap.sys")),
                ],
            ),
            "Rule 4",
        ),
        (
            Os::Windows,
            record(
                Log::PsScript,
                "alice",
                "script",
                &[("ScriptBlockText", Value::text("x\nNew-NetEventSession -Name a"))],
            ),
            "Rule 5",
        ),
        (
            Os::Cisco,
            record(
                Log::CiscoAaa,
                "bob",
                "monitor capture CAP start",
                &[("CmdSet", Value::text("monitor capture CAP start"))],
            ),
            "Rule 6",
        ),
    ];
    for (os, record, title) in cases {
        let mut bench = Bench::new(os);
        bench.log(0, None, record.clone());
        let findings = bench.findings();
        assert_eq!(findings.len(), 1, "{title}");
        assert_eq!(titles(&findings[0]), [title]);
        let shown = findings[0].record.as_ref().unwrap();
        assert_eq!(shown.message, record.message.as_str());
        assert_eq!(shown.subject.as_deref(), record.subject.as_ref().map(|s| s.as_str()));
        // The same record of another system is no event of these rules.
        let mut other = Bench::new(Os::Macos);
        other.log(0, None, record);
        assert!(other.findings().is_empty(), "{title}");
    }
}

#[test]
fn the_same_by_the_same_folds_and_another_does_not() {
    let mut bench = Bench::new(Os::Kubernetes);
    for n in 0..200 {
        // More than five minutes apart: no correlation of three.
        bench.log(n * 200_000, None, exec("alice", "web-0"));
    }
    bench.log(200 * 200_000, None, exec("bob", "web-0"));
    bench.log(200 * 200_000, None, exec("alice", "web-1"));
    bench.pipeline.finish(&mut |line| bench.lines.push(line));
    let findings = bench.lines.iter().filter(|line| matches!(line, Line::Finding(_))).count();
    // Ten minutes are a window: three or four of them in each.
    assert!((50..=72).contains(&findings), "{findings}");
    let repeats = bench.lines.iter().find_map(|line| match line {
        Line::Repeats(repeats) => Some(repeats),
        _ => None,
    });
    assert_eq!(repeats.unwrap().what.as_deref(), Some("exec into pod prod/web-0"));
}

#[test]
fn records_correlate_and_their_evidence_is_told() {
    let mut bench = Bench::new(Os::Kubernetes);
    for (n, pod) in ["a", "b", "c"].into_iter().enumerate() {
        bench.log(n as i64 * 1000, None, exec("alice", pod));
    }
    let findings = bench.findings();
    assert_eq!(findings.len(), 3);
    assert_eq!(titles(&findings[2]), ["Rule 90", "Rule 1"]);
    let correlated = findings[2].evidence.iter().filter(|piece| piece.kind == "correlated");
    assert_eq!(correlated.count(), 3);
}

#[test]
fn a_record_that_names_a_process_belongs_to_its_alert() {
    let mut bench = Bench::new(Os::Linux);
    let tcpdump =
        || Process { uid: Some(0), ..process("/usr/bin/tcpdump", &["tcpdump", "-i", "any"]) };
    let logged = || {
        record(
            Log::Auditd,
            "root",
            "execve tcpdump",
            &[
                ("type", Value::text("EXECVE")),
                ("a0", Value::text("tcpdump")),
                ("a1", Value::text("--password")),
                ("a2", Value::text("hunter2")),
            ],
        )
    };
    bench.see(0, Some(tcpdump()), Kind::Executed);
    bench.log(0, Some(tcpdump()), logged());
    // A log does not tell of the end: the same pid an hour later is another process.
    bench.see(3_600_000, Some(tcpdump()), Kind::Executed);
    bench.log(3_600_000, Some(tcpdump()), logged());
    let findings = bench.findings();
    assert_eq!(findings.len(), 2);
    for finding in &findings {
        let mut titles = titles(finding);
        titles.sort_unstable();
        assert_eq!(titles, ["Rule 3", "Rule 8"]);
        assert_eq!(finding.process.as_ref().unwrap().pid, 100);
    }
    let json = serde_json::to_string(&findings[0]).unwrap();
    assert!(!json.contains("hunter2") && json.contains("redacted"), "{json}");
}

#[test]
fn secrets_in_a_list_stay_inside() {
    let mut bench = Bench::new(Os::Kubernetes);
    bench.log(0, None, exec("alice", "db-0"));
    let json = serde_json::to_string(&bench.findings()[0]).unwrap();
    assert!(!json.contains("hunter2") && json.contains("mysql"), "{json}");
}

#[test]
fn what_only_a_log_tells_of_a_process_can_be_matched() {
    let mut details = Fields::default();
    details.push("OriginalFileName", Value::text("PktMon.exe"));
    let renamed = Process {
        image: Some(r"C:\Users\a\x.exe".into()),
        args: Some(Arguments::from_list(["x.exe start"])),
        details: Some(Box::new(details)),
        ..Process::from_pid(8)
    };
    let mut bench = Bench::new(Os::Windows);
    bench.see(0, Some(renamed), Kind::Executed);
    let findings = bench.findings();
    assert_eq!(titles(&findings[0]), ["Rule 7"]);
    assert_eq!(findings[0].process.as_ref().unwrap().details["OriginalFileName"], "PktMon.exe");
}

#[test]
fn a_flood_of_records_is_bounded_in_lines() {
    let mut bench = Bench::new(Os::Linux);
    for n in 0..20_000 {
        let record = record(
            Log::Auditd,
            "root",
            "execve tcpdump",
            &[("type", Value::text("EXECVE")), ("a0", Value::text("tcpdump"))],
        );
        bench.log(
            n,
            Some(Process { pid: n as u32, ..process("/usr/bin/tcpdump", &["tcpdump"]) }),
            record,
        );
    }
    bench.pipeline.finish(&mut |line| bench.lines.push(line));
    assert!(bench.lines.len() <= 8, "{}", bench.lines.len());
}
