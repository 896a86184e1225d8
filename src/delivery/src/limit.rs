//! JSON records of a bounded size. A receiver or protocol takes only so many bytes; a record that is
//! longer has its long texts cut in their middle, its long lists cut at their end, and says so.
//!
//! Cutting works on the JSON itself: whatever a format puts there stays valid, and ids, which are
//! short, stay whole. It is the exception, so its cost does not matter; a record that fits costs
//! nothing more.

use bpfwatch_core::finding::Line;
use serde_json::{Map, Value};

use crate::format::{Format, Shape};
use crate::json;
use crate::visible::cut_bytes;

/// Most bytes of a record unless told: more than any real finding has, and little enough that a queue
/// of a thousand is no burden.
pub const DEFAULT_LIMIT: usize = 256 * 1024;

/// Below this a record could not hold the shortest of each of its values.
pub const LEAST_LIMIT: usize = 4096;

/// Bytes of a text and items of a list: the first pair that lets the record fit is taken.
const STEPS: [(usize, usize); 7] =
    [(16_384, 256), (4096, 64), (1024, 32), (256, 16), (96, 8), (40, 2), (12, 1)];

/// Longest word that is never cut: a UUID, a time, a version, the id of a container.
const WORD: usize = 64;

/// A JSON format whose records can say that they were cut.
pub trait Cut: Format {
    /// Marks a record that had `size` bytes before it was cut.
    fn mark(&self, record: &mut Map<String, Value>, size: usize);
}

/// Keeps the records of a JSON format within a number of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limited<F> {
    format: F,
    limit: usize,
}

impl<F: Cut> Limited<F> {
    /// Records of at most `limit` bytes, the newline included, and no fewer than [`LEAST_LIMIT`].
    pub fn new(format: F, limit: usize) -> Self {
        Self { format, limit: limit.max(LEAST_LIMIT) }
    }
}

impl<F: Cut> Format for Limited<F> {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        let start = out.len();
        self.format.render(line, out);
        let size = out.len() - start;
        if size <= self.limit {
            return;
        }
        let mut record: Value = match out.get(start..).map(serde_json::from_slice) {
            Some(Ok(value)) => value,
            _ => Value::Null,
        };
        for (text, items) in STEPS {
            out.truncate(start);
            cut(&mut record, text, items);
            if let Value::Object(fields) = &mut record {
                self.format.mark(fields, size);
                json::write(&record, out);
            }
            if out.len() - start <= self.limit {
                return;
            }
        }
        out.truncate(start);
    }

    fn shape(&self) -> Shape {
        self.format.shape()
    }
}

fn cut(value: &mut Value, text: usize, items: usize) {
    match value {
        Value::String(string) if string.len() > text && !is_word(string) => {
            *string = cut_bytes(string, text).into_owned();
        }
        Value::Array(list) => {
            list.truncate(items);
            list.iter_mut().for_each(|item| cut(item, text, items));
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| cut(field, text, items)),
        _ => {}
    }
}

/// Ids, times, versions and values of enumerations: worth nothing in part.
pub(crate) fn is_word(text: &str) -> bool {
    text.len() <= WORD
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_texts_are_cut_at_every_depth() {
        let mut value = serde_json::json!({"a": [{"b": "x ".repeat(25)}, 2, 3], "n": 7});
        cut(&mut value, 10, 2);
        assert_eq!(value, serde_json::json!({"a": [{"b": "x x … x "}, 2], "n": 7}));
    }
}
