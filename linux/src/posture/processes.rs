//! Running processes that could capture without being root on the host: CAP_NET_RAW in their permitted
//! set, which they can make effective at any time.

use std::collections::BTreeMap;

use bpfwatch_core::scope::Scope;

use crate::capability::{NET_RAW, Status};
use crate::proc::{self, ProcDir};
use crate::proc_facts::Home;
use crate::scope;

/// Most processes that are looked at.
const MAX_PROCESSES: usize = 50_000;

/// A process with CAP_NET_RAW.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// The kernel's short name.
    pub name: String,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Where it runs.
    pub scope: Option<Scope>,
    /// Its network namespace is the host's.
    pub host_network: Option<bool>,
    /// Its user namespace is not pid 1's: its capabilities do not count over the host's network.
    pub own_user: Option<bool>,
}

impl Holder {
    /// Whether it can see the host's traffic; when in doubt, yes.
    pub fn reaches_host(&self) -> bool {
        self.host_network != Some(false) && self.own_user != Some(true)
    }

    /// Whether it can see the traffic of a namespace other than the host's. A process of another user
    /// namespace in the host's network can see nothing, before it makes a network namespace.
    fn reaches_any(&self) -> bool {
        self.reaches_host() || self.host_network == Some(false)
    }
}

/// Containers by id, and the processes outside of any, that have CAP_NET_RAW and are not simply root on
/// the host.
#[derive(Debug, Default)]
pub struct Found {
    /// By container: scope and its holders.
    pub containers: BTreeMap<Scope, Vec<Holder>>,
    /// Users' processes.
    pub others: Vec<Holder>,
    /// Whether namespaces of other users' processes could be read.
    pub namespaces_hidden: bool,
}

/// Sorts holders into containers and others.
pub fn group(holders: Vec<Holder>) -> Found {
    let mut found = Found::default();
    for holder in holders.into_iter().filter(Holder::reaches_any) {
        found.namespaces_hidden |= holder.host_network.is_none();
        match &holder.scope {
            Some(scope @ Scope::Container { .. }) => {
                found.containers.entry(scope.clone()).or_default().push(holder);
            }
            _ if holder.uid == Some(0) => {}
            _ => found.others.push(holder),
        }
    }
    found
}

/// Reads them from /proc, in order of pid.
pub fn holders() -> Vec<Holder> {
    let home = Home::find();
    let mut pids = proc::pids();
    pids.truncate(MAX_PROCESSES);
    // Pid 1 is the host by definition.
    pids.retain(|pid| *pid != 1);
    pids.sort_unstable();
    pids.into_iter().filter_map(|pid| holder(&home, pid)).collect()
}

fn holder(home: &Home, pid: u32) -> Option<Holder> {
    let dir = ProcDir::open(pid)?;
    let status = Status::parse(&String::from_utf8_lossy(&dir.read("status")?));
    if !status.permitted.has(NET_RAW) {
        return None;
    }
    let net = dir.namespace("net");
    if net.is_none() && !proc::is_alive(pid) {
        return None;
    }
    Some(Holder {
        pid,
        name: status.name,
        uid: status.euid,
        scope: scope::from_proc(&dir.read("cgroup").unwrap_or_default(), &home.compare(&dir, net)),
        host_network: net.zip(home.net).map(|(net, host)| net == host),
        own_user: home.own_user(&dir),
    })
}

#[cfg(test)]
mod tests {
    use bpfwatch_core::text::Text;

    use super::*;

    fn holder(pid: u32, uid: u32, scope: Option<Scope>, host_network: Option<bool>) -> Holder {
        Holder {
            pid,
            name: "x".to_owned(),
            uid: Some(uid),
            scope,
            host_network,
            own_user: Some(false),
        }
    }

    #[test]
    fn root_of_the_host_is_left_out_and_containers_stand_together() {
        let container = Scope::Container {
            id: Text::from("web"),
            runtime: None,
            image: None,
            pod: None,
            netns: Some(2),
        };
        let rootless = Holder { own_user: Some(true), ..holder(6, 1000, None, Some(true)) };
        let unshared = Holder { own_user: Some(true), ..holder(7, 1000, None, Some(false)) };
        let found = group(vec![
            holder(1, 0, Some(Scope::Host), Some(true)),
            holder(2, 0, Some(container.clone()), Some(false)),
            holder(3, 33, Some(container.clone()), Some(false)),
            holder(4, 998, Some(Scope::Host), Some(true)),
            holder(5, 998, None, None),
            rootless,
            unshared,
        ]);
        let pids = |holders: &[Holder]| holders.iter().map(|h| h.pid).collect::<Vec<_>>();
        assert_eq!(pids(&found.containers[&container]), [2, 3]);
        assert_eq!(pids(&found.others), [4, 5, 7]);
        assert!(found.namespaces_hidden);
        assert!(found.others[1].reaches_host() && !found.others[2].reaches_host());
    }

    #[test]
    fn finds_this_process_when_it_may_capture() {
        let pid = std::process::id();
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let capable = Status::parse(&text).permitted.has(NET_RAW);
        assert_eq!(holders().iter().any(|holder| holder.pid == pid), capable);
    }
}
