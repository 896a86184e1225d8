//! The audit pipe itself: opened, set to what is wanted, read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use bpfwatch_core::platform::Audit;
use bpfwatch_core::sensor::SensorError;

use crate::audit::stream::{Seen, Stream};
use crate::audit::{
    AUC_AUDITING, EXECUTIONS, FIONBIO, FLUSH, MODE_LOCAL, OPENS, QLIMIT, SET_FLAGS, SET_MODE,
    SET_NAFLAGS, SET_QLIMIT,
};
use crate::ffi;

const DEVICE: &str = "/dev/auditpipe";
/// Bytes of one read: all that a full queue of ordinary records has.
const BUFFER: usize = 256 * 1024;
/// How long auditd(8) may take to begin when it was started just before, as at boot.
const BEGIN: Duration = Duration::from_secs(2);

/// An open audit pipe.
pub struct AuditPipe {
    file: File,
    buffer: Vec<u8>,
    drops: u64,
}

/// Whether records are made at all: auditd(8) runs, or somebody else turned auditing on.
///
/// # Errors
/// EPERM for other users than root, ENOSYS where the kernel has no audit.
pub fn is_auditing() -> io::Result<bool> {
    Ok(ffi::audit_condition()? == AUC_AUDITING)
}

/// What is wrong, and what to do about it.
fn refused(error: &io::Error) -> SensorError {
    let mend = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run it as root on the host",
        Some(libc::ENOSYS | libc::ENOENT | libc::ENXIO) => {
            "this needs the host itself and a kernel with `options AUDIT`, as GENERIC is; or set audit = \"off\""
        }
        _ => "set audit = \"off\" to go on without it",
    };
    let what = format!("the audit pipe: {error}");
    SensorError { sensor: "freebsd", what, mend: Some(mend.to_owned()) }
}

impl AuditPipe {
    /// Opens it for `wanted`, which is not [`Audit::Off`].
    ///
    /// # Errors
    /// When auditd(8) does not run, this is not root, or the kernel has no audit.
    pub fn open(wanted: Audit) -> Result<Self, SensorError> {
        let begun = Instant::now();
        while !is_auditing().map_err(|error| refused(&error))? {
            if begun.elapsed() < BEGIN {
                std::thread::sleep(BEGIN / 20);
                continue;
            }
            return Err(SensorError {
                sensor: "freebsd",
                what: "the audit pipe gives nothing: auditd does not run".to_owned(),
                mend: Some(
                    "`sysrc auditd_enable=YES` and `service auditd start`, or set audit = \"off\""
                        .to_owned(),
                ),
            });
        }
        Self::set(wanted).map_err(|error| refused(&error))
    }

    fn set(wanted: Audit) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(DEVICE)?;
        let classes = match wanted {
            Audit::ExecOpen => EXECUTIONS | OPENS,
            Audit::Exec | Audit::Off => EXECUTIONS,
        };
        // What failed opened and executed nothing.
        let selected = [classes, 0];
        ffi::audit_pipe_set(&file, FIONBIO, &[1])?;
        ffi::audit_pipe_set(&file, SET_QLIMIT, &[QLIMIT])?;
        ffi::audit_pipe_set(&file, SET_FLAGS, &selected)?;
        ffi::audit_pipe_set(&file, SET_NAFLAGS, &selected)?;
        ffi::audit_pipe_set(&file, SET_MODE, &[MODE_LOCAL])?;
        let mut pipe = Self { file, buffer: vec![0; BUFFER], drops: 0 };
        pipe.flush()?;
        Ok(pipe)
    }

    /// Throws away what waits: it is of before the start.
    ///
    /// # Errors
    /// As the calls have them.
    pub fn flush(&mut self) -> io::Result<()> {
        ffi::audit_pipe_set(&self.file, FLUSH, &[])?;
        self.drops = ffi::audit_pipe_drops(&self.file)?;
        Ok(())
    }

    /// What kevent(2) is asked about.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Reads once, without waiting: other sources have their turn. Returns how many records were dropped since the
    /// last time.
    ///
    /// # Errors
    /// As read(2) and the calls have them.
    pub fn read(&mut self, stream: &mut Stream, seen: &mut Vec<Seen>) -> io::Result<u64> {
        match self.file.read(&mut self.buffer) {
            Ok(length) => stream.take(&self.buffer[..length], seen),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
        let drops = ffi::audit_pipe_drops(&self.file)?;
        Ok(drops.wrapping_sub(std::mem::replace(&mut self.drops, drops)))
    }
}
