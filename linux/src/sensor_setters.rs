//! Who set or cleared IFF_PROMISC of an interface: an event tells who, a look tells that it happened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;

/// How long an event explains what a look sees.
const EXPLAINS: Duration = Duration::from_secs(3);
/// Most events that are kept.
const KEPT: usize = 256;

struct Setter {
    netns: u64,
    interface: Vec<u8>,
    on: bool,
    actor: Arc<Process>,
    at: Instant,
}

/// Events of the last seconds.
#[derive(Default)]
pub struct Setters(Vec<Setter>);

impl Setters {
    /// Somebody changed an interface.
    pub fn add(&mut self, netns: u64, interface: Vec<u8>, on: bool, actor: Arc<Process>) {
        self.0.retain(|setter| setter.at.elapsed() < EXPLAINS);
        if self.0.len() < KEPT {
            self.0.push(Setter { netns, interface, on, actor, at: Instant::now() });
        }
    }

    /// Who it was, of what a look saw; `None` where no event told.
    pub fn of(&self, netns: u64, seen: &Kind) -> Option<Arc<Process>> {
        let Kind::InterfacePromiscuous { interface, on } = seen else { return None };
        let name = interface.name.as_str().as_bytes();
        let is = |setter: &&Setter| {
            setter.netns == netns
                && setter.on == *on
                && setter.interface == name
                && setter.at.elapsed() < EXPLAINS
        };
        self.0.iter().rfind(is).map(|setter| Arc::clone(&setter.actor))
    }
}

#[cfg(test)]
mod tests {
    use bpfwatch_core::observation::Interface;

    use super::*;

    #[test]
    fn the_last_one_who_did_just_that() {
        let mut setters = Setters::default();
        for (pid, netns, name, on) in [
            (1, 7, "eth0", true),
            (2, 7, "eth0", true),
            (3, 7, "eth0", false),
            (4, 8, "eth0", true),
        ] {
            setters.add(netns, name.into(), on, Arc::new(Process::from_pid(pid)));
        }
        let who = |netns, name: &str, on| {
            let interface = Interface { name: name.into(), netns: None, count: None, role: None };
            let seen = Kind::InterfacePromiscuous { interface, on };
            setters.of(netns, &seen).map(|process| process.pid)
        };
        assert_eq!(who(7, "eth0", true), Some(2));
        assert_eq!(who(7, "eth0", false), Some(3));
        assert_eq!(who(7, "eth1", true), None);
        assert_eq!(who(9, "eth0", true), None);
    }
}
