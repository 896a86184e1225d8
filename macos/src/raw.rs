//! An Endpoint Security message with what bpfwatch wants of it, owned.
//!
//! The live sensor fills it from `es_message_t`, the eslogger decoder from JSON; from here on both go
//! the same way. There is no field for environment variables, so none can be kept.

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;

/// One message (`es_message_t`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When it happened (`time`).
    pub at: Timestamp,
    /// The process that did it, before an exec (`process`).
    pub process: EsProcess,
    /// What it did.
    pub event: Event,
}

/// The events that bpfwatch subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `ES_EVENT_TYPE_NOTIFY_EXEC` (9).
    Exec {
        /// The process as it is now.
        target: Box<EsProcess>,
        /// Its arguments.
        args: Arguments,
        /// Its working directory.
        cwd: Option<Text>,
    },
    /// `ES_EVENT_TYPE_NOTIFY_OPEN` (10): a successful open.
    Open {
        /// Path of the file.
        path: Text,
    },
    /// `ES_EVENT_TYPE_NOTIFY_FORK` (11).
    Fork {
        /// The new process.
        child: Box<EsProcess>,
    },
    /// `ES_EVENT_TYPE_NOTIFY_CLOSE` (12): one descriptor was closed.
    Close {
        /// Path of the file.
        path: Text,
    },
    /// `ES_EVENT_TYPE_NOTIFY_EXIT` (15).
    Exit,
    /// `ES_EVENT_TYPE_NOTIFY_SETMODE` (29).
    SetMode {
        /// Path of the file.
        path: Text,
        /// New mode.
        mode: u32,
    },
    /// `ES_EVENT_TYPE_NOTIFY_SETOWNER` (30). An id of [`UNCHANGED`] stays as it was (chown(2)).
    SetOwner {
        /// Path of the file.
        path: Text,
        /// New owner.
        uid: u32,
        /// New group.
        gid: u32,
    },
    /// `ES_EVENT_TYPE_NOTIFY_OD_GROUP_ADD` (132, macOS 14): somebody was added to a group.
    GroupAdd {
        /// Who asked the directory service for it; absent when that process is gone.
        instigator: Option<Box<EsProcess>>,
        /// Name of the group.
        group: Text,
        /// Who was added: a name, or a UUID where the directory service has been told that.
        member: Option<Text>,
    },
    /// `ES_EVENT_TYPE_NOTIFY_PROFILE_REMOVE` (127, macOS 14): a configuration profile was removed.
    ProfileRemove {
        /// Who asked for it; absent when that process is gone.
        instigator: Option<Box<EsProcess>>,
        /// `PayloadIdentifier` of the profile.
        identifier: Text,
    },
}

/// A path as told. Of one that the kernel cut nobody says how long it was: at least a byte more.
pub fn path(path: Text, is_truncated: bool) -> Text {
    if is_truncated {
        let kept = path.as_str().as_bytes();
        return Text::from_bytes_cut(kept, kept.len() as u64 + 1);
    }
    path
}

/// A name that is empty where there is none.
pub fn given(name: Text) -> Option<Text> {
    (!name.as_str().is_empty()).then_some(name)
}

/// A code directory hash in hexadecimal; zeros stand for none.
pub fn cdhash(hexadecimal: &str) -> Option<Text> {
    let any = hexadecimal.bytes().any(|digit| digit != b'0');
    any.then(|| Text::from(hexadecimal.to_ascii_lowercase()))
}

/// A UUID as the directory service prints it.
pub fn uuid(bytes: [u8; 16]) -> Text {
    let number = format!("{:032X}", u128::from_be_bytes(bytes));
    let parts = [&number[..8], &number[8..12], &number[12..16], &number[16..20], &number[20..]];
    Text::from(parts.join("-"))
}

/// The uid or gid that chown(2) leaves alone: -1.
pub const UNCHANGED: u32 = u32::MAX;

/// A process (`es_process_t`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EsProcess {
    /// From its audit token (`audit_token_to_pid`).
    pub pid: u32,
    /// From its audit token (`audit_token_to_pidversion`): a reused pid and an exec both raise it.
    pub pidversion: u32,
    /// From its audit token (`audit_token_to_euid`).
    pub euid: Option<u32>,
    /// Parent now.
    pub ppid: Option<u32>,
    /// Pid and pidversion of the process that answers for it (`responsible_audit_token`); itself where none does.
    pub responsible: Option<(u32, u32)>,
    /// Session id.
    pub session_id: Option<u32>,
    /// Path of the executable.
    pub executable: Option<Text>,
    /// Owner of the executable file (`st_uid`).
    pub executable_owner: Option<u32>,
    /// Controlling terminal's path.
    pub tty: Option<Text>,
    /// `CS_*` flags (xnu osfmk/kern/cs_blobs.h).
    pub codesigning_flags: Option<u32>,
    /// Signing identifier.
    pub signing_id: Option<Text>,
    /// Team identifier.
    pub team_id: Option<Text>,
    /// Code directory hash, lower-case hexadecimal.
    pub cdhash: Option<Text>,
    /// Part of the operating system.
    pub platform_binary: Option<bool>,
}

/// `CS_VALID` (xnu osfmk/kern/cs_blobs.h): the signature still holds.
pub const CS_VALID: u32 = 0x0000_0001;
/// `CS_SIGNED` (ibid.): there is a signature at all.
pub const CS_SIGNED: u32 = 0x2000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_printed_as_everywhere() {
        let bytes = [0xab, 0xcd, 0xef, 0xab, 0xcd, 0xef, 0xab, 0xcd, 0, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(uuid(bytes).as_str(), "ABCDEFAB-CDEF-ABCD-0001-020304050607");
    }
}
