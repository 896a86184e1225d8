//! Names that were chosen to break something, in every text of every sort of line, through every
//! format: one line stays one record, of a bounded size, that its grammar can read and that steers no
//! terminal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

mod fixtures;
mod grammar;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::finding::Line;
use bpfwatch_delivery::envelope::{self, Header};
use bpfwatch_delivery::limit::LEAST_LIMIT;
use bpfwatch_delivery::rfc3164::Zone;
use bpfwatch_delivery::visible::{is_unsafe, width};
use bpfwatch_delivery::{
    Ecs, Envelope, Falco, Format, Human, Json, Limited, Ocsf, Rfc3164, Rfc5424, Shape, Style,
};
use serde_json::Value;

/// What names are put together from.
const PIECES: [&str; 40] = [
    "a",
    "/tmp/",
    " ",
    "\n",
    "\r\n",
    "\r",
    "\t",
    "\0",
    "\u{1b}[2J",
    "\u{1b}]0;t\u{7}",
    "\u{9b}31m",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{202e}",
    "\u{2066}",
    "\u{200b}",
    "\u{feff}",
    "\u{e0041}",
    "\u{301}",
    "\u{20dd}",
    "\u{fe0f}",
    "\u{1f600}",
    "漢字",
    "é",
    "\"",
    "'",
    "]",
    "[",
    "\\",
    "\\n",
    "\\x00",
    "%s%n",
    "{\"a\":1}",
    "}",
    "<34>1 ",
    "bpfwatch[1]: ",
    " id=\"forged\"",
    "10 <1>x",
];

/// xorshift64: the same names in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64).try_into().unwrap()
    }

    fn name(&mut self) -> String {
        let pieces = self.next(24);
        let times = if self.next(8) == 0 { 40 } else { 1 };
        (0..pieces).map(|_| PIECES[self.next(PIECES.len())].repeat(times)).collect()
    }
}

/// What can be said of each record of a format.
struct Promise {
    name: &'static str,
    format: Box<dyn Format>,
    /// Bytes of a record.
    most: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Json,
    /// JSON behind a syslog header.
    Enveloped,
    Rfc5424,
    /// Printable ASCII.
    Ascii,
    Text,
    /// Lines of so many columns.
    Human(usize),
}

fn promises() -> Vec<Promise> {
    let envelope = |header| Envelope {
        format: Limited::new(Json, 8192 - envelope::MOST),
        header,
        facility: 10,
        procid: Some(4_000_000),
        zone: Zone::Utc,
    };
    let rfc3164 = Rfc3164 { zone: Zone::Utc, ..Rfc3164::default() };
    let human = |columns| Human::new(Style { color: false, width: Some(columns), verbose: false });
    let promise = |name, format, most, kind| Promise { name, format, most, kind };
    vec![
        promise("json", Box::new(Limited::new(Json, 65_536)), 65_536, Kind::Json),
        promise("json, least", Box::new(Limited::new(Json, 0)), LEAST_LIMIT, Kind::Json),
        promise("ecs", Box::new(Limited::new(Ecs, 65_536)), 65_536, Kind::Json),
        promise("ecs, least", Box::new(Limited::new(Ecs, 0)), LEAST_LIMIT, Kind::Json),
        promise("ocsf", Box::new(Limited::new(Ocsf, 65_536)), 65_536, Kind::Json),
        promise("ocsf, least", Box::new(Limited::new(Ocsf, 0)), LEAST_LIMIT, Kind::Json),
        promise("falco", Box::new(Limited::new(Falco, 65_536)), 65_536, Kind::Json),
        promise("falco, least", Box::new(Limited::new(Falco, 0)), LEAST_LIMIT, Kind::Json),
        promise("rfc5424", Box::<Rfc5424>::default(), 2048, Kind::Rfc5424),
        promise(
            "rfc5424, least",
            Box::new(Rfc5424 { limit: 0, ..Rfc5424::default() }),
            1024,
            Kind::Rfc5424,
        ),
        promise(
            "rfc5424, bare",
            Box::new(Rfc5424 { bare: true, ..Rfc5424::default() }),
            2048,
            Kind::Text,
        ),
        promise("rfc3164", Box::new(rfc3164), 1024, Kind::Ascii),
        promise("rfc3164, bare", Box::new(Rfc3164 { bare: true, ..rfc3164 }), 1024, Kind::Ascii),
        promise("rfc3164, least", Box::new(Rfc3164 { limit: 0, ..rfc3164 }), 480, Kind::Ascii),
        promise("json in rfc5424", Box::new(envelope(Header::Rfc5424)), 8192, Kind::Enveloped),
        promise("json in rfc3164", Box::new(envelope(Header::Rfc3164)), 8192, Kind::Enveloped),
        promise("human", Box::new(human(80)), 4_194_304, Kind::Human(80)),
        promise("human, narrow", Box::new(human(40)), 4_194_304, Kind::Human(40)),
    ]
}

