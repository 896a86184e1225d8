//! Who has a handle: from what a descriptor of it shows to processes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::grip::Grip;
use crate::proc::{self, ProcDir};
use crate::proc_facts::Reader;
use crate::sensor_table::Holder;

/// Holders found.
pub type Found = HashMap<Grip, Vec<Holder>>;

/// Searches `pids` for holders of what is in `wanted`.
///
/// The open directory is what makes a find certain: were the process gone and its number another's by
/// now, the last read through it would fail.
pub fn search(
    wanted: &HashSet<Grip>,
    pids: impl IntoIterator<Item = u32>,
    reader: &mut Reader,
    found: &mut Found,
) {
    let more = wanted.iter().any(|grip| !grip.is_plain());
    for pid in pids {
        let Some(dir) = ProcDir::open(pid) else { continue };
        let mut hits = proc::grips(pid, more);
        hits.retain(|(grip, _)| wanted.contains(grip));
        // Duplicates of one descriptor are one holder.
        hits.sort_unstable();
        hits.dedup_by(|later, first| later.0 == first.0);
        if hits.is_empty() {
            continue;
        }
        let process = reader.read_dir(&dir).process;
        if process.start.is_none() {
            continue;
        }
        let process = Arc::new(process);
        for (grip, fd) in hits {
            let holders = found.entry(grip).or_default();
            if holders.iter().all(|holder| holder.process.key() != process.key()) {
                holders.push(Holder { process: Arc::clone(&process), fd });
            }
        }
    }
}

/// Whether a holder is alive and still has the handle, perhaps as another descriptor; `None` when it
/// has not.
pub fn still_holds(holder: &Holder, grip: &Grip) -> Option<u32> {
    let pid = holder.process.pid;
    let dir = ProcDir::open(pid)?;
    if dir.stat()?.start != holder.process.start? {
        return None;
    }
    if proc::holds(pid, holder.fd, grip) {
        return Some(holder.fd);
    }
    let all = proc::grips(pid, !grip.is_plain());
    all.into_iter().find(|(found, _)| found == grip).map(|(_, fd)| fd)
}
