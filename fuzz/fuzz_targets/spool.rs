//! A spool's directory after anything may have happened to it, of any bytes: it opens, what is read is
//! what was written or nothing, it takes new records, and every number is accounted for.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use bpfwatch_core::time::Timestamp;
use bpfwatch_delivery::Limits;
use bpfwatch_delivery::spool::{Done, Settings, Store, Sync, record};
use libfuzzer_sys::fuzz_target;

/// A directory of this process, in memory where the system has one.
fn dir() -> &'static PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        base.join(format!("bpfwatch-fuzz-{}", std::process::id()))
    })
}

fuzz_target!(|bytes: &[u8]| {
    records(bytes);
    // First byte: how the rest is shared out between two segments and the position.
    let Some((split, rest)) = bytes.split_first() else { return };
    let at = usize::from(*split).min(rest.len());
    let (position, rest) = rest.split_at(at);
    let (first, second) = rest.split_at(rest.len() / 2);
    let dir = dir();
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("position"), position).unwrap();
    // As they are, and with a right header before them, so that records are reached.
    segment(1, first, split & 1 == 0);
    segment(3, second, split & 2 == 0);
    let settings = Settings { sync: Sync::Never, ..Settings::default() };
    let mut store = Store::open(dir, settings, Timestamp::default(), 1).unwrap();
    let new = store.append(Timestamp::default(), "id", Timestamp::default(), b"new").unwrap();
    let start = store.acked();
    let mut taken = 0;
    loop {
        let batch = store.peek(Limits { records: 3, bytes: 1 << 16 }).unwrap();
        let Some(last) = batch.records.last() else { break };
        for pair in batch.records.windows(2) {
            assert_eq!(pair[0].seq + 1, pair[1].seq);
        }
        if last.seq == new {
            assert_eq!(last.bytes, b"new");
        }
        taken += batch.records.len() as u64;
        store.ack(&batch, batch.records.len(), Done::Delivered);
    }
    assert_eq!(store.acked(), new);
    // A torn end that was cut off at opening counts one beside the numbers.
    assert!(taken + store.counts().damaged >= new - start);
    assert_eq!(store.counts().delivered, taken);
});

fn segment(first: u64, bytes: &[u8], with_header: bool) {
    let mut all = Vec::new();
    if with_header {
        all.extend_from_slice(&record::Header { stream: [7; 16], first }.encode());
    }
    all.extend_from_slice(bytes);
    fs::write(dir().join(format!("{first:020}.seg")), all).unwrap();
}

/// The decoder alone: it stays within its bytes, and what it reads is written back the same.
fn records(bytes: &[u8]) {
    let _ = record::Header::decode(bytes);
    let mut rest = bytes;
    while let Ok((read, len)) = record::decode(rest) {
        assert_eq!(record::peek(rest), Ok((read.seq, len)));
        let mut again = Vec::new();
        record::encode(read.seq, read.time, &read.id, &read.bytes, &mut again).unwrap();
        assert_eq!(again, rest[..len]);
        rest = &rest[len..];
    }
}
