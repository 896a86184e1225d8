//! From cgroup paths and namespaces to where a process runs.

use bpfwatch_core::scope::Scope;
use bpfwatch_core::text::Text;

/// What is known of a process's namespaces. Unknown is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Inode of its network namespace.
    pub net: Option<u64>,
    /// Inode of the host's network namespace, pid 1's.
    pub host_net: Option<u64>,
    /// Its mount namespace is another than pid 1's.
    pub own_mount: Option<bool>,
    /// Its pid namespace is another than pid 1's.
    pub own_pid: Option<bool>,
    /// Name of its network namespace under /run/netns.
    pub net_name: Option<Text>,
}

/// Scope of a process whose `/proc/PID/cgroup` is `cgroup`; `None` where too little is known.
pub fn from_proc(_cgroup: &[u8], namespaces: &Namespaces) -> Option<Scope> {
    match (namespaces.net, namespaces.host_net) {
        (Some(net), Some(host)) if net == host => Some(Scope::Host),
        (Some(net), Some(_)) => {
            Some(Scope::Namespace { netns: net, name: namespaces.net_name.clone() })
        }
        _ => None,
    }
}
