//! Every format over every sort of line, compared with the files in `golden/`.
//!
//! `BPFWATCH_UPDATE_GOLDEN=1 cargo test -p bpfwatch-delivery` writes the files anew; read the
//! difference before you commit it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod fixtures;

use std::fmt::Write as _;
use std::path::Path;

use bpfwatch_core::finding::{Line, SessionLine};
use bpfwatch_delivery::envelope::Header;
use bpfwatch_delivery::rfc3164::Zone;
use bpfwatch_delivery::visible::{is_unsafe, width};
use bpfwatch_delivery::{
    Ecs, Envelope, Falco, Format, Human, Json, Ocsf, Rfc3164, Rfc5424, Style, render_table,
};

fn compare(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BPFWATCH_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == expected,
        "{} differs; BPFWATCH_UPDATE_GOLDEN=1 writes it anew. It is now:\n{actual}",
        path.display()
    );
}

fn render(format: &dyn Format, line: &Line) -> String {
    let mut out = b"before\n".to_vec();
    format.render(line, &mut out);
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("before\n").expect("a format appends").to_owned()
}

fn all(format: &dyn Format) -> String {
    fixtures::lines().iter().map(|(_, line)| render(format, line)).collect()
}

#[test]
fn json() {
    compare("native.jsonl", &all(&Json));
}

#[test]
fn json_is_the_vocabulary_one_object_a_line() {
    for (name, line) in fixtures::lines() {
        let text = render(&Json, &line);
        assert_eq!(text.matches('\n').count(), 1, "{name}");
        assert!(!text.trim_end_matches('\n').chars().any(is_unsafe), "{name}: {text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, serde_json::to_value(&line).unwrap(), "{name}");
    }
}

#[test]
fn ecs() {
    compare("ecs.jsonl", &all(&Ecs));
}

#[test]
fn falco() {
    compare("falco.jsonl", &all(&Falco));
}

#[test]
fn ocsf() {
    compare("ocsf.jsonl", &all(&Ocsf));
}

#[test]
fn rfc3164() {
    let format = Rfc3164 { zone: Zone::Utc, procid: Some(77), ..Rfc3164::default() };
    let text = all(&format);
    assert!(text.bytes().all(|byte| byte == b'\n' || (0x20..0x7F).contains(&byte)));
    assert!(text.lines().all(|record| record.len() < 1024));
    compare("rfc3164.txt", &text);
}

#[test]
fn json_in_a_syslog_header() {
    for (header, file) in
        [(Header::Rfc5424, "json-rfc5424.txt"), (Header::Rfc3164, "json-rfc3164.txt")]
    {
        let format =
            Envelope { format: Json, header, facility: 10, procid: Some(77), zone: Zone::Utc };
        let text = all(&format);
        compare(file, &text.lines().map(|record| format!("{record:.160}\n")).collect::<String>());
        for record in text.lines() {
            let (_, json) = record.split_at(record.find('{').unwrap());
            serde_json::from_str::<serde_json::Value>(json).unwrap();
        }
    }
}

#[test]
fn rfc5424() {
    compare("rfc5424.txt", &all(&Rfc5424::default()));
}

#[test]
fn human() {
    let style = |width, color, verbose| Human::new(Style { color, width, verbose });
    compare("human-80.txt", &all(&style(Some(80), false, false)));
    compare("human-120-verbose.txt", &all(&style(Some(120), false, true)));
    compare("human-unbounded.txt", &all(&style(None, false, false)));
    compare("human-80-color.txt", &all(&style(Some(80), true, false)));
}

fn table(width: Option<usize>, color: bool) -> String {
    table_of(&fixtures::sessions(), width, color)
}

fn table_of(lines: &[SessionLine], width: Option<usize>, color: bool) -> String {
    let mut out = Vec::new();
    render_table(lines, width, color, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn scan_table() {
    compare("scan-80.txt", &table_of(&fixtures::sessions()[..3], Some(80), false));
    compare("scan-hostile-80.txt", &table(Some(80), false));
    compare("scan-160-color.txt", &table(Some(160), true));
    compare("scan-unbounded.txt", &table(None, false));
    for columns in 30..200 {
        for shown in table(Some(columns), false).split_terminator('\n') {
            assert!(width(shown) <= columns, "at {columns}: {shown}");
            assert!(!shown.chars().any(is_unsafe), "{shown:?}");
        }
    }
}

#[test]
fn an_empty_scan_says_so() {
    let mut out = Vec::new();
    render_table(&[], Some(80), true, &mut out);
    assert_eq!(out, b"No process holds a capture handle that can be seen from here.\n");
}

#[test]
fn human_stays_within_the_width_and_steers_no_terminal() {
    for columns in [40, 60, 80, 100, 132, 200] {
        for verbose in [false, true] {
            let format = Human::new(Style { color: false, width: Some(columns), verbose });
            for (name, line) in fixtures::lines() {
                let text = render(&format, &line);
                for shown in text.split_terminator('\n') {
                    assert!(width(shown) <= columns, "{name} at {columns}: {shown}");
                    assert!(!shown.chars().any(is_unsafe), "{name}: {shown:?}");
                }
            }
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    let plain = Human::new(Style { color: false, width: Some(80), verbose: false });
    let painted = Human::new(Style { color: true, width: Some(80), verbose: false });
    for (name, line) in fixtures::lines() {
        let mut stripped = String::new();
        let text = render(&painted, &line);
        assert!(text.contains("\x1b["), "{name}");
        for (index, part) in text.split("\x1b[").enumerate() {
            let part = if index == 0 { part } else { part.split_once('m').unwrap().1 };
            let _ = write!(stripped, "{part}");
        }
        assert_eq!(stripped, render(&plain, &line), "{name}");
    }
}
