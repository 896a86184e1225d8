//! A line of output as records of the unified log: its category, its type and its texts. Pure; the live part
//! hands them to the system.
//!
//! A record is native JSON, so that predicates on `eventMessage` find any field. The log keeps about a
//! kilobyte of a record's text (os_log(3)): a longer one is split between two fields, so that a predicate still
//! finds each of them, and each part has a mark that tells of which line, which part and of how many it is.

use bpfwatch_core::finding::{Level, Line};

use crate::names::SUBSYSTEM;

/// OS_LOG_TYPE_DEFAULT of os/log.h.
pub const DEFAULT: u8 = 0;
/// OS_LOG_TYPE_INFO of os/log.h: kept where the logging profile or the bundle's Info.plist says so.
pub const INFO: u8 = 1;
/// OS_LOG_TYPE_ERROR of os/log.h.
pub const ERROR: u8 = 16;
/// OS_LOG_TYPE_FAULT of os/log.h.
pub const FAULT: u8 = 17;

/// Bytes of text of one record, its mark included.
pub const LIMIT: usize = 1000;
/// Records of one line; what is longer is cut, and says so.
const MAX_PARTS: usize = 64;
/// Bytes that a mark may take.
const MARK: usize = 32;

/// The category of a record, below the subsystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Who captures.
    Findings,
    /// How the monitor fares, and what it missed.
    Sensor,
    /// How delivery fares.
    Delivery,
}

impl Category {
    /// As in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Category::Findings => "findings",
            Category::Sensor => "sensor",
            Category::Delivery => "delivery",
        }
    }
}

/// Where a line belongs and how urgent it is.
pub fn place(line: &Line) -> (Category, u8) {
    match line {
        Line::Finding(finding) => (Category::Findings, kind(finding.rule.level)),
        Line::Closed(_) | Line::Repeats(_) => (Category::Findings, DEFAULT),
        Line::Session(_) => (Category::Findings, INFO),
        Line::Lost(_) => (Category::Sensor, ERROR),
        Line::Heartbeat(_) => (Category::Delivery, INFO),
        Line::Notice(notice) => (Category::Sensor, kind(notice.level)),
    }
}

fn kind(level: Level) -> u8 {
    match level {
        Level::Informational => INFO,
        Level::Low | Level::Medium => DEFAULT,
        Level::High => ERROR,
        Level::Critical => FAULT,
    }
}

/// The texts of the records of one line, each of at most [`LIMIT`] bytes. `serial` tells the parts of one line
/// from those of others.
pub fn parts(text: &str, serial: u64) -> Vec<String> {
    if text.len() <= LIMIT {
        return vec![text.to_owned()];
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && pieces.len() < MAX_PARTS {
        let (piece, next) = rest.split_at(end_of_part(rest));
        pieces.push(piece);
        rest = next;
    }
    let count = pieces.len();
    let cut = if rest.is_empty() { "" } else { " cut" };
    let serial = serial % 1_000_000;
    let mark = |(index, piece): (usize, &&str)| {
        let cut = if index + 1 == count { cut } else { "" };
        format!("[{serial} {}/{count}{cut}] {piece}", index + 1)
    };
    pieces.iter().enumerate().map(mark).collect()
}

/// Where to split: after the last field that is whole, else after the last character.
fn end_of_part(text: &str) -> usize {
    let room = LIMIT - MARK;
    if text.len() <= room {
        return text.len();
    }
    let mut end = room;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Within a string a quotation mark stands behind a backslash, so this is between two fields.
    text.get(..end).and_then(|part| part.rfind(",\"")).map_or(end, |comma| comma + 1)
}

/// The command that shows the records which hold a text (log(1)).
pub fn read_back(text: &str) -> String {
    format!(
        "log show --last 5m --predicate 'subsystem == \"{SUBSYSTEM}\" AND eventMessage CONTAINS \"{text}\"'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that parts were made of.
    fn joined(parts: &[String]) -> String {
        parts
            .iter()
            .map(|part| part.split_once("] ").map_or(part.as_str(), |(_, rest)| rest))
            .collect()
    }

    #[test]
    fn what_fits_is_whole() {
        let text = "x".repeat(LIMIT);
        assert_eq!(parts(&text, 1), [text]);
    }

    #[test]
    fn what_does_not_is_split_and_marked() {
        let text = "\u{20ac}a".repeat(2000);
        let parts = parts(&text, 1_234_567);
        assert!(parts.iter().all(|part| part.len() <= LIMIT));
        assert!(parts[0].starts_with("[234567 1/9] "), "{}", &parts[0][..20]);
        assert!(parts[8].starts_with("[234567 9/9] "));
        assert_eq!(joined(&parts), text);
    }

    #[test]
    fn a_split_parts_no_field() {
        let field = |index: usize| format!("\"key{index}\":\"{}\"", "v, \\\"w".repeat(index % 9));
        let text = format!("{{{}}}", (0..300).map(field).collect::<Vec<_>>().join(","));
        let all = parts(&text, 1);
        assert!(all.len() > 3 && all.iter().all(|part| part.len() <= LIMIT));
        assert_eq!(joined(&all), text);
        for index in 0..300 {
            assert!(all.iter().any(|part| part.contains(&field(index))), "{}", field(index));
        }
    }

    #[test]
    fn a_probe_is_read_back_by_what_it_says() {
        let command = read_back("bpfwatch probe 7");
        assert!(command.starts_with("log show "), "{command}");
        assert!(command.contains("subsystem == \"io.github.bpfwatch\""), "{command}");
        assert!(command.ends_with("eventMessage CONTAINS \"bpfwatch probe 7\"'"), "{command}");
    }

    #[test]
    fn what_is_far_too_long_says_that_it_was_cut() {
        let text = "y".repeat(LIMIT * MAX_PARTS * 2);
        let parts = parts(&text, 7);
        assert_eq!(parts.len(), MAX_PARTS);
        assert!(parts[MAX_PARTS - 1].starts_with("[7 64/64 cut] "));
        assert!(!parts[0].contains("cut") && text.starts_with(&joined(&parts)));
    }

    #[test]
    fn louder_levels_are_louder_types() {
        let levels =
            [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical];
        assert_eq!(levels.map(kind), [INFO, DEFAULT, DEFAULT, ERROR, FAULT]);
    }
}
