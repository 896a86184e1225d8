//! What is learnt is tried out: the same events with the filters in force.

use std::sync::Arc;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::handle::{Handle, HandleKind, SocketType};
use bpfwatch_core::observation::{Kind, Observation, Origin};
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use bpfwatch_core::process::{Ancestor, CodeIdentity, Process};
use bpfwatch_core::program::BpfProgram;
use bpfwatch_core::rules::RuleFile;
use bpfwatch_core::scope::Scope;

use super::*;
use crate::shipped;

type Change = fn(&mut Process);

const HOSTILE: &str = "/opt/x\"\n---\n# * ? \\ \u{1b}[2J\u{85}\u{2028}: - y";

fn sensor() -> Process {
    Process {
        pid: 700,
        start: Some(1),
        ppid: Some(1),
        uid: Some(0),
        user: Some("root".into()),
        name: Some("flowd".into()),
        image: Some("/usr/sbin/flowd".into()),
        args: Some(Arguments::from_list(["flowd", "-c", "/etc/flowd.conf"])),
        image_owner: Some(0),
        image_deleted: Some(false),
        image_writable_dir: Some(false),
        unit: Some("flowd.service".into()),
        scope: Some(Arc::new(Scope::Host)),
        ..Process::default()
    }
}

/// The process attaches a packet socket to all protocols.
fn capture(os: Os, process: Process) -> Batch {
    let handle = packet_handle(os);
    through(handle, os, process)
}

fn packet_handle(os: Os) -> Handle {
    match os {
        Os::Linux => Handle {
            protocol: Some("ETH_P_ALL".into()),
            socket_type: Some(SocketType::Raw),
            interface: Some("eth0".into()),
            filter: Some(false),
            ..Handle::new(HandleKind::PacketSocket, 9)
        },
        _ => Handle { interface: Some("em0".into()), ..Handle::new(HandleKind::Bpf, 9) },
    }
}

/// The process captures through that handle.
fn through(handle: Handle, os: Os, process: Process) -> Batch {
    let actor = Some(Arc::new(process));
    let kinds = [
        Kind::HandleOpened { handle: handle.clone(), pre_existing: false },
        Kind::HandleAttached { handle: handle.clone() },
        Kind::HandleActive { handle, packets: 3 },
    ];
    let observations = kinds.into_iter().zip(0..).map(|(kind, seq)| Observation {
        at: Timestamp::from_secs(1_800_000_000 + seq),
        seq: u64::try_from(seq).unwrap(),
        sensor: Arc::from("test"),
        actor: actor.clone(),
        kind,
    });
    let origin = Origin { host: "h1".into(), os, os_version: None, boot_id: None };
    Batch { origin: Arc::new(origin), observations: observations.collect() }
}

fn rules(more: Option<&str>) -> Arc<RuleSet> {
    let mut files = shipped::files();
    // A file of comments alone is no rule file.
    let more = more.filter(|text| text.lines().any(|line| line.starts_with("title")));
    files.extend(more.map(|text| RuleFile {
        path: "learnt.yml".to_owned(),
        text: text.to_owned(),
        page: None,
    }));
    let (set, problems) = RuleSet::load(&files);
    let refused: Vec<_> = problems.iter().filter(|problem| problem.refused).collect();
    assert!(refused.is_empty(), "{refused:?}\n{more:?}");
    Arc::new(set)
}

fn findings(set: &Arc<RuleSet>, batch: Batch) -> Vec<Line> {
    let mut pipeline = Pipeline::new(Arc::clone(set), Settings::default());
    let mut lines = Vec::new();
    pipeline.feed(batch, &mut |line| lines.push(line));
    pipeline.finish(&mut |line| lines.push(line));
    lines.retain(|line| matches!(line, Line::Finding(_)));
    lines
}

/// The file that is learnt from one capture.
fn learnt(os: Os, process: Process) -> String {
    let set = rules(None);
    let lines = findings(&set, capture(os, process));
    assert!(!lines.is_empty(), "nothing to learn from");
    let mut baseline = Baseline::default();
    lines.iter().for_each(|line| baseline.line(line, &set));
    text(&baseline, Timestamp::from_secs(1_800_000_100), "test")
}

fn is_expected(os: Os, process: Process, file: &str) -> bool {
    findings(&rules(Some(file)), capture(os, process)).is_empty()
}

#[test]
fn a_service_is_expected_from_then_on() {
    let file = learnt(Os::Linux, sensor());
    assert!(is_expected(Os::Linux, sensor(), &file), "{file}");
    // And after a restart of the monitor, which finds it under way.
    let set = rules(Some(&file));
    let mut batch = capture(Os::Linux, sensor());
    for observation in &mut batch.observations {
        if let Kind::HandleOpened { pre_existing, .. } = &mut observation.kind {
            *pre_existing = true;
        }
    }
    assert_eq!(findings(&set, batch), [], "{file}");
    assert_eq!(file, learnt(Os::Linux, sensor()), "the same again");
}

