//! A syslog header before a format that has none: JSON in the text of a syslog record.
//!
//! The header is that of RFC 5424 without structured data, or that of RFC 3164. What follows is the
//! JSON alone, so that a receiver can parse the text as it is.

use std::fmt::Write as _;

use bpfwatch_core::finding::Line;

use crate::format::{Format, Shape};
use crate::rfc3164::{self, Zone};
use crate::rfc5424::{self, severity};
use crate::summary::Summary;

/// Most bytes of a header: priority, time, a name of 255 bytes, tag, pid and type.
pub const MOST: usize = 400;

/// Which header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Header {
    /// `<PRI>1 TIME HOST bpfwatch PID TYPE - `.
    #[default]
    Rfc5424,
    /// `<PRI>TIME HOST bpfwatch[PID]: `.
    Rfc3164,
}

/// Puts a syslog header before each record of a format.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<F> {
    /// The format of the text.
    pub format: F,
    /// Which header.
    pub header: Header,
    /// Syslog facility number: 10 is authpriv.
    pub facility: u8,
    /// Process id of bpfwatch.
    pub procid: Option<u32>,
    /// In which zone times of an RFC 3164 header are written.
    pub zone: Zone,
}

impl<F: Format> Format for Envelope<F> {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        let start = out.len();
        let summary = Summary::of(line);
        let mut head = String::with_capacity(MOST);
        match self.header {
            Header::Rfc5424 => {
                rfc5424::push_head(&mut head, self.facility, self.procid, line, &summary);
                head.push_str("- ");
            }
            Header::Rfc3164 => {
                let severity = severity(line);
                rfc3164::push_head(&mut head, self.facility, severity, &summary, self.zone);
                head.push_str("bpfwatch");
                if let Some(pid) = self.procid {
                    let _ = write!(head, "[{pid}]");
                }
                head.push_str(": ");
            }
        }
        out.extend_from_slice(head.as_bytes());
        let text = out.len();
        self.format.render(line, out);
        if out.len() == text {
            out.truncate(start);
        }
    }

    fn shape(&self) -> Shape {
        match self.format.shape() {
            Shape::Line => Shape::Syslog,
            other => other,
        }
    }
}
