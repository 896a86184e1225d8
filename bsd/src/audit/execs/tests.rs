//! Records and events of the same executions, in every order.

use super::*;

fn process(pid: u32, image: &str, args: &[&str]) -> Process {
    Process {
        image: Some(image.into()),
        args: (!args.is_empty()).then(|| Arguments::from_list(args)),
        ..Process::from_pid(pid)
    }
}

fn lives(process: Process) -> Process {
    Process { start: Some(u64::from(process.pid)), ppid: Some(1), ..process }
}

#[derive(Default)]
struct Bench {
    execs: Execs,
    /// What can be read of a process.
    there: Vec<Process>,
}

impl Bench {
    fn kqueue(&mut self, process: Process, kind: Kind, now: u64) {
        self.execs.heard(vec![(Some(Arc::new(process)), kind)], Timestamp::from_secs(1), now);
    }

    fn record(&mut self, process: Process, now: u64) {
        let there = self.there.clone();
        let mut read = |pid| {
            let found = there.iter().find(|process| process.pid == pid).cloned();
            found.unwrap_or_else(|| Process::from_pid(pid))
        };
        self.execs.recorded(Timestamp::from_secs(2), process, now, &mut read);
    }

    fn said(&mut self, now: u64) -> Vec<String> {
        let short = |offer: Offer| {
            let actor = offer.actor.unwrap();
            let args = actor.args.as_ref().map(Arguments::command_line).unwrap_or_default();
            let ppid = actor.ppid.map(|ppid| format!(" of {ppid}")).unwrap_or_default();
            format!("{} {}{ppid} {args}", offer.kind.name(), actor.pid).trim_end().to_owned()
        };
        self.execs.take(now).into_iter().map(short).collect()
    }
}

#[test]
fn both_tell_and_one_is_said() {
    let mut bench = Bench::default();
    // The path was gone before it could be read, and its arguments.
    let read = Process { image: None, args: None, ..lives(process(7, "", &[])) };
    bench.kqueue(read, Kind::Executed, 10);
    assert_eq!((bench.said(12), bench.execs.next()), (vec![], Some(10 + HOLD)));
    bench.record(process(7, "/bin/true", &["true", "x"]), 13);
    let said = bench.execs.take(13);
    let actor = said[0].actor.as_ref().unwrap();
    assert_eq!(said[0].at, Timestamp::from_secs(2), "the record has the time");
    assert_eq!((actor.start, actor.ppid), (Some(7), Some(1)));
    assert_eq!(actor.image.as_ref().unwrap().as_str(), "/bin/true");
    assert_eq!(actor.args.as_ref().unwrap().command_line(), "true x");
    assert!(bench.said(9_000).is_empty() && bench.execs.waiting.is_empty());
}

#[test]
fn the_record_may_come_first_or_alone() {
    let mut bench = Bench { there: vec![lives(process(7, "/bin/a", &["a"]))], ..Bench::default() };
    bench.record(process(7, "/bin/a", &["a"]), 10);
    assert_eq!(bench.said(10), ["executed 7 of 1 a"]);
    bench.kqueue(lives(process(7, "/bin/a", &["a"])), Kind::Executed, 11);
    assert_eq!(bench.said(9_000), Vec::<String>::new());
    // Of one that ended before its execution was told nothing is left to be read.
    bench.kqueue(process(8, "/bin/b", &[]), Kind::Exited, 10_000);
    assert_eq!(bench.said(10_000), ["exited 8"]);
    bench.record(process(8, "/bin/b", &["b"]), 10_002);
    assert_eq!(bench.said(10_002), ["executed 8 b", "exited 8 b"]);
}

#[test]
fn without_a_record_kqueue_says_it_and_a_late_record_is_no_second() {
    let mut bench = Bench::default();
    bench.kqueue(lives(process(7, "/bin/a", &["a"])), Kind::Executed, 10);
    assert_eq!(bench.said(9 + HOLD), Vec::<String>::new());
    assert_eq!(bench.said(10 + HOLD), ["executed 7 of 1 a"]);
    bench.record(process(7, "/bin/a", &["a"]), 20 + HOLD);
    assert_eq!(bench.said(9_000), Vec::<String>::new());
    // The next program of the same process is said.
    bench.record(process(7, "/bin/a", &["a", "2"]), 9_000);
    assert_eq!(bench.said(9_000), ["executed 7 a 2"]);
}

