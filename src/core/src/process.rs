//! The process that an observation is about, and its ancestors.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::arguments::Arguments;
use crate::logged::Fields;
use crate::scope::Scope;
use crate::text::Text;

/// What tells a process from another one with the same pid.
///
/// `start` is opaque and compared only for equality within one boot: clock ticks since boot on Linux
/// (`/proc/PID/stat` field 22), microseconds of `ki_start` on FreeBSD, `pidversion` on macOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Process id in the host's numbering.
    pub pid: u32,
    /// Start marker; `None` where the source does not tell.
    pub start: Option<u64>,
}

/// A process as far as the source of the observation knew it. Unknown is `None`, never a default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Process id in the host's numbering.
    pub pid: u32,
    /// Start marker, see [`ProcessKey`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// Parent's process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    /// Session id: the pid of the process that leads its terminal session (setsid).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<u32>,
    /// Effective user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Name of that user in the host's user database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Text>,
    /// The kernel's short name (`comm`); any process can change its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// Path of the executable, as the process sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Text>,
    /// Arguments, `argv[0]` first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Arguments>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Text>,
    /// Controlling terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<Text>,
    /// User id that owns the executable file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_owner: Option<u32>,
    /// The executable has been unlinked, or never had a name (memfd).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_deleted: Option<bool>,
    /// The executable's directory, or one above it, may be written by users other than root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_writable_dir: Option<bool>,
    /// Service manager's unit that it belongs to (systemd unit, launchd label, rc.d service).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Text>,
    /// Code signature, where the OS has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Box<CodeIdentity>>,
    /// What a log says of it beyond all this, under Sigma's names (`OriginalFileName`, `Hashes` ...).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Fields>>,
    /// Host, jail, container or namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Arc<Scope>>,
    /// The process that the system holds responsible for it, where that is another one (macOS): the
    /// application on whose behalf it runs. Sensors give pid and start: the tracker fills in the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub responsible: Option<Arc<Ancestor>>,
    /// Parent first, then its parent. Sensors leave it empty: the tracker fills it in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Arc<Ancestor>>,
}

/// One ancestor of a process, or who is responsible for it; its arguments keep 1 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ancestor {
    /// Process id.
    pub pid: u32,
    /// Start marker, see [`ProcessKey`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// Path of the executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Text>,
    /// Arguments, at most [`ANCESTOR_ARGS_LIMIT`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Arguments>,
}

/// Bytes of arguments kept of each ancestor.
pub const ANCESTOR_ARGS_LIMIT: usize = 1024;

/// A code signature as macOS reports it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CodeIdentity {
    /// Signing identifier, such as `com.apple.airport.airportd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_id: Option<Text>,
    /// Team identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team_id: Option<Text>,
    /// Code directory hash, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdhash: Option<Text>,
    /// Part of the operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_binary: Option<bool>,
}

impl Process {
    /// A process of which only the pid is known.
    pub fn from_pid(pid: u32) -> Self {
        Self { pid, ..Self::default() }
    }

    /// Pid and start.
    pub fn key(&self) -> ProcessKey {
        ProcessKey { pid: self.pid, start: self.start }
    }

    /// Whether both name the same process: the pid is equal, and the start where both know it.
    pub fn is_same(&self, other: ProcessKey) -> bool {
        self.pid == other.pid
            && match (self.start, other.start) {
                (Some(mine), Some(theirs)) => mine == theirs,
                _ => true,
            }
    }

    /// Memory that it takes, in bytes, roughly.
    pub fn weight(&self) -> usize {
        let ancestors = self.ancestors.iter().map(|ancestor| {
            size_of::<Ancestor>()
                + ancestor.image.as_ref().map_or(0, Text::weight)
                + ancestor.args.as_ref().map_or(0, Arguments::weight)
        });
        self.own_weight() + ancestors.sum::<usize>()
    }

    /// The same without its ancestors.
    pub fn own_weight(&self) -> usize {
        let texts = [&self.user, &self.name, &self.image, &self.cwd, &self.tty, &self.unit];
        size_of::<Self>()
            + texts.iter().map(|text| text.as_ref().map_or(0, Text::weight)).sum::<usize>()
            + self.args.as_ref().map_or(0, Arguments::weight)
            + self.identity.as_ref().map_or(0, |_| size_of::<CodeIdentity>() + 128)
            + self.details.as_ref().map_or(0, |details| size_of::<Fields>() + details.weight())
    }
}
