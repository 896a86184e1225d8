//! Where the records of an EVTX chunk stand, without decoding them.
//!
//! A chunk begins with `ElfChnk`, the numbers and the identifiers of its first and last record, and where
//! its free space begins. A record begins with `**`, its size, its identifier and the time when it was
//! written, and ends with its size again. (libyal's description of the format, sections 3 and 4.)

use bpfwatch_core::decoder::{Held, Places};

const CHUNK_SIGNATURE: &[u8] = b"ElfChnk\0";
const RECORD_SIGNATURE: &[u8] = b"**\0\0";
/// Bytes of a record's header and of the size at its end.
const RECORD_MIN: usize = 24 + 4;
/// Bytes before the first record.
const RECORDS: usize = 512;

/// Which records the chunk says to hold.
pub(super) fn held(head: &[u8]) -> Held {
    if head.iter().all(|byte| *byte == 0) {
        return Held::Nothing;
    }
    let (Some(first), Some(last)) = (u64_at(head, 24), u64_at(head, 32)) else {
        return Held::Unreadable;
    };
    if !head.starts_with(CHUNK_SIGNATURE) {
        return Held::Unreadable;
    }
    // Of a chunk without records both are -1.
    if last == u64::MAX {
        return Held::Nothing;
    }
    if first > last { Held::Unreadable } else { Held::Records(first..=last) }
}

/// Identifiers and places of the records that are there to their ends.
pub(super) fn whole(chunk: &[u8]) -> Places {
    let end = u32_at(chunk, 48).unwrap_or_default().min(chunk.len());
    let mut records = Vec::new();
    let mut at = RECORDS;
    while let Some((number, size)) = record(chunk.get(at..end).unwrap_or_default()) {
        records.push((number, at..at + size));
        at += size;
    }
    records
}

/// Identifier and size of the record that begins here.
fn record(bytes: &[u8]) -> Option<(u64, usize)> {
    let size = u32_at(bytes, 4)?;
    let is_whole = bytes.starts_with(RECORD_SIGNATURE)
        && size >= RECORD_MIN
        && u32_at(bytes, size - 4) == Some(size);
    is_whole.then_some((u64_at(bytes, 8)?, size))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*field)).ok()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_with_its_end() {
        let mut chunk = vec![0; 1024];
        assert_eq!(held(&chunk[..Held::HEAD]), Held::Nothing);
        chunk[..8].copy_from_slice(CHUNK_SIGNATURE);
        chunk[24] = 7;
        chunk[32] = 8;
        chunk[48..50].copy_from_slice(&(512u16 + 72).to_le_bytes());
        for (at, size, number) in [(512, 32u8, 7), (544, 40, 8)] {
            chunk[at..at + 2].copy_from_slice(b"**");
            chunk[at + 4] = size;
            chunk[at + 8] = number;
            chunk[at + usize::from(size) - 4] = size;
        }
        assert_eq!(held(&chunk[..Held::HEAD]), Held::Records(7..=8));
        assert_eq!(whole(&chunk), [(7, 512..544), (8, 544..584)]);
        chunk[580] = 0;
        assert_eq!(whole(&chunk), [(7, 512..544)]);
        assert_eq!(held(&chunk[1..]), Held::Unreadable);
        chunk[516] = 3;
        assert_eq!(whole(&chunk), []);
        chunk[516..520].fill(0xff);
        assert_eq!(whole(&chunk), []);
        chunk[24..40].fill(0xff);
        assert_eq!(held(&chunk[..Held::HEAD]), Held::Nothing);
        assert_eq!(whole(&[]), []);
    }
}
