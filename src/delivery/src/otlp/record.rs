//! One line as an OTLP log record.
//!
//! The body is one sentence; the detail is in attributes. `SeverityNumber` follows the data model's
//! table: informational 9 (INFO), low 10, medium 13 (WARN), high 17 (ERROR), critical 21 (FATAL).
//! What is known only when it is sent (uid, sequence number, resource) the transport adds.

use bpfwatch_core::finding::{Level, Line, Verdict};
use prost::Message;
use serde_json::Value;

use super::attributes;
use super::proto::{AnyValue, LogRecord};
use crate::format::{Format, Shape};
use crate::summary::Summary;

/// The format of the OTLP transport.
#[derive(Debug, Clone, Copy, Default)]
pub struct OtlpRecord;

impl Format for OtlpRecord {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        let Ok(Value::Object(fields)) = serde_json::to_value(line) else { return };
        let summary = Summary::of(line);
        let level = level(line);
        let record = LogRecord {
            time_unix_nano: u64::try_from(summary.time.nanos()).unwrap_or_default(),
            severity_number: number(level),
            severity_text: level.as_str().to_owned(),
            body: Some(AnyValue::from(summary.message.as_str())),
            attributes: attributes::of(fields),
            observed_time_unix_nano: 0,
            event_name: format!("bpfwatch.{}", summary.kind),
        };
        // A vector grows as it has to.
        let _ = record.encode(out);
    }

    fn shape(&self) -> Shape {
        Shape::Message
    }
}

fn level(line: &Line) -> Level {
    match line {
        Line::Finding(finding) => finding.rule.level,
        Line::Repeats(repeats) => repeats.level,
        Line::Notice(notice) => notice.level,
        Line::Lost(_) => Level::Medium,
        Line::Session(session) if session.verdict == Verdict::Unexpected => Level::Medium,
        Line::Closed(_) | Line::Session(_) | Line::Heartbeat(_) => Level::Informational,
    }
}

fn number(level: Level) -> i32 {
    match level {
        Level::Informational => 9,
        Level::Low => 10,
        Level::Medium => 13,
        Level::High => 17,
        Level::Critical => 21,
    }
}
