//! The sensor's event loop: processes, handles and interfaces as the kernel tells of them.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;
use bpfwatch_core::sensor::{Outlet, SensorError};
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use crate::ebpf::watch::{Source, Surroundings};
use crate::netlink::Messages;
use crate::netlink_socket::{BUFFER, NetlinkSocket};
use crate::proc::ProcDir;
use crate::proc_facts::{Facts, Home, Reader};
use crate::raw::ProcWhat;
use crate::sensor::fail;
use crate::sensor_worker::{Desk, Note};
use crate::{clock, netlink_proc, proc, proc_text};

/// How long the connector may take to answer the subscription.
const ANSWER: Duration = Duration::from_secs(1);
/// Loss makes all processes be read again; so often at most.
const RESYNC: Duration = Duration::from_secs(5);
/// Time between walks over all processes where no event tells of them.
const POLL: Duration = Duration::from_secs(1);
/// Longest time that executions wait in their ring, in milliseconds.
const GATHER: u8 = 100;
/// Datagrams taken before other descriptors have their turn.
const BURST: usize = 256;

/// The event loop.
pub struct Events<'a> {
    reader: Reader,
    outlet: &'a Outlet,
    desk: &'a Desk,
    sensor: Arc<str>,
    /// Start of each process that is known.
    starts: HashMap<u32, Option<u64>>,
    /// Events of the kernel, where it lets itself be hooked.
    pub source: Option<Source>,
    connector: Option<NetlinkSocket>,
    links: Option<NetlinkSocket>,
    answer_due: Option<Instant>,
    resynced: Instant,
    resync_due: bool,
    polled: Instant,
}

impl<'a> Events<'a> {
    /// Before it is connected.
    pub fn new(home: Home, outlet: &'a Outlet, desk: &'a Desk) -> Self {
        Self {
            reader: Reader::new(home),
            outlet,
            desk,
            sensor: Arc::from("linux.processes"),
            starts: HashMap::new(),
            source: None,
            connector: None,
            links: None,
            answer_due: None,
            resynced: Instant::now(),
            resync_due: false,
            polled: Instant::now(),
        }
    }

    /// Subscribes to what the kernel tells by itself. What it refuses is said; looking still works.
    pub fn connect(&mut self) {
        // A subscription costs the host a message for each process, on kernels before 6.6 for good.
        if self.source.is_none() {
            match NetlinkSocket::for_processes() {
                Ok(socket) => {
                    self.connector = Some(socket);
                    self.answer_due = Some(Instant::now() + ANSWER);
                }
                Err(error) => self.lost(0, &format!("no proc connector: {error}")),
            }
        }
        match NetlinkSocket::for_links() {
            Ok(socket) => self.links = Some(socket),
            Err(error) => self.lost(0, &format!("no link events: {error}")),
        }
    }

    /// Says that something was or will be missed.
    pub fn lost(&self, count: u64, why: &str) {
        self.outlet.lost(clock::now(), &self.sensor, count, why);
    }

    fn offer(&self, at: Timestamp, process: Process, kind: Kind) {
        self.outlet.offer(at, &self.sensor, Some(Arc::new(process)), kind);
    }

    /// Reads all processes: at the start, and after a loss.
    pub fn announce_all(&mut self) {
        let before = std::mem::take(&mut self.starts);
        for pid in proc::pids() {
            let facts = self.reader.read(pid);
            if facts.process.start.is_some() {
                self.arrived(facts, &before, |_, _| Kind::Running);
            }
        }
        self.left(before);
        self.resynced = Instant::now();
        self.resync_due = false;
    }

    /// Looks for new and ended processes where no event tells of them.
    fn poll_processes(&mut self) {
        let mut before = std::mem::take(&mut self.starts);
        for pid in proc::pids() {
            let start = ProcDir::open(pid).and_then(|dir| Some(dir.stat()?.start));
            match before.get(&pid) {
                Some(known) if start.is_some() && *known == start => {
                    before.remove(&pid);
                    self.starts.insert(pid, start);
                }
                _ => {
                    let facts = self.reader.read(pid);
                    if facts.process.start.is_some() {
                        self.arrived(facts, &before, copied_or_executed);
                    }
                }
            }
        }
        self.left(before);
        self.polled = Instant::now();
    }

