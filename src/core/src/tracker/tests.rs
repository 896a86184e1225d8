//! The tracker's behaviour, observation by observation.

use super::*;
use crate::handle::HandleKind;

struct Bench {
    tracker: Tracker,
    seq: u64,
    events: Vec<Event>,
}

impl Bench {
    fn on(os: Os) -> Self {
        let origin = Origin { host: Text::from("test"), os, os_version: None, boot_id: None };
        Self { tracker: Tracker::new(Arc::new(origin)), seq: 0, events: Vec::new() }
    }

    fn see(&mut self, millis: i64, pid: u32, kind: Kind) {
        let at = Timestamp::from_nanos(millis * 1_000_000);
        self.tracker.advance(at, &mut self.events);
        self.seq += 1;
        let actor = (pid > 0)
            .then(|| Arc::new(Process { start: Some(u64::from(pid)), ..Process::from_pid(pid) }));
        let sensor = Arc::from("test");
        let seen = Observation { at, seq: self.seq, sensor, actor, kind };
        self.tracker.observe(seen, &mut self.events);
    }

    fn changes(&mut self) -> Vec<(Change, usize)> {
        std::mem::take(&mut self.events)
            .into_iter()
            .filter_map(|event| match event {
                Event::Session(changed) => Some((changed.change, changed.session.holders.len())),
                _ => None,
            })
            .collect()
    }
}

fn packet(id: u64) -> Handle {
    Handle::new(HandleKind::PacketSocket, id)
}

fn opened(handle: Handle) -> Kind {
    Kind::HandleOpened { handle, pre_existing: false }
}

#[test]
fn a_capture_from_open_to_close() {
    let mut bench = Bench::on(Os::Linux);
    bench.see(0, 7, opened(packet(1)));
    bench.see(5, 7, Kind::HandleAttached { handle: packet(1) });
    bench.see(6, 7, Kind::Promiscuous { handle: packet(1), on: true });
    bench.see(7, 7, Kind::Promiscuous { handle: packet(1), on: true });
    bench.see(90, 0, Kind::HandleClosed { handle: packet(1) });
    assert_eq!(
        bench.changes(),
        [(Change::Opened, 1), (Change::Attached, 1), (Change::Promiscuous, 1), (Change::Closed, 1)]
    );
    assert!(bench.tracker.sessions().is_empty());
}

#[test]
fn several_holders_of_one_handle_and_several_handles_of_one_holder() {
    let mut bench = Bench::on(Os::Linux);
    bench.see(0, 7, opened(packet(1)));
    bench.see(0, 7, opened(packet(2)));
    bench.see(1, 8, opened(packet(1)));
    bench.see(2, 8, opened(packet(1)));
    assert_eq!(bench.changes(), [(Change::Opened, 1), (Change::Opened, 1), (Change::Holder, 2)]);
    bench.see(3, 7, Kind::Exited);
    assert_eq!(bench.tracker.sessions()[0].owner().unwrap().pid, 8);
    // Handle 2 had no other holder, and no sensor says that it is closed.
    bench.see(5000, 0, Kind::Lost { count: 0, why: Text::from("test") });
    assert_eq!(bench.changes(), [(Change::Closed, 1)]);
    assert_eq!(bench.tracker.sessions().len(), 1);
}

#[test]
fn a_descriptor_in_flight_belongs_to_nobody() {
    let mut bench = Bench::on(Os::Freebsd);
    let bpf = || Handle::new(HandleKind::Bpf, 0xfff0);
    bench.see(0, 7, opened(bpf()));
    bench.see(1, 7, Kind::HandleAttached { handle: bpf() });
    bench.see(300, 7, Kind::HandleReleased { handle: bpf() });
    assert!(!bench.tracker.sessions()[0].in_flight, "it may be on its way to somebody");
    bench.see(1301, 0, Kind::Running);
    assert!(bench.tracker.sessions()[0].in_flight);
    bench.see(1400, 9, opened(bpf()));
    assert!(!bench.tracker.sessions()[0].in_flight);
    assert_eq!(
        bench.changes(),
        [(Change::Opened, 1), (Change::Attached, 1), (Change::Holder, 1), (Change::Holder, 2)]
    );
}

