//! The sysctls `kern.proc.proc`, `kern.proc.pid`, `kern.proc.args` and `kern.proc.pathname`
//! (sys/kern/kern_proc.c).

use core::mem::offset_of;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::text::Text;

use crate::bytes::{byte, id, long, name, signed, signed_long, until_nul, word};
use crate::layout::KinfoProc;
use crate::raw::ProcRow;
use crate::stats::TableError;

/// SZOMB of sys/proc.h: it has ended and nobody has asked how.
pub const SZOMB: u8 = 5;
/// P_SYSTEM of sys/proc.h: a part of the kernel.
pub const P_SYSTEM: u64 = 0x200;
/// PATH_MAX of sys/syslimits.h.
const PATH_MAX: usize = 1024;

/// All processes.
///
/// # Errors
/// When a row has another size than this build knows, or the bytes end within one.
pub fn rows(bytes: &[u8]) -> Result<Vec<ProcRow>, TableError> {
    let known = size_of::<KinfoProc>();
    let mut out = Vec::with_capacity(bytes.len() / known);
    let mut chunks = bytes.chunks_exact(known);
    for chunk in chunks.by_ref() {
        let found = signed(chunk, offset_of!(KinfoProc, structsize)).unwrap_or(0);
        if usize::try_from(found) != Ok(known) {
            let found = u64::try_from(found).unwrap_or(0);
            return Err(TableError::RowSize { found, known });
        }
        out.extend(row(chunk));
    }
    match chunks.remainder().len() {
        0 => Ok(out),
        rest => Err(TableError::CutShort { rest }),
    }
}

fn row(row: &[u8]) -> Option<ProcRow> {
    let seconds = u64::try_from(signed_long(row, offset_of!(KinfoProc, start_sec))?).ok()?;
    let micros = u64::try_from(signed_long(row, offset_of!(KinfoProc, start_usec))?).ok()?;
    Some(ProcRow {
        pid: id(row, offset_of!(KinfoProc, pid))?,
        ppid: id(row, offset_of!(KinfoProc, ppid))?,
        sid: id(row, offset_of!(KinfoProc, sid)).unwrap_or(0),
        uid: word(row, offset_of!(KinfoProc, uid))?,
        start: seconds.checked_mul(1_000_000)?.checked_add(micros)?,
        flags: long(row, offset_of!(KinfoProc, flag))?,
        state: byte(row, offset_of!(KinfoProc, stat))?,
        comm: name(row, offset_of!(KinfoProc, comm), 20)?.to_vec(),
        tty: long(row, offset_of!(KinfoProc, tdev))?,
        tracer: id(row, offset_of!(KinfoProc, tracer)).unwrap_or(0),
        jid: id(row, offset_of!(KinfoProc, jid))?,
    })
}

/// Arguments as `kern.proc.args` gives them; `None` where it gives nothing: a part of the kernel, or a
/// process whose arguments are gone.
pub fn arguments(bytes: &[u8]) -> Option<Arguments> {
    (!bytes.is_empty()).then(|| Arguments::from_nul_separated(bytes))
}

/// Path of the program as `kern.proc.pathname` gives it; `None` where it gives nothing.
pub fn path(bytes: &[u8]) -> Option<Text> {
    let path = until_nul(bytes);
    (!path.is_empty()).then(|| Text::from_bytes_limited(path, PATH_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[u8] = include_bytes!("../tests/data/kern.proc.proc.bin");

    #[test]
    fn reads_every_process_of_a_host_with_jails() {
        let rows = rows(ALL).unwrap();
        assert_eq!(rows.len(), 22);
        let of = |pid| rows.iter().find(|row| row.pid == pid).unwrap();
        let (host, vnet, legacy) = (of(114), of(115), of(116));
        assert_eq!((host.jid, vnet.jid, legacy.jid), (0, 3, 1));
        assert_eq!(host.start, 1_795_488_653_427_986);
        assert_eq!((host.ppid, host.uid), (32, 0));
        assert_eq!(host.comm, b"tcpdump");
        assert_eq!(of(4).comm, b"pf purge");
        assert_eq!(vnet.flags & 0x0100_0000, 0x0100_0000, "P_JAILED");
        assert_ne!(of(2).flags & P_SYSTEM, 0);
        assert!(rows.iter().all(|row| row.state != SZOMB && row.tracer == 0));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(rows(&ALL[..1100]), Err(TableError::CutShort { rest: 12 }));
        let mut other = ALL.to_vec();
        other[1] = 5;
        assert!(matches!(rows(&other), Err(TableError::RowSize { found: 1344, .. })));
    }

    #[test]
    fn reads_arguments_and_path() {
        let args = arguments(include_bytes!("../tests/data/kern.proc.args-tcpdump.bin")).unwrap();
        assert_eq!(args.command_line(), "tcpdump -n -i vtnet0 -w /dev/null");
        let image = path(include_bytes!("../tests/data/kern.proc.pathname-tcpdump.bin")).unwrap();
        assert_eq!(image.as_str(), "/usr/sbin/tcpdump");
        assert_eq!(arguments(b""), None);
        assert_eq!(path(b"\0"), None);
    }
}
