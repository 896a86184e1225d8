//! The sysctl `kern.proc.filedesc`: descriptors of one process, with paths (sys/kern/kern_descrip.c
//! `sysctl_kern_proc_filedesc`). Dear: it is asked only where `kern.file` hides addresses, and for sockets.

use core::mem::offset_of;

use crate::bytes::{half, long, signed, until_nul};
use crate::layout::KinfoFile;
use crate::raw::{FdRow, SocketRow, VnodeRow};
use crate::stats::TableError;

/// KF_TYPE_VNODE of sys/user.h.
pub const KF_TYPE_VNODE: i32 = 1;
/// KF_TYPE_SOCKET of sys/user.h.
pub const KF_TYPE_SOCKET: i32 = 2;
/// KF_VTYPE_VCHR of sys/user.h: a character device.
pub const KF_VTYPE_VCHR: i32 = 4;
/// KF_FD_TYPE_CWD of sys/user.h.
pub const KF_FD_TYPE_CWD: i32 = -1;
/// Rows that are read at most of one process: kern.maxfilesperproc is below it.
const MAX_ROWS: usize = 1024 * 1024;

/// All rows. They are packed: each says how long it is.
///
/// # Errors
/// When a row is shorter than its fixed part or longer than the struct, or the bytes end within one.
pub fn rows(bytes: &[u8]) -> Result<Vec<FdRow>, TableError> {
    let fixed = offset_of!(KinfoFile, path);
    let whole = size_of::<KinfoFile>();
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let cut = TableError::CutShort { rest: rest.len() };
        let found = signed(rest, offset_of!(KinfoFile, structsize)).ok_or(cut)?;
        let size = usize::try_from(found).unwrap_or(0);
        if size < fixed || size > whole {
            let found = u64::try_from(found).unwrap_or(0);
            return Err(TableError::RowSize { found, known: whole });
        }
        if out.len() == MAX_ROWS {
            return Err(TableError::TooMany { limit: MAX_ROWS });
        }
        let (this, after) = rest.split_at_checked(size).ok_or(cut)?;
        out.push(row(this).ok_or(cut)?);
        rest = after;
    }
    Ok(out)
}

fn row(row: &[u8]) -> Option<FdRow> {
    let kind = signed(row, offset_of!(KinfoFile, kind))?;
    let vnode = VnodeRow {
        kind: signed(row, offset_of!(KinfoFile, vnode_type))?,
        rdev: long(row, offset_of!(KinfoFile, rdev))?,
        mode: half(row, offset_of!(KinfoFile, mode))?,
    };
    let socket = SocketRow {
        domain: signed(row, offset_of!(KinfoFile, sock_domain))?,
        kind: signed(row, offset_of!(KinfoFile, sock_type))?,
        protocol: signed(row, offset_of!(KinfoFile, sock_protocol))?,
    };
    Some(FdRow {
        fd: signed(row, offset_of!(KinfoFile, fd))?,
        kind,
        flags: signed(row, offset_of!(KinfoFile, flags))?,
        vnode: (kind == KF_TYPE_VNODE).then_some(vnode),
        socket: (kind == KF_TYPE_SOCKET).then_some(socket),
        path: until_nul(row.get(offset_of!(KinfoFile, path)..)?).to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCPDUMP: &[u8] = include_bytes!("../tests/data/kern.proc.filedesc-tcpdump.bin");

    #[test]
    fn reads_the_descriptors_of_tcpdump() {
        let rows = rows(TCPDUMP).unwrap();
        let fds: Vec<_> = rows.iter().map(|row| row.fd).collect();
        assert_eq!(fds, [-5, -6, -1, -2, 0, 1, 2, 3, 4]);
        let bpf = rows.iter().find(|row| row.fd == 3).unwrap();
        assert_eq!(bpf.path, b"/dev/bpf");
        assert_eq!(bpf.flags, 3);
        let vnode = bpf.vnode.unwrap();
        assert_eq!((vnode.kind, vnode.rdev, vnode.mode), (KF_VTYPE_VCHR, 0x1a, 0o20600));
        assert_eq!(rows[2].path, b"/payload");
        assert!(rows.iter().all(|row| row.socket.is_none()));
    }

    #[test]
    fn refuses_rows_that_lie_about_their_size() {
        for size in [0i32, -1, 367, 1393] {
            let mut bytes = TCPDUMP.to_vec();
            bytes[..4].copy_from_slice(&size.to_ne_bytes());
            assert!(matches!(rows(&bytes), Err(TableError::RowSize { .. })), "{size}");
        }
        let left = TCPDUMP.len() - 10;
        assert!(matches!(rows(&TCPDUMP[..left]), Err(TableError::CutShort { .. })));
        assert_eq!(rows(&[]).unwrap(), []);
    }
}