#[test]
fn a_descriptor_passed_on_is_not_in_flight() {
    let mut bench = Bench::on(Os::Linux);
    bench.see(0, 7, opened(packet(1)));
    bench.see(1, 7, Kind::HandleAttached { handle: packet(1) });
    bench.see(300, 7, Kind::HandleReleased { handle: packet(1) });
    bench.see(300, 9, opened(packet(1)));
    // Passed back and forth: the first hand-over's time does not count for the second.
    bench.see(1000, 9, Kind::HandleReleased { handle: packet(1) });
    bench.see(1500, 0, Kind::Running);
    assert!(!bench.tracker.sessions()[0].in_flight);
    bench.see(1600, 7, opened(packet(1)));
    bench.see(9000, 0, Kind::Running);
    assert!(!bench.tracker.sessions()[0].in_flight);
}

#[test]
fn what_is_attached_to_an_interface_outlives_who_attached_it() {
    let mut bench = Bench::on(Os::Linux);
    let program = || Handle::new(HandleKind::TcProgram, 41);
    for (pid, end) in [(7, Kind::HandleReleased { handle: program() }), (9, Kind::Exited)] {
        bench.see(0, pid, opened(program()));
        bench.see(1, pid, Kind::HandleAttached { handle: program() });
        bench.see(300, pid, end);
        bench.see(9000, 0, Kind::Running);
        let sessions = bench.tracker.sessions();
        assert!(!sessions[0].in_flight, "it needs no descriptor");
        assert_eq!(sessions[0].owner().unwrap().pid, pid, "who loaded it is still named");
        bench.see(9001, 0, Kind::HandleClosed { handle: program() });
        assert_eq!(
            bench.changes(),
            [(Change::Opened, 1), (Change::Attached, 1), (Change::Closed, 1)]
        );
    }
}

#[test]
fn listing_interfaces_is_one_event_and_a_short_capture_is_a_capture() {
    let mut bench = Bench::on(Os::Freebsd);
    for id in 1..=5 {
        let bpf = || Handle::new(HandleKind::Bpf, id);
        let millis = i64::try_from(id).unwrap() * 10;
        bench.see(millis, 7, opened(bpf()));
        bench.see(millis + 1, 7, Kind::HandleAttached { handle: bpf() });
        bench.see(millis + 2, 7, Kind::HandleClosed { handle: bpf() });
    }
    let bpf = || Handle::new(HandleKind::Bpf, 9);
    bench.see(100, 8, opened(bpf()));
    bench.see(101, 8, Kind::HandleAttached { handle: bpf() });
    bench.see(130, 8, Kind::HandleClosed { handle: bpf() });
    bench.see(5000, 0, Kind::Lost { count: 0, why: Text::from("test") });
    let changes = bench.changes();
    assert_eq!(changes.iter().filter(|(c, _)| *c == Change::Enumeration).count(), 1);
    assert_eq!(changes.iter().filter(|(c, _)| *c == Change::Attached).count(), 1);
}

#[test]
fn a_held_back_attach_comes_out_when_it_stays() {
    let mut bench = Bench::on(Os::Macos);
    let bpf = || Handle::new(HandleKind::Bpf, 3);
    bench.see(0, 7, opened(bpf()));
    bench.see(1, 7, Kind::HandleAttached { handle: bpf() });
    assert_eq!(bench.changes(), [(Change::Opened, 1)]);
    bench.see(300, 0, Kind::Lost { count: 0, why: Text::from("test") });
    assert_eq!(bench.changes(), [(Change::Attached, 1)]);
}

#[test]
fn a_million_handles_stay_bounded() {
    let mut bench = Bench::on(Os::Linux);
    for id in 0..20_000 {
        bench.see(0, 7, opened(packet(id)));
    }
    assert_eq!(bench.tracker.sessions().len(), MAX_SESSIONS);
    assert!(bench.events.iter().any(|event| matches!(event, Event::Lost(_))));
}
