//! The sysctl `debug.bpf_stats`: every open BPF descriptor, attached or not (xnu bsd/net/bpf.c
//! `sysctl_bpf_stats`, bsd/net/bpf.h `struct xbpf_d`).
//!
//! A row says its own size: newer kernels append fields, so rows are walked by what they say. Up to
//! xnu-11417 the fields `immediate`, `hdrcmplt`, `async` and `headdrop` always read 0; they are not read
//! here.

use crate::bytes::{byte, id, long, name, word};

/// Bytes of a row that are read: up to the end of `bd_ifname`.
const READ: usize = 96;
/// Rows that are read at most; the kernel has no more than 256 devices (bsd/net/bpf.c `bpf_maxdevices`).
const MAX_ROWS: usize = 1024;

/// An open BPF descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfRow {
    /// N of `/dev/bpfN`.
    pub minor: u32,
    /// Process that opened it. It stays when the descriptor was passed on or that process is dead.
    pub opener: u32,
    /// Name of the interface; empty until it is attached.
    pub interface: Vec<u8>,
    /// It asked for promiscuous mode (BIOCPROMISC).
    pub promiscuous: bool,
    /// Packets that the interface saw since it was attached.
    pub received: u64,
    /// Packets that passed its filter: what it can read.
    pub matched: u64,
}

/// Why the table could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatsError {
    /// A row says that it is smaller than what every kernel has.
    #[error("a row of {0} bytes, smaller than any known")]
    RowSize(u32),
    /// The bytes end within a row.
    #[error("{0} bytes are left after the last whole row")]
    CutShort(usize),
    /// There are more rows than the kernel has devices.
    #[error("more than {MAX_ROWS} rows")]
    TooMany,
}

/// All rows.
///
/// # Errors
/// When a row is too small, the bytes end within one, or there are too many.
pub fn rows(bytes: &[u8]) -> Result<Vec<BpfRow>, StatsError> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = word(rest, 0).ok_or(StatsError::CutShort(rest.len()))?;
        if (size as usize) < READ {
            return Err(StatsError::RowSize(size));
        }
        if out.len() == MAX_ROWS {
            return Err(StatsError::TooMany);
        }
        let cut = StatsError::CutShort(rest.len());
        let (this, next) = rest.split_at_checked(size as usize).ok_or(cut)?;
        out.extend(row(this));
        rest = next;
    }
    Ok(out)
}

/// `None` for a row without a device.
fn row(row: &[u8]) -> Option<BpfRow> {
    Some(BpfRow {
        minor: id(row, 4)?,
        opener: id(row, 24).unwrap_or(0),
        promiscuous: byte(row, 28)? != 0,
        received: long(row, 40)?,
        matched: long(row, 56)?,
        interface: name(row, 80, 16)?.to_vec(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A row as the kernel lays it out, of `size` bytes.
    pub(crate) fn bytes(row: &BpfRow, size: usize) -> Vec<u8> {
        let mut out = vec![0xee; size];
        out[..4].copy_from_slice(&u32::try_from(size).unwrap().to_ne_bytes());
        out[4..8].copy_from_slice(&row.minor.to_ne_bytes());
        out[24..28].copy_from_slice(&row.opener.to_ne_bytes());
        out[28] = row.promiscuous.into();
        out[40..48].copy_from_slice(&row.received.to_ne_bytes());
        out[56..64].copy_from_slice(&row.matched.to_ne_bytes());
        out[80..96].fill(0);
        out[80..80 + row.interface.len()].copy_from_slice(&row.interface);
        out
    }

    fn sample(minor: u32, interface: &str) -> BpfRow {
        BpfRow {
            minor,
            opener: 501,
            interface: interface.into(),
            promiscuous: minor == 1,
            received: 1 << 40,
            matched: 7,
        }
    }

    #[test]
    fn walks_by_the_size_that_each_row_says() {
        let all = [sample(0, "en0"), sample(1, ""), sample(2, "bridge100_16byte")];
        for size in [READ, 136, 200] {
            let table: Vec<u8> = all.iter().flat_map(|row| bytes(row, size)).collect();
            assert_eq!(rows(&table).unwrap(), all, "{size}");
        }
        let mixed = [bytes(&all[0], 136), bytes(&all[1], 144)].concat();
        assert_eq!(rows(&mixed).unwrap(), all[..2]);
        assert_eq!(rows(&[]).unwrap(), []);
    }

    #[test]
    fn refuses_what_it_cannot_walk() {
        let one = bytes(&sample(0, "en0"), 136);
        assert_eq!(rows(&one[..100]), Err(StatsError::CutShort(100)));
        assert_eq!(rows(&one[..3]), Err(StatsError::CutShort(3)));
        for size in [0u32, 4, 95] {
            let mut small = one.clone();
            small[..4].copy_from_slice(&size.to_ne_bytes());
            assert_eq!(rows(&small), Err(StatsError::RowSize(size)));
        }
        assert_eq!(rows(&one.repeat(MAX_ROWS + 1)), Err(StatsError::TooMany));
    }
}
