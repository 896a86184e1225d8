//! The live sensor: one thread that looks at the kernel's tables, steadily and some times more after an event.
//! What wakes it is a route socket (an interface changed), what a holder does (kqueue), and whoever writes to its
//! pipe: the clients of Endpoint Security, where there are any, whose messages it then takes.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bpfwatch_core::ancestors::with_ancestors;
use bpfwatch_core::observation::Kind;
use bpfwatch_core::platform::SensorSettings;
use bpfwatch_core::process::Process;
use bpfwatch_core::sensor::{Outlet, Sensor, SensorError, Via};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::events::Events;
use super::ffi;
use super::followed::Followed;
use super::kernel::{Kernel, now};
use crate::grade::Grade;
use crate::links::Links;
use crate::poll::{Said, Table};
use crate::schedule::Schedule;

/// Name of the source of handles, in observations.
pub const HANDLES: &str = "macos.bpf";
/// Name of the source of processes.
pub const PROCESSES: &str = "macos.processes";
/// Name of the source of interfaces.
const LINKS: &str = "macos.links";
/// Least time between two looks at once, in milliseconds.
const AT_MOST: u64 = 50;
/// Longest wait.
const WAIT: u64 = 60_000;

/// Watches BPF descriptors and interfaces.
pub struct MacosSensor {
    wake: Arc<UnixStream>,
    woken: UnixStream,
    stop: Arc<AtomicBool>,
    idle: u64,
    events: Events,
}

fn fail(what: &str, error: &io::Error) -> SensorError {
    let mend = Some("`bpfwatch doctor` tells what can be seen here".to_owned());
    SensorError { sensor: "macos", what: format!("{what}: {error}"), mend }
}

impl MacosSensor {
    /// Prepares to watch.
    ///
    /// # Errors
    /// When the system has no descriptor left, or no table of BPF descriptors.
    pub fn new(settings: &SensorSettings) -> Result<Self, SensorError> {
        let pipe = || -> io::Result<_> {
            let (wake, woken) = UnixStream::pair()?;
            wake.set_nonblocking(true)?;
            woken.set_nonblocking(true)?;
            Ok((wake, woken))
        };
        let (wake, woken) = pipe().map_err(|error| fail("a pipe", &error))?;
        Kernel::new().rows().map_err(|error| fail("debug.bpf_stats", &error))?;
        let wake = Arc::new(wake);
        Ok(Self {
            events: Events::new(&wake),
            wake,
            woken,
            stop: Arc::default(),
            idle: settings.scan_interval_ms.max(10),
        })
    }
}

impl Sensor for MacosSensor {
    fn name(&self) -> &'static str {
        "macos"
    }

    fn via(&self) -> Option<Via> {
        Some(self.events.via())
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let (wake, stop) = (Arc::clone(&self.wake), Arc::clone(&self.stop));
        Box::new(move || {
            stop.store(true, Ordering::Release);
            // A full pipe wakes as well.
            let _ = (&*wake).write(&[0]);
        })
    }

    fn run(mut self: Box<Self>, outlet: &Outlet) -> Result<(), SensorError> {
        let route = match route_socket() {
            Ok(route) => Some(route),
            Err(error) => {
                outlet.lost(now(), &Arc::from(LINKS), 0, &format!("route socket: {error}"));
                None
            }
        };
        let mut followed = match Followed::new() {
            Ok(followed) => Some(followed),
            Err(error) => {
                outlet.lost(now(), &Arc::from(PROCESSES), 0, &format!("kqueue: {error}"));
                None
            }
        };
        let mut state = State {
            kernel: Kernel::new(),
            table: Table::default(),
            links: Links::default(),
            schedule: Schedule::new(0, self.idle),
            start: Instant::now(),
            looked: 0,
            blind: None,
            outlet,
            handles: Arc::from(HANDLES),
            processes: Arc::from(PROCESSES),
            interfaces: Arc::from(LINKS),
        };
        self.events.tell(outlet);
        if self.events.grade() == Grade::Full {
            state.list();
        }
        let mut is_more = false;
        loop {
            let mut wait = state.schedule.next().saturating_sub(state.millis()).min(WAIT);
            if is_more {
                wait = 0;
            }
            let sources = [
                Some(self.woken.as_fd()),
                route.as_ref().map(AsFd::as_fd),
                followed.as_ref().map(AsFd::as_fd),
            ];
            let [woken, changed, moved] =
                wait_for(sources, wait).map_err(|error| fail("poll", &error))?;
            if woken {
                drain(&self.woken);
            }
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            if changed {
                // Not what it says counts, but that something changed.
                if let Some(route) = &route {
                    drain_route(route);
                }
                let at = state.millis();
                state.schedule.event(at);
            }
            let mut wanted = self.events.take(outlet, &state.table);
            wanted.is_release |= moved && followed.as_mut().is_some_and(Followed::take);
            is_more = wanted.is_more;
            let at = state.millis();
            if wanted.is_event {
                state.schedule.event(at);
            }
            if self.events.retry(outlet) || wanted.is_resync {
                state.list();
            }
            if wanted.is_release {
                state.kernel.doubt();
                // A holder that forks without end must not make looks without end.
                if at.saturating_sub(state.looked) >= AT_MOST {
                    state.look(at);
                }
                state.schedule.event(at);
            }
            if state.schedule.take(at, state.table.is_busy() || state.links.is_pending()) {
                state.look(at);
            }
            if let Some(followed) = &mut followed {
                // Endpoint Security tells of every process.
                let is_told = self.events.grade() == Grade::Full;
                let holders = state.table.holders().into_keys().filter(|_| !is_told);
                followed.set(&holders.collect::<BTreeSet<u32>>());
            }
        }
    }
}

