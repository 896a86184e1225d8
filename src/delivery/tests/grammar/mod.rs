//! A parser of RFC 5424 that takes nothing but the grammar of section 6.

#![allow(dead_code, reason = "not every test needs all of it")]

use bpfwatch_core::time::Timestamp;
use bpfwatch_delivery::visible::is_unsafe;

/// A record taken apart.
#[derive(Debug)]
pub struct Parsed {
    pub facility: u16,
    pub severity: u16,
    pub timestamp: String,
    pub hostname: String,
    pub procid: String,
    pub msgid: String,
    pub params: Vec<(String, String)>,
    pub message: String,
}

impl Parsed {
    pub fn get(&self, key: &str) -> Option<&str> {
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

/// Takes a record apart.
pub fn parse(record: &[u8]) -> Parsed {
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
