//! The spool on a real disk: order, limits, damage, power failure, a full disk, two owners.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "support/mounted.rs"]
mod mounted;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpfwatch_core::time::Timestamp;
use bpfwatch_delivery::Limits;
use bpfwatch_delivery::spool::{Counts, Done, Settings, Store, Sync, poison};
use mounted::Mounted;

/// A directory that is removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("bpfwatch-spool-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Self(dir)
    }
    fn open(&self) -> Store {
        self.open_with(Settings { sync: Sync::Never, ..Settings::default() })
    }
    fn open_with(&self, settings: Settings) -> Store {
        Store::open(&self.0, settings, at(0), 1).unwrap()
    }
    fn segments(&self) -> Vec<PathBuf> {
        segments(&self.0)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect();
    found.sort();
    found
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

fn put(store: &mut Store, seq: u64) {
    let payload = format!("{{\"n\":{seq}}}\n");
    assert_eq!(store.append(at(0), &format!("id-{seq}"), at(0), payload.as_bytes()).unwrap(), seq);
}

fn fill(store: &mut Store, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        put(store, seq);
    }
}

/// Takes everything that waits; the numbers, each checked against id and payload.
fn drain(store: &mut Store) -> Vec<u64> {
    let mut got = Vec::new();
    loop {
        let batch = store.peek(Limits { records: 100, bytes: 1 << 20 }).unwrap();
        if batch.records.is_empty() {
            return got;
        }
        for record in &batch.records {
            assert_eq!(record.id, format!("id-{}", record.seq));
            assert_eq!(record.bytes, format!("{{\"n\":{}}}\n", record.seq).as_bytes());
            got.push(record.seq);
        }
        store.ack(&batch, batch.records.len(), Done::Delivered);
    }
}

fn seqs(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

/// Small segments: 64 KiB each, sixteen at most.
const SMALL: Settings =
    Settings { max_bytes: 1024 * 1024, max_age: Duration::from_secs(60), sync: Sync::Never };

#[test]
fn what_waits_survives_and_what_was_taken_does_not_come_again() {
    let dir = Dir::new("survives");
    let stream = {
        let mut store = dir.open();
        fill(&mut store, 1..=10);
        let batch = store.peek(Limits { records: 4, bytes: 1 << 20 }).unwrap();
        assert_eq!(batch.records.len(), 4);
        store.ack(&batch, 3, Done::Delivered);
        store.ack(&batch, 2, Done::Delivered);
        assert_eq!(store.acked(), 3, "a late answer moves nothing back");
        store.stream_id()
    };
    let mut store = dir.open();
    assert_eq!(store.stream_id(), stream);
    assert_eq!(store.waiting(), 7);
    put(&mut store, 11);
    assert_eq!(drain(&mut store), seqs(4..=11));
    drop(store);
    let mut store = dir.open();
    assert_eq!(store.waiting(), 0);
    put(&mut store, 12);
    assert_eq!(drain(&mut store), [12]);
    assert_eq!(store.counts(), Counts { delivered: 1, ..Counts::default() });
}

#[test]
fn batches_keep_to_their_limits_and_always_go_on() {
    let dir = Dir::new("limits");
    let mut store = dir.open();
    for seq in 1..=6 {
        store.append(at(0), "x", at(0), &vec![b'a'; if seq == 3 { 600_000 } else { 300 }]).unwrap();
    }
    let mut sizes = Vec::new();
    loop {
        let batch = store.peek(Limits { records: 4, bytes: 1000 }).unwrap();
        if batch.records.is_empty() {
            break;
        }
        sizes.push(batch.records.len());
        store.ack(&batch, batch.records.len(), Done::Delivered);
    }
    // Two; the large one alone, though over the limit; then the rest.
    assert_eq!(sizes, [2, 1, 3]);
}

#[test]
fn files_are_for_their_owner_alone_and_there_is_one_owner() {
    let dir = Dir::new("owner");
    fs::create_dir_all(&dir.0).unwrap();
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o755)).unwrap();
    let mut store = dir.open();
    put(&mut store, 1);
    let batch = store.peek(Limits::default()).unwrap();
    poison::set_aside(&dir.0, &batch.records, "no").unwrap();
    for entry in fs::read_dir(&dir.0).unwrap().chain(fs::read_dir(dir.0.join("poison")).unwrap()) {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let right = if entry.path().is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, right, "{}", entry.path().display());
    }
    assert_eq!(fs::metadata(&dir.0).unwrap().permissions().mode() & 0o777, 0o700);
    let error = Store::open(&dir.0, SMALL, at(0), 1).err().unwrap().to_string();
    assert!(error.contains("another bpfwatch"), "{error}");
    assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
    drop(store);
    dir.open();
}

