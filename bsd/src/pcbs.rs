//! The sysctls `net.inet.raw.pcblist` and `net.inet.divert.pcblist`: raw IP sockets, of IPv6 too, and bound
//! divert sockets, of one network stack (sys/netinet/raw_ip.c `rip_pcblist`, sys/netinet/ip_divert.c
//! `div_pcblist`).
//!
//! They name the socket by the address that `kern.file` has of it. Who has it is not told, and `kern.file` does
//! not tell what sort of socket it is: only both together answer.

use core::mem::offset_of;

use crate::bytes::{byte, long};
use crate::layout::{Xinpcb, Xinpgen};
use crate::raw::PcbRow;
use crate::stats::TableError;

/// INP_IPV6PROTO of netinet/in_pcb.h: opened as an IPv6 socket.
pub const INP_IPV6PROTO: u8 = 4;
/// Rows that are read at most.
pub const MAX_ROWS: usize = 64 * 1024;

/// All rows. Before and after them stands how many there are.
///
/// # Errors
/// When a row has another size than this build knows, the bytes end within one, or there are too many.
pub fn rows(bytes: &[u8]) -> Result<Vec<PcbRow>, TableError> {
    let (row, counts) = (size_of::<Xinpcb>(), size_of::<Xinpgen>());
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let cut = TableError::CutShort { rest: rest.len() };
        let found = long(rest, 0).ok_or(cut)?;
        let size = usize::try_from(found).unwrap_or(0);
        if size != row && size != counts {
            return Err(TableError::RowSize { found, known: row });
        }
        let (this, after) = rest.split_at_checked(size).ok_or(cut)?;
        if size == row {
            if out.len() == MAX_ROWS {
                return Err(TableError::TooMany { limit: MAX_ROWS });
            }
            out.push(pcb(this).ok_or(cut)?);
        }
        rest = after;
    }
    Ok(out)
}

fn pcb(row: &[u8]) -> Option<PcbRow> {
    let port = offset_of!(Xinpcb, local_port);
    Some(PcbRow {
        socket: long(row, offset_of!(Xinpcb, socket))?,
        protocol: byte(row, offset_of!(Xinpcb, ip_protocol))?,
        ip_version: match byte(row, offset_of!(Xinpcb, version))? & INP_IPV6PROTO {
            0 => 4,
            _ => 6,
        },
        port: u16::from_be_bytes([byte(row, port)?, byte(row, port + 1)?]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table as `rip_pcblist` writes it; the numbers are made up.
    fn table(rows: &[PcbRow]) -> Vec<u8> {
        let counts = {
            let mut bytes = vec![0; size_of::<Xinpgen>()];
            bytes[..8].copy_from_slice(&64u64.to_ne_bytes());
            bytes
        };
        let mut out = counts.clone();
        for row in rows {
            let mut bytes = vec![0; size_of::<Xinpcb>()];
            bytes[..8].copy_from_slice(&400u64.to_ne_bytes());
            bytes[16..24].copy_from_slice(&row.socket.to_ne_bytes());
            bytes[254..256].copy_from_slice(&row.port.to_be_bytes());
            bytes[392] = if row.ip_version == 6 { 2 | INP_IPV6PROTO } else { 1 };
            bytes[394] = row.protocol;
            out.extend(bytes);
        }
        out.extend(counts);
        out
    }

    #[test]
    fn reads_sockets_between_their_counts() {
        let ping = PcbRow { socket: 0xffff_f800_0123_4000, protocol: 1, ip_version: 4, port: 0 };
        let rtadvd = PcbRow { protocol: 58, ip_version: 6, ..ping };
        let natd = PcbRow { protocol: 0, port: 8668, ..ping };
        let all = [ping, rtadvd, natd];
        assert_eq!(rows(&table(&all)).unwrap(), all);
        assert_eq!(rows(&table(&[])).unwrap(), []);
        assert_eq!(rows(&[]).unwrap(), []);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let row = PcbRow { socket: 1, protocol: 1, ip_version: 4, port: 0 };
        let bytes = table(&[row]);
        assert_eq!(rows(&bytes[..100]), Err(TableError::CutShort { rest: 36 }));
        assert_eq!(rows(&bytes[..5]), Err(TableError::CutShort { rest: 5 }));
        let mut other = bytes.clone();
        other[64] = 0;
        assert_eq!(rows(&other), Err(TableError::RowSize { found: 256, known: 400 }));
        let mut none = bytes;
        none[..8].fill(0);
        assert!(matches!(rows(&none), Err(TableError::RowSize { found: 0, .. })));
        let many = vec![row; MAX_ROWS + 1];
        assert_eq!(rows(&table(&many)), Err(TableError::TooMany { limit: MAX_ROWS }));
    }
}
