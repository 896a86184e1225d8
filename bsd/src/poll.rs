//! Who holds which BPF descriptor, or what else captures, look by look: rows come in, what is to be said comes out. No system
//! calls.
//!
//! A look is `kern.file` and then `net.bpf.stats`, in that order. The first says which process has which open
//! file; the second what is attached, promiscuous and read, but names only the process that touched it last.
//! [`matching`](crate::matching) puts the two together. What captures without the device is whole in the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::{Process, ProcessKey};

use crate::decode;
use crate::matching::{self, Candidate};
use crate::raw::{BpfRow, FileRow};

/// How long an attached descriptor that nobody has must be seen before it is said to be in flight, in
/// milliseconds: between the two tables of one look descriptors come and go.
pub const FLIGHT_AFTER: u64 = 50;
/// Time between two observations of the packet count of one handle, in milliseconds.
pub const PACKETS_PACE: u64 = 10_000;
/// Ids of handles of which no process has a file begin here: no address of the kernel is so low.
const FLIGHT_IDS: u64 = 1 << 62;

/// Actor and kind of an observation.
pub type Said = (Option<Arc<Process>>, Kind);

/// What a look saw.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Descriptors of the device, of all processes.
    pub files: Vec<FileRow>,
    /// Open files that capture without it, each with its handle.
    pub others: Vec<(FileRow, Handle)>,
    /// Attached ones; `None` where the table could not be read.
    pub attached: Option<Vec<BpfRow>>,
}

/// Who a pid is.
pub trait Who {
    /// Start of the process that has this pid now; `None` when there is none.
    fn start(&mut self, pid: u32) -> Option<u64>;

    /// All about it.
    fn process(&mut self, pid: u32) -> Arc<Process>;
}

/// A process that has a descriptor.
#[derive(Debug, Clone)]
struct Holder {
    process: Arc<Process>,
}

/// An open file of the device, or another that captures.
#[derive(Debug)]
struct Entry {
    handle: Handle,
    holders: Vec<Holder>,
    /// Who had it when somebody last had.
    owner: Option<Arc<Process>>,
    attached: Option<BpfRow>,
    /// Packets that were said, and when.
    packets: (u64, u64),
    /// Since when it is attached and nobody has it.
    missing: Option<u64>,
    in_flight: bool,
}

/// An attached row that belongs to no file: it was in flight before anybody looked.
#[derive(Debug)]
struct Stray {
    row: BpfRow,
    since: u64,
    /// It was there at the first look.
    pre_existing: bool,
    /// The handle that was said of it.
    id: Option<u64>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Table {
    entries: BTreeMap<u64, Entry>,
    /// Ids of those that the last look found first.
    fresh: BTreeSet<u64>,
    strays: Vec<Stray>,
    next_stray: u64,
    looked: bool,
}

impl Table {
    /// Whether anybody has a BPF descriptor, or one is under way.
    pub fn is_busy(&self) -> bool {
        self.entries.values().any(Entry::is_bpf) || !self.strays.is_empty()
    }

    /// Holders of all of them, by pid.
    pub fn holders(&self) -> BTreeMap<u32, Arc<Process>> {
        let all = self.entries.values().flat_map(|entry| &entry.holders);
        all.map(|holder| (holder.process.pid, Arc::clone(&holder.process))).collect()
    }

    /// Whether that process has one.
    pub fn holds(&self, process: ProcessKey) -> bool {
        let mut all = self.entries.values().flat_map(|entry| &entry.holders);
        all.any(|holder| holder.process.is_same(process))
    }

    /// Whether the last look was the first that found this open file of the device; a process that inherits
    /// one later does not make it new.
    pub fn is_new(&self, id: u64) -> bool {
        self.fresh.contains(&id)
    }

    /// Compares with a look at `now`, in milliseconds: says what changed.
    pub fn update(&mut self, look: &Look, now: u64, who: &mut dyn Who, said: &mut Vec<Said>) {
        self.take_files(look, who, said);
        if let Some(rows) = &look.attached {
            self.take_rows(rows, now, said);
        }
        self.settle(look.attached.is_some(), now, said);
        self.looked = true;
    }

