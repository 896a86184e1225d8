//! The sysctl `kern.file`: every descriptor of every process in one call (sys/kern/kern_descrip.c
//! `sysctl_kern_file`).
//!
//! A descriptor in a message between two processes has no row. Addresses are the truth about what is the
//! same file, and read as 0 for users other than root.

use core::mem::offset_of;

use crate::bytes::{id, long, signed, signed_half, word};
use crate::layout::Xfile;
use crate::raw::FileRow;
use crate::stats::TableError;

/// DTYPE_VNODE of sys/file.h.
pub const DTYPE_VNODE: i16 = 1;
/// DTYPE_SOCKET of sys/file.h.
pub const DTYPE_SOCKET: i16 = 2;

/// The rows that `wanted` takes. All are looked at; on a busy host few of a hundred thousand matter.
///
/// # Errors
/// When a row has another size than this build knows, or the bytes end within one.
pub fn rows(
    bytes: &[u8],
    mut wanted: impl FnMut(&FileRow) -> bool,
) -> Result<Vec<FileRow>, TableError> {
    let known = size_of::<Xfile>();
    let mut out = Vec::new();
    let mut chunks = bytes.chunks_exact(known);
    for chunk in chunks.by_ref() {
        let found = long(chunk, offset_of!(Xfile, size)).unwrap_or(0);
        if found != known as u64 {
            return Err(TableError::RowSize { found, known });
        }
        out.extend(row(chunk).filter(|row| wanted(row)));
    }
    match chunks.remainder().len() {
        0 => Ok(out),
        rest => Err(TableError::CutShort { rest }),
    }
}

/// `None` for a row of the kernel's own, which has no process.
fn row(row: &[u8]) -> Option<FileRow> {
    Some(FileRow {
        pid: id(row, offset_of!(Xfile, pid))?,
        uid: word(row, offset_of!(Xfile, uid))?,
        fd: signed(row, offset_of!(Xfile, fd))?,
        file: long(row, offset_of!(Xfile, file))?,
        kind: signed_half(row, offset_of!(Xfile, kind))?,
        data: long(row, offset_of!(Xfile, data))?,
        vnode: long(row, offset_of!(Xfile, vnode))?,
        flags: word(row, offset_of!(Xfile, flag))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[u8] = include_bytes!("../tests/data/kern.file.bin");
    /// The device's address on the machine of the recording.
    const BPF: u64 = 0xffff_f800_0220_5c00;

    #[test]
    fn finds_the_holders_over_all_mounts() {
        assert_eq!(rows(FILES, |_| true).unwrap().len(), 30);
        let holders = rows(FILES, |row| row.data == BPF).unwrap();
        let short: Vec<_> = holders.iter().map(|row| (row.pid, row.fd, row.flags)).collect();
        assert_eq!(short, [(116, 3, 3), (115, 3, 3), (114, 3, 3)]);
        assert!(holders.iter().all(|row| row.kind == DTYPE_VNODE && row.uid == 0));
        let mut vnodes: Vec<_> = holders.iter().map(|row| row.vnode).collect();
        vnodes.dedup();
        assert_eq!(vnodes.len(), 3, "one for each mount");
        assert_eq!(holders[0].file, 0xffff_f800_01ab_7410);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(rows(&FILES[..200], |_| true), Err(TableError::CutShort { rest: 72 }));
        let mut other = FILES.to_vec();
        other[128] = 120;
        assert_eq!(rows(&other, |_| true), Err(TableError::RowSize { found: 120, known: 128 }));
        assert_eq!(rows(&[], |_| true).unwrap(), []);
    }
}
