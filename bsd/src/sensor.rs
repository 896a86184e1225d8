//! The live sensor: one thread that waits on a kqueue for opens of /dev/bpf, executions, interfaces and
//! jails, and looks at the kernel's tables at once and some times more when something happened, and steadily
//! in between.
//!
//! On 15.0 and later the nodes of the host and of jails are watched by [`guard`](crate::guard). On older
//! kernels the host's alone is, by kqueue: a watch inside a jail's devfs would keep the mount busy and the
//! jail from stopping. Opens there are found by the steady looks and by those after an execution in the jail.
//!
//! | part | duty |
//! |---|---|
//! | [`executions`] | processes: events, lists |
//! | [`nodes`] | opens of bpf nodes, told and by nobody |
//! | [`looks`] | the tables |
//! | [`links`] | promiscuous interfaces |
//! | [`audit`] | the audit pipe, where it is asked for |

mod audit;
mod executions;
mod links;
mod looks;
mod nodes;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::platform::{Audit as Wanted, SensorSettings};
use bpfwatch_core::process::Process;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::sensor::{Outlet, Sensor, SensorError, Via};

use self::audit::Audit;
use self::executions::Source;
use crate::auditpipe::AuditPipe;
use crate::captures::Captures;
use crate::decode::BPF_DEVICE;
use crate::ffi::{Event, Kqueue};
use crate::guard::{Access, Guard, TOLD};
use crate::interfaces::Interfaces;
use crate::jails::{EVFILT_JAIL, NOTE_JAIL, NOTE_JAIL_ATTACH, NOTE_JAIL_CHILD};
use crate::kernel::{Kernel, now};
use crate::opens::Opens;
use crate::poll::{Said, Table};
use crate::processes::Processes;
use crate::schedule::Schedule;

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
    wanted: Wanted,
    pipe: Option<AuditPipe>,
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
    /// When the audit pipe is asked for and gives nothing, or the system has no descriptor left.
    pub fn new(settings: &SensorSettings) -> Result<Self, SensorError> {
        let kqueue = Kqueue::new().map_err(|error| fail("kqueue", &error))?;
        for ident in [STOP, TOLD] {
            let user = ask(ident, libc::EVFILT_USER, 0);
            kqueue.change(user).map_err(|error| fail("kqueue", &error))?;
        }
        let wanted = settings.audit;
        let pipe = (wanted != Wanted::Off).then(|| AuditPipe::open(wanted)).transpose()?;
        if let Some(pipe) = &pipe {
            // Again and again while there is something to read: one turn does not read all of a flood.
            let (ident, flags) = (pipe.descriptor() as usize, libc::EV_ADD);
            let read = Event { ident, filter: libc::EVFILT_READ, flags, fflags: 0, data: 0 };
            kqueue.change(read).map_err(|error| fail("the audit pipe", &error))?;
        }
        let idle = settings.scan_interval_ms.max(10);
        Ok(Self { kqueue: Arc::new(kqueue), idle, wanted, pipe })
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

    fn via(&self) -> Option<Via> {
        let via = match self.wanted {
            Wanted::Off => "kqueue, kern.file and net.bpf.stats",
            Wanted::Exec => "kqueue, kern.file, net.bpf.stats and audit records of executions",
            Wanted::ExecOpen => {
                "kqueue, kern.file, net.bpf.stats and audit records of executions and opens"
            }
        };
        Some(via.into())
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
        let device = kernel.find_device(BPF_DEVICE).map_err(|error| fail(BPF_DEVICE, &error))?;
        let rdev = fs::metadata(BPF_DEVICE).map_err(|error| fail(BPF_DEVICE, &error))?.rdev();
        let opens = self.wanted == Wanted::ExecOpen;
        let audit = self.pipe.map(|pipe| Audit::new(pipe, opens, rdev));
        let (guard, no_guard) = match Guard::start(Arc::clone(&self.kqueue)) {
            Ok(guard) => (Some(guard), None),
            Err(error) => (None, Some(error)),
        };
        let mut state = State {
            source: Source { kernel, kqueue: &self.kqueue },
            guard,
            audit,
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
            interfaces: None,
            captures: Captures::new(true),
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
    audit: Arc<str>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            handles: Arc::from("freebsd.bpf"),
            processes: Arc::from("freebsd.processes"),
            links: Arc::from("freebsd.links"),
            audit: Arc::from("freebsd.audit"),
        }
    }
}

struct State<'a> {
    source: Source<'a>,
    /// Watches of nodes, where the kernel has inotify(2).
    guard: Option<Guard>,
    /// Where it is asked for.
    audit: Option<Audit>,
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
    interfaces: Option<Interfaces>,
    /// What captures without the device.
    captures: Captures,
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
        self.watch_links();
        // Not known before 15: then the list of jails is read each half a minute.
        let _ = self.watch_jail(0);
        for jail in self.source.kernel.jails() {
            let _ = self.watch_jail(jail.jid);
        }
        self.list_processes();
        self.begin_audit();
    }

    fn watch_jail(&self, jid: u32) -> io::Result<()> {
        self.source.kqueue.change(ask(jid as usize, EVFILT_JAIL, NOTE_JAIL))
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

    fn offer(&self, said: Vec<Said>, sensor: fn(&Names) -> &Arc<str>) {
        let at = now();
        for (actor, kind) in said {
            self.outlet.offer(at, sensor(&self.names), actor, kind);
        }
    }

    fn watch(&mut self) -> Result<(), SensorError> {
        let mut events = Vec::new();
        loop {
            let held = self.audit.as_ref().and_then(|audit| audit.execs.next());
            let next = [Some(self.schedule.next()), self.opens.next(), held];
            let next = next.into_iter().flatten().min().unwrap_or(0);
            let wait = next.saturating_sub(self.millis());
            let wait = Duration::from_millis(wait.min(crate::schedule::BUSY));
            self.source.kqueue.wait(wait, &mut events).map_err(|error| fail("kevent", &error))?;
            if events.iter().any(|event| event.filter == libc::EVFILT_USER && event.ident == STOP) {
                self.say_held(u64::MAX);
                return Ok(());
            }
            // Records come last: that a process was made is told before what it executed.
            let is_record =
                |event: &&Event| self.audit.as_ref().is_some_and(|audit| audit.is_of(event));
            let (records, others): (Vec<&Event>, Vec<&Event>) = events.iter().partition(is_record);
            for event in others {
                self.happened(event);
            }
            if !records.is_empty() {
                self.audit_event();
            }
            let at = self.millis();
            self.say_held(at);
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
                self.check_audit();
            }
            if self.guard.is_none() && self.node.is_none() && self.node_tried.elapsed() >= REOPEN {
                self.watch_node();
            }
        }
    }

    fn happened(&mut self, event: &Event) {
        match event.filter {
            libc::EVFILT_VNODE => self.node_event(event),
            libc::EVFILT_USER => self.told(),
            libc::EVFILT_PROC => self.process_event(event),
            libc::EVFILT_READ => self.link_event(),
            // Who entered shows when it executes or opens something; our own children enter too.
            EVFILT_JAIL if event.fflags == NOTE_JAIL_ATTACH => {}
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
}