    fn take_files(&mut self, look: &Look, who: &mut dyn Who, said: &mut Vec<Said>) {
        self.fresh.clear();
        let mut by_file: BTreeMap<u64, (Handle, Vec<u32>)> = BTreeMap::new();
        let device = look.files.iter().map(|row| (row, decode::handle(row, None)));
        let others = look.others.iter().map(|(row, handle)| (row, handle.clone()));
        for (row, handle) in device.chain(others) {
            let (_, pids) = by_file.entry(handle.id).or_insert((handle, Vec::new()));
            if !pids.contains(&row.pid) {
                pids.push(row.pid);
            }
        }
        // The kernel gives the address of a file that was closed to the next one.
        self.entries.retain(|id, entry| {
            let other = by_file.get(id).is_some_and(|(handle, _)| handle.kind != entry.handle.kind);
            if other {
                entry.close(said);
            }
            !other
        });
        for (id, entry) in &mut self.entries {
            let (handle, pids) = match by_file.remove(id) {
                Some((handle, pids)) => (Some(handle), pids),
                None => (None, Vec::new()),
            };
            entry.take_holders(&pids, false, who, said);
            if let Some(handle) = handle.filter(|_| !entry.is_bpf()) {
                entry.take_handle(handle, said);
            }
        }
        for (id, (handle, pids)) in by_file {
            let mut entry = Entry::new(handle);
            entry.take_holders(&pids, !self.looked, who, said);
            if entry.is_bpf() {
                self.fresh.insert(id);
            } else {
                // It captures as it is.
                entry.say(said, |handle| Kind::HandleAttached { handle });
            }
            self.entries.insert(id, entry);
        }
    }

    fn take_rows(&mut self, rows: &[BpfRow], now: u64, said: &mut Vec<Said>) {
        let candidates: Vec<Candidate<'_>> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_bpf())
            .map(|(id, entry)| Candidate {
                id: *id,
                pids: entry.holders.iter().map(|holder| holder.process.pid).collect(),
                before: entry.attached.as_ref(),
            })
            .collect();
        let matched = matching::assign(rows, &candidates);
        let mut unclaimed = Vec::new();
        let mut attached: BTreeMap<u64, &BpfRow> = BTreeMap::new();
        for (row, id) in rows.iter().zip(matched) {
            match id {
                Some(id) => _ = attached.insert(id, row),
                None => unclaimed.push(row.clone()),
            }
        }
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.is_bpf()) {
            entry.take_row(attached.get(id).copied(), now, said);
        }
        self.take_strays(unclaimed, now, said);
    }

    /// Closes what nobody has and nothing is attached of; says what is in flight.
    fn settle(&mut self, rows_known: bool, now: u64, said: &mut Vec<Said>) {
        self.entries.retain(|_, entry| {
            if !entry.holders.is_empty() {
                entry.missing = None;
                entry.in_flight = false;
                return true;
            }
            if !rows_known || entry.attached.is_none() {
                entry.close(said);
                return false;
            }
            let since = *entry.missing.get_or_insert(now);
            if !entry.in_flight && now.saturating_sub(since) >= FLIGHT_AFTER {
                entry.in_flight = true;
                let handle = entry.handle.clone();
                said.push((entry.owner.clone(), Kind::HandleReleased { handle }));
            }
            true
        });
    }

    fn take_strays(&mut self, rows: Vec<BpfRow>, now: u64, said: &mut Vec<Said>) {
        let mut before = std::mem::take(&mut self.strays);
        for row in rows {
            let same = |stray: &Stray| {
                stray.row.pid == row.pid
                    && stray.row.interface == row.interface
                    && stray.row.received <= row.received
            };
            let mut stray = match before.iter().position(same) {
                Some(index) => Stray { row, ..before.remove(index) },
                None => Stray { row, since: now, pre_existing: !self.looked, id: None },
            };
            if stray.id.is_none() && now.saturating_sub(stray.since) >= FLIGHT_AFTER {
                stray.id = Some(FLIGHT_IDS | self.next_stray);
                self.next_stray += 1;
                stray.announce(said);
            }
            self.strays.push(stray);
        }
        for gone in before {
            if let Some(id) = gone.id {
                let handle = decode::handle_of(id, Some(&gone.row));
                said.push((gone.toucher(), Kind::HandleClosed { handle }));
            }
        }
    }
}

