//! RFC 5424 syslog records: a header, one structured-data element, and the finding in a sentence.
//!
//! `<PRI>1 TIME HOST bpfwatch PROCID TYPE [bpfwatch@32473 key="value" ...] text`
//!
//! One record is one line. Every control and format character of a name is shown as an escape before
//! `"`, `\` and `]` are escaped as section 6.3.3 demands, so that no name ends the element or the
//! record. 32473 is the enterprise number that RFC 5612 gives to examples; nothing is registered for
//! bpfwatch.

use std::borrow::Cow;
use std::fmt::Write as _;

use bpfwatch_core::finding::{Level, Line, Verdict};
use bpfwatch_core::time::Timestamp;

use crate::flat::Flat;
use crate::format::{Format, Shape};
use crate::limit::is_word;
use crate::summary::Summary;
use crate::visible::{self, cut_middle};

/// Most bytes of a record, the newline included: receivers should take 2048 (RFC 5424, 6.1), and a
/// local datagram socket of FreeBSD and macOS takes no more than that (`net.local.dgram.maxdgram`).
pub const DEFAULT_LIMIT: usize = 2048;

/// Below this a record could not hold its header and the shortest of each value.
pub const LEAST_LIMIT: usize = 1024;

/// Columns of a value: the first that lets the record fit is taken.
const VALUE_COLUMNS: [usize; 5] = [512, 192, 64, 24, 8];

/// RFC 5424 syslog records.
#[derive(Debug, Clone, Copy)]
pub struct Rfc5424 {
    /// Syslog facility number: 10 is authpriv, 3 daemon, 16 to 23 local0 to local7.
    pub facility: u8,
    /// Process id of bpfwatch for the header; `-` where `None`.
    pub procid: Option<u32>,
    /// Most bytes of a record, [`LEAST_LIMIT`] or more. A longer one has its values cut with a `…`
    /// in their middle and says `cut="true"`.
    pub limit: usize,
    /// Without the header, and with the sentence before the element: for the local socket, where
    /// [`SyslogSocket`](crate::transport::SyslogSocket) puts another one before it.
    pub bare: bool,
}

impl Default for Rfc5424 {
    fn default() -> Self {
        Self { facility: 10, procid: None, limit: DEFAULT_LIMIT, bare: false }
    }
}

impl Format for Rfc5424 {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        let summary = Summary::of(line);
        let flat = Flat::of(line);
        let limit = self.limit.max(LEAST_LIMIT);
        let mut text = String::with_capacity(1024);
        for (attempt, columns) in VALUE_COLUMNS.into_iter().enumerate() {
            text.clear();
            let room = if self.bare {
                text.push_str(&cut_tail(&summary.message, limit / 4));
                text.push(' ');
                limit - 2
            } else {
                push_head(&mut text, self.facility, self.procid, line, &summary);
                limit - MESSAGE_LEAST
            };
            let last = attempt + 1 == VALUE_COLUMNS.len();
            push_element(&mut text, &flat, columns, attempt > 0, last.then_some(room));
            if text.len() <= room {
                break;
            }
        }
        if !self.bare {
            push_message(&mut text, &summary.message, limit);
        }
        text.push('\n');
        out.extend_from_slice(text.as_bytes());
    }

    fn shape(&self) -> Shape {
        if self.bare { Shape::Line } else { Shape::Syslog }
    }
}

/// `<PRI>1 TIMESTAMP HOSTNAME bpfwatch PROCID MSGID `.
pub(crate) fn push_head(
    out: &mut String,
    facility: u8,
    procid: Option<u32>,
    line: &Line,
    summary: &Summary,
) {
    let priority = u16::from(facility.min(23)) * 8 + u16::from(severity(line));
    let _ = write!(out, "<{priority}>1 {} ", timestamp(summary.time));
    push_printable(out, &summary.host.name, 255);
    out.push_str(" bpfwatch ");
    match procid {
        Some(pid) => {
            let _ = write!(out, "{pid}");
        }
        None => out.push('-'),
    }
    let _ = write!(out, " {} ", summary.kind);
}

/// Syslog severity: 2 critical, 3 error, 4 warning, 5 notice, 6 informational.
pub fn severity(line: &Line) -> u8 {
    let of_level = |level| match level {
        Level::Critical => 2,
        Level::High => 3,
        Level::Medium => 4,
        Level::Low => 5,
        Level::Informational => 6,
    };
    match line {
        Line::Finding(finding) => of_level(finding.rule.level),
        Line::Repeats(repeats) => of_level(repeats.level),
        Line::Notice(notice) => of_level(notice.level),
        Line::Lost(_) => 4,
        Line::Session(session) if session.verdict == Verdict::Unexpected => 4,
        Line::Closed(_) | Line::Session(_) | Line::Heartbeat(_) => 6,
    }
}

/// TIMESTAMP takes at most six digits below the second (section 6.2.3).
fn timestamp(at: Timestamp) -> String {
    Timestamp::from_nanos(at.nanos().div_euclid(1_000) * 1_000).to_string()
}

/// HOSTNAME is printable US-ASCII without blanks (section 6): anything else becomes `?`.
fn push_printable(out: &mut String, text: &str, limit: usize) {
    if text.is_empty() {
        out.push('-');
        return;
    }
    out.extend(text.chars().take(limit).map(|c| if c.is_ascii_graphic() { c } else { '?' }));
}

/// Appends the element with values of at most `columns` columns. Where `room` is given, values that
/// would make the text longer than that many bytes are left out: escapes and combining marks may take
/// many bytes for few columns. Ids and times are never cut: in part they are worth nothing.
fn push_element(out: &mut String, flat: &Flat, columns: usize, cut: bool, room: Option<usize>) {
    out.push_str("[bpfwatch@32473");
    if cut
        || flat.params.iter().any(|(_, value)| !is_word(value) && visible::width(value) > columns)
    {
        out.push_str(" cut=\"true\"");
    }
    for (key, value) in &flat.params {
        let start = out.len();
        out.push(' ');
        out.push_str(key);
        out.push_str("=\"");
        let columns = if is_word(value) { usize::MAX } else { columns };
        for c in cut_middle(value, columns).chars() {
            if matches!(c, '"' | '\\' | ']') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
        if room.is_some_and(|room| out.len() >= room) {
            out.truncate(start);
        }
    }
    out.push(']');
}

/// Bytes kept free for the sentence: a blank, a byte order mark, some text, `…` and the newline.
const MESSAGE_LEAST: usize = 64;

/// Appends the sentence, with a byte order mark before it where it is not ASCII (section 6.4), cut so
/// that the record and its newline stay within `limit` bytes.
fn push_message(out: &mut String, message: &str, limit: usize) {
    const BOM: char = '\u{feff}';
    let blank_and_newline = 2;
    let ascii_room = limit.saturating_sub(out.len() + blank_and_newline);
    out.push(' ');
    if message.is_ascii() && message.len() <= ascii_room {
        out.push_str(message);
        return;
    }
    out.push(BOM);
    let room = ascii_room.saturating_sub(BOM.len_utf8());
    out.push_str(&cut_tail(message, room));
}

/// `text` in at most `limit` bytes, with a `…` at its end where it is longer.
fn cut_tail(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let mut end = limit.saturating_sub(visible::ELLIPSIS.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{}", &text[..end], visible::ELLIPSIS))
}
