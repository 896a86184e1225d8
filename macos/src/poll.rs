//! Who holds which BPF device, look by look: what the kernel's tables say comes in, what changed comes out. No
//! system calls.
//!
//! A look is the sysctl `debug.bpf_stats` and then the descriptors of processes by libproc. The first says
//! what is open, attached, promiscuous and read, but names the opener for ever; the second says who has it
//! now. A device is exclusive (EBUSY), so the minor joins both.

use std::collections::BTreeMap;
use std::sync::Arc;

use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;
use bpfwatch_core::text::Text;

use crate::stats::BpfRow;

/// Time between two observations of the packet count of one handle, in milliseconds.
pub const PACKETS_PACE: u64 = 10_000;
/// How long a device that is open and that nobody has must be seen before it is said to be in flight, in
/// milliseconds: between the two tables of one look descriptors come and go.
pub const FLIGHT_AFTER: u64 = 500;

/// Actor and kind of an observation.
pub type Said = (Option<Arc<Process>>, Kind);

/// What a look saw.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Open descriptors.
    pub rows: Vec<BpfRow>,
    /// Processes that have one, by minor.
    pub holders: BTreeMap<u32, Vec<u32>>,
    /// Whether every process could be asked. Where not, who opened a device is taken for its holder.
    pub is_complete: bool,
}

/// Who a pid is.
pub trait Who {
    /// pidversion of the process that has this pid now; `None` when there is none.
    fn start(&mut self, pid: u32) -> Option<u64>;

    /// All about it; `None` when there is none.
    fn process(&mut self, pid: u32) -> Option<Arc<Process>>;
}

/// An open device.
#[derive(Debug)]
struct Entry {
    handle: Handle,
    row: BpfRow,
    holders: Vec<Arc<Process>>,
    /// Who had it when somebody last had.
    owner: Option<Arc<Process>>,
    /// Packets that were said, and when.
    packets: (u64, u64),
    /// Since when nobody has it.
    missing: Option<u64>,
    in_flight: bool,
}

/// All open devices.
#[derive(Debug, Default)]
pub struct Table {
    entries: BTreeMap<u32, Entry>,
    looked: bool,
}

impl Table {
    /// Whether any is open.
    pub fn is_busy(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Holders of all of them, by pid.
    pub fn holders(&self) -> BTreeMap<u32, Arc<Process>> {
        let all = self.entries.values().flat_map(|entry| &entry.holders);
        all.map(|holder| (holder.pid, Arc::clone(holder))).collect()
    }

    /// Whether the device with that minor is open.
    pub fn has(&self, minor: u64) -> bool {
        u32::try_from(minor).is_ok_and(|minor| self.entries.contains_key(&minor))
    }

    /// Whether that process has one.
    pub fn is_holder(&self, pid: u32) -> bool {
        let mut all = self.entries.values().flat_map(|entry| &entry.holders);
        all.any(|holder| holder.pid == pid)
    }

    /// Whether a descriptor made the interface promiscuous.
    pub fn is_promiscuous_on(&self, interface: &str) -> bool {
        let mut rows = self.entries.values().map(|entry| &entry.row);
        rows.any(|row| row.promiscuous && row.interface == interface.as_bytes())
    }

    /// Compares with a look at `now`, in milliseconds: says what changed.
    pub fn update(&mut self, look: &Look, now: u64, who: &mut dyn Who, said: &mut Vec<Said>) {
        let rows: BTreeMap<u32, &BpfRow> = look.rows.iter().map(|row| (row.minor, row)).collect();
        self.entries.retain(|minor, entry| {
            let stays = rows.get(minor).is_some_and(|row| entry.is_same(row));
            if !stays {
                entry.say(said, |handle| Kind::HandleClosed { handle });
            }
            stays
        });
        for (minor, row) in rows {
            let mut pids = look.holders.get(&minor).cloned().unwrap_or_default();
            if pids.is_empty() && !look.is_complete {
                pids.push(row.opener);
            }
            let pre_existing = !self.looked;
            let is_new = !self.entries.contains_key(&minor);
            let entry = self.entries.entry(minor).or_insert_with(|| Entry::new(row));
            entry.take_holders(&pids, is_new && pre_existing, who, said);
            entry.settle(now, is_new && pre_existing, who, said);
            entry.take_row(row, is_new, now, said);
        }
        self.looked = true;
    }
}

/// The handle of a row.
pub fn handle(row: &BpfRow) -> Handle {
    let interface = (!row.interface.is_empty()).then(|| Text::from_bytes(&row.interface));
    Handle {
        device: Some(Text::from(format!("/dev/bpf{}", row.minor))),
        interface,
        ..Handle::new(HandleKind::Bpf, u64::from(row.minor))
    }
}

impl Entry {
    fn new(row: &BpfRow) -> Self {
        Self {
            handle: handle(row),
            row: row.clone(),
            holders: Vec::new(),
            owner: None,
            packets: (0, 0),
            missing: None,
            in_flight: false,
        }
    }

