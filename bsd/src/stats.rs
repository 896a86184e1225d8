//! The sysctl `net.bpf.stats`: every BPF descriptor that is attached to an interface
//! (sys/net/bpf.c `bpf_stats_sysctl`).
//!
//! Only the attached ones appear: who has opened one and not yet attached it stands in `kern.file`. Up to
//! 15 the host sees all vnets; from 16 only its own.

use core::mem::offset_of;

use crate::bytes::{byte, id, long, name, signed, word};
use crate::layout::XbpfD;
use crate::raw::BpfRow;

/// Rows that are read at most: the kernel gives out minors without end, and allocates what is asked for.
pub const MAX_ROWS: usize = 16 * 1024;

/// From this osreldate on the table has the rows of the reader's own network stack alone (sys/net/bpf.c: the
/// list is virtualised).
pub const PER_VNET_SINCE: u32 = 1_600_006;

/// Whether a kernel of that osreldate has a table for each network stack, instead of one for all. Of one that
/// does not say its release all rows are taken to be in one table, as in every release so far.
pub fn is_per_vnet(release: Option<u32>) -> bool {
    release.is_some_and(|release| release >= PER_VNET_SINCE)
}

/// Why a table could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A row says that it has another size than this build knows.
    #[error("a row of {found} bytes, known are rows of {known}")]
    RowSize {
        /// What it says.
        found: u64,
        /// What is known.
        known: usize,
    },
    /// The bytes end within a row.
    #[error("{rest} bytes are left after the last whole row")]
    CutShort {
        /// How many.
        rest: usize,
    },
    /// There are more rows than are read.
    #[error("more than {limit} rows")]
    TooMany {
        /// How many are.
        limit: usize,
    },
}

/// All rows.
///
/// # Errors
/// When a row has another size than this build knows, the bytes end within one, or there are too many.
pub fn rows(bytes: &[u8]) -> Result<Vec<BpfRow>, TableError> {
    let known = size_of::<XbpfD>();
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(found) = word(rest, offset_of!(XbpfD, structsize)) else {
            return Err(TableError::CutShort { rest: rest.len() });
        };
        if found as usize != known {
            return Err(TableError::RowSize { found: found.into(), known });
        }
        if out.len() == MAX_ROWS {
            return Err(TableError::TooMany { limit: MAX_ROWS });
        }
        let Some(row) = rest.get(..known).and_then(row) else {
            return Err(TableError::CutShort { rest: rest.len() });
        };
        out.push(row);
        rest = &rest[known..];
    }
    Ok(out)
}

fn row(row: &[u8]) -> Option<BpfRow> {
    Some(BpfRow {
        pid: id(row, offset_of!(XbpfD, pid)).unwrap_or(0),
        interface: name(row, offset_of!(XbpfD, ifname), 16)?.to_vec(),
        promiscuous: byte(row, offset_of!(XbpfD, promisc))? != 0,
        received: long(row, offset_of!(XbpfD, rcount))?,
        matched: long(row, offset_of!(XbpfD, fcount))?,
        dropped: long(row, offset_of!(XbpfD, dcount))?,
        written: long(row, offset_of!(XbpfD, wcount))?,
        buffer: id(row, offset_of!(XbpfD, bufsize)).unwrap_or(0),
        locked: signed(row, offset_of!(XbpfD, locked))? != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &[u8] = include_bytes!("../tests/data/net.bpf.stats-three.bin");
    const QUIET: &[u8] = include_bytes!("../tests/data/net.bpf.stats-one-nonpromisc.bin");

    #[test]
    fn reads_what_a_kernel_gave() {
        let rows = rows(THREE).unwrap();
        let short: Vec<_> = rows
            .iter()
            .map(|row| (row.pid, row.interface.as_slice(), row.promiscuous, row.buffer))
            .collect();
        assert_eq!(
            short,
            [
                (115, b"epair0b".as_slice(), true, 524_288),
                (116, b"lo0", false, 524_288),
                (114, b"vtnet0", true, 524_288),
            ]
        );
        let quiet = super::rows(QUIET).unwrap();
        assert_eq!((quiet[0].pid, quiet[0].received, quiet[0].matched), (88, 4, 4));
        assert!(!quiet[0].promiscuous && !quiet[0].locked);
        assert_eq!(super::rows(&[]).unwrap(), []);
    }

    #[test]
    fn one_table_for_all_stacks_until_16() {
        for (release, per_vnet) in [
            (None, false),
            (Some(1_302_001), false),
            (Some(1_501_000), false),
            (Some(1_600_005), false),
            (Some(1_600_006), true),
            (Some(1_700_000), true),
        ] {
            assert_eq!(is_per_vnet(release), per_vnet, "{release:?}");
        }
    }

    #[test]
    fn refuses_rows_of_another_size() {
        let mut other = QUIET.to_vec();
        other[0] = 176;
        assert_eq!(rows(&other), Err(TableError::RowSize { found: 176, known: 168 }));
        assert_eq!(rows(&THREE[..400]), Err(TableError::CutShort { rest: 64 }));
        assert_eq!(rows(&THREE[..3]), Err(TableError::CutShort { rest: 3 }));
        let many = QUIET.repeat(MAX_ROWS + 1);
        assert_eq!(rows(&many), Err(TableError::TooMany { limit: MAX_ROWS }));
        assert_eq!(rows(&many[168..]).unwrap().len(), MAX_ROWS);
    }
}
