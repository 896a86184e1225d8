//! Lines that are written, renamed, truncated and replaced while they are followed.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_core::time::Timestamp;
use bpfwatch_inputs::auditd::Auditd;
use bpfwatch_inputs::follow::{Follower, Position, Start};
use bpfwatch_inputs::reader::Options;
use bpfwatch_inputs::recording::Recording;

use crate::support::{Dir, drain, wait};

fn line(pid: u32) -> String {
    format!(
        r#"{{"type":"observation","at":"2026-11-24T02:45:17.000000Z","sensor":"t","kind":"executed","process":{{"pid":{pid}}}}}"#
    ) + "\n"
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

const FORMATS: [&dyn LineDecoder; 1] = [&Recording];

fn follow(path: &Path, start: Start) -> Follower<'static> {
    Follower::new(path, &FORMATS, Options::default(), start).unwrap()
}

#[test]
fn what_is_written_comes_once_and_whole() {
    let dir = Dir::new("follow-grow");
    let path = dir.log();
    append(&path, &line(1));
    let mut follower = follow(&path, Start::End);
    let mut seen = Vec::new();
    drain(&mut follower, &mut seen);
    assert!(seen.is_empty(), "{seen:?}");
    // A line in three pieces, with the next one behind it.
    let text = line(2) + &line(3);
    for piece in [&text[..10], &text[10..100], &text[100..]] {
        append(&path, piece);
        drain(&mut follower, &mut seen);
    }
    append(&path, "nonsense\n");
    drain(&mut follower, &mut seen);
    assert_eq!(seen, ["2", "3", "bad"]);
    assert_eq!(follower.summary().problems, 1);
}

#[test]
fn a_rename_loses_nothing_also_when_the_writer_goes_on() {
    let dir = Dir::new("follow-rename");
    let path = dir.log();
    append(&path, &line(1));
    let mut follower = follow(&path, Start::Beginning);
    let mut seen = Vec::new();
    drain(&mut follower, &mut seen);
    let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
    fs::rename(&path, dir.0.join("audit.log.1")).unwrap();
    drain(&mut follower, &mut seen);
    writer.write_all(line(2).as_bytes()).unwrap();
    append(&path, &line(4));
    drain(&mut follower, &mut seen);
    // The writer has not noticed yet.
    writer.write_all(line(3).as_bytes()).unwrap();
    wait(&mut follower, &mut seen, 4);
    assert_eq!(seen, ["1", "2", "3", "4"]);
    for n in 5..30 {
        fs::rename(&path, dir.0.join(format!("audit.log.{n}"))).unwrap();
        append(&path, &line(n));
        if n % 8 == 0 {
            wait(&mut follower, &mut seen, 5);
        }
    }
    append(&path, &line(30));
    wait(&mut follower, &mut seen, 30);
    // Several renames between two looks: the last one is found for certain.
    assert_eq!(seen.last().unwrap(), "30");
}

#[test]
fn a_truncation_is_said_and_the_file_read_anew() {
    let dir = Dir::new("follow-truncate");
    let path = dir.log();
    append(&path, &(line(1) + &line(2)));
    let mut follower = follow(&path, Start::Beginning);
    let mut seen = Vec::new();
    drain(&mut follower, &mut seen);
    // copytruncate
    fs::copy(&path, dir.0.join("audit.log.1")).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    append(&path, &line(3));
    drain(&mut follower, &mut seen);
    assert_eq!(seen, ["1", "2", "lost", "3"]);
    // Truncated and grown beyond the place between two looks.
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    for n in 4..9 {
        append(&path, &line(n));
    }
    drain(&mut follower, &mut seen);
    assert_eq!(seen[3..], ["3", "lost", "4", "5", "6", "7", "8"]);
}

#[test]
fn a_restart_goes_on_where_it_ended() {
    let dir = Dir::new("follow-restart");
    let path = dir.log();
    let half = line(3);
    append(&path, &(line(1) + &line(2) + &half[..20]));
    let mut seen = Vec::new();
    let mut first = follow(&path, Start::Beginning);
    drain(&mut first, &mut seen);
    let text = serde_json::to_string(&first.position().unwrap()).unwrap();
    drop(first);
    append(&path, &half[20..]);
    // Renamed while nobody followed it.
    fs::rename(&path, dir.0.join("audit.log.1")).unwrap();
    append(&path, &line(4));
    let position: Position = serde_json::from_str(&text).unwrap();
    let mut second = follow(&path, Start::At(position.clone()));
    wait(&mut second, &mut seen, 4);
    assert_eq!(seen, ["1", "2", "3", "4"]);
    // Gone altogether: said, and the new one is read from its start.
    fs::remove_file(dir.0.join("audit.log.1")).unwrap();
    let mut third = follow(&path, Start::At(position));
    let mut seen = Vec::new();
    drain(&mut third, &mut seen);
    assert_eq!(seen, ["lost", "4"]);
    // Nothing new.
    let again = third.position().unwrap();
    let mut fourth = follow(&path, Start::At(again));
    let mut seen = Vec::new();
    drain(&mut fourth, &mut seen);
    assert!(seen.is_empty(), "{seen:?}");
}

#[test]
fn a_file_that_is_not_there_yet_is_all_new() {
    let dir = Dir::new("follow-later");
    let mut follower = follow(&dir.log(), Start::End);
    let mut seen = Vec::new();
    drain(&mut follower, &mut seen);
    append(&dir.log(), &line(1));
    drain(&mut follower, &mut seen);
    assert_eq!(seen, ["1"]);
}

#[test]
fn an_event_whose_end_does_not_come_comes_after_two_seconds() {
    let dir = Dir::new("follow-idle");
    let record = "type=ANOM_PROMISCUOUS msg=audit(1700000000.5:10): dev=eth1 prom=256 old_prom=0 auid=0 uid=0 gid=0 ses=1\n";
    append(&dir.log(), record);
    let auditd = Auditd::default();
    let formats: [&dyn LineDecoder; 1] = [&auditd];
    let mut follower =
        Follower::new(&dir.log(), &formats, Options::default(), Start::Beginning).unwrap();
    let mut seen = Vec::new();
    drain(&mut follower, &mut seen);
    assert!(seen.is_empty());
    wait(&mut follower, &mut seen, 2);
    assert_eq!(seen, ["interface_promiscuous", "logged"]);
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = Dir::new("follow-refuse");
    fs::create_dir(dir.log()).unwrap();
    let mut follower = follow(&dir.log(), Start::End);
    let error =
        follower.turn(Timestamp::default(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("regular"), "{error}");
}

#[test]
fn a_line_without_end_takes_no_memory() {
    let dir = Dir::new("follow-long");
    let mut file = File::create(dir.log()).unwrap();
    let mut follower = follow(&dir.log(), Start::Beginning);
    let mut seen = Vec::new();
    let block = vec![b'x'; 1024 * 1024];
    for _ in 0..40 {
        file.write_all(&block).unwrap();
        drain(&mut follower, &mut seen);
    }
    file.write_all(b"\n").unwrap();
    file.write_all(line(1).as_bytes()).unwrap();
    drain(&mut follower, &mut seen);
    assert_eq!(seen, ["bad", "1"]);
}
