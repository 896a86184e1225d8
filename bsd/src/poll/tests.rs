//! Rows in, observations out, with made-up rows: no kernel is asked.

use super::*;
use std::collections::HashMap;

use bpfwatch_core::scope::Scope;
use bpfwatch_core::text::Text;

use crate::files;
use crate::raw::JailRow;

/// Processes by pid: start and jail.
#[derive(Default)]
struct Fake(HashMap<u32, (u64, u32)>);

impl Who for Fake {
    fn start(&mut self, pid: u32) -> Option<u64> {
        self.0.get(&pid).map(|(start, _)| *start)
    }

    fn process(&mut self, pid: u32) -> Arc<Process> {
        let Some((start, jid)) = self.0.get(&pid).copied() else {
            return Arc::new(Process::from_pid(pid));
        };
        let jail = JailRow { jid, name: format!("jail{jid}").into_bytes(), ..JailRow::default() };
        let scope = Some(Arc::new(decode::scope(jid, Some(&jail))));
        Arc::new(Process { start: Some(start), scope, ..Process::from_pid(pid) })
    }
}

fn file(pid: u32, fd: i32, file: u64) -> FileRow {
    let kind = files::DTYPE_VNODE;
    FileRow { pid, uid: 0, fd, file, kind, data: 0xb0f, vnode: 1, flags: 3 }
}

fn row(pid: u32, interface: &str, promiscuous: bool, packets: u64) -> BpfRow {
    BpfRow {
        pid,
        interface: interface.as_bytes().to_vec(),
        promiscuous,
        received: packets,
        matched: packets,
        dropped: 0,
        written: 0,
        buffer: 4096,
        locked: false,
    }
}

#[derive(Default)]
struct Bench {
    table: Table,
    who: Fake,
    now: u64,
}

