//! The live sensor: handles and processes from eBPF programs, else executions from the proc connector;
//! wake-ups from rtnetlink, and a worker that looks for handles.
//!
//! Two threads, because events must be drained while a namespace is looked into, and because
//! entering a namespace moves a whole thread.

use std::sync::Arc;
use std::time::Duration;

use bpfwatch_core::platform::SensorSettings;
use bpfwatch_core::sensor::{Outlet, Sensor, SensorError, Via};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::ebpf::load::{LoadError, Loaded};
use crate::ebpf::watch::Source;
use crate::ffi;
use crate::proc_facts::Home;
use crate::sensor_events::Events;
use crate::sensor_state::State;
use crate::sensor_table::Shared;
use crate::sensor_worker::{Desk, Worker};

/// Nice value of the thread that reads executed processes.
const PRIORITY: i32 = -10;

/// Watches sockets, interfaces and processes.
pub struct LinuxSensor {
    stop: Arc<EventFd>,
    interval: Duration,
    /// Loaded before privileges may be given up.
    loaded: Result<Loaded, LoadError>,
}

impl LinuxSensor {
    /// Prepares to watch: loads the eBPF programs, for which the privileges are needed now. Events wait
    /// in their rings until it runs.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(settings: &SensorSettings) -> Result<Self, SensorError> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| fail("eventfd", error))?;
        let interval = Duration::from_millis(settings.scan_interval_ms.max(10));
        let loaded = Loaded::new(settings.ebpf, settings.ebpf_ring_kib);
        Ok(Self { stop: Arc::new(stop), interval, loaded })
    }
}

/// An error of this sensor.
pub fn fail(what: &str, error: impl std::fmt::Display) -> SensorError {
    SensorError { sensor: "linux", what: format!("{what}: {error}"), mend: None }
}

impl Sensor for LinuxSensor {
    fn name(&self) -> &'static str {
        "linux"
    }

    fn via(&self) -> Option<Via> {
        Some(Via::from(match &self.loaded {
            Ok(loaded) => format!("eBPF on {}", loaded.hook.as_str()),
            Err(LoadError::Off) => "looks alone, eBPF is switched off".to_owned(),
            Err(_) => "looks alone, the kernel takes no eBPF".to_owned(),
        }))
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let stop = Arc::clone(&self.stop);
        Box::new(move || {
            // It can only fail when the counter is full: then it wakes already.
            let _ = stop.write(1);
        })
    }

    fn run(self: Box<Self>, outlet: &Outlet) -> Result<(), SensorError> {
        // Executions that end soon take their arguments with them. auditd raises itself likewise.
        let _ = ffi::raise_priority(PRIORITY);
        let home = Home::find();
        let table = Shared::default();
        let desk = Desk::new(table.clone());
        let Self { stop, interval, loaded } = *self;
        let mut events = Events::new(home.clone(), outlet, &desk);
        match loaded {
            Ok(loaded) => events.source = Some(Source::new(loaded, table.clone())),
            Err(LoadError::Off) => {}
            Err(error) => events.lost(0, &format!("no eBPF: {error}")),
        }
        events.connect();
        events.announce_all();
        std::thread::scope(|scope| {
            let worker = std::thread::Builder::new()
                .name("linux.sockets".to_owned())
                .spawn_scoped(scope, || {
                    // On its own thread from the start: it is the one that visits namespaces.
                    let ended = State::new(home, table)
                        .map_err(|error| fail("/proc", error))
                        .and_then(|state| {
                            Worker::new(state, interval)
                                .run(&desk, outlet)
                                .map_err(|error| fail("sockets", error))
                        });
                    if ended.is_err() {
                        // The event loop ends too: half a sensor is none.
                        let _ = stop.write(1);
                    }
                    ended
                })
                .map_err(|error| fail("thread", error))?;
            let watched = events.watch(&stop);
            desk.stop();
            let looked = worker.join().unwrap_or_else(|_| Err(fail("sockets", "panicked")));
            watched.and(looked)
        })
    }
}
