//! One thing that a sensor saw, in the same words on every operating system.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::handle::Handle;
use crate::logged::Logged;
use crate::process::Process;
use crate::text::Text;
use crate::time::Timestamp;
use crate::wire::Wire;

/// Where observations come from. A recording made on FreeBSD replays on Linux as what it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Host name.
    pub host: Text,
    /// Operating system.
    pub os: Os,
    /// Kernel or system version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<Text>,
    /// What tells one boot from another: pids, starts and handle ids are unique only within one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<Text>,
}

/// Operating systems and other event producers, by Sigma's `product`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Os {
    /// Linux.
    Linux,
    /// macOS.
    Macos,
    /// FreeBSD.
    Freebsd,
    /// Windows, by its event log.
    Windows,
    /// A Kubernetes API server, by its audit log.
    Kubernetes,
    /// A Cisco device, by its syslog.
    Cisco,
    /// A Juniper device, by its syslog.
    Juniper,
}

impl Os {
    /// Sigma's `product` and the value of `os` in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Os::Linux => "linux",
            Os::Macos => "macos",
            Os::Freebsd => "freebsd",
            Os::Windows => "windows",
            Os::Kubernetes => "kubernetes",
            Os::Cisco => "cisco",
            Os::Juniper => "juniper",
        }
    }
}

/// One thing that a sensor saw.
///
/// In JSON it is flat, one object a line, see [`Wire`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Observation {
    /// When it happened, or was seen.
    pub at: Timestamp,
    /// Position in the order of processing, within one origin.
    pub seq: u64,
    /// Name of the sensor, such as `linux.packet_diag`.
    pub sensor: Arc<str>,
    /// The process that did it; absent where nobody could tell.
    pub actor: Option<Arc<Process>>,
    /// What happened.
    pub kind: Kind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// The actor was there when the sensor started or resynced: known for ancestry, no new execution.
    Running,
    /// The actor is a new process, copied from its parent.
    Forked,
    /// The actor executed a new image.
    Executed,
    /// The actor ended.
    Exited,
    /// The actor holds the handle: it opened, inherited or received it. A second observation for the
    /// same handle and another actor adds a holder.
    HandleOpened {
        /// The handle.
        handle: Handle,
        /// It was there before the sensor started.
        pre_existing: bool,
    },
    /// The handle can receive packets now, or changed what it receives.
    HandleAttached {
        /// The handle, with what is known now.
        handle: Handle,
    },
    /// Promiscuous mode of one handle (BIOCPROMISC, PACKET_MR_PROMISC).
    Promiscuous {
        /// The handle.
        handle: Handle,
        /// On or off.
        on: bool,
    },
    /// Packets were delivered to the handle.
    HandleActive {
        /// The handle.
        handle: Handle,
        /// Packets since it was opened.
        packets: u64,
    },
    /// The actor no longer holds the handle, which lives on elsewhere.
    HandleReleased {
        /// The handle.
        handle: Handle,
    },
    /// The handle is gone.
    HandleClosed {
        /// The handle.
        handle: Handle,
    },
    /// An interface became promiscuous, or ceased to be, by whatever cause.
    InterfacePromiscuous {
        /// The interface.
        interface: Interface,
        /// On or off.
        on: bool,
    },
    /// Mode, owner or group of a capture device was changed so that more users can open it, or somebody
    /// joined the group that may.
    AccessLoosened {
        /// Device path.
        path: Text,
        /// New permission bits.
        mode: Option<u32>,
        /// New owner.
        uid: Option<u32>,
        /// New group.
        gid: Option<u32>,
        /// Who joined the group.
        member: Option<Text>,
    },
    /// A record of a log that no other kind has words for; the actor is the process that it names.
    Logged {
        /// The record.
        record: Arc<Logged>,
    },
    /// The sensor missed something.
    Lost {
        /// How many events; 0 where only the fact is known.
        count: u64,
        /// Why, in a word or two, such as `proc connector ENOBUFS`.
        why: Text,
    },
}

/// An interface whose promiscuity changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its name.
    pub name: Text,
    /// Inode of its network namespace, where that is not the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u64>,
    /// How many users want it promiscuous (IFLA_PROMISCUITY).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Why it is so for good reason: `bridge`, `bridge port`, `bond`, `bond port` ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Text>,
}

impl Kind {
    /// Name of the kind, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Running => "running",
            Kind::Forked => "forked",
            Kind::Executed => "executed",
            Kind::Exited => "exited",
            Kind::HandleOpened { .. } => "handle_opened",
            Kind::HandleAttached { .. } => "handle_attached",
            Kind::Promiscuous { .. } => "promiscuous",
            Kind::HandleActive { .. } => "handle_active",
            Kind::HandleReleased { .. } => "handle_released",
            Kind::HandleClosed { .. } => "handle_closed",
            Kind::InterfacePromiscuous { .. } => "interface_promiscuous",
            Kind::AccessLoosened { .. } => "access_loosened",
            Kind::Logged { .. } => "logged",
            Kind::Lost { .. } => "lost",
        }
    }

    /// The handle that it is about.
    pub fn handle(&self) -> Option<&Handle> {
        match self {
            Kind::HandleOpened { handle, .. }
            | Kind::HandleAttached { handle }
            | Kind::Promiscuous { handle, .. }
            | Kind::HandleActive { handle, .. }
            | Kind::HandleReleased { handle }
            | Kind::HandleClosed { handle } => Some(handle),
            _ => None,
        }
    }

    /// Whether it may be shed first when the channel is full: process events, which can be had again
    /// from a snapshot. A handle, promiscuous mode or a loss may not.
    pub fn is_sheddable(&self) -> bool {
        matches!(self, Kind::Running | Kind::Forked | Kind::Executed | Kind::Exited)
    }
}

/// Sensors that tell every step of a handle, and every execution before it, in order and at once. What
/// such a sensor has not said has not happened.
const EXACT: [&str; 1] = ["linux.ebpf"];

impl Observation {
    /// Whether it comes from a sensor that tells every step in order, so that nothing that came before
    /// is still on its way.
    pub fn is_exact(&self) -> bool {
        EXACT.contains(&&*self.sensor)
    }

    /// Memory that it takes, in bytes, roughly.
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            + self.actor.as_ref().map_or(0, |process| process.weight())
            + self.kind.handle().map_or(0, |_| 96)
            + match &self.kind {
                Kind::Logged { record } => size_of::<Logged>() + record.weight(),
                _ => 0,
            }
    }
}
