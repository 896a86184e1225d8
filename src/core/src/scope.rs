//! Where a process runs: the host itself, a jail, a container, or a network namespace of its own.

use serde::{Deserialize, Serialize};

use crate::text::Text;

/// The isolation that a process runs in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Scope {
    /// The host, a systemd slice included.
    #[default]
    Host,
    /// A FreeBSD jail.
    Jail {
        /// Jail id, where the source tells it: an audit record names the jail alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        jid: Option<u32>,
        /// Full name, `parent.child` for a nested one.
        name: Text,
        /// It has a network stack of its own; without one, a capture in it sees the host's traffic.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vnet: Option<bool>,
        /// Root directory on the host.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<Text>,
        /// Host name inside.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hostname: Option<Text>,
    },
    /// A Linux container.
    Container {
        /// The runtime's id of it, as in the cgroup path.
        id: Text,
        /// `docker`, `containerd`, `cri-o`, `podman`, `runc`, `lxc` ...
        #[serde(default, skip_serializing_if = "Option::is_none")]
        runtime: Option<Text>,
        /// Image, where a recording or the runtime names it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<Text>,
        /// Kubernetes pod UID, or `namespace/name` where known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<Text>,
        /// Inode of its network namespace.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<u64>,
    },
    /// No container, but a network namespace other than the host's (`ip netns exec`, `unshare -n`).
    Namespace {
        /// Inode of the network namespace.
        netns: u64,
        /// Name under /run/netns, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Text>,
    },
}

impl Scope {
    /// `host`, `jail`, `container` or `namespace`: the value of the rule field `ScopeKind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Scope::Host => "host",
            Scope::Jail { .. } => "jail",
            Scope::Container { .. } => "container",
            Scope::Namespace { .. } => "namespace",
        }
    }
}