impl Promise {
    fn keep(&self, line: &Line) {
        let mut out = b"before\n".to_vec();
        self.format.render(line, &mut out);
        let name = self.name;
        let record = out.strip_prefix(b"before\n").expect("a format appends");
        assert!(!record.is_empty(), "{name}: nothing came of {line:.300?}");
        assert!(record.len() <= self.most, "{name}: {} bytes", record.len());
        let text = std::str::from_utf8(record).expect("UTF-8");
        let body = text.strip_suffix('\n').expect("a newline at the end");
        let bom = if self.kind == Kind::Rfc5424 { '\u{feff}' } else { '\0' };
        let lines: Vec<&str> = body.split('\n').collect();
        if self.format.shape() != Shape::Block {
            assert_eq!(lines.len(), 1, "{name}: {text:.1000}");
        }
        for shown in &lines {
            let bad = shown.chars().find(|&c| is_unsafe(c) && c != bom);
            assert_eq!(bad, None, "{name}: {shown:?}");
        }
        match self.kind {
            Kind::Json => assert!(read(body).is_object()),
            Kind::Enveloped => {
                assert!(body.starts_with('<'));
                // None of the header's fields has a blank.
                let (_, head) = body.split_once('>').expect("PRI");
                let json = if head.starts_with("1 ") {
                    head.splitn(8, ' ').last()
                } else {
                    head.split_once("bpfwatch[4000000]: ").map(|(_, json)| json)
                };
                assert!(read(json.expect("JSON")).is_object());
            }
            Kind::Rfc5424 => _ = grammar::parse(record),
            Kind::Ascii => {
                assert!(body.bytes().all(|byte| (0x20..0x7F).contains(&byte)), "{name}: {body}");
            }
            Kind::Text => {}
            Kind::Human(columns) => {
                assert!(lines.iter().all(|shown| width(shown) <= columns), "{name}: {text:.3000}");
            }
        }
    }
}

fn read(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json:.1000}"))
}

fn try_all(name: &str) {
    for line in fixtures::hostile_lines(name) {
        for promise in promises() {
            promise.keep(&line);
        }
    }
}

#[test]
fn each_piece_by_itself() {
    for piece in PIECES {
        try_all(piece);
    }
    try_all("");
}

#[test]
fn many_names_put_together_at_random() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..25 {
        try_all(&random.name());
    }
}

/// Much longer than any sensor lets through: the formats bound it themselves.
#[test]
fn a_name_of_a_megabyte() {
    for (piece, bytes) in [("a b\"", 1_048_576), ("\u{1b}", 131_072), ("\u{301}", 131_072)] {
        let long = piece.repeat(bytes / piece.len());
        let mut finding = fixtures::full();
        finding.rules.clear();
        if let Some(process) = &mut finding.process {
            (process.image, process.command_line) = (Some(long.clone()), Some(long.clone()));
        }
        let lost = Line::Lost(Box::new(fixtures::lost(1, &long)));
        for promise in promises() {
            promise.keep(&Line::Finding(Box::new(finding.clone())));
            promise.keep(&lost);
        }
    }
}

/// A command line of a megabyte as it really comes: its ends are kept, and it is marked as cut.
#[test]
fn a_command_line_of_a_megabyte_keeps_both_ends() {
    let padding = "x".repeat(1_048_576);
    let raw = ["tcpdump", padding.as_str(), "-w", "/tmp/out\n<34>1 forged"].join("\0");
    let args = Arguments::from_nul_separated(raw.as_bytes());
    let mut finding = fixtures::full();
    let process = finding.process.as_mut().unwrap();
    process.command_line = Some(args.command_line());
    process.command_line_truncated = Some(args.is_cut());
    let line = Line::Finding(Box::new(finding));
    for promise in promises() {
        promise.keep(&line);
    }
    let mut out = Vec::new();
    Limited::new(Json, 65_536).render(&line, &mut out);
    let value: Value = serde_json::from_slice(&out).unwrap();
    let shown = value["process"]["command_line"].as_str().unwrap();
    assert!(shown.starts_with("tcpdump xxx") && shown.ends_with("-w /tmp/out\n<34>1 forged"));
    assert_eq!(value["process"]["command_line_truncated"], true);
    assert!(value.get("cut").is_none(), "sensors bound what they take in");
}

/// JSON escapes, so what a parser reads is the name itself.
#[test]
fn json_keeps_names_as_they_are() {
    let mut random = Random(7);
    for _ in 0..100 {
        let name = random.name();
        let line = Line::Finding(Box::new(fixtures::hostile_with(&name)));
        for (format, path) in [
            (Box::new(Json) as Box<dyn Format>, "/process/user"),
            (Box::new(Ecs), "/process/user/name"),
            (Box::new(Ocsf), "/evidences/0/process/user/name"),
            (Box::new(Falco), "/output_fields/user.name"),
        ] {
            let mut out = Vec::new();
            format.render(&line, &mut out);
            let value: Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(value.pointer(path).and_then(Value::as_str), Some(name.as_str()), "{path}");
        }
    }
}