/// Address of the open file; where addresses are hidden, process and descriptor stand for it.
pub fn file_id(row: &FileRow) -> u64 {
    match row.file {
        0 => u64::from(row.pid) << 32 | u64::from(row.fd.cast_unsigned()),
        file => file,
    }
}

impl Stray {
    /// Who touched it last, of whom nothing but the pid is known: that may be another's by now.
    fn toucher(&self) -> Option<Arc<Process>> {
        (self.row.pid != 0).then(|| Arc::new(Process::from_pid(self.row.pid)))
    }

    fn announce(&self, said: &mut Vec<Said>) {
        let Some(id) = self.id else { return };
        let pre_existing = self.pre_existing;
        let toucher = self.toucher();
        let handle = || decode::handle_of(id, Some(&self.row));
        said.push((toucher.clone(), Kind::HandleOpened { handle: handle(), pre_existing }));
        said.push((toucher.clone(), Kind::HandleAttached { handle: handle() }));
        if self.row.promiscuous {
            said.push((toucher.clone(), Kind::Promiscuous { handle: handle(), on: true }));
        }
        said.push((toucher, Kind::HandleReleased { handle: handle() }));
    }
}

impl Entry {
    fn new(handle: Handle) -> Self {
        Self {
            handle,
            holders: Vec::new(),
            owner: None,
            attached: None,
            packets: (0, 0),
            missing: None,
            in_flight: false,
        }
    }

    fn is_bpf(&self) -> bool {
        self.handle.kind == HandleKind::Bpf
    }

    fn close(&self, said: &mut Vec<Said>) {
        self.say(said, |handle| Kind::HandleClosed { handle });
    }

    /// What else captures may come to be known better, or be bound elsewhere.
    fn take_handle(&mut self, handle: Handle, said: &mut Vec<Said>) {
        if self.handle != handle {
            self.handle = handle;
            self.say(said, |handle| Kind::HandleAttached { handle });
        }
    }

    fn take_holders(
        &mut self,
        pids: &[u32],
        pre_existing: bool,
        who: &mut dyn Who,
        said: &mut Vec<Said>,
    ) {
        let mut gone: Vec<Holder> = Vec::new();
        // A pid alone is not enough: it may be another process's by now.
        self.holders.retain(|holder| {
            let pid = holder.process.pid;
            let stays = pids.contains(&pid)
                && who.start(pid).is_none_or(|start| holder.process.start == Some(start));
            if !stays {
                gone.push(holder.clone());
            }
            stays
        });
        let mut new: Vec<Arc<Process>> = pids
            .iter()
            .filter(|pid| !self.holders.iter().any(|holder| holder.process.pid == **pid))
            .map(|pid| who.process(*pid))
            .collect();
        new.sort_by_key(|process| (process.start, process.pid));
        for process in new {
            let handle = self.handle.clone();
            said.push((Some(Arc::clone(&process)), Kind::HandleOpened { handle, pre_existing }));
            self.holders.push(Holder { process });
        }
        if !self.holders.is_empty() {
            for holder in gone {
                let handle = self.handle.clone();
                said.push((Some(holder.process), Kind::HandleReleased { handle }));
            }
        }
        // While nobody has it, the last owner is who is asked about it.
        if let Some(first) = self.holders.first() {
            self.owner = Some(Arc::clone(&first.process));
        }
    }

    fn take_row(&mut self, row: Option<&BpfRow>, now: u64, said: &mut Vec<Said>) {
        let before = std::mem::replace(&mut self.attached, row.cloned());
        let was_promiscuous = before.as_ref().is_some_and(|row| row.promiscuous);
        let Some(row) = row else {
            if was_promiscuous && !self.holders.is_empty() {
                self.say(said, |handle| Kind::Promiscuous { handle, on: false });
            }
            return;
        };
        let interface = decode::interface(row);
        if before.is_none() || self.handle.interface.as_ref() != Some(&interface) {
            self.handle.interface = Some(interface);
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
