//! RFC 5424 records read back with a parser that takes nothing but the grammar of section 6.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

mod fixtures;

use bpfwatch_core::finding::Line;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;
use bpfwatch_delivery::rfc5424::LEAST_LIMIT;
use bpfwatch_delivery::visible::{escaped, is_unsafe};
use bpfwatch_delivery::{Format, Rfc5424};

#[derive(Debug)]
struct Parsed {
    facility: u16,
    severity: u16,
    timestamp: String,
    hostname: String,
    procid: String,
    msgid: String,
    params: Vec<(String, String)>,
    message: String,
}

impl Parsed {
    fn get(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// One HEADER field: PRINTUSASCII up to a blank.
fn field<'a>(rest: &mut &'a str, most: usize) -> &'a str {
    let (field, after) = rest.split_once(' ').expect("a blank after each header field");
    assert!((1..=most).contains(&field.len()), "{field:?} is not 1 to {most} long");
    assert!(field.bytes().all(|byte| (33..=126).contains(&byte)), "{field:?}");
    *rest = after;
    field
}

fn parse(record: &[u8]) -> Parsed {
    let record = std::str::from_utf8(record).expect("UTF-8");
    let record = record.strip_suffix('\n').expect("a newline at the end");
    let mut rest = record.strip_prefix('<').expect("PRI");
    let (priority, after) = rest.split_once('>').expect("PRI");
    assert!(!priority.is_empty() && priority.len() <= 3);
    assert!(priority == "0" || !priority.starts_with('0'));
    let priority: u16 = priority.parse().unwrap();
    assert!(priority <= 191);
    rest = after;
    assert_eq!(field(&mut rest, 3), "1", "VERSION");
    let timestamp = field(&mut rest, 32).to_owned();
    let digits = timestamp.split_once('.').expect("TIME-SECFRAC").1.trim_end_matches('Z').len();
    assert!((1..=6).contains(&digits), "{timestamp}");
    Timestamp::parse(&timestamp).unwrap();
    let hostname = field(&mut rest, 255).to_owned();
    assert_eq!(field(&mut rest, 48), "bpfwatch");
    let procid = field(&mut rest, 128).to_owned();
    let msgid = field(&mut rest, 32).to_owned();

    rest = rest.strip_prefix("[bpfwatch@32473").expect("SD-ELEMENT");
    let mut params = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(']') {
            rest = after;
            break;
        }
        rest = rest.strip_prefix(' ').expect("a blank before each SD-PARAM");
        let (name, after) = rest.split_once("=\"").expect("SD-PARAM");
        assert!((1..=32).contains(&name.len()));
        assert!(name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'=' | b']' | b'"')));
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("the value ends") {
                (at, '"') => break at,
                (_, ']') => panic!("a bare ] in a value"),
                (_, '\\') => {
                    let (_, c) = chars.next().expect("a character after a backslash");
                    assert!(matches!(c, '"' | '\\' | ']'), "\\{c} is no escape");
                    value.push(c);
                }
                (_, c) => value.push(c),
            }
        };
        assert!(params.iter().all(|(other, _)| other != name), "{name} stands twice");
        params.push((name.to_owned(), value));
        rest = &after[end + 1..];
    }
    let message = rest.strip_prefix(' ').expect("MSG");
    let message = match message.strip_prefix('\u{feff}') {
        Some(message) => message,
        None => {
            assert!(message.is_ascii(), "UTF-8 without a byte order mark");
            message
        }
    };
    for text in params.iter().map(|(_, value)| value.as_str()).chain([message]) {
        assert!(!text.chars().any(is_unsafe), "{text:?}");
    }
    Parsed {
        facility: priority / 8,
        severity: priority % 8,
        timestamp,
        hostname,
        procid,
        msgid,
        params,
        message: message.to_owned(),
    }
}

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