type Short = (Option<u32>, &'static str, u64);

impl Bench {
    fn with(processes: &[(u32, u64, u32)]) -> Self {
        let mut bench = Self::default();
        for (pid, start, jid) in processes {
            bench.who.0.insert(*pid, (*start, *jid));
        }
        // The first look finds nothing: what comes later is new.
        assert_eq!(bench.look(&[], &[]), []);
        bench
    }

    fn said(&mut self, files: &[FileRow], rows: &[BpfRow]) -> Vec<Said> {
        self.now += 250;
        let look =
            Look { files: files.to_vec(), others: Vec::new(), attached: Some(rows.to_vec()) };
        let mut said = Vec::new();
        self.table.update(&look, self.now, &mut self.who, &mut said);
        said
    }

    fn look(&mut self, files: &[FileRow], rows: &[BpfRow]) -> Vec<Short> {
        let said = self.said(files, rows);
        let short = |(actor, kind): &Said| {
            let pid = actor.as_ref().map(|actor| actor.pid);
            (pid, kind.name(), kind.handle().map_or(0, |handle| handle.id))
        };
        said.iter().map(short).collect()
    }
}

#[test]
fn a_capture_from_open_to_close() {
    let mut bench = Bench::with(&[(7, 70, 0)]);
    let files = [file(7, 3, 0xf1)];
    assert_eq!(bench.look(&files, &[]), [(Some(7), "handle_opened", 0xf1)]);
    assert_eq!(bench.look(&files, &[]), []);
    assert!(bench.table.is_busy());
    let quiet = [row(7, "em0", false, 0)];
    assert_eq!(bench.look(&files, &quiet), [(Some(7), "handle_attached", 0xf1)]);
    assert_eq!(bench.look(&files, &quiet), []);
    assert_eq!(bench.look(&files, &[row(7, "em0", true, 0)]), [(Some(7), "promiscuous", 0xf1)]);
    let reading = [row(7, "em0", true, 4)];
    assert_eq!(bench.look(&files, &reading), [(Some(7), "handle_active", 0xf1)]);
    assert_eq!(bench.look(&files, &[row(7, "em0", true, 5)]), [], "not with each packet");
    bench.now += PACKETS_PACE;
    let said = bench.said(&files, &[row(7, "em0", true, 900)]);
    assert!(matches!(said[..], [(_, Kind::HandleActive { packets: 900, .. })]));
    let off = bench.said(&files, &[row(7, "em0", false, 900)]);
    assert!(matches!(off[..], [(_, Kind::Promiscuous { on: false, .. })]));
    assert_eq!(bench.look(&[], &[]), [(Some(7), "handle_closed", 0xf1)]);
    assert!(!bench.table.is_busy());
}

#[test]
fn what_was_there_before_is_said_so() {
    let mut bench = Bench::default();
    bench.who.0.insert(7, (70, 0));
    let said = bench.said(&[file(7, 3, 0xf1)], &[row(7, "em0", false, 0)]);
    let Kind::HandleOpened { pre_existing, handle } = &said[0].1 else { panic!("{said:?}") };
    assert!(*pre_existing);
    assert_eq!(handle.device, Some(Text::from("/dev/bpf")));
    let said = bench.said(&[file(7, 3, 0xf1), file(7, 4, 0xf2)], &[row(7, "em0", false, 0)]);
    assert!(matches!(said[..], [(_, Kind::HandleOpened { pre_existing: false, .. })]));
}

#[test]
fn several_jails_at_once() {
    let mut bench = Bench::with(&[(114, 1, 0), (115, 2, 3), (116, 3, 1)]);
    let files = [file(116, 3, 0xa), file(115, 3, 0xb), file(114, 3, 0xc)];
    // The host's and a jail's interface may have the same name.
    let rows = [row(115, "em0", true, 0), row(116, "em0", false, 0), row(114, "em0", true, 0)];
    let said = bench.said(&files, &rows);
    let promiscuous: Vec<_> = said
        .iter()
        .filter(|(_, kind)| matches!(kind, Kind::Promiscuous { on: true, .. }))
        .map(|(actor, kind)| {
            let scope = actor.as_ref().unwrap().scope.as_deref().cloned();
            let name = match scope {
                Some(Scope::Jail { name, .. }) => name.to_string(),
                _ => "host".to_owned(),
            };
            (name, kind.handle().unwrap().id)
        })
        .collect();
    assert_eq!(promiscuous, [("jail3".to_owned(), 0xb), ("host".to_owned(), 0xc)]);
}

#[test]
fn a_descriptor_in_flight_and_its_arrival() {
    let mut bench = Bench::with(&[(7, 70, 0), (9, 90, 0)]);
    let rows = [row(7, "em0", true, 0)];
    bench.look(&[file(7, 3, 0xf1)], &rows);
    assert_eq!(bench.look(&[], &rows), [], "between two tables descriptors come and go");
    assert_eq!(bench.look(&[], &rows), [(Some(7), "handle_released", 0xf1)]);
    assert_eq!(bench.look(&[], &rows), [], "once");
    assert!(bench.table.is_busy());
    // Who receives it has not touched it yet: the kernel still names the sender.
    assert_eq!(bench.look(&[file(9, 5, 0xf1)], &rows), [(Some(9), "handle_opened", 0xf1)]);
    assert_eq!(bench.look(&[file(9, 5, 0xf1)], &[row(9, "em0", true, 0)]), []);
    assert_eq!(bench.look(&[], &[]), [(Some(9), "handle_closed", 0xf1)]);
}

#[test]
fn one_that_was_in_flight_before_anybody_looked() {
    let mut bench = Bench::with(&[(5, 50, 0), (6, 60, 0)]);
    let idle = [file(5, 3, 0xe1), file(6, 3, 0xe2)];
    bench.look(&idle, &[]);
    let rows = [row(7, "em0", true, 0)];
    assert_eq!(bench.look(&idle, &rows), []);
    let said = bench.look(&idle, &rows);
    let id = FLIGHT_IDS;
    assert_eq!(
        said,
        [
            (Some(7), "handle_opened", id),
            (Some(7), "handle_attached", id),
            (Some(7), "promiscuous", id),
            (Some(7), "handle_released", id)
        ]
    );
    assert_eq!(bench.look(&idle, &rows), []);
    assert_eq!(bench.look(&idle, &[]), [(Some(7), "handle_closed", id)]);
}

#[test]
fn a_row_that_is_gone_at_the_next_look_was_never_in_flight() {
    let mut bench = Bench::with(&[]);
    assert_eq!(bench.look(&[], &[row(7, "em0", true, 0)]), []);
    assert_eq!(bench.look(&[], &[]), []);
    assert!(!bench.table.is_busy());
}

#[test]
fn a_pid_that_is_another_process_by_now() {
    let mut bench = Bench::with(&[(7, 70, 0)]);
    let files = [file(7, 3, 0xf1)];
    bench.look(&files, &[]);
    assert!(bench.table.holds(ProcessKey { pid: 7, start: Some(70) }));
    bench.who.0.insert(7, (71, 0));
    assert_eq!(
        bench.look(&files, &[]),
        [(Some(7), "handle_opened", 0xf1), (Some(7), "handle_released", 0xf1)]
    );
    assert!(!bench.table.holds(ProcessKey { pid: 7, start: Some(70) }));
    assert!(bench.table.holds(ProcessKey { pid: 7, start: Some(71) }));
}

#[test]
fn a_capture_that_goes_to_the_background() {
    let mut bench = Bench::with(&[(7, 70, 0), (8, 80, 0)]);
    let rows = [row(7, "em0", false, 1)];
    bench.look(&[file(7, 3, 0xf1)], &rows);
    let both = [file(7, 3, 0xf1), file(8, 3, 0xf1)];
    assert_eq!(bench.look(&both, &rows), [(Some(8), "handle_opened", 0xf1)]);
    assert_eq!(bench.look(&both[1..], &rows), [(Some(7), "handle_released", 0xf1)]);
    assert_eq!(bench.look(&[], &[]), [(Some(8), "handle_closed", 0xf1)]);
}

#[test]
fn where_the_attached_cannot_be_read_files_alone_tell() {
    let mut bench = Bench::with(&[(7, 70, 0)]);
    let blind = |files: &[FileRow]| Look { files: files.to_vec(), ..Look::default() };
    let mut said = Vec::new();
    bench.table.update(&blind(&[file(7, 3, 0)]), 1, &mut bench.who, &mut said);
    assert!(matches!(said[..], [(_, Kind::HandleOpened { .. })]));
    said.clear();
    bench.table.update(&blind(&[]), 2, &mut bench.who, &mut said);
    assert!(matches!(said[..], [(_, Kind::HandleClosed { .. })]));
}

#[test]
fn sockets_and_devices_that_capture_too() {
    let mut bench = Bench::with(&[(7, 70, 0), (8, 80, 0)]);
    let mut look = |others: &[(u32, HandleKind, Option<&str>)], files: &[FileRow]| {
        let handle = |kind, interface: Option<&str>| Handle {
            interface: interface.map(Text::from),
            ..Handle::new(kind, 0xf1)
        };
        let others = others.iter().map(|(pid, kind, on)| (file(*pid, 3, 0xf1), handle(*kind, *on)));
        let look = Look { files: files.to_vec(), others: others.collect(), attached: Some(vec![]) };
        let mut said = Vec::new();
        bench.now += 250;
        bench.table.update(&look, bench.now, &mut bench.who, &mut said);
        let short = |(actor, kind): &Said| {
            let handle = kind.handle().map(|handle| handle.kind.as_str());
            (actor.as_ref().map(|actor| actor.pid), kind.name(), handle.unwrap_or("none"))
        };
        let busy = bench.table.is_busy() || bench.table.is_new(0xf1);
        (said.iter().map(short).collect::<Vec<_>>(), busy)
    };
    let (divert, raw) = (HandleKind::DivertSocket, HandleKind::RawSocket);
    let opened =
        |pid, kind| vec![(Some(pid), "handle_opened", kind), (Some(pid), "handle_attached", kind)];
    assert_eq!(look(&[(7, raw, None)], &[]), (opened(7, "raw_socket"), false));
    assert_eq!(look(&[(7, raw, None)], &[]), (vec![], false));
    // Its file was closed, and the next one is of another sort and another process.
    let (said, _) = look(&[(8, divert, None)], &[]);
    assert_eq!(said[0], (Some(7), "handle_closed", "raw_socket"));
    assert_eq!(said[1..], opened(8, "divert_socket"));
    let attached = vec![(Some(8), "handle_attached", "divert_socket")];
    assert_eq!(look(&[(8, divert, Some("divert:1"))], &[]), (attached, false));
    let (said, busy) = look(&[], &[file(8, 3, 0xf1)]);
    let bpf = [(Some(8), "handle_closed", "divert_socket"), (Some(8), "handle_opened", "bpf")];
    assert_eq!((said.as_slice(), busy), (bpf.as_slice(), true));
    assert_eq!(look(&[], &[]), (vec![(Some(8), "handle_closed", "bpf")], false));
}
