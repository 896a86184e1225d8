//! What the sensor knows of handles, namespaces and processes, and one look at the system.
//!
//! The live sensor and the snapshot share it: a snapshot is the first look of a sensor that then ends.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::handle::{HandleKey, HandleKind};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;
use bpfwatch_core::text::Text;

use crate::decode;
use crate::netns::{self, Stranded, Way};
use crate::proc::{self, ProcDir};
use crate::proc_facts::{Home, Reader};
use crate::promisc::Promiscuity;
use crate::raw::{Link, PacketRow, RawIpRow};
use crate::sensor_holders::{self, Found};
use crate::sensor_scan::{NamespaceScan, Scanner};
use crate::sensor_setters::Setters;
use crate::sensor_table::{Class, Said, Seen, Shared};

/// How long a process counts as new: it is searched first for the holder of a new socket.
const NEW_PROCESS: Duration = Duration::from_secs(2);
/// Most new processes that are remembered.
const NEW_PROCESSES: usize = 512;
/// A search of all processes because of an event may take one part in this many of the time.
const SEARCH_SHARE: u32 = 10;
/// For so long a handle without holder is searched for at each steady look.
const ORPHAN: Duration = Duration::from_secs(5);
/// All processes are searched for further holders at least this often.
pub const FULL_SEARCH: Duration = Duration::from_secs(30);
/// A look at every process's namespace may take one part in this many of the time.
const REFRESH_SHARE: u32 = 400;
/// And happens at most so often, and at least so often.
const REFRESH: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// How thorough a look is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The first one: what is there was there before.
    First,
    /// All namespaces, with interfaces and a check of the known holders.
    Steady,
    /// Sockets only, because a process did something.
    Woken,
    /// Sockets and interfaces, because an interface changed.
    Changed,
}

/// See the module.
pub struct State {
    /// Reads processes.
    pub reader: Reader,
    scanner: Scanner,
    table: Shared,
    promiscuity: Promiscuity,
    /// Who set interfaces promiscuous.
    pub setters: Setters,
    links: HashMap<u64, Vec<Link>>,
    /// Namespace of each process that is known.
    processes: BTreeMap<u32, u64>,
    new_processes: VecDeque<(u32, Instant)>,
    ways: HashMap<u64, Way>,
    refreshed: Option<(Instant, Duration)>,
    searched: Option<(Instant, Duration)>,
}

