//! What the sensor does with each message of Endpoint Security, and how it comes to have clients.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::decoder::Sequence as _;
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::sensor::Outlet;

use super::convert;
use super::es::{Clients, Role, Seen};
use super::kernel::now;
use crate::decode;
use crate::grade::{Grade, Refusal};
use crate::holders::Holders;
use crate::poll::Table;

/// Time between attempts to become a client.
const RETRY: Duration = Duration::from_secs(60);
/// Messages that are taken in one go, so that looks are not held up.
const AT_ONCE: usize = 4096;
/// Name of the source, in observations.
const SENSOR: &str = "macos.endpoint_security";

/// What the messages call for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Looks after an event.
    pub is_event: bool,
    /// A look at once: a device may have been released.
    pub is_release: bool,
    /// All processes are to be read again.
    pub is_resync: bool,
    /// More messages wait.
    pub is_more: bool,
}

/// The clients, or why there are none.
pub struct Events {
    clients: Result<Clients, Refusal>,
    tried: Instant,
    holders: Holders,
    sensor: Arc<str>,
    wake: Arc<UnixStream>,
}

impl Events {
    /// Becomes a client where that is allowed.
    pub fn new(wake: &Arc<UnixStream>) -> Self {
        Self {
            clients: Clients::new(wake),
            tried: Instant::now(),
            holders: Holders::default(),
            sensor: Arc::from(SENSOR),
            wake: Arc::clone(wake),
        }
    }

    /// How the sensor watches now.
    pub fn grade(&self) -> Grade {
        match &self.clients {
            Ok(_) => Grade::Full,
            Err(refusal) => Grade::WithoutEndpointSecurity(refusal.clone()),
        }
    }

    /// Says how it watches, where that is not in full: for the heartbeat's losses.
    pub fn tell(&self, outlet: &Outlet) {
        if let Err(refusal) = &self.clients {
            let why = format!("no Endpoint Security: {refusal}; {}", refusal.mend());
            outlet.lost(now(), &self.sensor, 0, &why);
        }
    }

    /// When to try again; `None` while all is well.
    pub fn retry_in(&self) -> Option<Duration> {
        let is_hopeless = matches!(self.clients, Err(Refusal::NotEntitled | Refusal::TooOld));
        (self.clients.is_err() && !is_hopeless).then(|| RETRY.saturating_sub(self.tried.elapsed()))
    }

    /// Tries again when it is time: whether there are clients that there were not.
    pub fn retry(&mut self, outlet: &Outlet) -> bool {
        if self.retry_in() != Some(Duration::ZERO) {
            return false;
        }
        self.tried = Instant::now();
        let before = self.grade();
        self.clients = Clients::new(&self.wake);
        if self.grade() != before {
            self.tell(outlet);
        }
        self.clients.is_ok()
    }

    /// Takes what waits.
    pub fn take(&mut self, outlet: &Outlet, table: &Table) -> Wanted {
        let mut wanted = Wanted::default();
        let Ok(clients) = &mut self.clients else { return wanted };
        let mut taken = 0;
        let mut gone = false;
        while taken < AT_ONCE {
            let (role, message, lost) = match clients.take() {
                Seen::Message(role, message, lost) => (role, message, lost),
                Seen::Nothing => break,
                Seen::Gone => {
                    gone = true;
                    break;
                }
            };
            taken += 1;
            if lost > 0 {
                let why = match role {
                    Role::Devices => "Endpoint Security dropped events of devices",
                    Role::Processes => "Endpoint Security dropped events of processes",
                };
                outlet.lost(now(), &self.sensor, lost, why);
                wanted.is_event = true;
                wanted.is_resync = true;
            }
            let observation = convert::message(&message)
                .and_then(|message| decode::observation(message, &self.sensor));
            let Some(observation) = observation else { continue };
            let mut all = Vec::new();
            self.holders.pass(observation, &mut all);
            for observation in all {
                offer(outlet, table, observation, &mut wanted);
            }
        }
        wanted.is_more = taken == AT_ONCE;
        let panics = clients.take_panics();
        if panics > 0 {
            outlet.lost(now(), &self.sensor, panics, "a handler of Endpoint Security failed");
            wanted.is_resync = true;
        }
        if gone {
            self.clients = Err(Refusal::Internal);
            self.tried = Instant::now();
            self.tell(outlet);
        }
        wanted
    }
}

fn offer(outlet: &Outlet, table: &Table, observation: Observation, wanted: &mut Wanted) {
    let Observation { at, sensor, actor, kind, .. } = observation;
    match &kind {
        Kind::HandleOpened { .. } => wanted.is_event = true,
        // A duplicate's close is not the release: of what the table has, the table tells.
        Kind::HandleReleased { handle } | Kind::HandleClosed { handle } if table.has(handle.id) => {
            wanted.is_release = true;
            return;
        }
        Kind::Forked
            if actor
                .as_ref()
                .and_then(|child| child.ppid)
                .is_some_and(|parent| table.is_holder(parent)) =>
        {
            wanted.is_release = true;
        }
        Kind::Executed | Kind::Exited
            if actor.as_ref().is_some_and(|actor| table.is_holder(actor.pid)) =>
        {
            wanted.is_release = true;
        }
        _ => {}
    }
    outlet.offer(at, &sensor, actor, kind);
}
