//! Native JSON: one object a line, as the vocabulary serialises itself.
//!
//! JSON escapes only C0 controls. Here C1 controls, bidirectional overrides and the like are written
//! as `\uXXXX` as well, which any parser reads as the same text: a JSON line shown on a terminal
//! cannot steer it either.

use std::io;

use bpfwatch_core::finding::Line;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value};

use crate::format::{Format, Shape};
use crate::limit::Cut;
use crate::visible;

/// Native JSON, one object a line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl Format for Json {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        write(line, out);
    }

    fn shape(&self) -> Shape {
        Shape::Line
    }
}

impl Cut for Json {
    fn mark(&self, record: &mut Map<String, Value>, _: usize) {
        record.insert("cut".to_owned(), Value::Bool(true));
    }
}

/// Appends a value and a newline; nothing where it cannot be serialised.
pub(crate) fn write(value: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    match value.serialize(&mut Serializer::with_formatter(&mut *out, Escaping)) {
        Ok(()) => out.push(b'\n'),
        Err(_) => out.truncate(start),
    }
}

/// Compact JSON with unsafe characters escaped.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut written = 0;
        for (at, c) in fragment.char_indices() {
            if visible::is_unsafe(c) {
                writer.write_all(&fragment.as_bytes()[written..at])?;
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
                written = at + c.len_utf8();
            }
        }
        writer.write_all(&fragment.as_bytes()[written..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_change_the_spelling_and_not_the_text() {
        let text = "a\u{1b}\u{9b}\u{7f}\u{202e}\u{e0041}\"\\é漢\u{2028}z";
        let mut out = Vec::new();
        text.serialize(&mut Serializer::with_formatter(&mut out, Escaping)).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, r#""a\u001b\u009b\u007f\u202e\udb40\udc41\"\\é漢\u2028z""#);
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }
}
