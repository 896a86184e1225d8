//! Reads of /proc that belong to no process.

use std::io::Read;

/// First line of a short file, without its end.
pub fn read_line(path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(4096).read_to_end(&mut bytes).ok()?;
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    bytes.truncate(end);
    Some(bytes)
}
