//! The audit pipe as a live source (auditpipe(4)): every execution, and where asked for every open of a BPF
//! device, with its process and jail. Pure; what reads the pipe is in `auditpipe`.
//!
//! | module | duty |
//! |---|---|
//! | [`stream`] | what reads of the pipe give, to executions and opens |
//! | [`execs`] | executions that records and kqueue both tell, said once |
//! | [`openers`] | opens that records and `kern.file` both tell, said once |
//!
//! kqueue and the tables go on beside it: they know what records do not (start, parent, terminal, who holds a
//! descriptor later), and they are what is left when the pipe drops records.

pub mod execs;
pub mod openers;
pub mod stream;

/// What auditpipe(4) is asked (security/audit/audit_ioctl.h). AUDITPIPE_SET_QLIMIT: records that wait.
pub const SET_QLIMIT: u64 = 0x8004_4103;
/// AUDITPIPE_SET_PRESELECT_FLAGS: classes of users who logged in.
pub const SET_FLAGS: u64 = 0x8008_4107;
/// AUDITPIPE_SET_PRESELECT_NAFLAGS: classes of processes that belong to no login, as daemons do.
pub const SET_NAFLAGS: u64 = 0x8008_4109;
/// AUDITPIPE_SET_PRESELECT_MODE.
pub const SET_MODE: u64 = 0x8004_410f;
/// AUDITPIPE_FLUSH: throws away what waits.
pub const FLUSH: u64 = 0x2000_4110;
/// AUDITPIPE_GET_DROPS: records that found no room since it was opened.
pub const GET_DROPS: u64 = 0x4008_4166;
/// FIONBIO of sys/filio.h; a flag of open(2) the device does not look at.
pub const FIONBIO: u64 = 0x8004_667e;

/// AUDITPIPE_PRESELECT_MODE_LOCAL: the pipe's own selection, whatever audit_control(5) selects for the trail.
pub const MODE_LOCAL: u32 = 2;
/// AUDIT_PIPE_QLIMIT_MAX of security/audit/audit_pipe.c.
pub const QLIMIT: u32 = 1024;

/// A_GETCOND of bsm/audit.h: whether the system audits.
pub const A_GETCOND: i32 = 37;
/// AUC_AUDITING of bsm/audit.h: it does.
pub const AUC_AUDITING: i32 = 1;

/// Classes of audit_class(5): `ex`, executions.
pub const EXECUTIONS: u32 = 0x4000_0000;
/// `fr` and `fw`, opens for reading and for writing.
pub const OPENS: u32 = 0x1 | 0x2;

/// Bytes of the argument of an ioctl (IOCPARM_LEN of sys/ioccom.h).
pub const fn parameter_size(command: u64) -> usize {
    (command >> 16 & 0x1fff) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stand_in_the_commands() {
        assert_eq!(parameter_size(SET_FLAGS), 8);
        assert_eq!(parameter_size(SET_MODE), 4);
        assert_eq!(parameter_size(GET_DROPS), 8);
        assert_eq!(parameter_size(FLUSH), 0);
    }
}