    /// A process that a walk found. Had its number been another's, that one has ended.
    fn arrived(
        &mut self,
        facts: Facts,
        before: &HashMap<u32, Option<u64>>,
        kind: impl FnOnce(&mut Reader, &Process) -> Kind,
    ) {
        let Facts { process, netns } = facts;
        let known = before.get(&process.pid);
        if let Some(start) = known.filter(|start| **start != process.start) {
            self.ended(process.pid, *start);
        }
        self.starts.insert(process.pid, process.start);
        if let Some(netns) = netns
            && !before.is_empty()
        {
            self.desk.leave(Note::Exec(process.pid, netns));
        }
        let kind = kind(&mut self.reader, &process);
        let process = Arc::new(process);
        if let Some(source) = &mut self.source {
            source.learn(&process);
        }
        self.outlet.offer(clock::now(), &self.sensor, Some(process), kind);
    }

    /// What was there before a walk and was not found by it.
    fn left(&self, before: HashMap<u32, Option<u64>>) {
        let mut gone: Vec<_> =
            before.into_iter().filter(|(pid, _)| !self.starts.contains_key(pid)).collect();
        gone.sort_unstable();
        for (pid, start) in gone {
            self.ended(pid, start);
        }
    }

    fn ended(&self, pid: u32, start: Option<u64>) {
        self.desk.leave(Note::Exit(pid));
        self.offer(clock::now(), Process { start, ..Process::from_pid(pid) }, Kind::Exited);
    }

