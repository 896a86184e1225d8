//! From events of the kernel to what is said about handles and processes.
//!
//! Both rings are emptied, the one of handles first, and what they gave is put in order of time: so an
//! execution always comes before the handle that its process opened, also when it was read later.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::handle::{Handle, HandleKey, HandleKind};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;
use bpfwatch_core::program::BpfProgram;
use bpfwatch_core::sensor::{Offer, Outlet};
use bpfwatch_core::text::Text;

use super::layout::{self, HandleRow, ProcessRow, What, Who};
use super::load::Loaded;
use crate::clock::Clocks;
use crate::decode;
use crate::proc_facts::{self, Reader};
use crate::programs::info;
use crate::raw::{PacketRow, RawIpRow};
use crate::sensor_table::{Holder, Said, Seen, Shared, Table};
use crate::sensor_worker::{Desk, Note};

/// Address families (include/linux/socket.h).
const AF_PACKET: u16 = 17;
const AF_XDP: u16 = 44;
const AF_INET6: u16 = 10;
/// Time between looks at the counts of what was lost.
const COUNT: Duration = Duration::from_secs(1);
/// Handle events that are read before others have their turn.
const BURST: usize = 512;
/// The execution of a process that opened a handle is waited for so long.
const PATIENCE: Duration = Duration::from_millis(2);
/// Processes that are known; over it all are read from /proc again when they open something.
const KNOWN: usize = 16_384;

/// Namespaces that are remembered as told.
const NAMESPACES: usize = 4096;

/// A process, or the copy of one that has executed nothing since.
struct Known {
    process: Arc<Process>,
    start: u64,
    /// How often it and its parents had executed something then; `None` for one that a walk found.
    execs: Option<u32>,
}

impl Known {
    /// Whether it stands for the process of an event: no later execution is yet to be read.
    fn is(&self, who: &Who) -> bool {
        self.start == who.start() && self.execs.is_none_or(|execs| execs == who.execs)
    }
}

/// What is needed besides the rings.
pub struct Surroundings<'a> {
    /// Reads processes.
    pub reader: &'a mut Reader,
    /// Start of each process that is there.
    pub starts: &'a mut HashMap<u32, Option<u64>>,
    /// Where observations go.
    pub outlet: &'a Outlet,
    /// Where notes go.
    pub desk: &'a Desk,
}

/// The events of one run.
pub struct Source {
    loaded: Loaded,
    table: Shared,
    known: HashMap<u32, Known>,
    sensor: Arc<str>,
    handles: Vec<HandleRow>,
    processes: Vec<ProcessRow>,
    said: Vec<Said>,
    /// Namespaces that the worker was told of.
    namespaces: HashSet<u32>,
    lost: [u64; 2],
    counted: Instant,
}

impl Source {
    /// For programs that are attached. Handles go into `table`.
    pub fn new(loaded: Loaded, table: Shared) -> Self {
        table.lock().expect_events();
        Self {
            loaded,
            table,
            known: HashMap::new(),
            sensor: Arc::from("linux.ebpf"),
            handles: Vec::new(),
            processes: Vec::new(),
            said: Vec::new(),
            namespaces: HashSet::new(),
            lost: [0; 2],
            counted: Instant::now(),
        }
    }

