//! JSON that is no line by line: an array of records, a Kubernetes list, or records printed over several
//! lines. Cut into one record a line, byte by byte, so that a file of any size takes no memory.

use std::io::{self, Read};

use memchr::memmem;

use crate::peek::peek;

/// Bytes of the start that decide.
const START: usize = 4096;

/// The bytes of the source, and whether they were cut anew.
pub(crate) fn open(input: Box<dyn Read + Send>) -> io::Result<(Box<dyn Read + Send>, bool)> {
    let (start, input) = peek(input, START, decided)?;
    let Some(level) = level(&start) else { return Ok((Box::new(input), false)) };
    Ok((Box::new(Records::new(input, level)), true))
}

fn without_mark(start: &[u8]) -> &[u8] {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    start.trim_ascii_start()
}

/// Whether more of the start would not change the answer.
fn decided(start: &[u8]) -> bool {
    match without_mark(start) {
        [] | [0xef] | [0xef, 0xbb] => false,
        [b'[' | b'{', rest @ ..] => {
            // The first line, or what an array begins with.
            memchr::memchr(b'\n', rest).is_some() && !rest.trim_ascii_start().is_empty()
        }
        _ => true,
    }
}

/// How many brackets deep the records are; `None` where each has its line already.
fn level(start: &[u8]) -> Option<usize> {
    let start = without_mark(start);
    let inside = start.get(1..)?.trim_ascii_start();
    match start.first()? {
        b'[' if matches!(inside.first(), None | Some(b'{' | b']')) => Some(1),
        b'{' => {
            let head = &start[..start.len().min(START)];
            // A list of the API (meta/v1 List): its kind ends in List and it has items.
            let list = memmem::find(head, b"List\"").is_some()
                && memmem::find(head, b"\"kind\"").is_some()
                && memmem::find(head, b"\"items\"").is_some();
            let first_line = memchr::memchr(b'\n', start).map_or(start, |end| &start[..end]);
            // Nothing but the bracket, or a line that ends in a comma or a bracket that opens.
            let goes_on = matches!(first_line.trim_ascii_end().last(), Some(b'{' | b'[' | b','));
            if list { Some(2) } else { goes_on.then_some(0) }
        }
        _ => None,
    }
}

/// Cuts records out.
struct Records<R> {
    input: R,
    /// Brackets around a record.
    level: usize,
    depth: usize,
    /// For each of the first levels: whether it is an array.
    arrays: [bool; 3],
    in_string: bool,
    escaped: bool,
    /// The line that was begun is no record.
    stray: bool,
    /// Bytes of the source, and of the records where they are more than fit the reader's buffer.
    buffer: Vec<u8>,
    out: Vec<u8>,
    given: usize,
}

impl<R: Read> Records<R> {
    fn new(input: R, level: usize) -> Self {
        Self {
            input,
            level,
            depth: 0,
            arrays: [false; 3],
            in_string: false,
            escaped: false,
            stray: false,
            buffer: vec![0; 64 * 1024],
            out: Vec::with_capacity(64 * 1024),
            given: 0,
        }
    }

    /// Whether a byte at this depth stands in a record.
    fn in_record(&self) -> bool {
        // A list's records are in the array below its object; its metadata is an object there.
        self.depth > self.level && (self.level == 0 || self.arrays[self.level - 1])
    }

    fn take(&mut self, read: usize) {
        self.out.clear();
        self.given = 0;
        for index in 0..read {
            let byte = self.buffer[index];
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                if self.in_record() {
                    // A line break inside a string is no JSON: the decoder will say so.
                    self.out.push(if byte == b'\n' { b'\r' } else { byte });
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    if let Some(array) = self.arrays.get_mut(self.depth) {
                        *array = byte == b'[';
                    }
                    self.depth += 1;
                }
                b'}' | b']' => {
                    let was_in_record = self.in_record();
                    self.depth = self.depth.saturating_sub(1);
                    if was_in_record {
                        self.out.push(byte);
                        if self.depth == self.level {
                            self.out.push(b'\n');
                        }
                    }
                    continue;
                }
                _ => {}
            }
            let blank = byte.is_ascii_whitespace();
            if self.stray && (byte == b'\n' || self.in_record()) {
                self.stray = false;
                self.out.push(b'\n');
            }
            if self.in_record() && !blank {
                self.out.push(byte);
            } else if self.is_stray(byte) {
                self.stray = true;
                self.out.push(byte);
            }
        }
    }

    /// Something between the records that does not belong there: it becomes a line of its own, which no
    /// decoder takes, so that it is not passed over in silence.
    fn is_stray(&self, byte: u8) -> bool {
        let between = self.depth == self.level && !self.in_record();
        let in_list = self.level == 0 || self.arrays[self.level - 1];
        between && in_list && !byte.is_ascii_whitespace() && !matches!(byte, b',' | b'[')
    }
}

impl<R: Read> Read for Records<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.out.len() {
            let read = self.input.read(&mut self.buffer)?;
            if read == 0 {
                return Ok(0);
            }
            self.take(read);
        }
        let count = out.len().min(self.out.len() - self.given);
        out[..count].copy_from_slice(&self.out[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Slow;

    fn cut(text: &str, step: usize) -> (Vec<String>, bool) {
        let input = Slow(io::Cursor::new(text.into()), step);
        let (mut input, reframed) = open(Box::new(input)).unwrap();
        let mut out = String::new();
        input.read_to_string(&mut out).unwrap();
        (out.lines().map(str::to_owned).collect(), reframed)
    }

    #[test]
    fn arrays_lists_and_printed_records_become_lines() {
        let lines = [r#"{"a":"x, [y] {z} \" \\","b":[1,{"c":null}]}"#, r#"{"d":{}}"#];
        let pretty = "{\n  \"a\": \"x, [y] {z} \\\" \\\\\",\n  \"b\": [1, {\"c\": null}]\n}\n{\n \"d\": {}\n}\n";
        let array = format!("\u{feff}[\r\n{pretty}]").replace("}\n{", "},\n{");
        let inner = array.trim_start_matches('\u{feff}');
        let list = format!(
            r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{"x":{{}}}},"items":{inner},"z":{{}}}}"#
        );
        let packed = format!("[{},{}]", lines[0], lines[1]);
        for text in [pretty, &array, &list, &packed] {
            for step in [1, 2, 3, 7, 5000] {
                let (cut, reframed) = cut(text, step);
                assert!(reframed);
                assert_eq!(cut, lines, "{text} by {step}");
            }
        }
    }

    #[test]
    fn lines_stay_as_they_are() {
        for text in [
            "{\"a\":1}\n{\"b\":2}\n",
            "{\"kind\":\"Event\",\"items\":1}\n{\"b\":2}\n",
            "[  12.3] kernel: x\n",
            "type=SYSCALL msg=audit(1.2:3): \n",
            "",
            "\n",
        ] {
            for step in [1, 3, 5000] {
                let (lines, reframed) = cut(text, step);
                assert!(!reframed, "{text}");
                assert_eq!(lines, text.lines().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_is_no_record_is_not_passed_over() {
        let (lines, _) = cut("[{\"a\":1}, 7, {\"b\":2}]", 5000);
        assert_eq!(lines, ["{\"a\":1}", "7", "{\"b\":2}"]);
        let (lines, _) = cut("[{\"a\":1},\n{\"b\":\"un\nended", 5000);
        assert_eq!(lines[0], "{\"a\":1}");
        assert!(lines[1].starts_with("{\"b\":\"un"));
    }
}
