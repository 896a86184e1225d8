//! Holders with the processes that they descend from, as a look tells of them before any event.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::process::Process;

/// Longest line of ancestors that is followed.
const ANCESTORS: usize = 64;

/// The `known` processes by pid and their ancestors, parents before children. `read` reads a process; where
/// it gives `None` its line of ancestors ends.
pub fn with_ancestors(
    mut known: BTreeMap<u32, Arc<Process>>,
    mut read: impl FnMut(u32) -> Option<Process>,
) -> Vec<Arc<Process>> {
    for holder in known.values().cloned().collect::<Vec<_>>() {
        let mut next = holder.ppid;
        for _ in 0..ANCESTORS {
            let Some(pid) = next.filter(|pid| *pid != 0 && !known.contains_key(pid)) else { break };
            let Some(process) = read(pid) else { break };
            next = process.ppid;
            known.insert(pid, Arc::new(process));
        }
    }
    let mut all: Vec<_> = known.into_values().collect();
    all.sort_by_key(|process| (process.start, process.pid));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> Process {
        let ppid = Some(pid.saturating_sub(1));
        Process { ppid, start: Some(u64::from(pid)), ..Process::from_pid(pid) }
    }

    fn pids(holders: &[u32], read: impl FnMut(u32) -> Option<Process>) -> Vec<u32> {
        let known = holders.iter().map(|pid| (*pid, Arc::new(process(*pid)))).collect();
        with_ancestors(known, read).iter().map(|process| process.pid).collect()
    }

    #[test]
    fn parents_come_once_and_before_their_children() {
        assert_eq!(pids(&[5, 3], |pid| Some(process(pid))), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_line_ends_where_nobody_can_be_read_or_goes_on_too_long() {
        assert_eq!(pids(&[5], |pid| (pid > 3).then(|| process(pid))), [4, 5]);
        assert_eq!(pids(&[1000], |pid| Some(process(pid))).len(), 1 + ANCESTORS);
    }
}
