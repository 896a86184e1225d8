//! The live sensor: one thread that waits on a kqueue for opens of /dev/bpf, executions, interfaces and
//! jails, and looks at the kernel's tables at once and some times more when something happened, and steadily
//! in between.
//!
//! On 15.0 and later the nodes of the host and of jails are watched by [`guard`](crate::guard). On older
//! kernels the host's alone is, by kqueue: a watch inside a jail's devfs would keep the mount busy and the
//! jail from stopping. Opens there are found by the steady looks and by those after an execution in the jail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::observation::{Interface, Kind};
use bpfwatch_core::platform::SensorSettings;
use bpfwatch_core::process::{Process, ProcessKey};
use bpfwatch_core::scope::Scope;
use bpfwatch_core::sensor::{Outlet, Sensor, SensorError};
use bpfwatch_core::text::Text;
use nix::net::if_::if_indextoname;

use crate::decode::BPF_DEVICE;
use crate::ffi::{self, Event, Kqueue};
use crate::guard::{Access, Guard, TOLD, Told};
use crate::jails::{EVFILT_JAIL, NOTE_JAIL, NOTE_JAIL_CHILD};
use crate::kernel::{Kernel, now};
use crate::opens::Opens;
use crate::poll::{Said, Table};
use crate::processes::{Followed, ProcEvent, Processes, System};
use crate::raw::{ProcRow, RouteMessage};
use crate::route::{self, IFF_PROMISC};
use crate::schedule::Schedule;

/// Of /dev/bpf: NOTE_DELETE, NOTE_ATTRIB, NOTE_REVOKE, NOTE_OPEN, NOTE_CLOSE, NOTE_CLOSE_WRITE.
const NODE: u32 = 0x1 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200;
/// NOTE_CHILD of sys/event.h.
const NOTE_CHILD: u32 = 4;
/// Time between two lists of all processes.
const RECONCILE: Duration = Duration::from_secs(5);
/// Time to wait after a loss until they are listed.
const DOUBT: Duration = Duration::from_millis(200);
/// Time between attempts to watch a node that is gone.
const REOPEN: Duration = Duration::from_secs(1);
/// Identifier of the event that ends the sensor.
const STOP: usize = 1;

/// Watches BPF descriptors, processes and interfaces.
pub struct FreebsdSensor {
    kqueue: Arc<Kqueue>,
    idle: u64,
}

fn fail(what: &str, error: &io::Error) -> SensorError {
    let mend = match error.kind() {
        io::ErrorKind::PermissionDenied => "run it as root on the host",
        io::ErrorKind::NotFound => {
            "is devfs mounted, and does this kernel have BPF (`device bpf`)?"
        }
        _ => "`bpfwatch doctor` tells what can be seen here",
    };
    SensorError { sensor: "freebsd", what: format!("{what}: {error}"), mend: Some(mend.to_owned()) }
}

impl FreebsdSensor {
    /// Prepares to watch.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(settings: &SensorSettings) -> Result<Self, SensorError> {
        let kqueue = Kqueue::new().map_err(|error| fail("kqueue", &error))?;
        for ident in [STOP, TOLD] {
            let user = ask(ident, libc::EVFILT_USER, 0);
            kqueue.change(user).map_err(|error| fail("kqueue", &error))?;
        }
        Ok(Self { kqueue: Arc::new(kqueue), idle: settings.scan_interval_ms.max(10) })
    }
}

fn ask(ident: usize, filter: i16, fflags: u32) -> Event {
    // Without EV_CLEAR a vnode's event would come again and again.
    Event { ident, filter, flags: libc::EV_ADD | libc::EV_CLEAR, fflags, data: 0 }
}

/// The jail that a process is in; 0 for the host.
fn jail_of(process: &Process) -> u32 {
    match process.scope.as_deref() {
        Some(Scope::Jail { jid, .. }) => jid.unwrap_or(0),
        _ => 0,
    }
}

