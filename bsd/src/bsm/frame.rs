//! Where a record ends. Records follow each other without anything between; each begins with a header that
//! says how long it is and ends with a trailer that says it again (audit.log(5)).

use crate::bsm::token::{self, Cursor};

/// Longest record that is read. An argument list and an environment have at most 512 KiB (ARG_MAX of
/// FreeBSD) or 1 MiB (macOS).
pub const RECORD_CAP: usize = 4 * 1024 * 1024;
/// A header and a trailer and nothing between.
const RECORD_MIN: usize = 18 + TRAILER;
/// Bytes of a trailer.
const TRAILER: usize = 7;
/// What a trailer begins with: its id and its magic number.
const TRAILER_START: [u8; 3] = [token::TRAILER, 0xb1, 0x05];

/// What stands at the start of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A record of that many bytes.
    Record(usize),
    /// A token of a trail's begin or end, of that many bytes: it says when, and which file came before or
    /// comes after.
    File(usize),
    /// More bytes are needed.
    More,
    /// Nothing that can be read; the next record may begin after that many bytes.
    Damaged(usize),
}

/// Looks at the start of `bytes`.
pub fn next(bytes: &[u8]) -> Frame {
    let Some(first) = bytes.first() else { return Frame::More };
    match *first {
        token::HEADER32 | token::HEADER32_EX | token::HEADER64 | token::HEADER64_EX => {
            record(bytes)
        }
        token::FILE32 | token::FILE64 => file(bytes),
        _ => damaged(bytes),
    }
}

fn record(bytes: &[u8]) -> Frame {
    let Some(size) = Cursor::new(bytes).skipped(1).and_then(|mut cursor| cursor.u32()) else {
        return Frame::More;
    };
    let size = size as usize;
    if !(RECORD_MIN..=RECORD_CAP).contains(&size) {
        return damaged(bytes);
    }
    let Some(record) = bytes.get(..size) else { return Frame::More };
    let trailer = &record[size - TRAILER..];
    let again = u32::from_be_bytes([trailer[3], trailer[4], trailer[5], trailer[6]]);
    if trailer.starts_with(&TRAILER_START) && again as usize == size {
        Frame::Record(size)
    } else {
        damaged(bytes)
    }
}

fn file(bytes: &[u8]) -> Frame {
    let mut cursor = Cursor::new(bytes);
    match token::next(&mut cursor) {
        Ok(Some(_)) => Frame::File(bytes.len() - cursor.left()),
        // No such token is longer than its numbers and a name of 64 KiB.
        Err(_) if bytes.len() < 128 * 1024 => Frame::More,
        _ => damaged(bytes),
    }
}

/// Up to the end of what looks like the next trailer, or near the end of what there is.
fn damaged(bytes: &[u8]) -> Frame {
    let found = memchr::memmem::find(&bytes[1.min(bytes.len())..], &TRAILER_START);
    match found.map(|at| at + 1 + TRAILER) {
        Some(end) if end <= bytes.len() => Frame::Damaged(end),
        // A trailer may be cut by the end of what there is: that much is kept for the next look.
        Some(_) => Frame::More,
        None if bytes.len() > TRAILER => Frame::Damaged(bytes.len() - TRAILER + 1),
        None => Frame::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAIL: &[u8] = include_bytes!("../../tests/data/execve-jail.bsm");

    fn frames(mut bytes: &[u8]) -> (Vec<usize>, usize) {
        let mut sizes = Vec::new();
        loop {
            match next(bytes) {
                Frame::Record(size) => {
                    sizes.push(size);
                    bytes = &bytes[size..];
                }
                Frame::File(size) | Frame::Damaged(size) => {
                    assert!(size > 0);
                    bytes = &bytes[size..];
                }
                Frame::More => return (sizes, bytes.len()),
            }
        }
    }

    #[test]
    fn cuts_a_recording() {
        assert_eq!(frames(TRAIL), (vec![146, 148, 123, 122, 156, 125], 0));
        assert_eq!(frames(&TRAIL[..150]), (vec![146], 4));
    }

    #[test]
    fn goes_on_after_damage() {
        let mut bytes = TRAIL.to_vec();
        bytes[146 + 1..146 + 5].copy_from_slice(&7u32.to_be_bytes());
        assert_eq!(frames(&bytes), (vec![146, 123, 122, 156, 125], 0));
        bytes.splice(0..0, *b"junk that is no record");
        assert_eq!(frames(&bytes), (vec![123, 122, 156, 125], 0));
        let mut huge = TRAIL.to_vec();
        huge[1] = 0xff;
        assert_eq!(frames(&huge).0, [148, 123, 122, 156, 125]);
    }

    #[test]
    fn a_file_token_is_no_record() {
        let mut bytes = vec![token::FILE32, 0, 1, 0x23, 0x45, 0, 0, 1, 0xa8, 0, 5];
        bytes.extend_from_slice(b"next\0");
        assert_eq!(next(&bytes), Frame::File(16));
        assert_eq!(next(&bytes[..12]), Frame::More);
    }
}
