//! RFC 5424 records read back with a parser that takes nothing but the grammar.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

mod fixtures;
mod grammar;

use bpfwatch_core::finding::Line;
use bpfwatch_core::text::Text;
use bpfwatch_delivery::rfc5424::LEAST_LIMIT;
use bpfwatch_delivery::visible::escaped;
use bpfwatch_delivery::{Format, Rfc5424};

use grammar::parse;

fn render(format: Rfc5424, line: &Line) -> Vec<u8> {
    let mut out = Vec::new();
    format.render(line, &mut out);
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
    out
}

#[test]
fn every_line_is_one_record_of_the_grammar_within_the_limit() {
    for limit in [0, LEAST_LIMIT, 1500, 2048, 8192, 65_536] {
        for (name, line) in fixtures::lines() {
            let record = render(Rfc5424 { limit, ..Rfc5424::default() }, &line);
            assert!(record.len() <= limit.max(LEAST_LIMIT), "{name}: {}", record.len());
            let parsed = parse(&record);
            assert!(!parsed.message.is_empty(), "{name}");
            assert_eq!(parsed.facility, 10);
            assert_eq!(parsed.procid, "-");
        }
    }
}

#[test]
fn a_finding_says_who_and_what() {
    let line = Line::Finding(Box::new(fixtures::full()));
    let parsed = parse(&render(
        Rfc5424 { procid: Some(77), facility: 3, limit: 65_536, bare: false },
        &line,
    ));
    assert_eq!((parsed.facility, parsed.severity), (3, 3));
    assert_eq!(parsed.timestamp, "2026-11-24T02:45:17.138456Z");
    assert_eq!(parsed.hostname, "web-1");
    assert_eq!((parsed.procid.as_str(), parsed.msgid.as_str()), ("77", "finding"));
    assert_eq!(parsed.get("cut"), None);
    assert_eq!(parsed.get("level"), Some("high"));
    assert_eq!(parsed.get("image"), Some("/tmp/.cache/tcpdump"));
    assert_eq!(parsed.get("interface"), Some("lo"));
    assert_eq!(parsed.get("command_line"), fixtures::tcpdump().command_line.as_deref());
    assert!(
        parsed.message.starts_with("Packet capture inside a container: /tmp/.cache/tcpdump (pid")
    );
}

#[test]
fn names_come_back_as_they_are_shown() {
    let line = Line::Finding(Box::new(fixtures::hostile()));
    let parsed = parse(&render(Rfc5424 { limit: 65_536, ..Rfc5424::default() }, &line));
    assert_eq!(parsed.get("user"), Some(&*escaped(fixtures::HOSTILE)));
    assert_eq!(parsed.get("unit"), Some(&*escaped(fixtures::HOSTILE)));
    assert_eq!(parsed.get("cut"), Some("true"), "the command line is longer than a value may be");
    assert!(parsed.get("command_line").unwrap().contains('…'));
}

#[test]
fn values_of_many_bytes_and_few_columns_stay_within_the_limit() {
    let dense = "e\u{20dd}\u{20dd}\u{20dd}\u{20dd}\\]\"".repeat(200);
    let mut finding = fixtures::hostile();
    finding.rules.clear();
    if let Some(process) = &mut finding.process {
        let texts = [
            &mut process.user,
            &mut process.name,
            &mut process.image,
            &mut process.command_line,
            &mut process.cwd,
            &mut process.tty,
            &mut process.unit,
        ];
        for text in texts {
            *text = Some(dense.clone());
        }
    }
    if let Some(session) = &mut finding.session {
        session.handle.device = Some(Text::from(dense.as_str()));
        session.handle.protocol = Some(Text::from(dense.as_str()));
    }
    let record = render(
        Rfc5424 { limit: LEAST_LIMIT, ..Rfc5424::default() },
        &Line::Finding(Box::new(finding)),
    );
    assert!(record.len() <= LEAST_LIMIT);
    let parsed = parse(&record);
    assert_eq!(parsed.get("cut"), Some("true"));
    assert!(parsed.get("id").is_some() && parsed.get("pid").is_some());
}