#[test]
fn the_oldest_goes_first_when_it_is_full_and_is_counted() {
    let dir = Dir::new("full");
    let mut store = dir.open_with(SMALL);
    let total = 40_000;
    fill(&mut store, 1..=total);
    assert!(store.bytes() <= SMALL.max_bytes, "{}", store.bytes());
    let on_disk: u64 = dir.segments().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(on_disk, store.bytes());
    let dropped = store.counts().oversize;
    assert!(dropped > 1000, "{dropped}");
    assert_eq!(store.waiting(), total - dropped);
    assert_eq!(drain(&mut store), seqs(dropped + 1..=total));
    assert_eq!(store.counts().lost(), dropped);
    assert_eq!(dir.segments().len(), 1, "what was taken is removed");
}

#[test]
fn an_answer_for_what_was_dropped_meanwhile_moves_nothing() {
    let dir = Dir::new("meanwhile");
    let mut store = dir.open_with(SMALL);
    fill(&mut store, 1..=10);
    let batch = store.peek(Limits::default()).unwrap();
    fill(&mut store, 11..=40_000);
    let dropped = store.counts().oversize;
    assert!(dropped > 10);
    store.ack(&batch, 10, Done::Delivered);
    assert_eq!(store.counts(), Counts { oversize: dropped, ..Counts::default() });
    assert_eq!(drain(&mut store).first(), Some(&(dropped + 1)));
}

