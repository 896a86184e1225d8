//! EVTX: chunks that are rewritten in place as they fill.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_core::time::Timestamp;
use bpfwatch_inputs::follow::{Follower, Position, Start};
use bpfwatch_inputs::reader::Options;
use bpfwatch_inputs::recording::Recording;
use bpfwatch_inputs::windows::Evtx;

use crate::support::{Dir, drain, wait};

/// A file made by hand: the first of its records is an execution of pid 4300, at the start of a chunk.
const CASE: &[u8] = include_bytes!("../../../../tests/cases/windows_event_log/input.evtx.gz");
const HEADER: usize = 4096;
const CHUNK: usize = 64 * 1024;
const RECORDS: usize = 512;
/// Longer than a change has to be left alone.
const SETTLED: Duration = Duration::from_millis(150);

fn case() -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(CASE).read_to_end(&mut bytes).unwrap();
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A chunk with an execution of each number, of the pid 1000 and it, written in the second `time`.
fn chunk(numbers: std::ops::RangeInclusive<u64>, time: u64) -> Vec<u8> {
    let case = case();
    let size = u32_at(&case, HEADER + RECORDS + 4) as usize;
    let one = &case[HEADER + RECORDS..][..size];
    let mut chunk = case[HEADER..HEADER + RECORDS].to_vec();
    let mut last_at = 0;
    for number in numbers.clone() {
        let moved = chunk.len() - RECORDS;
        last_at = chunk.len();
        let mut record = one.to_vec();
        record[8..16].copy_from_slice(&number.to_le_bytes());
        record[16..24].copy_from_slice(&(time * 10_000_000).to_le_bytes());
        // A name that stands where it is used says its own place within the chunk.
        for at in 0..size - 4 {
            let name = u32_at(&record, at);
            if name as usize == RECORDS + at + 4 {
                let name = name + u32::try_from(moved).unwrap();
                record[at..at + 4].copy_from_slice(&name.to_le_bytes());
            }
        }
        let (old, new) = (utf16("4300"), utf16(&(1000 + number).to_string()));
        let at = record.windows(8).position(|window| window == old).unwrap();
        record[at..at + 8].copy_from_slice(&new);
        chunk.extend(record);
    }
    let (first, last) = numbers.into_inner();
    for (at, number) in [(8, first), (16, last), (24, first), (32, last)] {
        chunk[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    let end = u32::try_from(chunk.len()).unwrap();
    chunk[44..48].copy_from_slice(&u32::try_from(last_at).unwrap().to_le_bytes());
    chunk[48..52].copy_from_slice(&end.to_le_bytes());
    assert!(chunk.len() <= CHUNK);
    chunk.resize(CHUNK, 0);
    chunk
}

/// A whole file. What of it is not used yet is zero or, as in some of Windows, whatever the disk held.
fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = case()[..HEADER].to_vec();
    bytes.extend(chunks.concat());
    bytes.resize(HEADER + CHUNK * 3, 0);
    bytes.resize(HEADER + CHUNK * 4, b'x');
    bytes
}

fn rewrite(path: &Path, index: usize, chunk: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(chunk, (HEADER + index * CHUNK) as u64).unwrap();
}

fn follow(evtx: &Evtx, path: &Path, start: Start) -> Follower<'static> {
    // The follower outlives this function, and a test its formats.
    let evtx: &'static Evtx = Box::leak(Box::new(evtx.clone()));
    let formats: [&dyn LineDecoder; 2] = [&Recording, evtx];
    Follower::new(path, &formats, Options::default(), start).unwrap()
}

/// Looks for as long as a change needs to be seen.
fn settle(follower: &mut Follower<'_>, seen: &mut Vec<String>) {
    drain(follower, seen);
    std::thread::sleep(SETTLED);
    drain(follower, seen);
}