struct State<'a> {
    kernel: Kernel,
    table: Table,
    links: Links,
    schedule: Schedule,
    start: Instant,
    /// When the last look was.
    looked: u64,
    /// Why nothing can be seen now, as it was said.
    blind: Option<String>,
    outlet: &'a Outlet,
    handles: Arc<str>,
    processes: Arc<str>,
    interfaces: Arc<str>,
}

impl State<'_> {
    fn millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn look(&mut self, at: u64) {
        self.looked = at;
        match self.kernel.look() {
            Ok(look) => {
                self.blind = None;
                let mut said = Vec::new();
                self.table.update(&look, at, &mut self.kernel, &mut said);
                self.introduce(&said);
                for (actor, kind) in said {
                    self.outlet.offer(now(), &self.handles, actor, kind);
                }
            }
            Err(error) => {
                let why = format!("debug.bpf_stats: {error}");
                if self.blind.as_ref() != Some(&why) {
                    self.outlet.lost(now(), &self.handles, 0, &why);
                    self.blind = Some(why);
                }
            }
        }
        let table = &self.table;
        let held = |name: &str| table.is_promiscuous_on(name);
        for kind in self.links.update(&promiscuous(), held, at) {
            self.outlet.offer(now(), &self.interfaces, None, kind);
        }
    }

    /// Says which processes there are, for ancestry.
    fn list(&mut self) {
        for pid in ffi::pids().unwrap_or_default() {
            if let Some(process) = self.kernel.read(pid) {
                let process = Some(Arc::new(process));
                self.outlet.offer(now(), &self.processes, process, Kind::Running);
            }
        }
    }

    /// Says who the new holders and their ancestors are.
    fn introduce(&mut self, said: &[Said]) {
        let new = said.iter().filter_map(|(actor, kind)| match (actor, kind) {
            (Some(actor), Kind::HandleOpened { .. }) => Some((actor.pid, Arc::clone(actor))),
            _ => None,
        });
        let all: Vec<Arc<Process>> = with_ancestors(new.collect(), |pid| self.kernel.read(pid));
        for process in all {
            self.outlet.offer(now(), &self.processes, Some(process), Kind::Running);
        }
    }
}

/// Names of interfaces with IFF_PROMISC; none where the system does not say.
fn promiscuous() -> Vec<String> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    let mut names: Vec<String> = all
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_PROMISC))
        .map(|interface| interface.interface_name)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A socket that tells when an interface changes (route(4), RTM_IFINFO).
pub fn route_socket() -> io::Result<std::fs::File> {
    let route: OwnedFd = socket(AddressFamily::Route, SockType::Raw, SockFlag::empty(), None)?;
    fcntl(&route, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    fcntl(&route, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(route.into())
}

/// Waits up to `wait` milliseconds: which of them have something.
fn wait_for<const N: usize>(
    sources: [Option<BorrowedFd<'_>>; N],
    wait: u64,
) -> io::Result<[bool; N]> {
    let mut all: Vec<PollFd<'_>> =
        sources.iter().flatten().map(|source| PollFd::new(*source, PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
    match poll(&mut all, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut polled = all.iter();
    let has = |source: Option<BorrowedFd<'_>>| {
        source.and_then(|_| polled.next()).and_then(PollFd::any).unwrap_or(false)
    };
    Ok(sources.map(has))
}

fn drain(mut from: &UnixStream) {
    let mut buffer = [0; 1024];
    while from.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

fn drain_route(mut from: &std::fs::File) {
    let mut buffer = [0; 4096];
    // ENOBUFS tells of lost messages, of which none is missed: that there were some is enough.
    while !matches!(from.read(&mut buffer), Ok(0) | Err(_)) {}
}