#[test]
fn nothing_overtakes_what_waits() {
    let mut bench = Bench::default();
    bench.kqueue(lives(process(7, "/bin/sh", &["sh"])), Kind::Executed, 10);
    bench.kqueue(Process { ppid: Some(7), ..Process::from_pid(8) }, Kind::Forked, 11);
    bench.kqueue(lives(process(8, "/bin/ls", &["ls"])), Kind::Executed, 12);
    bench.record(process(8, "/bin/ls", &["ls"]), 13);
    assert_eq!(bench.said(13), Vec::<String>::new());
    bench.record(process(7, "/bin/sh", &["sh"]), 14);
    assert_eq!(bench.said(14), ["executed 7 of 1 sh", "forked 8 of 7", "executed 8 of 1 ls"]);
}

#[test]
fn two_programs_of_one_process_are_told_apart() {
    let mut bench = Bench::default();
    // kqueue was slow: both reads show the second one.
    bench.kqueue(lives(process(7, "/sbin/dump", &["dump", "-i"])), Kind::Executed, 10);
    bench.kqueue(lives(process(7, "/sbin/dump", &["dump", "-i"])), Kind::Executed, 10);
    bench.record(process(7, "/usr/sbin/jexec", &["jexec", "1", "dump"]), 11);
    bench.record(process(7, "/sbin/dump", &["dump", "-i"]), 11);
    assert_eq!(bench.said(11), ["executed 7 of 1 jexec 1 dump", "executed 7 of 1 dump -i"]);
    // The first one's record is lost: the second's goes to the second.
    bench.kqueue(lives(process(9, "/bin/a", &["a"])), Kind::Executed, 20);
    bench.kqueue(lives(process(9, "/bin/b", &["b"])), Kind::Executed, 20);
    bench.record(process(9, "/bin/b", &["b"]), 21);
    assert_eq!(bench.said(20 + HOLD), ["executed 9 of 1 a", "executed 9 of 1 b"]);
}

#[test]
fn a_script_is_its_interpreter() {
    let mut bench = Bench::default();
    let read = lives(process(7, "/bin/sh", &["/bin/sh", "/tmp/sc.sh", "x"]));
    bench.kqueue(read, Kind::Executed, 10);
    bench.record(process(7, "/bin/sh", &["sc.sh", "x"]), 11);
    assert_eq!(bench.said(11), ["executed 7 of 1 /bin/sh /tmp/sc.sh x"]);
}

#[test]
fn a_number_that_is_another_process_by_now() {
    let mut bench = Bench::default();
    bench.kqueue(process(7, "/bin/a", &["a"]), Kind::Executed, 10);
    bench.kqueue(Process::from_pid(7), Kind::Exited, 11);
    bench.kqueue(Process { ppid: Some(3), ..Process::from_pid(7) }, Kind::Forked, 12);
    bench.kqueue(lives(process(7, "/bin/b", &["b"])), Kind::Executed, 13);
    bench.record(process(7, "/bin/b", &["b"]), 14);
    let said = ["executed 7 a", "exited 7", "forked 7 of 3", "executed 7 of 1 b"];
    assert_eq!(bench.said(14), said);
}

#[test]
fn memory_stays_bounded() {
    let mut bench = Bench::default();
    let mut count = 0;
    let long = "x".repeat(10_000);
    for pid in 0..5_000 {
        bench.kqueue(process(pid, "/bin/a", &[&long]), Kind::Executed, 10);
        count += bench.said(10).len();
        assert!(bench.execs.weight <= MAX_HELD);
    }
    assert!(bench.execs.held.len() > 300);
    assert_eq!(count + bench.execs.held.len(), 5_000);
    bench.execs.forget(10);
    assert!(bench.execs.by_kqueue.len() <= MAX_REMEMBERED);
    for pid in 0..5_000 {
        bench.record(process(100_000 + pid, "/bin/a", &[]), 11);
    }
    assert!(bench.execs.by_record.len() <= MAX_REMEMBERED + 1);
    count += bench.said(11 + HOLD).len();
    assert_eq!(count, 10_000);
    assert!(bench.execs.waiting.is_empty() && bench.execs.next().is_none());
    assert_eq!(bench.execs.weight, 0);
}
