//! RFC 3164 syslog records, for receivers that know no newer ones: printable ASCII, at most 1024
//! bytes (section 4.1).
//!
//! `<PRI>Nov 24 02:45:17 HOST bpfwatch[PID]: finding high ID: text key="value" ...`
//!
//! The time has neither year nor zone and is local, as section 4.1.2 demands. Id and level stand
//! before the text, so that they are never what is cut; the names and values behind it are those of
//! [`rfc5424`](crate::rfc5424), as many as fit.

use std::fmt::Write as _;

use bpfwatch_core::finding::Line;
use bpfwatch_core::time::Timestamp;
use chrono::format::StrftimeItems;
use chrono::{DateTime, Local, Utc};

use crate::flat::Flat;
use crate::format::{Format, Shape};
use crate::rfc5424::severity;
use crate::summary::Summary;
use crate::visible::cut_middle;

/// Most bytes of a record, the newline included (section 4.1).
pub const DEFAULT_LIMIT: usize = 1024;

/// Below this, header and id may leave no room for a word.
pub const LEAST_LIMIT: usize = 480;

/// Columns of a value.
const VALUE_COLUMNS: usize = 160;

/// Marks where something was left out; `…` is no ASCII.
const CUT: &str = "...";

/// In which zone times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Zone {
    /// That of the machine, as receivers expect.
    #[default]
    Local,
    /// UTC: for machines whose receivers are told so, and for tests.
    Utc,
}

/// RFC 3164 syslog records.
#[derive(Debug, Clone, Copy)]
pub struct Rfc3164 {
    /// Syslog facility number: 10 is authpriv.
    pub facility: u8,
    /// Process id of bpfwatch for the tag.
    pub procid: Option<u32>,
    /// Most bytes of a record, [`LEAST_LIMIT`] or more.
    pub limit: usize,
    /// In which zone times are written.
    pub zone: Zone,
    /// Without the header: for the local socket, where
    /// [`SyslogSocket`](crate::transport::SyslogSocket) puts another one before it.
    pub bare: bool,
}

impl Default for Rfc3164 {
    fn default() -> Self {
        Self { facility: 10, procid: None, limit: DEFAULT_LIMIT, zone: Zone::Local, bare: false }
    }
}

impl Format for Rfc3164 {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        let summary = Summary::of(line);
        let flat = Flat::of(line);
        let mut text = String::with_capacity(DEFAULT_LIMIT);
        if !self.bare {
            self.push_header(&mut text, line, &summary);
        }
        let get = |key| flat.params.iter().find(|(name, _)| *name == key);
        text.push_str(summary.kind);
        for (_, value) in ["level", "id"].into_iter().filter_map(get) {
            text.push(' ');
            push_ascii(&mut text, &cut_middle(value, 40));
        }
        text.push_str(": ");
        push_ascii(&mut text, &summary.message);
        let room = self.limit.max(LEAST_LIMIT) - 1;
        if text.len() > room {
            text.truncate(room - CUT.len());
            text.push_str(CUT);
        } else {
            push_values(&mut text, &flat, room);
        }
        text.push('\n');
        out.extend_from_slice(text.as_bytes());
    }

    fn shape(&self) -> Shape {
        if self.bare { Shape::Line } else { Shape::Syslog }
    }
}

impl Rfc3164 {
    fn push_header(&self, out: &mut String, line: &Line, summary: &Summary) {
        push_head(out, self.facility, severity(line), summary, self.zone);
        out.push_str("bpfwatch");
        if let Some(pid) = self.procid {
            let _ = write!(out, "[{pid}]");
        }
        out.push_str(": ");
    }
}

/// `<PRI>TIMESTAMP HOSTNAME `; the name of the host without its domain.
pub(crate) fn push_head(
    out: &mut String,
    facility: u8,
    severity: u8,
    summary: &Summary,
    zone: Zone,
) {
    let priority = u16::from(facility.min(23)) * 8 + u16::from(severity);
    let _ = write!(out, "<{priority}>{} ", timestamp(summary.time, zone));
    let name = &summary.host.name;
    let name = name.split('.').next().unwrap_or(name);
    // Receivers tell a name from the text behind it by its characters.
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name: String = name.chars().take(63).map(|c| if fits(c) { c } else { '-' }).collect();
    // One that ends with a hyphen is none for them either.
    let name = name.trim_matches('-');
    out.push_str(if name.is_empty() { "unknown" } else { name });
    out.push(' ');
}

/// `Nov  4 02:45:17`.
fn timestamp(at: Timestamp, zone: Zone) -> String {
    let utc = DateTime::<Utc>::from_timestamp_nanos(at.nanos());
    let items = StrftimeItems::new("%b %e %H:%M:%S");
    match zone {
        Zone::Utc => utc.format_with_items(items).to_string(),
        Zone::Local => utc.with_timezone(&Local).format_with_items(items).to_string(),
    }
}

/// Values that fit within `room` bytes of the whole, the most telling first.
fn push_values(out: &mut String, flat: &Flat, room: usize) {
    for (key, value) in &flat.params {
        if matches!(*key, "level" | "id" | "title") {
            continue;
        }
        let start = out.len();
        let _ = write!(out, " {key}=\"");
        for c in cut_middle(value, VALUE_COLUMNS).chars() {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            push_char(out, c);
        }
        out.push('"');
        if out.len() > room {
            out.truncate(start);
        }
    }
}

fn push_ascii(out: &mut String, text: &str) {
    text.chars().for_each(|c| push_char(out, c));
}

fn push_char(out: &mut String, c: char) {
    match c {
        ' '..='~' => out.push(c),
        '…' => out.push_str(CUT),
        // Writing to a String cannot fail.
        c => _ = write!(out, "\\u{{{:x}}}", u32::from(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_no_zone_and_a_blank_before_a_short_day() {
        let at = |text| timestamp(Timestamp::parse(text).unwrap(), Zone::Utc);
        assert_eq!(at("2026-11-04T02:45:17.9Z"), "Nov  4 02:45:17");
        assert_eq!(at("2026-01-24T22:05:07Z"), "Jan 24 22:05:07");
    }
}
