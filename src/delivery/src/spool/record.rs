//! The bytes of one record in a segment, and of a segment's header. Integers are little-endian.
//!
//! | part | bytes | what |
//! |---|---|---|
//! | header | 8 | `BPFWSPL1`: the version of all that follows |
//! | | 16 | id of the stream, the same in every segment of a spool |
//! | | 8 | sequence number of the first record |
//! | | 4 | CRC-32 (IEEE) of the 32 bytes before |
//! | record | 4 | length of the body |
//! | | 4 | CRC-32 (IEEE) of the body |
//! | body | 8 | sequence number |
//! | | 8 | time, nanoseconds since 1970 |
//! | | 2 | length of the id |
//! | | … | id, UTF-8 |
//! | | … | the rendered record |
//!
//! A length alone could be anything after a torn write, so a record counts only when its checksum and
//! its number are right too.

use bpfwatch_core::time::Timestamp;

use crate::remote::Record;

/// Bytes of a segment's header.
pub const HEADER: usize = 36;
/// Bytes before a record's body.
pub const PREFIX: usize = 8;
/// The fixed part of a body.
const FIXED: usize = 18;
/// The largest rendered record. Findings are at most about 100 kB; a length beyond this is damage.
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// The longest id.
const MAX_ID: usize = 256;
/// The largest body.
const MAX_BODY: usize = FIXED + MAX_ID + MAX_PAYLOAD;
/// The largest record, prefix and body.
pub const MAX_RECORD: usize = PREFIX + MAX_BODY;

const MAGIC: &[u8; 8] = b"BPFWSPL1";

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Id of the stream.
    pub stream: [u8; 16],
    /// Sequence number of the first record.
    pub first: u64,
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..24].copy_from_slice(&self.stream);
        out[24..32].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32fast::hash(&out[..32]);
        out[32..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// From its bytes; `None` where they are no header.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        let crc = u32_at(bytes, 32)?;
        if bytes[..8] != *MAGIC || crc32fast::hash(&bytes[..32]) != crc {
            return None;
        }
        let mut stream = [0; 16];
        stream.copy_from_slice(&bytes[8..24]);
        Some(Self { stream, first: u64_at(bytes, 24)? })
    }
}

/// Why there is no record at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The bytes end within it. Of a file's end: a torn write.
    Short,
    /// They are no record.
    Damaged,
}

/// Appends a record to `out`.
///
/// # Errors
/// When the payload or the id is too large, in words.
pub fn encode(
    seq: u64,
    time: Timestamp,
    id: &str,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if payload.len() > MAX_PAYLOAD || id.len() > MAX_ID {
        return Err(format!("a record of {} bytes does not go into the spool", payload.len()));
    }
    let id_len = u16::try_from(id.len()).unwrap_or(u16::MAX);
    let body_len = u32::try_from(FIXED + id.len() + payload.len()).unwrap_or(u32::MAX);
    let start = out.len();
    out.extend_from_slice(&body_len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&time.nanos().to_le_bytes());
    out.extend_from_slice(&id_len.to_le_bytes());
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(&out[start + PREFIX..]);
    out[start + 4..start + PREFIX].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// The record at the beginning of `bytes`, and how many bytes it takes.
///
/// # Errors
/// When there is no whole one.
pub fn decode(bytes: &[u8]) -> Result<(Record, usize), Broken> {
    let body = body(bytes)?;
    let seq = u64_at(body, 0).ok_or(Broken::Damaged)?;
    let nanos = u64_at(body, 8).ok_or(Broken::Damaged)?.cast_signed();
    let id_len = body.get(16..FIXED).map(|len| u16::from_le_bytes([len[0], len[1]]));
    let payload = FIXED + usize::from(id_len.ok_or(Broken::Damaged)?);
    let id = body.get(FIXED..payload).ok_or(Broken::Damaged)?;
    let id = std::str::from_utf8(id).map_err(|_| Broken::Damaged)?.to_owned();
    let record =
        Record { seq, id, time: Timestamp::from_nanos(nanos), bytes: body[payload..].to_vec() };
    Ok((record, PREFIX + body.len()))
}

/// Number of the record at the beginning of `bytes`, and how many bytes it takes.
///
/// # Errors
/// When there is no whole one.
pub fn peek(bytes: &[u8]) -> Result<(u64, usize), Broken> {
    let body = body(bytes)?;
    Ok((u64_at(body, 0).ok_or(Broken::Damaged)?, PREFIX + body.len()))
}

fn body(bytes: &[u8]) -> Result<&[u8], Broken> {
    let len = u32_at(bytes, 0).ok_or(Broken::Short)? as usize;
    if !(FIXED..=MAX_BODY).contains(&len) {
        return Err(Broken::Damaged);
    }
    let crc = u32_at(bytes, 4).ok_or(Broken::Short)?;
    let body = bytes.get(PREFIX..PREFIX + len).ok_or(Broken::Short)?;
    if crc32fast::hash(body) == crc { Ok(body) } else { Err(Broken::Damaged) }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Vec<u8> {
        let mut out = Vec::new();
        encode(7, Timestamp::from_secs(3), "an-id", b"{\"a\":1}\n", &mut out).unwrap();
        out
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let bytes = one();
        let (record, len) = decode(&bytes).unwrap();
        assert_eq!(len, bytes.len());
        assert_eq!((record.seq, record.id.as_str()), (7, "an-id"));
        assert_eq!(record.time, Timestamp::from_secs(3));
        assert_eq!(record.bytes, b"{\"a\":1}\n");
        assert_eq!(peek(&bytes), Ok((7, len)));
        let header = Header { stream: [9; 16], first: 4 };
        assert_eq!(Header::decode(&header.encode()), Some(header));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = one();
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Err(Broken::Short), "cut at {end}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        assert_eq!(decode(&[0; 64]), Err(Broken::Damaged), "zeros are no record");
        let header = Header { stream: [9; 16], first: 4 }.encode();
        for bit in 0..HEADER * 8 {
            let mut bad = header;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn too_large_a_record_is_refused() {
        let mut out = Vec::new();
        assert!(encode(1, Timestamp::default(), "", &vec![0; MAX_PAYLOAD + 1], &mut out).is_err());
        assert!(encode(1, Timestamp::default(), &"x".repeat(257), b"", &mut out).is_err());
        assert!(out.is_empty());
        assert!(encode(1, Timestamp::default(), "", &vec![0; MAX_PAYLOAD], &mut out).is_ok());
        assert!(decode(&out).is_ok());
    }
}
