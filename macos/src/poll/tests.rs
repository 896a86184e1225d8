//! Looks, one after another, and what they say.

use super::*;

/// Processes by pid, with their pidversion.
struct Bench {
    table: Table,
    alive: BTreeMap<u32, u64>,
}

struct Alive<'a>(&'a BTreeMap<u32, u64>);

impl Who for Alive<'_> {
    fn start(&mut self, pid: u32) -> Option<u64> {
        self.0.get(&pid).copied()
    }
    fn process(&mut self, pid: u32) -> Option<Arc<Process>> {
        let start = Some(*self.0.get(&pid)?);
        Some(Arc::new(Process { start, ..Process::from_pid(pid) }))
    }
}

fn row(minor: u32, opener: u32, interface: &str) -> BpfRow {
    BpfRow {
        minor,
        opener,
        interface: interface.into(),
        promiscuous: false,
        received: 0,
        matched: 0,
    }
}

impl Bench {
    fn new(pids: &[u32]) -> Self {
        let alive = pids.iter().map(|pid| (*pid, u64::from(*pid) * 10)).collect();
        let mut bench = Self { table: Table::default(), alive };
        assert_eq!(bench.look(0, &[], &[]), [""; 0]);
        bench
    }

    /// What a look says, as `kind actor`.
    fn look(&mut self, now: u64, rows: &[BpfRow], holders: &[(u32, &[u32])]) -> Vec<String> {
        let holders = holders.iter().map(|(minor, pids)| (*minor, pids.to_vec())).collect();
        self.see(now, &Look { rows: rows.to_vec(), holders, is_complete: true })
    }

    fn see(&mut self, now: u64, look: &Look) -> Vec<String> {
        let mut said = Vec::new();
        self.table.update(look, now, &mut Alive(&self.alive), &mut said);
        let text = |(actor, kind): &Said| {
            let actor = actor.as_ref().map_or("-".to_owned(), |actor| actor.pid.to_string());
            let on = match kind {
                Kind::Promiscuous { on, .. } => format!(" {on}"),
                Kind::HandleOpened { pre_existing: true, .. } => " before".to_owned(),
                Kind::HandleAttached { handle } => {
                    format!(" {}", handle.interface.as_ref().unwrap().as_str())
                }
                Kind::HandleActive { packets, .. } => format!(" {packets}"),
                _ => String::new(),
            };
            format!("{} {actor}{on}", kind.name())
        };
        said.iter().map(text).collect()
    }
}

#[test]
fn a_capture_from_open_to_close() {
    let mut bench = Bench::new(&[7]);
    let mut one = row(0, 7, "");
    assert_eq!(bench.look(1, &[one.clone()], &[(0, &[7])]), ["handle_opened 7"]);
    one.interface = b"en0".to_vec();
    assert_eq!(bench.look(2, &[one.clone()], &[(0, &[7])]), ["handle_attached 7 en0"]);
    one.promiscuous = true;
    assert_eq!(bench.look(3, &[one.clone()], &[(0, &[7])]), ["promiscuous 7 true"]);
    assert!(bench.table.is_promiscuous_on("en0") && !bench.table.is_promiscuous_on("en1"));
    (one.received, one.matched) = (9, 4);
    assert_eq!(bench.look(4, &[one.clone()], &[(0, &[7])]), ["handle_active 7 4"]);
    (one.received, one.matched) = (19, 5);
    assert_eq!(bench.look(5, &[one.clone()], &[(0, &[7])]), [""; 0]);
    assert_eq!(bench.look(20_000, &[one], &[(0, &[7])]), ["handle_active 7 5"]);
    assert_eq!(bench.look(20_001, &[], &[]), ["handle_closed 7"]);
    assert!(!bench.table.is_busy());
}

#[test]
fn what_was_there_before_is_said_so_once() {
    let mut bench = Bench { table: Table::default(), alive: [(7, 70)].into() };
    let one = row(3, 7, "en0");
    let first = bench.look(0, std::slice::from_ref(&one), &[(3, &[7])]);
    assert_eq!(first, ["handle_opened 7 before", "handle_attached 7 en0"]);
    assert_eq!(bench.look(1, &[one], &[(3, &[7])]), [""; 0]);
}

#[test]
fn the_holder_is_not_the_opener() {
    let mut bench = Bench::new(&[8, 9]);
    let one = [row(0, 7, "en0")];
    assert_eq!(bench.look(1, &one, &[(0, &[8])]), ["handle_opened 8", "handle_attached 8 en0"]);
    assert_eq!(bench.look(2, &one, &[(0, &[8, 9])]), ["handle_opened 9"]);
    assert_eq!(bench.look(3, &one, &[(0, &[9])]), ["handle_released 8"]);
}

#[test]
fn an_exec_makes_another_holder_of_the_same_pid() {
    let mut bench = Bench::new(&[7]);
    let one = [row(0, 7, "en0")];
    bench.look(1, &one, &[(0, &[7])]);
    bench.alive.insert(7, 71);
    assert_eq!(bench.look(2, &one, &[(0, &[7])]), ["handle_opened 7", "handle_released 7"]);
}

#[test]
fn another_open_of_the_same_minor_is_another_handle() {
    let mut bench = Bench::new(&[7, 8]);
    let mut one = row(0, 7, "en0");
    one.received = 100;
    bench.look(1, &[one.clone()], &[(0, &[7])]);
    let again = ["handle_closed 7", "handle_opened 8", "handle_attached 8 en0"];
    assert_eq!(bench.look(2, &[row(0, 8, "en0")], &[(0, &[8])]), again);
    one.opener = 8;
    bench.look(3, &[one], &[(0, &[8])]);
    let again = ["handle_closed 8", "handle_opened 8", "handle_attached 8 en0"];
    assert_eq!(bench.look(4, &[row(0, 8, "en0")], &[(0, &[8])]), again);
    // Its counters begin anew with another interface: that is no other open.
    assert_eq!(bench.look(5, &[row(0, 8, "en1")], &[(0, &[8])]), ["handle_attached 8 en1"]);
}

#[test]
fn one_in_flight_is_said_after_a_while() {
    let mut bench = Bench::new(&[7]);
    let one = [row(0, 7, "en0")];
    bench.look(1, &one, &[(0, &[7])]);
    assert_eq!(bench.look(2, &one, &[]), [""; 0]);
    assert_eq!(bench.look(2 + FLIGHT_AFTER, &one, &[]), ["handle_released 7"]);
    assert_eq!(bench.look(9000, &one, &[]), [""; 0]);
    assert_eq!(bench.look(9001, &one, &[(0, &[7])]), ["handle_opened 7"]);
}

#[test]
fn without_root_the_opener_stands_for_the_holder() {
    let mut bench = Bench::new(&[7]);
    let look = Look { rows: vec![row(0, 7, "en0")], holders: BTreeMap::new(), is_complete: false };
    assert_eq!(bench.see(1, &look), ["handle_opened 7", "handle_attached 7 en0"]);
    assert_eq!(bench.see(9000, &look), [""; 0]);
}

#[test]
fn a_holder_that_nobody_sees_is_no_secret() {
    let mut bench = Bench::new(&[]);
    let one = [row(0, 7, "en0")];
    assert_eq!(bench.look(1, &one, &[]), ["handle_attached -  en0".replace("  ", " ")]);
    let late = bench.look(1 + FLIGHT_AFTER, &one, &[]);
    assert_eq!(late, ["handle_opened 7", "handle_released 7"]);
}
