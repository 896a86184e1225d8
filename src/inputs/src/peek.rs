//! A look at the start of a source that takes nothing away from it.

use std::io::{self, Chain, Cursor, Read};

/// A source whose start was looked at.
pub(crate) type Peeked = Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>;

/// Reads until `enough` says so, there are `limit` bytes, or the source ends: what was read, and the
/// source from its start on.
pub(crate) fn peek(
    mut input: Box<dyn Read + Send>,
    limit: usize,
    enough: impl Fn(&[u8]) -> bool,
) -> io::Result<(Vec<u8>, Peeked)> {
    let mut start = Vec::new();
    while start.len() < limit && !enough(&start) {
        let before = start.len();
        start.resize(limit, 0);
        let read = match input.read(&mut start[before..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                start.truncate(before);
                continue;
            }
            other => other?,
        };
        start.truncate(before + read);
        if read == 0 {
            break;
        }
    }
    Ok((start.clone(), Cursor::new(start).chain(input)))
}