impl State {
    /// For this thread. `table` may be changed by events too.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn new(home: Home, table: Shared) -> std::io::Result<Self> {
        Ok(Self {
            reader: Reader::new(home),
            scanner: Scanner::new()?,
            table,
            promiscuity: Promiscuity::default(),
            setters: Setters::default(),
            links: HashMap::new(),
            processes: BTreeMap::new(),
            new_processes: VecDeque::new(),
            ways: HashMap::new(),
            refreshed: None,
            searched: None,
        })
    }

    /// Processes that hold a handle.
    pub fn holders(&self) -> BTreeMap<u32, Arc<Process>> {
        let table = self.table.lock();
        let all = table.entries().flat_map(|(_, entry)| &entry.holders);
        all.map(|holder| (holder.process.pid, Arc::clone(&holder.process))).collect()
    }

    /// A process executed something in the namespace `netns`.
    pub fn executed(&mut self, pid: u32, netns: u64) {
        self.processes.insert(pid, netns);
        self.remember(pid);
        self.ways.entry(netns).or_insert(Way::Process(pid));
    }

    /// A process was copied; it may have inherited handles.
    pub fn forked(&mut self, parent: u32, child: u32, said: &mut Vec<Said>) {
        if let Some(netns) = self.processes.get(&parent).copied() {
            self.processes.insert(child, netns);
        }
        self.remember(child);
        let inherited: HashSet<u64> = self
            .table
            .lock()
            .entries()
            .filter(|(_, entry)| entry.holders.iter().any(|h| h.process.pid == parent))
            .map(|(key, _)| key.id)
            .collect();
        if !inherited.is_empty() {
            self.add_holders(&inherited, [child], said);
        }
    }

    /// A process ended. Returns the namespaces of the handles that it held.
    pub fn exited(&mut self, pid: u32) -> Vec<u64> {
        self.processes.remove(&pid);
        self.new_processes.retain(|(new, _)| *new != pid);
        let table = self.table.lock();
        let held = table
            .entries()
            .filter(|(_, entry)| entry.holders.iter().any(|holder| holder.process.pid == pid));
        held.map(|(_, entry)| entry.netns).collect()
    }

    /// The own namespace, and all others that are known.
    pub fn namespaces(&self) -> (u64, Vec<u64>) {
        let home = self.scanner.home_inode();
        (home, self.ways.keys().copied().filter(|netns| *netns != home).collect())
    }

    fn remember(&mut self, pid: u32) {
        if self.new_processes.len() >= NEW_PROCESSES {
            self.new_processes.pop_front();
        }
        self.new_processes.push_back((pid, Instant::now()));
    }

    /// The next steady look finds out about all processes and namespaces again.
    pub fn forget_processes(&mut self) {
        self.refreshed = None;
        self.searched = None;
    }

    /// Finds out which namespaces there are, unless that was done a moment ago.
    fn refresh(&mut self) {
        if let Some((at, cost)) = self.refreshed
            && at.elapsed() < (cost * REFRESH_SHARE).clamp(REFRESH.0, REFRESH.1)
        {
            return;
        }
        let start = Instant::now();
        let home = self.scanner.home_inode();
        let namespace = |pid| Some((pid, ProcDir::open(pid)?.namespace("net")?));
        self.processes = proc::pids().into_iter().filter_map(namespace).collect();
        let named = netns::named();
        self.ways = netns::ways(home, self.processes.iter().map(|(p, n)| (*p, *n)), &named);
        self.refreshed = Some((start, start.elapsed()));
    }

    /// A look at all namespaces.
    ///
    /// # Errors
    /// When the thread is stranded in a foreign namespace.
    pub fn look(&mut self, look: Look, said: &mut Vec<Said>) -> Result<(), Stranded> {
        self.refresh();
        let mut namespaces: Vec<u64> = self.ways.keys().copied().collect();
        namespaces.sort_unstable();
        self.look_into(look, &namespaces, said)?;
        let ways = &self.ways;
        self.promiscuity.keep(|netns| ways.contains_key(&netns));
        self.links.retain(|netns, _| ways.contains_key(netns));
        if look == Look::Steady {
            self.check_holders(said);
        }
        Ok(())
    }

    /// A look at some namespaces.
    ///
    /// # Errors
    /// When the thread is stranded in a foreign namespace.
    pub fn look_into(
        &mut self,
        look: Look,
        namespaces: &[u64],
        said: &mut Vec<Said>,
    ) -> Result<(), Stranded> {
        let mut new = Vec::new();
        for netns in namespaces {
            let Some(way) = self.ways.get(netns).cloned() else { continue };
            let known = self.links.get(netns).map_or(&[][..], Vec::as_slice);
            let looked = Instant::now();
            let mut scan = self.scanner.scan(*netns, &way, look != Look::Woken, known)?;
            if scan.is_none() && matches!(way, Way::Process(_)) {
                // That process is gone, but others may be there.
                let other = self
                    .processes
                    .iter()
                    .find(|(pid, net)| **net == *netns && way != Way::Process(**pid));
                if let Some(way) = other.map(|(pid, _)| Way::Process(*pid)) {
                    scan = self.scanner.scan(*netns, &way, look != Look::Woken, known)?;
                    self.ways.insert(*netns, way);
                }
            }
            if let Some(scan) = scan {
                self.compare(*netns, looked, scan, &mut new, said);
            }
        }
        self.open(look, new, said);
        Ok(())
    }

    fn compare(
        &mut self,
        netns: u64,
        looked: Instant,
        scan: NamespaceScan,
        new: &mut Vec<(u64, Seen)>,
        said: &mut Vec<Said>,
    ) {
        let shown = self.reader.home().foreign_net(netns);
        if let Some(links) = scan.links {
            let kinds = self.promiscuity.update(netns, shown, &links);
            for kind in kinds {
                let setter = self.setters.of(netns, &kind);
                said.push((setter, kind));
            }
            self.links.insert(netns, links);
        }
        let links = self.links.get(&netns).map_or(&[][..], Vec::as_slice);
        let packet = |row: PacketRow| Seen {
            handle: decode::packet_handle(&row, name(links, Some(row.ifindex)), shown),
            promiscuous: row.promiscuous,
        };
        let raw = |row: RawIpRow| {
            let index = row.ifindex.and_then(|index| i32::try_from(index).ok());
            Seen { handle: decode::raw_handle(&row, name(links, index), shown), promiscuous: None }
        };
        // A socket without inode is being closed.
        let before = said.len();
        if let Some(rows) = scan.packets {
            let rows = rows.into_iter().filter(|row| row.inode != 0).map(packet).collect();
            let rows = self.table.lock().update(netns, Class::Packet, looked, rows, said);
            new.extend(rows.into_iter().map(|row| (netns, row)));
        }
        if let Some(rows) = scan.raws {
            let rows = rows.into_iter().filter(|row| row.inode != 0).map(raw).collect();
            let rows = self.table.lock().update(netns, Class::RawIp, looked, rows, said);
            new.extend(rows.into_iter().map(|row| (netns, row)));
        }
        // Who closes one handle soon opens another.
        for (actor, kind) in &said[before..] {
            if let (Some(actor), Kind::HandleClosed { .. }) = (actor, kind) {
                self.remember(actor.pid);
            }
        }
    }

    /// Finds the holders of new handles: among new processes, then among those that hold others, then
    /// everywhere.
    fn open(&mut self, look: Look, new: Vec<(u64, Seen)>, said: &mut Vec<Said>) {
        if new.is_empty() {
            return;
        }
        let mut found = Found::new();
        let mut wanted: HashSet<u64> = new.iter().map(|(_, seen)| seen.handle.id).collect();
        if look != Look::First {
            let now = Instant::now();
            self.new_processes.retain(|(_, at)| now - *at < NEW_PROCESS);
            let mut first: Vec<u32> = self.new_processes.iter().map(|(pid, _)| *pid).collect();
            first.extend(self.holders().into_keys());
            first.sort_unstable();
            first.dedup();
            sensor_holders::search(&wanted, first, &mut self.reader, &mut found);
            wanted.retain(|inode| !found.contains_key(inode));
        }
        // Not again and again: what is not found now is searched for at the next steady look.
        let too_soon = matches!(look, Look::Woken | Look::Changed)
            && self.searched.is_some_and(|(at, cost)| at.elapsed() < cost * SEARCH_SHARE);
        if !wanted.is_empty() && !too_soon {
            self.search_all(&wanted, &mut found);
        }
        for (netns, seen) in new {
            let holders = found.remove(&seen.handle.id).unwrap_or_default();
            self.table.lock().open(netns, seen, holders, look == Look::First, said);
        }
    }

    fn search_all(&mut self, wanted: &HashSet<u64>, found: &mut Found) {
        let start = Instant::now();
        sensor_holders::search(wanted, proc::pids(), &mut self.reader, found);
        self.searched = Some((start, start.elapsed()));
    }

    fn add_holders(
        &mut self,
        inodes: &HashSet<u64>,
        pids: impl IntoIterator<Item = u32>,
        said: &mut Vec<Said>,
    ) {
        let mut found = Found::new();
        sensor_holders::search(inodes, pids, &mut self.reader, &mut found);
        self.add_found(found, said);
    }

    fn add_found(&mut self, mut found: Found, said: &mut Vec<Said>) {
        let mut table = self.table.lock();
        let keys: Vec<HandleKey> = table.entries().map(|(key, _)| *key).collect();
        for key in keys {
            for holder in found.remove(&key.id).unwrap_or_default() {
                table.add_holder(key, holder, said);
            }
        }
    }

    /// Checks known holders, looks for new ones where none is left, and for further ones now and then.
    fn check_holders(&mut self, said: &mut Vec<Said>) {
        let entries: Vec<_> = self
            .table
            .lock()
            .entries()
            .map(|(key, entry)| (*key, entry.netns, entry.since, entry.holders.clone()))
            .collect();
        let mut orphans = HashSet::new();
        let keys: Vec<HandleKey> = entries.iter().map(|(key, ..)| *key).collect();
        for (key, netns, since, holders) in entries {
            let mut gone = Vec::new();
            for holder in &holders {
                match sensor_holders::still_holds(holder, key.id) {
                    Some(fd) => self.table.lock().moved(key, holder.process.key(), fd),
                    None => gone.push(holder.process.key()),
                }
            }
            let lost_all = !gone.is_empty() && gone.len() == holders.len();
            // Perhaps it was closed since this look saw it; then the next one does not.
            let seen_unheld = self.table.lock().unheld(key, lost_all);
            // No table of the kernel's shows that it is gone.
            let unlisted = !self.ways.contains_key(&netns) || key.kind == HandleKind::XdpSocket;
            if unlisted && (lost_all || holders.is_empty()) {
                self.table.lock().close(key, said);
                continue;
            }
            let orphan = holders.is_empty() && since.elapsed() < ORPHAN;
            if lost_all || orphan {
                orphans.insert(key.id);
            }
            if lost_all && !seen_unheld {
                continue;
            }
            for holder in gone {
                self.table.lock().release(key, holder, said);
            }
        }
        let due = self.searched.is_none_or(|(at, cost)| {
            let pause = if orphans.is_empty() { FULL_SEARCH } else { cost * 2 * SEARCH_SHARE };
            at.elapsed() >= pause
        });
        if due && !keys.is_empty() {
            let mut found = Found::new();
            self.search_all(&keys.iter().map(|key| key.id).collect(), &mut found);
            self.add_found(found, said);
        }
    }
}

/// Name of the interface with that index; `any` for 0, `None` for one that is gone or not known.
fn name(links: &[Link], index: Option<i32>) -> Option<Text> {
    let index = u32::try_from(index?).ok()?;
    if index == 0 {
        return Some(Text::from("any"));
    }
    let link = links.iter().find(|link| link.index == index)?;
    Some(Text::from_bytes_limited(&link.name, 256))
}