impl Sensor for FreebsdSensor {
    fn name(&self) -> &'static str {
        "freebsd"
    }

    fn via(&self) -> Option<String> {
        Some("kqueue, kern.file and net.bpf.stats".to_owned())
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let kqueue = Arc::clone(&self.kqueue);
        Box::new(move || {
            let flags = 0;
            let fflags = libc::NOTE_TRIGGER;
            // It can only fail when the queue is gone, and then nobody waits.
            let _ = kqueue.change(Event {
                ident: STOP,
                filter: libc::EVFILT_USER,
                flags,
                fflags,
                data: 0,
            });
        })
    }

    fn run(self: Box<Self>, outlet: &Outlet) -> Result<(), SensorError> {
        let mut kernel = Kernel::new().map_err(|error| fail("net.bpf.stats", &error))?;
        let device = kernel.find_device().map_err(|error| fail(BPF_DEVICE, &error))?;
        let (guard, no_guard) = match Guard::start(Arc::clone(&self.kqueue)) {
            Ok(guard) => (Some(guard), None),
            Err(error) => (None, Some(error)),
        };
        let mut state = State {
            source: Source { kernel, kqueue: &self.kqueue },
            guard,
            opens: Opens::default(),
            looked: false,
            device,
            outlet,
            table: Table::default(),
            processes: Processes::default(),
            schedule: Schedule::new(0, self.idle),
            start: Instant::now(),
            node: None,
            node_tried: Instant::now(),
            route: None,
            promiscuous: BTreeMap::new(),
            reconciled: Instant::now(),
            blind: BTreeMap::new(),
            names: Names::default(),
        };
        // An older kernel has no such watches, which `doctor` says; nothing is wrong with it.
        if let Some(error) = no_guard.filter(|error| error.kind() != io::ErrorKind::Unsupported) {
            state.blind("watches of bpf nodes by inotify; opens in jails", Some(&error));
        }
        state.begin();
        state.watch()
    }
}

/// Names of the sources, in observations.
struct Names {
    handles: Arc<str>,
    processes: Arc<str>,
    links: Arc<str>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            handles: Arc::from("freebsd.bpf"),
            processes: Arc::from("freebsd.processes"),
            links: Arc::from("freebsd.links"),
        }
    }
}

/// The kernel as the process table asks it.
struct Source<'a> {
    kernel: Kernel,
    kqueue: &'a Kqueue,
}

impl System for Source<'_> {
    fn list(&mut self) -> Option<Vec<ProcRow>> {
        self.kernel.all().ok()
    }

    fn follow(&mut self, pid: u32) -> Followed {
        let notes = libc::NOTE_EXIT | libc::NOTE_EXEC | libc::NOTE_TRACK;
        match self.kqueue.change(ask(pid as usize, libc::EVFILT_PROC, notes)) {
            Ok(()) => Followed::Yes,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Followed::Gone,
            Err(_) => Followed::No,
        }
    }

    fn read(&mut self, pid: u32) -> Process {
        self.kernel.read(pid)
    }
}

struct State<'a> {
    source: Source<'a>,
    /// Watches of nodes, where the kernel has inotify(2).
    guard: Option<Guard>,
    opens: Opens,
    /// There was a look.
    looked: bool,
    device: u64,
    outlet: &'a Outlet,
    table: Table,
    processes: Processes,
    schedule: Schedule,
    start: Instant,
    /// /dev/bpf, opened for its path alone, and its mode, owner and group.
    node: Option<(File, Access)>,
    node_tried: Instant,
    route: Option<File>,
    /// Interfaces that are promiscuous, by index.
    promiscuous: BTreeMap<u16, Text>,
    reconciled: Instant,
    /// What cannot be seen now, and was said.
    blind: BTreeMap<&'static str, String>,
    names: Names,
}

