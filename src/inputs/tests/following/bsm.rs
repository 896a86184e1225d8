//! BSM trails: records that say how long they are, appended to a file that auditd renames.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use bpfwatch_bsd::bsm::format::Bsm;
use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_inputs::follow::{Follower, Position, Start};
use bpfwatch_inputs::reader::Options;
use bpfwatch_inputs::recording::Recording;

use crate::support::{Dir, drain, wait};

/// Four executions, of pids 96 to 99 or so.
const TRAIL: &[u8] = include_bytes!("../../../../bsd/tests/data/execve-host.bsm");

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// The records of the trail and what a follower gives of each.
fn records() -> Vec<&'static [u8]> {
    let (mut rest, mut records) = (TRAIL, Vec::new());
    while !rest.is_empty() {
        let size = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        records.push(&rest[..size]);
        rest = &rest[size..];
    }
    records
}

fn pids(records: &[&[u8]]) -> Vec<String> {
    let freebsd = Bsm::freebsd();
    let mut pids = Vec::new();
    for record in records {
        freebsd.decode_block(record, &mut |record| {
            pids.extend(
                record.observations.iter().map(|o| o.actor.as_ref().unwrap().pid.to_string()),
            );
        });
    }
    pids
}

struct Formats(Bsm, Bsm);

impl Formats {
    fn new() -> Self {
        Self(Bsm::freebsd(), Bsm::macos())
    }

    fn follow(&self, path: &Path, start: Start) -> Follower<'_> {
        let formats: [&dyn LineDecoder; 3] = [&Recording, &self.0, &self.1];
        Follower::new(path, &formats, Options::default(), start).unwrap()
    }
}

#[test]
fn a_trail_comes_record_by_record() {
    let dir = Dir::new("follow-bsm-grow");
    let (path, formats, records) = (dir.log(), Formats::new(), records());
    let all = pids(&records);
    assert!(all.len() == records.len() && all.len() >= 3, "{all:?}");
    append(&path, records[0]);
    let mut follower = formats.follow(&path, Start::End);
    let mut seen = Vec::new();
    drain(&mut follower, &mut seen);
    assert!(seen.is_empty(), "{seen:?}");
    // A record in three pieces.
    let (start, rest) = records[1].split_at(3);
    let (middle, end) = rest.split_at(90);
    for piece in [start, middle] {
        append(&path, piece);
        drain(&mut follower, &mut seen);
        assert!(seen.is_empty(), "{seen:?}");
    }
    append(&path, end);
    drain(&mut follower, &mut seen);
    assert_eq!(seen, all[1..2]);
    append(&path, &[records[2], b"no record, but more than enough of it", records[0]].concat());
    drain(&mut follower, &mut seen);
    assert_eq!(seen[1..], [all[2].as_str(), "bad"]);
    // What looks like damage takes the record with it whose end is the next that can be found.
    append(&path, records[1]);
    drain(&mut follower, &mut seen);
    assert_eq!(seen[3..], all[1..2]);
}

#[test]
fn a_trail_that_auditd_renames_is_read_to_its_end() {
    let dir = Dir::new("follow-bsm-rename");
    let (formats, records) = (Formats::new(), records());
    let all = pids(&records);
    // As in /var/audit: `current` is a link to the trail that is not yet ended.
    let (first, second) = (dir.0.join("1.not_terminated"), dir.0.join("2.not_terminated"));
    let current = dir.0.join("current");
    append(&first, records[0]);
    symlink(&first, &current).unwrap();
    let mut follower = formats.follow(&current, Start::Beginning);
    let mut seen = Vec::new();
    drain(&mut follower, &mut seen);
    assert_eq!(seen, all[..1]);
    let position = follower.position().unwrap();
    append(&first, &records[1][..40]);
    drain(&mut follower, &mut seen);
    let rotate = || {
        append(&second, records[2]);
        fs::rename(&first, dir.0.join("1.2")).unwrap();
        fs::remove_file(&current).unwrap();
        symlink(&second, &current).unwrap();
    };
    rotate();
    drain(&mut follower, &mut seen);
    append(&dir.0.join("1.2"), &records[1][40..]);
    wait(&mut follower, &mut seen, 3);
    assert_eq!(seen, all[..3]);
    // The same while nobody looked: what was renamed is found, under whatever name.
    let text = serde_json::to_string(&position).unwrap();
    let position: Position = serde_json::from_str(&text).unwrap();
    let mut again = formats.follow(&current, Start::At(position));
    let mut seen = Vec::new();
    wait(&mut again, &mut seen, 2);
    assert_eq!(seen, all[1..3]);
}

#[test]
fn the_record_that_a_renamed_trail_ends_in_is_said() {
    let dir = Dir::new("follow-bsm-cut");
    let (path, formats, records) = (dir.log(), Formats::new(), records());
    append(&path, &[records[0], &records[1][..40]].concat());
    let mut follower = formats.follow(&path, Start::Beginning);
    let mut seen = Vec::new();
    drain(&mut follower, &mut seen);
    fs::rename(&path, dir.0.join("1.2")).unwrap();
    append(&path, records[2]);
    wait(&mut follower, &mut seen, 3);
    let all = pids(&records);
    assert_eq!(seen, [all[0].as_str(), "bad", all[2].as_str()]);
}

#[test]
fn a_truncation_and_a_restart_within_a_record() {
    let dir = Dir::new("follow-bsm-truncate");
    let (path, formats, records) = (dir.log(), Formats::new(), records());
    let all = pids(&records);
    append(&path, &[records[0], &records[1][..40]].concat());
    let mut first = formats.follow(&path, Start::Beginning);
    let mut seen = Vec::new();
    drain(&mut first, &mut seen);
    let position = first.position().unwrap();
    drop(first);
    append(&path, &records[1][40..]);
    let mut second = formats.follow(&path, Start::At(position));
    drain(&mut second, &mut seen);
    assert_eq!(seen, all[..2]);
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    append(&path, records[2]);
    drain(&mut second, &mut seen);
    assert_eq!(seen[2..], ["lost", all[2].as_str()]);
}