#[test]
fn what_waited_too_long_is_dropped_and_counted() {
    let dir = Dir::new("age");
    let mut store = dir.open_with(SMALL);
    fill(&mut store, 1..=10);
    store.expire(at(60));
    assert_eq!(store.waiting(), 10);
    store.expire(at(61));
    assert_eq!((store.waiting(), store.counts().expired), (0, 10));
    store.append(at(61), "id-11", at(61), b"{\"n\":11}\n").unwrap();
    assert_eq!(drain(&mut store), [11]);
    store.expire(at(1000));
    assert_eq!(store.counts().lost(), 10, "what was taken is not lost");
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_is_torn() {
    let dir = Dir::new("torn");
    let mut store = dir.open();
    fill(&mut store, 1..=3);
    drop(store);
    let [segment] = &dir.segments()[..] else { panic!("one segment") };
    let whole = fs::read(segment).unwrap();
    let record = (whole.len() - 36) / 3;
    for cut in 0..=whole.len() {
        fs::write(segment, &whole[..cut]).unwrap();
        let mut store = dir.open();
        let left = (cut.saturating_sub(36) / record) as u64;
        assert_eq!(store.last(), left, "cut at {cut}");
        let torn = cut > 36 && (cut - 36) % record != 0;
        assert_eq!(store.counts().damaged, u64::from(torn), "cut at {cut}");
        put(&mut store, left + 1);
        assert_eq!(drain(&mut store), seqs(1..=left + 1));
        drop(store);
        fs::remove_dir_all(&dir.0).unwrap();
        fs::create_dir_all(&dir.0).unwrap();
    }
}

#[test]
fn damage_in_the_middle_costs_what_it_hit_and_is_counted() {
    let dir = Dir::new("damage");
    let mut store = dir.open_with(SMALL);
    fill(&mut store, 1..=6000);
    let first = dir.segments()[0].clone();
    let next: u64 = dir.segments()[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    drop(store);
    let mut bytes = fs::read(&first).unwrap();
    let len = bytes.len();
    bytes[len / 2] ^= 0xFF;
    fs::write(&first, bytes).unwrap();
    let mut store = dir.open_with(SMALL);
    let got = drain(&mut store);
    let damaged = store.counts().damaged;
    assert!(damaged > 100 && damaged < next, "{damaged}");
    let mut expected = seqs(1..=next - 1 - damaged);
    expected.extend(next..=6000);
    assert_eq!(got, expected);
    assert_eq!(got.len() as u64 + damaged, 6000, "nothing is unaccounted for");
}

#[test]
fn a_segment_that_vanished_is_counted_and_the_rest_goes_on() {
    let dir = Dir::new("vanished");
    let mut store = dir.open_with(SMALL);
    fill(&mut store, 1..=6000);
    let number = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let (second, third): (u64, u64) = (number(&dir.segments()[1]), number(&dir.segments()[2]));
    fs::remove_file(&dir.segments()[1]).unwrap();
    let mut expected = seqs(1..=second - 1);
    expected.extend(third..=6000);
    assert_eq!(drain(&mut store), expected);
    assert_eq!(store.counts().damaged, third - second);
    drop(store);
    // And where it vanished while nobody looked.
    fs::remove_dir_all(&dir.0).unwrap();
    let mut store = dir.open_with(SMALL);
    fill(&mut store, 1..=6000);
    drop(store);
    fs::remove_file(&dir.segments()[1]).unwrap();
    let mut store = dir.open_with(SMALL);
    assert_eq!(drain(&mut store), expected);
    assert_eq!(store.counts().damaged, third - second);
}

#[test]
fn numbers_go_on_behind_what_the_receiver_has_when_the_disk_forgot_it() {
    let dir = Dir::new("forgot");
    let mut store = dir.open();
    fill(&mut store, 1..=5);
    let [segment] = &dir.segments()[..] else { panic!("one segment") };
    let before = fs::read(segment).unwrap();
    fill(&mut store, 6..=9);
    assert_eq!(drain(&mut store), seqs(1..=9));
    drop(store);
    // A power failure took 6 to 9, which the receiver has.
    fs::write(segment, before).unwrap();
    let mut store = dir.open();
    put(&mut store, 10);
    assert_eq!(drain(&mut store), [10]);
    drop(store);
    // And when everything is gone but the position.
    for segment in dir.segments() {
        fs::remove_file(segment).unwrap();
    }
    let mut store = dir.open();
    put(&mut store, 11);
    assert_eq!(drain(&mut store), [11]);
}

#[test]
fn without_its_position_it_sends_again_what_is_there() {
    let dir = Dir::new("position");
    let mut store = dir.open();
    fill(&mut store, 1..=5);
    drain(&mut store);
    drop(store);
    fs::write(dir.0.join("position"), b"rubbish").unwrap();
    assert_eq!(drain(&mut dir.open()), seqs(1..=5));
}

#[test]
fn too_large_a_record_is_refused_and_the_rest_goes_on() {
    let dir = Dir::new("large");
    let mut store = dir.open();
    put(&mut store, 1);
    assert!(store.append(at(0), "x", at(0), &vec![0; 2 << 20]).is_err());
    put(&mut store, 2);
    assert_eq!(store.counts().refused, 1);
    assert_eq!(drain(&mut store), seqs(1..=2));
}

#[test]
fn the_poison_folder_stays_small() {
    let dir = Dir::new("poison");
    let mut store = dir.open();
    store.append(at(0), "x", at(0), &vec![b'a'; 1000]).unwrap();
    let mut records = store.peek(Limits::default()).unwrap().records;
    for seq in 1..=600 {
        records[0].seq = seq;
        poison::set_aside(&dir.0, &records, "HTTP 400").unwrap();
    }
    let mut files: Vec<_> = fs::read_dir(dir.0.join("poison")).unwrap().flatten().collect();
    assert_eq!(files.len(), poison::MAX_FILES);
    files.sort_by_key(fs::DirEntry::path);
    assert_eq!(files[0].file_name(), "00000000000000000101.records");
    assert_eq!(fs::read_to_string(files[1].path()).unwrap(), "HTTP 400\n");
}

#[test]
fn a_full_disk_is_a_counted_loss_and_passes() {
    let dir = Dir::new("enospc");
    fs::create_dir_all(&dir.0).unwrap();
    let Some(mounted) = Mounted::small(&dir.0) else {
        println!("skipped a_full_disk_is_a_counted_loss_and_passes: cannot mount a small tmpfs");
        return;
    };
    let spool = dir.0.join("spool");
    let settings = Settings { max_bytes: 64 << 20, ..Settings::default() };
    let open = || Store::open(&spool, settings, at(0), 1).unwrap();
    let mut store = open();
    let mut accepted = Vec::new();
    let mut refused = 0;
    let mut try_put = |store: &mut Store, refused: &mut u64| {
        let payload = vec![b'a'; 1000];
        match store.append(at(0), "x", at(0), &payload) {
            Ok(seq) => accepted.push(seq),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
                *refused += 1;
            }
        }
    };
    for _ in 0..400 {
        try_put(&mut store, &mut refused);
    }
    assert!(refused > 100 && refused < 300, "{refused} refused");
    assert_eq!(store.counts().refused, refused);
    // What was accepted is whole, also for one who opens it now; and sending it makes room again.
    drop(store);
    let mut store = open();
    let take = |store: &mut Store| {
        let mut got = Vec::new();
        loop {
            let batch = store.peek(Limits { records: 50, bytes: 1 << 20 }).unwrap();
            if batch.records.is_empty() {
                return got;
            }
            got.extend(batch.records.iter().map(|record| record.seq));
            store.ack(&batch, batch.records.len(), Done::Delivered);
        }
    };
    let first = take(&mut store);
    let mut refused_later = 0;
    for _ in 0..100 {
        try_put(&mut store, &mut refused_later);
    }
    assert_eq!(refused_later, 0, "there is room again");
    let mut got = first;
    got.extend(take(&mut store));
    assert_eq!(got, accepted);
    assert_eq!(got, seqs(1..=got.len() as u64), "a refused record takes no number");
    drop(store);
    drop(mounted);
}