impl State<'_> {
    fn millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn begin(&mut self) {
        if self.guard.is_none() {
            self.watch_node();
        }
        match ffi::socket(libc::PF_ROUTE, libc::SOCK_RAW, 0) {
            Ok(socket) => self.watch_route(socket),
            Err(error) => self.blind("route socket", Some(&error)),
        }
        // Not known before 15: then the list of jails is read each half a minute.
        let _ = self.watch_jail(0);
        for jail in self.source.kernel.jails() {
            let _ = self.watch_jail(jail.jid);
        }
        let mut said = Vec::new();
        let how = self.processes.begin(&mut self.source, &mut said);
        self.offer(said, |names| &names.processes);
        self.refused(how.refused);
    }

    fn watch_jail(&self, jid: u32) -> io::Result<()> {
        self.source.kqueue.change(ask(jid as usize, EVFILT_JAIL, NOTE_JAIL))
    }

    fn watch_route(&mut self, socket: OwnedFd) {
        let socket = File::from(socket);
        let asked = ask(socket.as_raw_fd() as usize, libc::EVFILT_READ, 0);
        match self.source.kqueue.change(asked) {
            Ok(()) => self.route = Some(socket),
            Err(error) => self.blind("route socket", Some(&error)),
        }
    }

    /// Watches the host's node. Opened for its path alone, no BPF descriptor is made of it.
    fn watch_node(&mut self) {
        self.node_tried = Instant::now();
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(BPF_DEVICE);
        let watched = opened.and_then(|node| {
            let facts = node.metadata()?;
            self.source.kqueue.change(ask(node.as_raw_fd() as usize, libc::EVFILT_VNODE, NODE))?;
            let access = Access { mode: facts.mode() & 0o7777, uid: facts.uid(), gid: facts.gid() };
            Ok((node, access))
        });
        match watched {
            Ok(node) => {
                self.node = Some(node);
                self.blind("opens of /dev/bpf", None);
            }
            Err(error) => self.blind("opens of /dev/bpf", Some(&error)),
        }
    }

    /// Says once that something cannot be seen, and again when the reason changes.
    fn blind(&mut self, what: &'static str, error: Option<&io::Error>) {
        let Some(error) = error else {
            self.blind.remove(what);
            return;
        };
        let why = format!("{what}: {error}");
        if self.blind.get(what) != Some(&why) {
            self.outlet.lost(now(), &self.names.handles, 0, &why);
            self.blind.insert(what, why);
        }
    }

    fn refused(&self, count: u64) {
        if count > 0 {
            let why = "processes that the kernel does not let be followed";
            self.outlet.lost(now(), &self.names.processes, count, why);
        }
    }

    fn offer(&self, said: Vec<Said>, sensor: fn(&Names) -> &Arc<str>) {
        let at = now();
        for (actor, kind) in said {
            self.outlet.offer(at, sensor(&self.names), actor, kind);
        }
    }

    fn watch(&mut self) -> Result<(), SensorError> {
        let mut events = Vec::new();
        loop {
            let next = self.opens.next().unwrap_or(u64::MAX);
            let wait = self.schedule.next().min(next).saturating_sub(self.millis());
            let wait = Duration::from_millis(wait.min(crate::schedule::BUSY));
            self.source.kqueue.wait(wait, &mut events).map_err(|error| fail("kevent", &error))?;
            for event in &events {
                if event.filter == libc::EVFILT_USER && event.ident == STOP {
                    return Ok(());
                }
                self.happened(event);
            }
            let at = self.millis();
            // Where the nodes of jails are watched too, there is no need to look for opens.
            let unwatched =
                self.guard.is_none() && (self.node.is_none() || self.source.kernel.has_jails());
            if self.schedule.take(at, self.table.is_busy() || unwatched) {
                self.look(at);
            }
            self.say_unnamed(at);
            let pause = if self.processes.doubtful { DOUBT } else { RECONCILE };
            if self.reconciled.elapsed() >= pause {
                self.reconcile();
            }
            if self.guard.is_none() && self.node.is_none() && self.node_tried.elapsed() >= REOPEN {
                self.watch_node();
            }
        }
    }

    fn reconcile(&mut self) {
        self.reconciled = Instant::now();
        let mut said = Vec::new();
        let how = self.processes.reconcile(&mut self.source, &mut said);
        self.offer(said, |names| &names.processes);
        self.refused(how.refused);
    }

    fn look(&mut self, at: u64) {
        match self.source.kernel.look(self.device) {
            Ok((look, error)) => {
                self.blind("kern.file", None);
                self.blind("net.bpf.stats", error.as_ref());
                let mut said = Vec::new();
                let first = !std::mem::replace(&mut self.looked, true);
                self.table.update(&look, at, &mut self.source.kernel, &mut said);
                for jid in self.newly_open(&said) {
                    self.opens.found(jid, at);
                }
                if first {
                    // What was open before the watches began has no open that will be told.
                    self.opens.begin();
                }
                self.offer(said, |names| &names.handles);
            }
            Err(error) => self.blind("kern.file", Some(&error)),
        }
    }

    /// The jail of each descriptor that was opened since the last look; one that another process has too,
    /// inherited or passed on, was opened once.
    fn newly_open(&self, said: &[Said]) -> Vec<u32> {
        let mut seen = BTreeSet::new();
        let opened = said.iter().filter_map(|(actor, kind)| match kind {
            Kind::HandleOpened { handle, .. } => Some((handle.id, actor.as_ref()?)),
            _ => None,
        });
        let new = opened.filter(|(id, _)| self.table.is_new(*id) && seen.insert(*id));
        new.map(|(_, actor)| jail_of(actor)).collect()
    }

    fn happened(&mut self, event: &Event) {
        match event.filter {
            libc::EVFILT_VNODE => self.node_event(event),
            libc::EVFILT_USER => self.told(),
            libc::EVFILT_PROC => self.process_event(event),
            libc::EVFILT_READ => self.route_event(),
            EVFILT_JAIL => {
                self.source.kernel.forget_jails();
                if event.fflags & NOTE_JAIL_CHILD != 0 {
                    for jail in self.source.kernel.jails() {
                        let _ = self.watch_jail(jail.jid);
                    }
                }
                let at = self.millis();
                self.schedule.event(at);
            }
            _ => {}
        }
    }

    /// What the watches of nodes say.
    fn told(&mut self) {
        let Some(told) = self.guard.as_ref().map(Guard::take) else { return };
        let at = self.millis();
        for told in told {
            match told {
                Told::Opened(node) => {
                    self.opens.opened(node, at);
                    self.schedule.event(at);
                }
                Told::Closed => self.schedule.event(at),
                Told::Loosened(node, before, after) => {
                    let path = Text::from_bytes_limited(&node.path, 1024);
                    self.loosened(path, before, after);
                }
                Told::Jails => {
                    self.source.kernel.forget_jails();
                    self.schedule.event(at);
                }
                Told::Overflow => {
                    let why = "more opens of /dev/bpf than the kernel queues";
                    self.outlet.lost(now(), &self.names.handles, 0, why);
                }
                Told::Blind(error) => self.blind("opens of /dev/bpf", Some(&error)),
            }
        }
    }

    /// Opens that were told and that no look found anybody for.
    fn say_unnamed(&mut self, at: u64) {
        for unnamed in self.opens.take(at) {
            let scope = self.source.kernel.scope(unnamed.node.jid);
            let (records, more) = unnamed.records(&scope);
            let said = records.map(|record| (None, Kind::Logged { record: Arc::new(record) }));
            self.offer(said.collect(), |names| &names.handles);
            if more > 0 {
                let why = "opens of a bpf node by nobody that could be found, counted and not said";
                self.outlet.lost(now(), &self.names.handles, more, why);
            }
        }
    }

    fn node_event(&mut self, event: &Event) {
        const DELETE: u32 = 0x1;
        const ATTRIB: u32 = 0x8;
        const REVOKE: u32 = 0x40;
        let at = self.millis();
        self.schedule.event(at);
        if event.fflags & ATTRIB != 0 {
            self.access_changed();
        }
        if event.fflags & (DELETE | REVOKE) != 0 || event.flags & libc::EV_EOF != 0 {
            // Whoever calls revoke(2) on one mount's node ends the watches of all.
            self.node = None;
            self.watch_node();
        }
    }

    /// Mode, owner or group of the node were set, or its times only.
    fn access_changed(&mut self) {
        let Some((node, before)) = &mut self.node else { return };
        let Ok(facts) = node.metadata() else { return };
        let after = Access { mode: facts.mode() & 0o7777, uid: facts.uid(), gid: facts.gid() };
        let before = std::mem::replace(before, after);
        self.loosened(Text::from(BPF_DEVICE), before, after);
    }

    fn loosened(&self, path: Text, before: Access, after: Access) {
        let mode = (after.mode & !before.mode & 0o066 != 0).then_some(after.mode);
        let uid = (after.uid != before.uid && after.uid != 0).then_some(after.uid);
        let gid = (after.gid != before.gid && after.gid != 0).then_some(after.gid);
        if (mode, uid, gid) != (None, None, None) {
            let kind = Kind::AccessLoosened { path, mode, uid, gid };
            self.outlet.offer(now(), &self.names.handles, None, kind);
        }
    }

    fn process_event(&mut self, event: &Event) {
        let Ok(pid) = u32::try_from(event.ident) else { return };
        let parent = u32::try_from(event.data).unwrap_or(0);
        // Several may have come in one: in the order in which they happen.
        let notes = [
            (NOTE_CHILD, ProcEvent::Child { pid, parent }),
            (libc::NOTE_EXEC, ProcEvent::Execute(pid)),
            (libc::NOTE_TRACKERR, ProcEvent::Untracked(pid)),
            (libc::NOTE_EXIT, ProcEvent::Exit(pid)),
        ];
        let mut said = Vec::new();
        for (note, what) in notes {
            if event.fflags & note != 0 {
                self.processes.happened(what, &mut self.source, &mut said);
            }
        }
        let holder = self.table.holds(ProcessKey { pid, start: None });
        let jailed = said.iter().any(|(actor, kind)| {
            let scope = actor.as_ref().and_then(|actor| actor.scope.as_deref());
            *kind == Kind::Executed && matches!(scope, Some(Scope::Jail { .. }))
        });
        let at = self.millis();
        for (actor, kind) in &said {
            if let (Some(actor), Kind::Executed) = (actor, kind) {
                let image = actor.image.as_ref().or(actor.name.as_ref());
                let image = image.map_or("?", Text::as_str);
                let what = format!("{image} (pid {pid})");
                self.opens.executed(jail_of(actor), what, at);
            }
        }
        self.offer(said, |names| &names.processes);
        if event.fflags & libc::NOTE_TRACKERR != 0 {
            let why = "a process that the kernel could not follow";
            self.outlet.lost(now(), &self.names.processes, 1, why);
        }
        // Opens in a jail's own /dev give no event; those of a holder change who holds.
        if holder || jailed {
            self.schedule.event(at);
        }
    }

    fn route_event(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            let Some(route) = &mut self.route else { return };
            match route.read(&mut buffer) {
                Ok(0) => self.route = None,
                Ok(length) => {
                    for message in route::messages(&buffer[..length]) {
                        self.route_message(&message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.outlet.lost(now(), &self.names.links, 0, "route socket ENOBUFS");
                }
                Err(error) => {
                    self.route = None;
                    self.blind("route socket", Some(&error));
                }
            }
        }
    }

    fn route_message(&mut self, message: &RouteMessage) {
        let RouteMessage::Interface { index, flags } = message else { return };
        let on = flags & IFF_PROMISC != 0;
        if on == self.promiscuous.contains_key(index) {
            return;
        }
        let name = if on {
            let name = if_indextoname(u32::from(*index)).ok();
            let name = Text::from_bytes(name.as_deref().map_or(b"?", |name| name.to_bytes()));
            self.promiscuous.insert(*index, name.clone());
            name
        } else {
            self.promiscuous.remove(index).unwrap_or_default()
        };
        let interface = Interface { name, netns: None, count: None, role: None };
        let kind = Kind::InterfacePromiscuous { interface, on };
        self.outlet.offer(now(), &self.names.links, None, kind);
        let at = self.millis();
        self.schedule.event(at);
    }
}
