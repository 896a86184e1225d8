//! What the sensor makes of messages of Endpoint Security: observations, losses told by their numbers, and
//! what the kernel's tables have to be asked for then. Pure: the live part hands over what came.

use std::sync::Arc;

use bpfwatch_core::decoder::Sequence as _;
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::sensor::Offer;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;

use crate::decode;
use crate::holders::Holders;
use crate::poll::Table;
use crate::raw::Message;
use crate::sequence::Sequence;

/// Which of the two clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens, closes and access of BPF devices.
    Devices,
    /// Processes, and what is rare.
    Processes,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// To which client.
    pub role: Role,
    /// Type of its event (`es_event_type_t`).
    pub event_type: u32,
    /// Its number among those of that client and type (`seq_num`).
    pub number: Option<u64>,
    /// What it says; `None` for an event that is not known or not wanted.
    pub message: Option<Message>,
}

/// What the messages call for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// The state of what came before.
#[derive(Debug)]
pub struct Intake {
    sensor: Arc<str>,
    holders: Holders,
    devices: Sequence,
    processes: Sequence,
}

impl Intake {
    /// For new clients; `sensor` is the name in observations.
    pub fn new(sensor: Arc<str>) -> Self {
        let (devices, processes) = (Sequence::default(), Sequence::default());
        Self { sensor, holders: Holders::default(), devices, processes }
    }

    /// Takes a message that came at `now`.
    pub fn take(
        &mut self,
        arrival: Arrival,
        table: &Table,
        now: Timestamp,
        wanted: &mut Wanted,
    ) -> Vec<Offer> {
        let Arrival { role, event_type, number, message } = arrival;
        let mut offers = Vec::new();
        let (sequence, why) = match role {
            Role::Devices => (&mut self.devices, "Endpoint Security dropped events of devices"),
            Role::Processes => {
                (&mut self.processes, "Endpoint Security dropped events of processes")
            }
        };
        let count = sequence.lost(event_type, number);
        if count > 0 {
            offers.push(lost(now, count, why));
            wanted.is_event = true;
            wanted.is_resync = true;
        }
        let observation = message.and_then(|message| decode::observation(message, &self.sensor));
        let mut all = Vec::new();
        if let Some(observation) = observation {
            self.holders.pass(observation, &mut all);
        }
        offers.extend(all.into_iter().filter_map(|observation| offer(observation, table, wanted)));
        offers
    }

    /// Handlers panicked: what they were given is lost.
    pub fn failed(&self, count: u64, now: Timestamp, wanted: &mut Wanted) -> Option<Offer> {
        if count == 0 {
            return None;
        }
        wanted.is_event = true;
        wanted.is_resync = true;
        Some(lost(now, count, "a handler of Endpoint Security failed"))
    }
}

fn lost(at: Timestamp, count: u64, why: &str) -> Offer {
    Offer { at, actor: None, kind: Kind::Lost { count, why: Text::from(why) } }
}

