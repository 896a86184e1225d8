//! Compressed sources, told by their first bytes and read as they are: gzip (RFC 1952) and Zstandard
//! (RFC 8878), with as many members or frames as there are.
//!
//! Both decoders work in a window: a file that unpacks to terabytes takes no more memory than any other,
//! and is read at the speed of the reader behind it. A Zstandard frame may ask for a window of up to 100
//! MiB, which the decoder refuses above.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

use crate::peek::peek;

/// How a source is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gzip,
    Zstd,
}

/// What the first four bytes say.
pub(crate) fn kind(start: &[u8]) -> Option<Kind> {
    match start {
        [0x1f, 0x8b, ..] => Some(Kind::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Kind::Zstd),
        // A skippable frame, which parallel compressors begin with.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Kind::Zstd),
        _ => None,
    }
}

/// The bytes of the source, decompressed where need be.
pub(crate) fn open(input: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let enough = |start: &[u8]| match start {
        [] => false,
        // Nothing else begins like these: no need to wait for more.
        [0x1f | 0x28 | 0x50..=0x5f, rest @ ..] => rest.len() >= 3,
        _ => true,
    };
    let (start, input) = peek(input, 4, enough)?;
    Ok(match kind(&start) {
        None => Box::new(input),
        Some(Kind::Gzip) => Box::new(MultiGzDecoder::new(BufReader::new(input))),
        Some(Kind::Zstd) => Box::new(Zstd::Between(BufReader::new(input))),
    })
}

/// Frame after frame.
enum Zstd<R: BufRead> {
    Between(R),
    Frame(Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>),
    Done,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(self, Zstd::Done) {
                Zstd::Done => return Ok(0),
                Zstd::Between(mut input) => match frame(&mut input)? {
                    Start::End => return Ok(0),
                    Start::Skipped => *self = Zstd::Between(input),
                    Start::Frame => {
                        let decoder = StreamingDecoder::new(input).map_err(invalid)?;
                        *self = Zstd::Frame(Box::new(decoder));
                    }
                },
                Zstd::Frame(mut decoder) => {
                    let read = decoder.read(out)?;
                    if read > 0 || out.is_empty() {
                        *self = Zstd::Frame(decoder);
                        return Ok(read);
                    }
                    *self = Zstd::Between(decoder.into_inner());
                }
            }
        }
    }
}

enum Start {
    End,
    Skipped,
    Frame,
}

/// What comes next: nothing, a skippable frame (RFC 8878, section 3.1.2), which is skipped, or data.
fn frame(input: &mut impl BufRead) -> io::Result<Start> {
    let start = input.fill_buf()?;
    match start {
        [] => Ok(Start::End),
        [0x50..=0x5f, ..] => {
            let mut header = [0; 8];
            input.read_exact(&mut header)?;
            if kind(&header) != Some(Kind::Zstd) {
                return Err(invalid("no Zstandard frame after the last one"));
            }
            let length =
                u64::from(u32::from_le_bytes([header[4], header[5], header[6], header[7]]));
            let skipped = io::copy(&mut input.take(length), &mut io::sink())?;
            if skipped < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Start::Skipped)
        }
        _ => Ok(Start::Frame),
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn unpacked(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        open(Box::new(io::Cursor::new(bytes)))?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_member_and_frame_is_read() {
        let text = b"one\ntwo\n".repeat(5000);
        for pack in [gzip, zstd] {
            let mut twice = pack(&text);
            twice.extend(pack(b"three\n"));
            assert_eq!(unpacked(twice).unwrap(), [&text[..], b"three\n"].concat());
        }
        let skippable =
            [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(b"four")].concat();
        assert_eq!(unpacked(skippable).unwrap(), b"four");
        for plain in [&b""[..], b"x", b"\x1f", b"(abcd", b"P", b"plain text"] {
            assert_eq!(unpacked(plain.to_vec()).unwrap(), plain);
        }
    }

    #[test]
    fn what_is_cut_or_spoilt_is_an_error_and_no_end() {
        for pack in [gzip, zstd] {
            let packed = pack(&b"some text that goes on\n".repeat(100));
            for length in 5..packed.len() {
                let result = unpacked(packed[..length].to_vec());
                assert!(result.is_err(), "{length} of {}", packed.len());
            }
        }
        assert!(unpacked([zstd(b"x"), b"junk".to_vec()].concat()).is_err());
        assert!(unpacked(vec![0x5a, 0x2a, 0x4d, 0x18, 255, 255, 255, 255, 1]).is_err());
    }

    #[test]
    fn a_bomb_costs_a_window() {
        // A gigabyte of zeros in a megabyte: read piece by piece, nothing of it is kept.
        let member = gzip(&vec![0; 64 * 1024 * 1024]);
        let mut input = open(Box::new(io::Cursor::new(member.repeat(16)))).unwrap();
        let copied = io::copy(&mut input, &mut io::sink()).unwrap();
        assert_eq!(copied, 1024 * 1024 * 1024);
    }

    #[test]
    fn a_window_beyond_measure_is_refused() {
        // Frame header: no single segment, window descriptor 0xff asks for terabytes.
        let hostile = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 1, 0, 0];
        assert!(unpacked(hostile).is_err());
    }
}
