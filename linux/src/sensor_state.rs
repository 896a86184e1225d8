//! What the sensor knows of handles, namespaces and processes, and one look at the system.
//!
//! The live sensor and the snapshot share it: a snapshot is the first look of a sensor that then ends.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::handle::{Handle, HandleKey, HandleKind};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;
use bpfwatch_core::text::Text;

use crate::decode;
use crate::grip::Grip;
use crate::netns::{self, Stranded, Way};
use crate::proc::{self, ProcDir};
use crate::proc_facts::{Home, Reader};
use crate::promisc::Promiscuity;
use crate::raw::{Link, PacketRow, RawIpRow, XdpRow};
use crate::sensor_beyond::Beyond;
use crate::sensor_holders::{self, Found};
use crate::sensor_scan::{Depth, NamespaceScan, Scanner, Xdp};
use crate::sensor_setters::Setters;
use crate::sensor_table::{Class, Said, Seen, Shared};
use crate::sensor_traffic;

/// How long a process counts as new: it is searched first for the holder of a new socket.
const NEW_PROCESS: Duration = Duration::from_secs(2);
/// Most new processes that are remembered.
const NEW_PROCESSES: usize = 512;
/// A search of all processes because of an event may take one part in this many of the time.
const SEARCH_SHARE: u32 = 10;
/// For so long a handle without holder is searched for at each steady look.
const ORPHAN: Duration = Duration::from_secs(5);
/// An event is read within this time, or was lost.
const TOLD_WITHIN: Duration = Duration::from_millis(500);
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
    beyond: Beyond,
    /// Namespace of each process that is known.
    processes: BTreeMap<u32, u64>,
    new_processes: VecDeque<(u32, Instant)>,
    ways: HashMap<u64, Way>,
    /// The last look listed traffic control too.
    deep: bool,
    refreshed: Option<(Instant, Duration)>,
    searched: Option<(Instant, Duration)>,
    /// New handles whose holders no look found, though events should tell of both.
    untold: HashMap<HandleKey, Instant>,
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
            beyond: Beyond::default(),
            processes: BTreeMap::new(),
            new_processes: VecDeque::new(),
            ways: HashMap::new(),
            deep: false,
            refreshed: None,
            searched: None,
            untold: HashMap::new(),
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
        let inherited: HashSet<Grip> = self
            .table
            .lock()
            .entries()
            .filter(|(_, entry)| entry.holders.iter().any(|h| h.process.pid == parent))
            .filter_map(|(_, entry)| entry.grip())
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
        self.beyond.keep(|netns| ways.contains_key(&netns));
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
        let looked = Instant::now();
        let lists_programs = look != Look::Woken && self.beyond.list_programs();
        let all = matches!(look, Look::First | Look::Steady);
        let traffic = matches!(look, Look::First | Look::Changed) || (all && self.beyond.is_due());
        if traffic && all {
            self.beyond.listed();
        }
        self.deep = traffic;
        let depth = Depth { links: look != Look::Woken, traffic };
        for netns in namespaces {
            let Some(way) = self.ways.get(netns).cloned() else { continue };
            let known = self.links.get(netns).map_or(&[][..], Vec::as_slice);
            let looked = Instant::now();
            let mut scan = self.scanner.scan(*netns, &way, depth, known)?;
            if scan.is_none() && matches!(way, Way::Process(_)) {
                // That process is gone, but others may be there.
                let other = self
                    .processes
                    .iter()
                    .find(|(pid, net)| **net == *netns && way != Way::Process(**pid));
                if let Some(way) = other.map(|(pid, _)| Way::Process(*pid)) {
                    scan = self.scanner.scan(*netns, &way, depth, known)?;
                    self.ways.insert(*netns, way);
                }
            }
            if let Some(scan) = scan {
                self.compare(*netns, looked, scan, &mut new, said);
            } else if let Some(Way::Process(pid)) = self.ways.get(netns)
                && !proc::is_alive(*pid)
            {
                // It may be gone, and what was open in it with it: the next look finds out.
                self.refreshed = None;
            }
        }
        if lists_programs {
            self.compare_programs(looked, &mut new, said);
        }
        if all {
            self.find_unlisted(&mut new);
        }
        self.open(look, new, said);
        Ok(())
    }

    fn compare_programs(
        &mut self,
        looked: Instant,
        new: &mut Vec<(u64, Seen)>,
        said: &mut Vec<Said>,
    ) {
        let Self { beyond, links, reader, .. } = self;
        let links = |netns: &u64| links.get(netns).map_or(&[][..], Vec::as_slice);
        let rows = beyond.rows(
            |netns, index| name(links(&netns), i32::try_from(index).ok()),
            |netns| reader.home().foreign_net(netns),
        );
        let Some(rows) = rows else { return };
        let namespaces: HashMap<HandleKey, u64> =
            rows.iter().map(|(netns, seen)| (seen.handle.key(), *netns)).collect();
        let rows = rows.into_iter().map(|(_, seen)| seen).collect();
        let rows = self.table.lock().update(0, Class::Program, looked, rows, said);
        let place = |seen: Seen| (namespaces.get(&seen.handle.key()).copied().unwrap_or(0), seen);
        new.extend(rows.into_iter().map(place));
    }

    /// Finds what no table of the kernel's shows: AF_XDP sockets where there is no xdp_diag, USB monitors.
    fn find_unlisted(&mut self, new: &mut Vec<(u64, Seen)>) {
        let known: Vec<(u64, HandleKey)> =
            self.table.lock().entries().map(|(key, entry)| (entry.netns, *key)).collect();
        if !self.scanner.lists_xdp() {
            let is_xdp = |(netns, key): &(u64, HandleKey)| {
                (key.kind == HandleKind::XdpSocket).then_some((*netns, key.id))
            };
            let sockets: Vec<(u64, u64)> = known.iter().filter_map(is_xdp).collect();
            for (netns, inode, ring) in self.beyond.xdp_sockets(&sockets, self.processes.iter()) {
                let netns_shown = self.reader.home().foreign_net(netns);
                let handle = Handle {
                    ring: Some(ring),
                    netns: netns_shown,
                    ..Handle::new(HandleKind::XdpSocket, inode)
                };
                new.push((netns, Seen { handle, promiscuous: None }));
            }
        }
        let is_open =
            |bus: u64| known.iter().any(|(_, key)| key.kind == HandleKind::Usbmon && key.id == bus);
        let buses: Vec<u64> =
            self.beyond.usb_buses().into_iter().filter(|bus| !is_open(*bus)).collect();
        if buses.is_empty() {
            return;
        }
        let mut found = Found::new();
        let wanted = buses.into_iter().map(Grip::Usbmon).collect();
        sensor_holders::search(&wanted, proc::pids(), &mut self.reader, &mut found);
        for grip in found.into_keys() {
            let Grip::Usbmon(bus) = grip else { continue };
            let handle = Handle {
                interface: Some(Text::from(format!("usbmon{bus}"))),
                device: Some(Text::from(format!("/dev/usbmon{bus}"))),
                ..Handle::new(HandleKind::Usbmon, bus)
            };
            new.push((self.scanner.home_inode(), Seen { handle, promiscuous: None }));
        }
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
        let has_links = scan.links.is_some();
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
        let plain = |handle: Handle| Seen { handle, promiscuous: None };
        let listed = scan.traffic.map(|traffic| {
            let rows = traffic.mirrors(netns, shown, links).into_iter().map(plain).collect();
            self.beyond.set_traffic(netns, traffic);
            (Class::Mirror, rows)
        });
        let taps = has_links.then(|| {
            let rows = sensor_traffic::taps(netns, shown, links).into_iter().map(plain).collect();
            (Class::Tap, rows)
        });
        let readers = scan.readers.map(|rows| {
            let rows = rows.iter().map(|row| plain(row.handle(shown))).collect();
            (Class::Reader, rows)
        });
        let xdp = match scan.xdp {
            Some(Xdp::Rows(rows)) => {
                let handle = |row: &XdpRow| Handle {
                    // Before it is bound it receives nothing.
                    interface: name(links, i32::try_from(row.ifindex).ok().filter(|at| *at != 0)),
                    ring: Some(row.ring),
                    netns: shown,
                    ..Handle::new(HandleKind::XdpSocket, row.inode)
                };
                Some((Class::Xdp, rows.iter().map(|row| plain(handle(row))).collect()))
            }
            Some(Xdp::Count(count)) => {
                self.beyond.set_count(netns, count);
                None
            }
            None => None,
        };
        // A socket without inode is being closed.
        let before = said.len();
        let lists: [Option<(Class, Vec<Seen>)>; 4] = [listed, taps, readers, xdp];
        for (class, rows) in lists.into_iter().flatten() {
            let rows = self.table.lock().update(netns, class, looked, rows, said);
            new.extend(rows.into_iter().map(|row| (netns, row)));
        }
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
        let mut wanted: HashSet<Grip> =
            new.iter().filter_map(|(_, seen)| Grip::of(&seen.handle)).collect();
        if look != Look::First {
            let now = Instant::now();
            self.new_processes.retain(|(_, at)| now - *at < NEW_PROCESS);
            let mut first: Vec<u32> = self.new_processes.iter().map(|(pid, _)| *pid).collect();
            first.extend(self.holders().into_keys());
            first.sort_unstable();
            first.dedup();
            sensor_holders::search(&wanted, first, &mut self.reader, &mut found);
            wanted.retain(|grip| !found.contains_key(grip));
        }
        // Not again and again: what is not found now is searched for at the next steady look.
        let too_soon = matches!(look, Look::Woken | Look::Changed)
            && self.searched.is_some_and(|(at, cost)| at.elapsed() < cost * SEARCH_SHARE);
        if !wanted.is_empty() && !too_soon {
            self.search_all(&wanted, &mut found);
        }
        self.untold.retain(|_, since| since.elapsed() < ORPHAN);
        for (netns, seen) in new {
            let grip = Grip::of(&seen.handle);
            let holders = grip.and_then(|grip| found.remove(&grip)).unwrap_or_default();
            if holders.is_empty() && look != Look::First && self.may_be_told(seen.handle.key()) {
                continue;
            }
            self.table.lock().open(netns, seen, holders, look == Look::First, said);
        }
    }

    /// Whether an event that names the holder of a new handle may still wait to be read.
    fn may_be_told(&mut self, key: HandleKey) -> bool {
        let is_told = matches!(
            key.kind,
            HandleKind::PacketSocket
                | HandleKind::SockPacket
                | HandleKind::RawSocket
                | HandleKind::XdpSocket
        );
        if !is_told || !self.table.lock().has_events() {
            return false;
        }
        self.untold.entry(key).or_insert_with(Instant::now).elapsed() < TOLD_WITHIN
    }

    fn search_all(&mut self, wanted: &HashSet<Grip>, found: &mut Found) {
        let start = Instant::now();
        sensor_holders::search(wanted, proc::pids(), &mut self.reader, found);
        self.searched = Some((start, start.elapsed()));
    }

    fn add_holders(
        &mut self,
        wanted: &HashSet<Grip>,
        pids: impl IntoIterator<Item = u32>,
        said: &mut Vec<Said>,
    ) {
        let mut found = Found::new();
        sensor_holders::search(wanted, pids, &mut self.reader, &mut found);
        self.add_found(found, said);
    }

    fn add_found(&mut self, mut found: Found, said: &mut Vec<Said>) {
        let mut table = self.table.lock();
        let grips: Vec<(HandleKey, Grip)> =
            table.entries().filter_map(|(key, entry)| Some((*key, entry.grip()?))).collect();
        for (key, grip) in grips {
            for holder in found.remove(&grip).unwrap_or_default() {
                table.add_holder(key, holder, said);
            }
        }
    }

    /// Checks known holders, looks for new ones where none is left, and for further ones now and then.
    fn check_holders(&mut self, said: &mut Vec<Said>) {
        let mut entries: Vec<_> = self
            .table
            .lock()
            .entries()
            .filter_map(|(key, entry)| {
                Some((*key, entry.grip()?, entry.netns, entry.since, entry.holders.clone()))
            })
            .collect();
        let mut orphans = HashSet::new();
        let grips: HashSet<Grip> = entries.iter().map(|(_, grip, ..)| grip.clone()).collect();
        // Programs live without a holder, and there can be hundreds of them.
        entries.retain(|(key, ..)| self.deep || !key.kind.is_program());
        for (key, grip, netns, since, holders) in entries {
            let mut gone = Vec::new();
            for holder in &holders {
                match sensor_holders::still_holds(holder, &grip) {
                    Some(fd) => self.table.lock().moved(key, holder.process.key(), fd),
                    None => gone.push(holder.process.key()),
                }
            }
            let lost_all = !gone.is_empty() && gone.len() == holders.len();
            // Perhaps it was closed since this look saw it; then the next one does not.
            let seen_unheld = self.table.lock().unheld(key, lost_all);
            // No table of the kernel's shows that it is gone.
            let unlisted = match key.kind {
                kind if kind.is_program() => false,
                HandleKind::XdpSocket if !self.scanner.lists_xdp() => true,
                HandleKind::Usbmon => true,
                _ => !self.ways.contains_key(&netns),
            };
            if unlisted && (lost_all || holders.is_empty()) {
                self.table.lock().missed(key, Instant::now(), said);
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
        if due && !grips.is_empty() {
            let mut found = Found::new();
            self.search_all(&grips, &mut found);
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
