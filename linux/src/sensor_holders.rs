//! Who has a socket: from its inode to processes, through their descriptors.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::proc::{self, ProcDir};
use crate::proc_facts::Reader;
use crate::sensor_table::Holder;

/// Holders found, by inode.
pub type Found = HashMap<u64, Vec<Holder>>;

/// Searches `pids` for holders of the sockets in `wanted`.
///
/// The open directory is what makes a find certain: were the process gone and its number another's by
/// now, the last read through it would fail.
pub fn search(
    wanted: &HashSet<u64>,
    pids: impl IntoIterator<Item = u32>,
    reader: &mut Reader,
    found: &mut Found,
) {
    for pid in pids {
        let Some(dir) = ProcDir::open(pid) else { continue };
        let mut hits = proc::sockets(pid);
        hits.retain(|(inode, _)| wanted.contains(inode));
        // Duplicates of one descriptor are one holder.
        hits.sort_unstable();
        hits.dedup_by_key(|(inode, _)| *inode);
        if hits.is_empty() {
            continue;
        }
        let process = reader.read_dir(&dir).process;
        if process.start.is_none() {
            continue;
        }
        let process = Arc::new(process);
        for (inode, fd) in hits {
            let holders = found.entry(inode).or_default();
            if holders.iter().all(|holder| holder.process.key() != process.key()) {
                holders.push(Holder { process: Arc::clone(&process), fd });
            }
        }
    }
}

/// Whether a holder is alive and still has the socket, perhaps as another descriptor; `None` when it
/// has not.
pub fn still_holds(holder: &Holder, inode: u64) -> Option<u32> {
    let pid = holder.process.pid;
    let dir = ProcDir::open(pid)?;
    if dir.stat()?.start != holder.process.start? {
        return None;
    }
    if proc::holds(pid, holder.fd, inode) {
        return Some(holder.fd);
    }
    proc::sockets(pid).into_iter().find(|(found, _)| *found == inode).map(|(_, fd)| fd)
}