    /// Whether the row is still of the same open: the opener never changes, and counters only grow until
    /// it is attached to another interface.
    fn is_same(&self, row: &BpfRow) -> bool {
        self.row.opener == row.opener
            && (self.row.interface != row.interface || self.row.received <= row.received)
            && (self.row.interface.is_empty() || !row.interface.is_empty())
    }

    fn take_holders(
        &mut self,
        pids: &[u32],
        pre_existing: bool,
        who: &mut dyn Who,
        said: &mut Vec<Said>,
    ) {
        // A pid alone is not enough: it may be another process's by now, or execute another image.
        let stays = |holder: &Arc<Process>, who: &mut dyn Who| {
            pids.contains(&holder.pid)
                && who.start(holder.pid).is_none_or(|start| holder.start == Some(start))
        };
        let before = std::mem::take(&mut self.holders);
        let (stay, gone): (Vec<_>, Vec<_>) =
            before.into_iter().partition(|holder| stays(holder, who));
        self.holders = stay;
        for pid in pids {
            if self.holders.iter().any(|holder| holder.pid == *pid) {
                continue;
            }
            if let Some(process) = who.process(*pid) {
                let handle = self.handle.clone();
                said.push((
                    Some(Arc::clone(&process)),
                    Kind::HandleOpened { handle, pre_existing },
                ));
                self.holders.push(process);
            }
        }
        if !self.holders.is_empty() {
            for process in gone {
                let handle = self.handle.clone();
                said.push((Some(process), Kind::HandleReleased { handle }));
            }
        }
        if let Some(first) = self.holders.first() {
            self.owner = Some(Arc::clone(first));
        }
    }

    /// A device that is open and that nobody has is on its way between processes, or its holder hides.
    fn settle(&mut self, now: u64, pre_existing: bool, who: &mut dyn Who, said: &mut Vec<Said>) {
        if !self.holders.is_empty() {
            self.missing = None;
            self.in_flight = false;
            return;
        }
        let since = *self.missing.get_or_insert(now);
        if self.in_flight || now.saturating_sub(since) < FLIGHT_AFTER {
            return;
        }
        self.in_flight = true;
        if self.owner.is_none() {
            // Nobody was ever seen to have it: the opener is all that is known.
            let opener = self.row.opener;
            let process = || Arc::new(Process::from_pid(opener));
            self.owner = (opener != 0).then(|| who.process(opener).unwrap_or_else(process));
            self.say(said, |handle| Kind::HandleOpened { handle, pre_existing });
        }
        self.say(said, |handle| Kind::HandleReleased { handle });
    }

    fn take_row(&mut self, row: &BpfRow, is_new: bool, now: u64, said: &mut Vec<Said>) {
        let before = std::mem::replace(&mut self.row, row.clone());
        let was_promiscuous = !is_new && before.promiscuous;
        let attached = !row.interface.is_empty();
        if attached && (is_new || before.interface != row.interface) {
            self.handle = handle(row);
            self.say(said, |handle| Kind::HandleAttached { handle });
        }
        if row.promiscuous != was_promiscuous {
            let on = row.promiscuous;
            self.say(said, |handle| Kind::Promiscuous { handle, on });
        }
        let packets = row.matched;
        let (last, at) = self.packets;
        let first = last == 0 && packets > 0;
        if first || (packets != last && now.saturating_sub(at) >= PACKETS_PACE) {
            self.packets = (packets, now);
            self.say(said, |handle| Kind::HandleActive { handle, packets });
        }
    }

    fn say(&self, said: &mut Vec<Said>, kind: impl FnOnce(Handle) -> Kind) {
        said.push((self.owner.clone(), kind(self.handle.clone())));
    }
}

#[cfg(test)]
mod tests;
