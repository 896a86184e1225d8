//! How the sensor comes to have clients of Endpoint Security, and hands their messages on.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::sensor::{Outlet, Via};

use super::convert;
use super::es::{Clients, Seen};
use super::kernel::now;
use crate::grade::{Grade, Refusal};
use crate::intake::{Arrival, Intake, Wanted};
use crate::poll::Table;

/// Time between attempts to become a client.
const RETRY: Duration = Duration::from_secs(60);
/// Messages that are taken in one go, so that looks are not held up.
const AT_ONCE: usize = 4096;
/// Name of the source, in observations.
const SENSOR: &str = "macos.endpoint_security";

/// The clients, or why there are none.
pub struct Events {
    clients: Result<Clients, Refusal>,
    via: Via,
    tried: Instant,
    intake: Intake,
    sensor: Arc<str>,
    wake: Arc<UnixStream>,
}

impl Events {
    /// Becomes a client where that is allowed.
    pub fn new(wake: &Arc<UnixStream>) -> Self {
        let sensor: Arc<str> = Arc::from(SENSOR);
        let events = Self {
            clients: Clients::new(wake),
            via: Via::default(),
            tried: Instant::now(),
            intake: Intake::new(Arc::clone(&sensor)),
            sensor,
            wake: Arc::clone(wake),
        };
        events.via.set(events.grade().to_string());
        events
    }

    /// How the sensor watches now.
    pub fn grade(&self) -> Grade {
        match &self.clients {
            Ok(_) => Grade::Full,
            Err(refusal) => Grade::WithoutEndpointSecurity(refusal.clone()),
        }
    }

    /// The same in words, which stay true when it changes.
    pub fn via(&self) -> Via {
        self.via.clone()
    }

    /// Says how it watches, where that is not in full: for the heartbeat's losses.
    pub fn tell(&self, outlet: &Outlet) {
        if let Err(refusal) = &self.clients {
            let why = format!("no Endpoint Security: {refusal}; {}", refusal.mend());
            outlet.lost(now(), &self.sensor, 0, &why);
        }
    }

    fn change(&mut self, clients: Result<Clients, Refusal>, outlet: &Outlet) {
        let before = self.grade();
        self.clients = clients;
        self.tried = Instant::now();
        // A new client counts its messages anew.
        self.intake = Intake::new(Arc::clone(&self.sensor));
        let grade = self.grade();
        if grade != before {
            self.via.set(grade.to_string());
            self.tell(outlet);
        }
    }

    /// Tries again when it is time: whether there are clients that there were not.
    pub fn retry(&mut self, outlet: &Outlet) -> bool {
        let is_due = matches!(&self.clients, Err(refusal) if refusal.may_pass())
            && self.tried.elapsed() >= RETRY;
        if is_due {
            self.change(Clients::new(&self.wake), outlet);
        }
        is_due && self.clients.is_ok()
    }

    /// Takes what waits.
    pub fn take(&mut self, outlet: &Outlet, table: &Table) -> Wanted {
        let mut wanted = Wanted::default();
        let Ok(clients) = &self.clients else { return wanted };
        let mut taken = 0;
        let mut gone = false;
        while taken < AT_ONCE {
            let (role, message) = match clients.take() {
                Seen::Message(role, message) => (role, message),
                Seen::Nothing => break,
                Seen::Gone => {
                    gone = true;
                    break;
                }
            };
            taken += 1;
            let arrival = Arrival {
                role,
                event_type: message.event_type().0,
                number: message.seq_num(),
                message: convert::message(&message),
            };
            let offers = self.intake.take(arrival, table, now(), &mut wanted);
            outlet.offer_all(&self.sensor, offers);
        }
        wanted.is_more = taken == AT_ONCE;
        let failed = self.intake.failed(clients.take_panics(), now(), &mut wanted);
        outlet.offer_all(&self.sensor, failed);
        if gone {
            self.change(Err(Refusal::Internal), outlet);
        }
        wanted
    }
}