    /// Becomes readable when a handle changed.
    pub fn handles(&self) -> BorrowedFd<'_> {
        self.loaded.handles.as_fd()
    }

    /// Becomes readable when the ring of processes fills up.
    pub fn processes(&self) -> BorrowedFd<'_> {
        self.loaded.processes.as_fd()
    }

    /// A process that a walk over all of them found.
    pub fn learn(&mut self, process: &Arc<Process>) {
        self.learn_at(process, None);
    }

    fn learn_at(&mut self, process: &Arc<Process>, execs: Option<u32>) {
        if let Some(start) = process.start
            && self.known.len() < KNOWN
        {
            let process = Arc::clone(process);
            self.known.insert(process.pid, Known { process, start, execs });
        }
    }

    /// Reads the ring of processes, until it has what the handles need. A record that another processor has
    /// begun holds up those behind it for a moment.
    fn read_processes(&mut self, handles: &[HandleRow], processes: &mut Vec<ProcessRow>) {
        let began = Instant::now();
        loop {
            while let Some(item) = self.loaded.processes.next() {
                processes.extend(layout::process(&item));
            }
            let told = |who: &Who| {
                self.known.get(&who.pid).is_some_and(|known| known.is(who))
                    || processes.iter().any(|row| {
                        (row.who.pid, row.who.start_ns, row.who.execs)
                            == (who.pid, who.start_ns, who.execs)
                    })
            };
            if began.elapsed() >= PATIENCE || handles.iter().all(|row| told(&row.who)) {
                break;
            }
            std::thread::sleep(PATIENCE / 40);
        }
    }

    /// Reads what is there. Whether events were lost since the last call.
    pub fn drain(&mut self, around: &mut Surroundings<'_>) -> bool {
        loop {
            let began = Instant::now();
            let mut handles = std::mem::take(&mut self.handles);
            let mut processes = std::mem::take(&mut self.processes);
            while handles.len() < BURST
                && let Some(item) = self.loaded.handles.next()
            {
                handles.extend(layout::handle(&item));
            }
            self.read_processes(&handles, &mut processes);
            let whole = handles.len() < BURST;
            // Nearly in order by themselves: each processor writes its own.
            handles.sort_by_key(|row| row.who.monotonic_ns);
            processes.sort_by_key(|row| row.who.monotonic_ns);
            self.tell(&handles, &processes, around);
            if whole {
                self.caught_up(began, around.outlet);
            }
            handles.clear();
            processes.clear();
            (self.handles, self.processes) = (handles, processes);
            if whole {
                break;
            }
        }
        self.count_lost(around.outlet)
    }

    fn tell(
        &mut self,
        handles: &[HandleRow],
        processes: &[ProcessRow],
        around: &mut Surroundings<'_>,
    ) {
        if handles.is_empty() && processes.is_empty() {
            return;
        }
        let clocks = Clocks::read();
        let table = self.table.clone();
        let mut table = table.lock();
        let mut offers = Vec::with_capacity(processes.len() + 2 * handles.len());
        let mut next = processes.iter().peekable();
        for row in handles {
            while let Some(earlier) =
                next.next_if(|process| process.who.monotonic_ns <= row.who.monotonic_ns)
            {
                offers.extend(self.process(earlier, &table, &clocks, around));
            }
            self.handle(row, &mut table, around);
            let at = clocks.wall(row.who.monotonic_ns);
            let said = self.said.drain(..);
            offers.extend(said.map(|(actor, kind)| Offer { at, actor, kind }));
        }
        for row in next {
            offers.extend(self.process(row, &table, &clocks, around));
        }
        // Under the lock, so that a look's words about the same handle come after these.
        around.outlet.offer_all(&self.sensor, offers);
    }

    /// Closes what looks found to be gone before `moment`: whatever happened to it has been told.
    fn caught_up(&mut self, moment: Instant, outlet: &Outlet) {
        let table = self.table.clone();
        let mut table = table.lock();
        table.caught_up(moment, &mut self.said);
        let at = crate::clock::now();
        let said = self.said.drain(..).map(|(actor, kind)| Offer { at, actor, kind });
        outlet.offer_all(&self.sensor, said);
    }

    /// Counts what found a ring full.
    fn count_lost(&mut self, outlet: &Outlet) -> bool {
        if self.counted.elapsed() < COUNT {
            return false;
        }
        self.counted = Instant::now();
        let now = self.loaded.lost();
        let before = std::mem::replace(&mut self.lost, now);
        let mut any = false;
        for (ring, why) in
            ["eBPF ring of handles full", "eBPF ring of processes full"].into_iter().enumerate()
        {
            let count = now[ring] - before[ring].min(now[ring]);
            if count > 0 {
                outlet.lost(crate::clock::now(), &self.sensor, count, why);
                any = true;
            }
        }
        any
    }

    fn process(
        &mut self,
        row: &ProcessRow,
        table: &Table,
        clocks: &Clocks,
        around: &mut Surroundings<'_>,
    ) -> Option<Offer> {
        let who = &row.who;
        let at = clocks.wall(who.monotonic_ns);
        let start = who.start();
        let (process, kind) = match (who.what, &row.exec) {
            (What::Exec, Some(exec)) => {
                let process = Arc::new(around.reader.executed(who, exec));
                around.starts.insert(who.pid, process.start);
                self.learn_at(&process, Some(who.execs));
                self.namespace(who, around.desk);
                (process, Kind::Executed)
            }
            (What::Fork, _) => {
                let process = Process {
                    start: Some(start),
                    ppid: Some(who.ppid),
                    sid: (who.sid != 0).then_some(who.sid),
                    name: Some(Text::from_bytes(&who.comm)),
                    ..Process::from_pid(who.pid)
                };
                around.starts.insert(who.pid, process.start);
                let parent = self.known.get(&who.ppid).map(|parent| Arc::clone(&parent.process));
                if let Some(process) = parent
                    && self.known.len() < KNOWN
                {
                    let execs = Some(who.execs);
                    self.known.insert(who.pid, Known { process, start, execs });
                }
                if table.is_holder(who.ppid) {
                    around.desk.leave_now(Note::Fork(who.ppid, who.pid));
                }
                (Arc::new(process), Kind::Forked)
            }
            (What::Exit, _) => {
                around.starts.remove(&who.pid);
                self.known.remove(&who.pid);
                if table.is_holder(who.pid) {
                    around.desk.leave_now(Note::Exit(who.pid));
                }
                let process = Process { start: Some(start), ..Process::from_pid(who.pid) };
                (Arc::new(process), Kind::Exited)
            }
            _ => return None,
        };
        Some(Offer { at, actor: Some(process), kind })
    }

    /// Tells the worker of a network namespace, once.
    fn namespace(&mut self, who: &Who, desk: &Desk) {
        if self.namespaces.len() >= NAMESPACES {
            self.namespaces.clear();
        }
        if self.namespaces.insert(who.net) {
            desk.leave(Note::Namespace(who.pid, u64::from(who.net)));
        }
    }

    fn handle(&mut self, row: &HandleRow, table: &mut Table, around: &mut Surroundings<'_>) {
        let netns = u64::from(row.net);
        if row.who.what == What::Flags {
            let actor = self.actor(row, around.reader);
            around.desk.leave(Note::Flags(netns, row.interface.clone(), row.on, actor));
            return;
        }
        if row.who.what == What::Program {
            self.program(row, table, around);
            return;
        }
        if row.inode == 0 {
            around.desk.leave_now(Note::Look(netns));
            return;
        }
        let key = key(row);
        if row.who.what == What::Close {
            table.close(key, &mut self.said);
            return;
        }
        let interface = interface(row);
        let known = table.change(
            key,
            |seen| match row.who.what {
                What::Bind => {
                    seen.handle.interface = interface.clone();
                    if row.protocol != 0 {
                        seen.handle.protocol = Some(decode::ether_type(row.protocol));
                    }
                }
                What::Filter => seen.handle.filter = Some(row.on),
                What::Ring => seen.handle.ring = Some(row.on),
                What::Promisc => seen.promiscuous = Some(row.on),
                _ => {}
            },
            &mut self.said,
        );
        if known && !matches!(row.who.what, What::Receive | What::Open) {
            return;
        }
        let holder = Holder { process: self.actor(row, around.reader), fd: 0 };
        if known {
            table.add_holder(key, holder, &mut self.said);
            return;
        }
        if row.who.what == What::Open {
            self.namespace(&row.who, around.desk);
        }
        let shown = around.reader.home().foreign_net(netns);
        let mut seen = Seen { handle: new_handle(row, shown), promiscuous: None };
        match row.who.what {
            // Of one that was there before, other things than these are not known.
            What::Bind => seen.handle.interface = interface,
            What::Filter => seen.handle.filter = Some(row.on),
            What::Promisc => seen.promiscuous = Some(row.on),
            What::Ring => seen.handle.ring = Some(row.on),
            What::Open if row.family == AF_PACKET => {
                seen.handle.interface = Some(Text::from("any"));
                seen.handle.filter = Some(false);
                seen.handle.ring = Some(false);
                seen.promiscuous = Some(false);
            }
            _ => {}
        }
        table.open(netns, seen, vec![holder], false, &mut self.said);
        if !self.loaded.hook.tells_close() {
            around.desk.leave(Note::Opened(netns));
        }
    }

    /// A program was loaded, or attached: what else it is, and where it is attached, the steady
    /// look tells. One between load and attachment would list it as attached nowhere for a while.
    fn program(&mut self, row: &HandleRow, table: &mut Table, around: &mut Surroundings<'_>) {
        let known = info::packet_type(u32::from(row.socket_type));
        // Without maps it can tell nobody: the looks leave such ones out too.
        if let Some((name, kind)) = known.filter(|(_, kind)| row.on || !info::needs_maps(*kind)) {
            let program = BpfProgram {
                program_type: Some(Text::from(name)),
                uid: Some(row.who.uid),
                ..BpfProgram::default()
            };
            let program = Some(Box::new(program));
            let handle = Handle { program, ..Handle::new(kind, row.inode) };
            let holder = Holder { process: self.actor(row, around.reader), fd: 0 };
            let seen = Seen { handle, promiscuous: None };
            table.open(0, seen, vec![holder], false, &mut self.said);
        }
    }

    /// The process that an event names: as its last execution left it, with what the event tells anew.
    fn actor(&self, row: &HandleRow, reader: &mut Reader) -> Arc<Process> {
        let who = &row.who;
        let mut process = self.last_execution(who, reader);
        reader.of_event(who, &row.cgroup, &mut process);
        if process.image_deleted == Some(false) && proc_facts::image_is_gone(who) {
            process.image_deleted = Some(true);
        }
        Arc::new(process)
    }

    fn last_execution(&self, who: &Who, reader: &mut Reader) -> Process {
        if let Some(known) = self.known.get(&who.pid).filter(|known| known.is(who)) {
            return Process::clone(&known.process);
        }
        // Its execution was lost, or there are too many processes.
        let process = reader.read(who.pid).process;
        let same = process.start == Some(who.start());
        if same { process } else { Process::from_pid(who.pid) }
    }
}