fn restarted(follower: Follower<'_>, path: &Path) -> Follower<'static> {
    let text = serde_json::to_string(&follower.position().unwrap()).unwrap();
    let position: Position = serde_json::from_str(&text).unwrap();
    follow(&Evtx::default(), path, Start::At(position))
}

#[test]
fn new_records_come_once_over_chunks_and_restarts() {
    let dir = Dir::new("follow-evtx-grow");
    let path = dir.log();
    fs::write(&path, file(&[chunk(1..=2, 1)])).unwrap();
    let mut follower = follow(&Evtx::default(), &path, Start::End);
    let mut seen = Vec::new();
    drain(&mut follower, &mut seen);
    assert!(seen.is_empty(), "{seen:?}");
    rewrite(&path, 0, &chunk(1..=4, 1));
    settle(&mut follower, &mut seen);
    assert_eq!(seen, ["1003", "1004"]);
    // The first chunk is filled, and the next one begun.
    rewrite(&path, 0, &chunk(1..=6, 1));
    rewrite(&path, 1, &chunk(7..=8, 1));
    settle(&mut follower, &mut seen);
    assert_eq!(seen[2..], ["1005", "1006", "1007", "1008"]);
    let mut follower = restarted(follower, &path);
    settle(&mut follower, &mut seen);
    assert_eq!(seen.len(), 6, "{seen:?}");
    rewrite(&path, 1, &chunk(7..=9, 1));
    let mut follower = restarted(follower, &path);
    settle(&mut follower, &mut seen);
    assert_eq!(seen[6..], ["1009"]);
    // A circular log begins again at its first chunk; what was there is gone.
    rewrite(&path, 0, &chunk(10..=11, 1));
    settle(&mut follower, &mut seen);
    assert_eq!(seen[7..], ["1010", "1011"]);
    // Went round while nobody looked: it is known how many are missing.
    rewrite(&path, 0, &chunk(20..=21, 1));
    rewrite(&path, 1, &chunk(22..=23, 1));
    let mut follower = restarted(follower, &path);
    settle(&mut follower, &mut seen);
    assert_eq!(seen[9..], ["lost", "1020", "1021", "1022", "1023"]);
    assert_eq!(follower.summary().problems, 0);
}

#[test]
fn a_record_that_is_half_written_is_waited_for() {
    let dir = Dir::new("follow-evtx-half");
    let path = dir.log();
    let mut seen = Vec::new();
    let two = chunk(1..=2, 1);
    let half = |whole: &[u8], back: usize| {
        let end = u32_at(whole, 48) as usize;
        let mut half = whole.to_vec();
        half[end - back..].fill(0);
        half
    };
    fs::write(&path, file(&[half(&two, 1000)])).unwrap();
    let mut follower = follow(&Evtx::default(), &path, Start::Beginning);
    settle(&mut follower, &mut seen);
    assert_eq!(seen, ["1001"]);
    // Its end alone is missing, its beginning is as it will be.
    rewrite(&path, 0, &half(&two, 4));
    settle(&mut follower, &mut seen);
    assert_eq!(seen, ["1001"]);
    let mut follower = restarted(follower, &path);
    settle(&mut follower, &mut seen);
    rewrite(&path, 0, &two);
    settle(&mut follower, &mut seen);
    assert_eq!(seen, ["1001", "1002"]);
    // A chunk of which not even the head is there.
    rewrite(&path, 1, &[b'x'; 100]);
    settle(&mut follower, &mut seen);
    rewrite(&path, 1, &chunk(3..=3, 1));
    settle(&mut follower, &mut seen);
    assert_eq!(seen[2..], ["1003"]);
    // One that stays as it is is bad, and said once.
    rewrite(&path, 1, &half(&chunk(3..=5, 1), 2700));
    settle(&mut follower, &mut seen);
    assert_eq!(seen[3..], ["1004"]);
    wait(&mut follower, &mut seen, 5);
    assert_eq!(seen[4..], ["bad"]);
    rewrite(&path, 2, &chunk(6..=6, 1));
    settle(&mut follower, &mut seen);
    assert_eq!(seen[5..], ["1006"]);
    assert_eq!(follower.summary().problems, 1);
}

#[test]
fn a_cleared_log_starts_over() {
    let dir = Dir::new("follow-evtx-clear");
    let path = dir.log();
    fs::write(&path, file(&[chunk(1..=5, 1)])).unwrap();
    let mut seen = Vec::new();
    let mut follower = follow(&Evtx::default(), &path, Start::End);
    drain(&mut follower, &mut seen);
    // In the middle of being written anew it is not yet another one.
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    settle(&mut follower, &mut seen);
    assert!(seen.is_empty(), "{seen:?}");
    fs::write(&path, file(&[chunk(1..=2, 2)])).unwrap();
    wait(&mut follower, &mut seen, 3);
    assert_eq!(seen, ["lost", "1001", "1002"]);
    // Cleared and grown beyond the place: the same number is another record.
    fs::write(&path, file(&[chunk(1..=4, 3)])).unwrap();
    let mut follower = restarted(follower, &path);
    wait(&mut follower, &mut seen, 8);
    assert_eq!(seen[3..], ["lost", "1001", "1002", "1003", "1004"]);
}

#[test]
fn a_file_in_its_place_is_known_by_its_records() {
    let dir = Dir::new("follow-evtx-rename");
    let path = dir.log();
    fs::write(&path, file(&[chunk(1..=2, 1)])).unwrap();
    let mut seen = Vec::new();
    let mut follower = follow(&Evtx::default(), &path, Start::Beginning);
    settle(&mut follower, &mut seen);
    // Archived, when full: the old one to its end, then the new one.
    fs::rename(&path, dir.0.join("archive.evtx")).unwrap();
    rewrite(&dir.0.join("archive.evtx"), 0, &chunk(1..=3, 1));
    fs::write(&path, file(&[chunk(1..=2, 2)])).unwrap();
    wait(&mut follower, &mut seen, 5);
    assert_eq!(seen, ["1001", "1002", "1003", "1001", "1002"]);
    // A newer copy of the same log, as it is fetched from another machine: its new records alone.
    let copy = |last, time| {
        let new = dir.0.join("new");
        fs::write(&new, file(&[chunk(1..=last, time)])).unwrap();
        fs::rename(&new, &path).unwrap();
    };
    copy(3, 2);
    wait(&mut follower, &mut seen, 6);
    assert_eq!(seen[5..], ["1003"]);
    copy(4, 2);
    let mut follower = restarted(follower, &path);
    wait(&mut follower, &mut seen, 7);
    assert_eq!(seen[6..], ["1004"]);
    // Archived while nobody looked.
    fs::rename(&path, dir.0.join("archive-2.evtx")).unwrap();
    rewrite(&dir.0.join("archive-2.evtx"), 0, &chunk(1..=5, 2));
    fs::write(&path, file(&[chunk(1..=1, 3)])).unwrap();
    let mut follower = restarted(follower, &path);
    wait(&mut follower, &mut seen, 9);
    assert_eq!(seen[7..], ["1005", "1001"]);
}

#[test]
fn a_file_that_is_still_empty_is_all_new() {
    let dir = Dir::new("follow-evtx-empty");
    let path = dir.log();
    fs::write(&path, "").unwrap();
    let mut seen = Vec::new();
    let mut follower = follow(&Evtx::default(), &path, Start::End);
    drain(&mut follower, &mut seen);
    fs::write(&path, file(&[chunk(1..=2, 1)])).unwrap();
    settle(&mut follower, &mut seen);
    assert_eq!(seen, ["1001", "1002"]);
    // One that pretends to be huge is not looked through.
    File::options().write(true).open(&path).unwrap().set_len(1 << 36).unwrap();
    std::thread::sleep(SETTLED);
    let mut turn =
        || follower.turn(Timestamp::default(), &mut |_| std::ops::ControlFlow::Continue(()));
    turn().unwrap();
    std::thread::sleep(SETTLED);
    let error = turn().unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[test]
fn a_compressed_one_is_refused() {
    let dir = Dir::new("follow-evtx-gzip");
    fs::write(dir.log(), CASE).unwrap();
    let evtx = Evtx::default();
    let formats: [&dyn LineDecoder; 2] = [&Recording, &evtx];
    let options = Options { input: Some("evtx".to_owned()), ..Options::default() };
    let mut follower = Follower::new(&dir.log(), &formats, options, Start::End).unwrap();
    let error = follower
        .turn(Timestamp::default(), &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("bpfwatch replay"), "{error}");
    fs::write(dir.log(), case()).unwrap();
    let mut seen = Vec::new();
    drain(&mut follower, &mut seen);
    assert!(seen.is_empty(), "{seen:?}");
}
