//! The audit pipe's whole way but the system calls: bytes recorded on FreeBSD 15.1, as reads cut them, through
//! what joins them with kqueue and kern.file. Whatever came, each execution and each open is said once.

use std::sync::Arc;

use bpfwatch_bsd::audit::execs::{Execs, HOLD};
use bpfwatch_bsd::audit::openers::{File, Openers};
use bpfwatch_bsd::audit::stream::{Opened, Seen, Stream};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::time::Timestamp;

/// st_rdev of /dev/bpf where they were recorded.
const RDEV: u64 = 0x1a;

fn read(bytes: &[u8], pace: usize) -> Vec<Seen> {
    let mut stream = Stream::new(RDEV, 0);
    let mut seen = Vec::new();
    for part in bytes.chunks(pace) {
        stream.take(part, &mut seen);
    }
    seen
}

fn opens(seen: Vec<Seen>) -> Vec<Opened> {
    let open = |seen| match seen {
        Seen::Opened(open) => Some(open),
        _ => None,
    };
    seen.into_iter().filter_map(open).collect()
}

/// Two opens in a jail, a hundred times.
fn two_hundred() -> Vec<Opened> {
    let bytes = include_bytes!("data/open-jail.bsm").repeat(100);
    opens(read(&bytes, 1000))
}

#[test]
fn two_hundred_short_opens_are_two_hundred_with_process_and_jail() {
    let mut openers = Openers::default();
    let mut short = Vec::new();
    for (now, open) in (0..).zip(two_hundred()) {
        assert!(openers.opened(open, now));
        if now % 7 == 0 {
            short.extend(openers.looked(&[], now).short);
        }
    }
    short.extend(openers.looked(&[], 300).short);
    assert_eq!(short.len(), 200);
    for open in short {
        assert!([146, 147].contains(&open.process.pid) && open.fd == 3);
        let Some(Scope::Jail { name, .. }) = open.process.scope.as_deref() else {
            panic!("no jail: {open:?}")
        };
        assert_eq!(name.as_str(), "leg");
        assert!(open.path.is_some_and(|path| path.as_str().starts_with("/jails/leg/dev/bpf")));
    }
}

#[test]
fn what_looks_find_is_not_said_by_records_too() {
    let mut openers = Openers::default();
    let (mut by_look, mut by_record) = (0, 0);
    for (now, open) in (0..).zip(two_hundred()) {
        let place = (open.process.pid, open.fd);
        let found = File { id: now, is_new: true, places: vec![place] };
        match now % 3 {
            // The record, and then a look that finds it.
            0 => {
                openers.opened(open, now);
                by_look += 1;
                by_record += openers.looked(&[found], now).short.len();
            }
            // A look that finds it, and then the record.
            1 => {
                by_look += 1;
                by_record += openers.looked(&[found], now).short.len();
                openers.opened(open, now);
            }
            // It is closed before anybody looks.
            _ => {
                openers.opened(open, now);
                by_record += openers.looked(&[], now).short.len();
            }
        }
    }
    by_record += openers.looked(&[], 300).short.len();
    assert_eq!((by_look, by_record), (134, 66));
}

#[test]
fn executions_that_both_tell_are_said_once() {
    let bytes = include_bytes!("data/execve-jail.bsm").repeat(50);
    let executed: Vec<Process> = read(&bytes, 500)
        .into_iter()
        .filter_map(|seen| match seen {
            Seen::Executed(_, process) => Some(process),
            _ => None,
        })
        .collect();
    assert_eq!(executed.len(), 200);
    let mut execs = Execs::default();
    let mut said = Vec::new();
    for (number, record) in (0u32..).zip(executed) {
        // Each of another process, a second after the one before it.
        let record = Process { pid: 1000 + number, ..record };
        let now = u64::from(number) * 1000;
        let at = Timestamp::from_secs(1);
        let known = Process { start: Some(1), ppid: Some(1), ..Process::from_pid(record.pid) };
        // What kqueue has of it: everything, no more than its number, or nothing.
        let heard = match number % 3 {
            0 => Some(Process { image: record.image.clone(), args: record.args.clone(), ..known }),
            1 => Some(known),
            _ => None,
        };
        let heard = heard.map(|process| (Some(Arc::new(process)), Kind::Executed));
        let mut gone = Process::from_pid;
        if number % 2 == 0 {
            execs.heard(heard.into_iter().collect(), at, now);
            execs.recorded(at, record, now + 3, &mut gone);
        } else {
            execs.recorded(at, record, now, &mut gone);
            execs.heard(heard.into_iter().collect(), at, now + 3);
        }
        said.extend(execs.take(now + 3));
    }
    said.extend(execs.take(1_000_000 + HOLD));
    assert_eq!(said.len(), 200);
    for offer in said {
        let actor = offer.actor.unwrap();
        assert!(offer.kind == Kind::Executed && actor.image.is_some() && actor.args.is_some());
    }
}