/// `None` for what the table tells better.
fn offer(observation: Observation, table: &Table, wanted: &mut Wanted) -> Option<Offer> {
    let Observation { at, actor, kind, .. } = observation;
    let is_holder = |pid: Option<u32>| pid.is_some_and(|pid| table.is_holder(pid));
    match &kind {
        Kind::HandleOpened { .. } => wanted.is_event = true,
        // A duplicate's close is not the release: of what the table has, the table tells.
        Kind::HandleReleased { handle } | Kind::HandleClosed { handle } if table.has(handle.id) => {
            wanted.is_release = true;
            return None;
        }
        Kind::Forked if is_holder(actor.as_ref().and_then(|child| child.ppid)) => {
            wanted.is_release = true;
        }
        Kind::Executed | Kind::Exited if is_holder(actor.as_ref().map(|actor| actor.pid)) => {
            wanted.is_release = true;
        }
        _ => {}
    }
    Some(Offer { at, actor, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::{Look, Who};
    use crate::raw::{EsProcess, Event};
    use crate::stats::BpfRow;
    use bpfwatch_core::arguments::Arguments;
    use bpfwatch_core::process::Process;

    struct Anybody;

    impl Who for Anybody {
        fn start(&mut self, _pid: u32) -> Option<u64> {
            Some(70)
        }
        fn process(&mut self, pid: u32) -> Option<Arc<Process>> {
            Some(Arc::new(Process { start: Some(70), ..Process::from_pid(pid) }))
        }
    }

    /// A table in which process 7 has /dev/bpf0.
    fn table() -> Table {
        let mut table = Table::default();
        let row = BpfRow {
            minor: 0,
            opener: 7,
            interface: b"en0".to_vec(),
            promiscuous: false,
            received: 0,
            matched: 0,
        };
        let look = Look { rows: vec![row], holders: [(0, vec![7])].into(), is_complete: true };
        table.update(&look, 0, &mut Anybody, &mut Vec::new());
        table
    }

    fn process(pid: u32, ppid: u32) -> EsProcess {
        EsProcess { pid, pidversion: 70, ppid: Some(ppid), ..EsProcess::default() }
    }

    struct Bench {
        intake: Intake,
        table: Table,
        wanted: Wanted,
    }

    impl Bench {
        fn new(table: Table) -> Self {
            Self { intake: Intake::new(Arc::from("test")), table, wanted: Wanted::default() }
        }

        fn see(&mut self, role: Role, kind: u32, number: u64, event: Option<Event>) -> Vec<Kind> {
            let at = Timestamp::from_secs(1);
            let message = event.map(|event| Message { at, process: process(7, 1), event });
            let arrival = Arrival { role, event_type: kind, number: Some(number), message };
            self.wanted = Wanted::default();
            let offers = self.intake.take(arrival, &self.table, at, &mut self.wanted);
            offers.into_iter().map(|offer| offer.kind).collect()
        }
    }

    fn exec(pid: u32) -> Event {
        let (args, cwd) = (Arguments::from_list(["x"]), None);
        Event::Exec { target: Box::new(process(pid, 1)), args, cwd }
    }

    #[test]
    fn a_gap_is_a_loss_and_all_is_read_again() {
        let mut bench = Bench::new(Table::default());
        assert_eq!(bench.see(Role::Processes, 9, 4, Some(exec(8))), [Kind::Executed]);
        assert_eq!(bench.wanted, Wanted::default());
        let seen = bench.see(Role::Processes, 9, 8, Some(exec(8)));
        let [Kind::Lost { count: 3, why }, Kind::Executed] = &seen[..] else { panic!("{seen:?}") };
        assert!(why.as_str().contains("processes"));
        assert!(bench.wanted.is_resync && bench.wanted.is_event);
        // The other client and other types count by themselves.
        assert_eq!(bench.see(Role::Devices, 10, 0, None), []);
        assert_eq!(bench.see(Role::Processes, 15, 0, Some(Event::Exit)), [Kind::Exited]);
        let seen = bench.see(Role::Devices, 10, 2, None);
        let [Kind::Lost { count: 1, why }] = &seen[..] else { panic!("{seen:?}") };
        assert!(why.as_str().contains("devices"));
    }

    #[test]
    fn an_event_that_is_not_known_still_counts() {
        let mut bench = Bench::new(Table::default());
        assert_eq!(bench.see(Role::Processes, 9999, 1, None), []);
        assert_eq!(bench.see(Role::Processes, 9999, 2, None), []);
        assert_eq!(bench.wanted, Wanted::default());
    }

    #[test]
    fn a_handler_that_panicked_is_a_loss() {
        let (intake, mut wanted) = (Intake::new(Arc::from("test")), Wanted::default());
        assert!(intake.failed(0, Timestamp::from_secs(1), &mut wanted).is_none());
        assert_eq!(wanted, Wanted::default());
        let offer = intake.failed(2, Timestamp::from_secs(1), &mut wanted).unwrap();
        assert!(matches!(offer.kind, Kind::Lost { count: 2, .. }));
        assert!(wanted.is_resync);
    }

    #[test]
    fn the_table_tells_when_what_it_has_is_released() {
        let close = || Some(Event::Close { path: "/dev/bpf0".into() });
        let mut bench = Bench::new(table());
        assert_eq!(bench.see(Role::Devices, 12, 0, close()), []);
        assert!(bench.wanted.is_release);
        // One that no look has seen yet is told by its events.
        let mut bench = Bench::new(Table::default());
        let opened =
            bench.see(Role::Devices, 10, 0, Some(Event::Open { path: "/dev/bpf0".into() }));
        assert!(matches!(&opened[..], [Kind::HandleOpened { .. }]) && bench.wanted.is_event);
        let closed = bench.see(Role::Devices, 12, 0, close());
        assert!(matches!(&closed[..], [Kind::HandleClosed { .. }]) && !bench.wanted.is_release);
    }

    #[test]
    fn what_a_holder_does_is_a_reason_to_look() {
        let mut bench = Bench::new(table());
        let fork = |child, parent| Event::Fork { child: Box::new(process(child, parent)) };
        let mut number = 0;
        let mut looks = |event| {
            number += 1;
            bench.see(Role::Processes, 1, number, Some(event));
            bench.wanted.is_release
        };
        assert!(looks(exec(7)) && looks(fork(9, 7)) && looks(Event::Exit));
        assert!(!looks(exec(8)) && !looks(fork(9, 8)));
    }
}