    /// Watches until `stop` says so.
    ///
    /// # Errors
    /// When a source fails.
    pub fn watch(&mut self, stop: &EventFd) -> Result<(), SensorError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let (stopped, process, link) = self.wait(stop)?;
            self.take_events();
            if stopped {
                return Ok(());
            }
            if process {
                self.take_processes(&mut buffer)?;
            }
            if link {
                self.take_links(&mut buffer);
            }
            if self.answer_due.is_some_and(|due| Instant::now() >= due) {
                self.answer_due = None;
                self.connector = None;
                self.lost(0, "proc connector does not answer: other pid or user namespace");
            }
            if self.connector.is_none() && self.source.is_none() && self.polled.elapsed() >= POLL {
                self.poll_processes();
            }
            if self.resync_due && self.resynced.elapsed() >= RESYNC {
                self.announce_all();
                self.desk.leave(Note::Resync);
            }
        }
    }

    /// Waits for the stop signal, processes, or interfaces.
    fn wait(&self, stop: &EventFd) -> Result<(bool, bool, bool), SensorError> {
        let mut wait = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        let sources = [&self.connector, &self.links];
        wait.extend(
            sources
                .iter()
                .filter_map(|source| source.as_ref())
                .map(|source| PollFd::new(source.as_fd(), PollFlags::POLLIN)),
        );
        let told = self.connector.is_some() || self.source.is_some();
        let impatient = self.answer_due.is_some() || self.resync_due || !told;
        let timeout = match &self.source {
            // Executions and exits wake nobody: they are read together with a handle, or now and then.
            Some(_) => PollTimeout::from(GATHER),
            None if impatient => PollTimeout::from(200u8),
            None => PollTimeout::NONE,
        };
        if let Some(source) = &self.source {
            wait.push(PollFd::new(source.handles(), PollFlags::POLLIN));
            wait.push(PollFd::new(source.processes(), PollFlags::POLLIN));
        }
        match poll(&mut wait, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(fail("poll", error)),
        }
        let mut ready = wait.iter().map(|fd| fd.any().unwrap_or(true));
        let stopped = ready.next().unwrap_or(true);
        let process = self.connector.is_some() && ready.next().unwrap_or(false);
        let link = self.links.is_some() && ready.next().unwrap_or(false);
        Ok((stopped, process, link))
    }

    /// Reads the rings of the eBPF programs.
    fn take_events(&mut self) {
        let Some(source) = &mut self.source else { return };
        let mut around = Surroundings {
            reader: &mut self.reader,
            starts: &mut self.starts,
            outlet: self.outlet,
            desk: self.desk,
        };
        if source.drain(&mut around) {
            self.resync_due = true;
        }
    }

    fn take_processes(&mut self, buffer: &mut [u8]) -> Result<(), SensorError> {
        for _ in 0..BURST {
            let Some(connector) = &self.connector else { return Ok(()) };
            match connector.receive(buffer) {
                Ok(Some(datagram)) => {
                    for event in Messages::new(datagram).filter_map(|m| netlink_proc::event(&m)) {
                        self.happened(event.what, event.monotonic_ns);
                    }
                }
                Ok(None) => break,
                Err(nix::Error::ENOBUFS) => {
                    self.lost(0, "proc connector ENOBUFS");
                    self.resync_due = true;
                }
                Err(error) => return Err(fail("proc connector", error)),
            }
        }
        Ok(())
    }

    fn happened(&mut self, what: ProcWhat, monotonic_ns: u64) {
        match what {
            ProcWhat::Answer(0) => self.answer_due = None,
            ProcWhat::Answer(error) => {
                self.answer_due = None;
                self.connector = None;
                let error = nix::Error::from_raw(error.cast_signed());
                self.lost(0, &format!("proc connector refuses: {error}"));
            }
            ProcWhat::Exec { pid } => {
                let facts = self.reader.read(pid);
                self.starts.insert(pid, facts.process.start);
                if let Some(netns) = facts.netns {
                    self.desk.leave(Note::Exec(pid, netns));
                }
                self.offer(clock::at_monotonic(monotonic_ns), facts.process, Kind::Executed);
            }
            ProcWhat::Fork { parent, child } => {
                self.desk.leave(Note::Fork(parent, child));
                let process = forked(parent, child);
                self.starts.insert(child, process.start);
                self.offer(clock::at_monotonic(monotonic_ns), process, Kind::Forked);
            }
            ProcWhat::Exit { pid } => {
                self.desk.leave(Note::Exit(pid));
                let start = self.starts.remove(&pid).flatten();
                let process = Process { start, ..Process::from_pid(pid) };
                self.offer(clock::at_monotonic(monotonic_ns), process, Kind::Exited);
            }
            ProcWhat::Other => {}
        }
    }

    fn take_links(&mut self, buffer: &mut [u8]) {
        let mut any = false;
        for _ in 0..BURST {
            match self.links.as_ref().map(|links| links.receive(buffer)) {
                Some(Ok(Some(_)) | Err(nix::Error::ENOBUFS)) => any = true,
                Some(Ok(None)) | None => break,
                Some(Err(_)) => {
                    // Only a wake-up is lost: the steady scan sees interfaces by itself.
                    self.links = None;
                }
            }
        }
        if any {
            self.desk.leave(Note::Link);
        }
    }
}

/// What became of a process that is new since the last walk: a copy looks like its parent.
fn copied_or_executed(reader: &mut Reader, process: &Process) -> Kind {
    let parent = process.ppid.map(|ppid| reader.read(ppid).process);
    match parent {
        Some(parent) if parent.image == process.image && parent.args == process.args => {
            Kind::Forked
        }
        _ => Kind::Executed,
    }
}

/// A copied process: the rest is its parent's.
fn forked(parent: u32, child: u32) -> Process {
    let stat = proc::read(&format!("/proc/{child}/stat")).and_then(|line| proc_text::stat(&line));
    let mut process = Process { ppid: Some(parent), ..Process::from_pid(child) };
    if let Some(stat) = stat {
        process.start = Some(stat.start);
        process.sid = (stat.sid != 0).then_some(stat.sid);
        process.name = Some(Text::from_bytes(&stat.name));
    }
    process
}