#[test]
fn a_program_is_expected_by_its_tag() {
    let batch = |tag: &str| {
        let program = BpfProgram {
            tag: Some(tag.into()),
            attached: vec!["tcx/ingress".into()],
            ..BpfProgram::default()
        };
        let handle = Handle {
            interface: Some("eth0".into()),
            program: Some(Box::new(program)),
            ..Handle::new(HandleKind::TcProgram, 9)
        };
        through(handle, Os::Linux, sensor())
    };
    let set = rules(None);
    let mut baseline = Baseline::default();
    let lines = findings(&set, batch("00112233445566aa"));
    lines.iter().for_each(|line| baseline.line(line, &set));
    let file = text(&baseline, Timestamp::from_secs(1_800_000_100), "test");
    assert!(file.contains("ProgramTag: "), "{file}");
    let with = rules(Some(&file));
    assert!(findings(&with, batch("00112233445566aa")).is_empty());
    assert!(!findings(&with, batch("00112233445566ab")).is_empty());
}

#[test]
fn whatever_differs_is_still_reported() {
    let file = learnt(Os::Linux, sensor());
    let others: [(&str, Change); 7] = [
        ("image", |process| process.image = Some("/usr/sbin/flowd2".into())),
        ("owner", |process| process.image_owner = Some(1000)),
        ("directory", |process| process.image_writable_dir = Some(true)),
        ("deleted", |process| process.image_deleted = Some(true)),
        ("unit", |process| process.unit = Some("cron.service".into())),
        ("arguments", |process| process.args = Some(Arguments::from_list(["flowd", "-w", "/x"]))),
        ("scope", |process| {
            let netns = Scope::Namespace { netns: 5, name: None };
            process.scope = Some(Arc::new(netns));
        }),
    ];
    for (what, change) in others {
        let mut other = sensor();
        change(&mut other);
        assert!(!is_expected(Os::Linux, other, &file), "another {what} is expected too\n{file}");
    }
}

#[test]
fn a_signature_is_identity_enough() {
    let signed = |team: &str| Process {
        image: Some("/Applications/Flow.app/Contents/MacOS/flow".into()),
        image_owner: None,
        unit: None,
        identity: Some(Box::new(CodeIdentity {
            signing_id: Some("com.example.flow".into()),
            team_id: Some(team.into()),
            ..CodeIdentity::default()
        })),
        ..sensor()
    };
    let file = learnt(Os::Macos, signed("AAAAAAAAAA"));
    assert!(is_expected(Os::Macos, signed("AAAAAAAAAA"), &file), "{file}");
    assert!(!is_expected(Os::Macos, signed("BBBBBBBBBB"), &file), "{file}");
}

#[test]
fn what_anybody_could_have_done_is_not_put_in_force() {
    let parent = |image: &str| {
        vec![Arc::new(Ancestor { pid: 1, start: None, image: Some(image.into()), args: None })]
    };
    let cases: [(&str, Process); 6] = [
        ("lies where others may write", Process { image_writable_dir: Some(true), ..sensor() }),
        ("known to belong to root", Process { image_owner: Some(1000), ..sensor() }),
        (
            "an interpreter",
            Process { image: Some("/usr/bin/python3.13".into()), unit: None, ..sensor() },
        ),
        (
            "NOT IN FORCE: no service started it",
            Process { unit: Some("session-3.scope".into()), ..sensor() },
        ),
        (
            "NOT IN FORCE: no service started it",
            Process { unit: None, ancestors: parent("/usr/bin/bash"), ..sensor() },
        ),
        (
            "NOT IN FORCE: the container's image is not known",
            Process {
                scope: Some(Arc::new(Scope::Container {
                    id: "0d2d".into(),
                    runtime: None,
                    image: None,
                    pod: None,
                    netns: None,
                })),
                ..sensor()
            },
        ),
    ];
    for (why, process) in cases {
        let file = learnt(Os::Linux, process.clone());
        assert!(file.contains(why), "{why}\n{file}");
        assert!(!file.lines().any(|line| line.starts_with("title")), "{file}");
        assert!(!is_expected(Os::Linux, process, &file), "{why}\n{file}");
    }
}

#[test]
fn what_is_commented_out_works_without_the_marks() {
    let by_hand = || Process { unit: None, ..sensor() };
    let file = learnt(Os::Linux, by_hand());
    assert!(!is_expected(Os::Linux, by_hand(), &file));
    let taken: Vec<&str> = file
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' ') || rest.starts_with("    "))
                .unwrap_or(line)
        })
        .collect();
    assert!(is_expected(Os::Linux, by_hand(), &taken.join("\n")), "{}", taken.join("\n"));
}

#[test]
fn a_hostile_name_stays_one_value() {
    let hostile = || Process {
        image: Some(HOSTILE.into()),
        user: Some(HOSTILE.into()),
        args: Some(Arguments::from_list([HOSTILE, "-i", "*"])),
        ..sensor()
    };
    let file = learnt(Os::Linux, hostile());
    assert!(is_expected(Os::Linux, hostile(), &file), "{file}");
    let similar = Process { image: Some(HOSTILE.replace('*', "abc").as_str().into()), ..hostile() };
    assert!(!is_expected(Os::Linux, similar, &file), "{file}");
    assert!(!file.contains('\u{1b}'), "{file:?}");
}

#[test]
fn a_command_line_with_a_secret_is_not_pinned() {
    let secret = || Process {
        args: Some(Arguments::from_list(["flowd", "--password=hunter2"])),
        ..sensor()
    };
    let file = learnt(Os::Linux, secret());
    assert!(!file.contains("hunter2"), "{file}");
    assert!(is_expected(Os::Linux, secret(), &file), "{file}");
}