fn key(row: &HandleRow) -> HandleKey {
    let kind = match (row.family, row.socket_type) {
        (AF_PACKET, 10) => HandleKind::SockPacket,
        (AF_PACKET, _) => HandleKind::PacketSocket,
        (AF_XDP, _) => HandleKind::XdpSocket,
        _ => HandleKind::RawSocket,
    };
    HandleKey { kind, id: row.inode }
}

fn new_handle(row: &HandleRow, netns: Option<u64>) -> Handle {
    match row.family {
        AF_PACKET => {
            let packet = PacketRow {
                inode: row.inode,
                socket_type: u8::try_from(row.socket_type).unwrap_or(0),
                protocol: row.protocol,
                ifindex: row.ifindex,
                uid: None,
                promiscuous: None,
                filter: None,
                ring: None,
            };
            decode::packet_handle(&packet, None, netns)
        }
        AF_XDP => Handle { netns, ..Handle::new(HandleKind::XdpSocket, row.inode) },
        family => {
            let raw = RawIpRow {
                inode: row.inode,
                ip_version: if family == AF_INET6 { 6 } else { 4 },
                protocol: u8::try_from(row.protocol).unwrap_or(0),
                ifindex: None,
                uid: None,
            };
            decode::raw_handle(&raw, None, netns)
        }
    }
}

/// Name of the interface; `any` where all are meant.
fn interface(row: &HandleRow) -> Option<Text> {
    match &row.interface[..] {
        [] if row.ifindex == 0 => Some(Text::from("any")),
        [] => None,
        name => Some(Text::from_bytes(name)),
    }
}
