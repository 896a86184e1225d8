//! Up to where the receiver has taken everything: one small file with two slots, written in turn.
//!
//! Each slot carries a checksum and the higher number wins, so that a torn write leaves the other slot.
//! It is overwritten in place: on a full disk a new file could not be made, while this one already has
//! its block.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::private;

/// Bytes of a slot: stream (16), acknowledged sequence number (8), CRC-32 of both (4).
const SLOT: usize = 28;
/// Slots are apart, so that no write of one touches a disk sector of the other.
const STRIDE: u64 = 4096;
const NAME: &str = "position";

/// The file.
pub struct Position {
    file: File,
    next_slot: u64,
}

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// Of which stream.
    pub stream: [u8; 16],
    /// Everything up to this sequence number was taken.
    pub seq: u64,
}

impl Position {
    /// Opens or makes the file in a spool's directory, and reads it. `None`: nothing was ever
    /// acknowledged, or both slots are damaged; then all that is on disk is sent again.
    ///
    /// # Errors
    /// When it cannot be opened or read.
    pub fn open(dir: &Path) -> io::Result<(Self, Option<Acked>)> {
        let file =
            private().read(true).write(true).create(true).truncate(false).open(dir.join(NAME))?;
        let mut found: Option<(u64, Acked)> = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT];
            match file.read_exact_at(&mut bytes, slot * STRIDE) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            }
            let Some(acked) = decode(&bytes) else { continue };
            if found.is_none_or(|(_, best)| acked.seq > best.seq) {
                found = Some((slot, acked));
            }
        }
        let next_slot = found.map_or(0, |(slot, _)| 1 - slot);
        Ok((Self { file, next_slot }, found.map(|(_, acked)| acked)))
    }

    /// Writes it. It outlives the process at once, and a power failure after [`Position::sync`].
    ///
    /// # Errors
    /// When it could not be written; the other slot still says the position before.
    pub fn save(&mut self, acked: Acked) -> io::Result<()> {
        self.file.write_all_at(&encode(acked), self.next_slot * STRIDE)?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    /// Brings it to the disk.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(acked: Acked) -> [u8; SLOT] {
    let mut out = [0; SLOT];
    out[..16].copy_from_slice(&acked.stream);
    out[16..24].copy_from_slice(&acked.seq.to_le_bytes());
    let crc = crc32fast::hash(&out[..24]);
    out[24..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8; SLOT]) -> Option<Acked> {
    let crc = u32::from_le_bytes(bytes[24..].try_into().ok()?);
    if crc32fast::hash(&bytes[..24]) != crc {
        return None;
    }
    let mut stream = [0; 16];
    stream.copy_from_slice(&bytes[..16]);
    Some(Acked { stream, seq: u64::from_le_bytes(bytes[16..24].try_into().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_the_position_before() {
        let dir = std::env::temp_dir().join(format!("bpfwatch-position-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (mut position, acked) = Position::open(&dir).unwrap();
        assert_eq!(acked, None);
        let at = |seq| Acked { stream: [1; 16], seq };
        for seq in 1..=5 {
            position.save(at(seq)).unwrap();
            assert_eq!(Position::open(&dir).unwrap().1, Some(at(seq)));
        }
        // The next write tears: half of its bytes, then nothing.
        let torn = encode(at(6));
        position.file.write_all_at(&torn[..20], position.next_slot * STRIDE).unwrap();
        let (mut position, acked) = Position::open(&dir).unwrap();
        assert_eq!(acked, Some(at(5)));
        position.save(at(7)).unwrap();
        assert_eq!(Position::open(&dir).unwrap().1, Some(at(7)));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
