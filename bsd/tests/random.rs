//! Decoders and hostile bytes: cut at every place, with bits turned, and random ones. None may panic, and
//! none may make more of its input than is there. The same runs without end as a fuzz target.

use bpfwatch_bsd::audit::stream::Stream;
use bpfwatch_bsd::bsm::format::Bsm;
use bpfwatch_bsd::{filedesc, files, jails, link, pcbs, procs, route, spans, stats};
use bpfwatch_core::decoder::{Blocks, LineDecoder};

/// A linear congruential generator (Knuth's MMIX constants): the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

fn decode(bytes: &[u8]) {
    if let Ok(rows) = stats::rows(bytes) {
        assert_eq!(rows.len() * 168, bytes.len());
    }
    if let Ok(rows) = files::rows(bytes, |_| true) {
        assert!(rows.len() * 128 <= bytes.len());
    }
    if let Ok(rows) = filedesc::rows(bytes) {
        assert!(rows.len() * 368 <= bytes.len());
    }
    if let Ok(rows) = pcbs::rows(bytes) {
        assert!(rows.len() * 400 <= bytes.len());
    }
    assert!(spans::ports(bytes).len() * 80 <= bytes.len());
    let _ = spans::bridge(bytes);
    if let Ok(rows) = procs::rows(bytes) {
        assert!(rows.len() * 1088 <= bytes.len());
    }
    assert!(route::messages(bytes).len() * 4 <= bytes.len());
    assert!(link::links(bytes).len() * 32 <= bytes.len());
    let _ = (procs::arguments(bytes), procs::path(bytes));
    trail(bytes);
    pipe(bytes);
    let values: Vec<_> = bytes.chunks(4).map(|value| Some(value.to_vec())).collect();
    let _ = jails::row(&values);
}

/// As the reader of a replay has it: cut into whole records, decoded, joined.
fn trail(bytes: &[u8]) {
    for format in [Bsm::freebsd(), Bsm::macos()] {
        let _ = format.sniff(bytes);
        assert!(
            matches!(format.blocks(), Some(Blocks::Records(whole)) if whole(bytes) <= bytes.len())
        );
        let mut sequence = format.sequence();
        let mut out = Vec::new();
        let mut records = 0;
        format.decode_block(bytes, &mut |record| {
            records += 1;
            for observation in record.observations {
                if let Some(sequence) = &mut sequence {
                    sequence.pass(observation, &mut out);
                }
            }
        });
        assert!(records <= bytes.len());
    }
}

/// As reads of an audit pipe cut it.
fn pipe(bytes: &[u8]) {
    for pace in [13, 4096] {
        let mut stream = Stream::new(0x1a, 0);
        let mut seen = Vec::new();
        for part in bytes.chunks(pace) {
            stream.take(part, &mut seen);
        }
        assert!(seen.len() <= bytes.len());
    }
}

const SEEDS: [&[u8]; 9] = [
    include_bytes!("data/execve-jail.bsm"),
    include_bytes!("data/ioctl-jail.bsm"),
    include_bytes!("data/open-jail.bsm"),
    include_bytes!("data/net.bpf.stats-three.bin"),
    include_bytes!("data/kern.file.bin"),
    include_bytes!("data/kern.proc.filedesc-tcpdump.bin"),
    include_bytes!("data/kern.proc.proc.bin"),
    include_bytes!("data/route.bin"),
    include_bytes!("data/netlink.bin"),
];

#[test]
fn cut_at_every_place() {
    for seed in SEEDS {
        for end in (0..seed.len()).step_by(3).take(500) {
            decode(&seed[..end]);
        }
    }
}

#[test]
fn with_bytes_changed() {
    let mut random = Random(1);
    for seed in SEEDS {
        for _ in 0..300 {
            let mut bytes = seed.to_vec();
            for _ in 0..=random.next() % 8 {
                let at = random.next() as usize % bytes.len();
                bytes[at] = random.next() as u8;
            }
            decode(&bytes);
        }
    }
}

#[test]
fn of_chance_alone() {
    let mut random = Random(2);
    for _ in 0..1000 {
        let length = random.next() as usize % 1500;
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        decode(&bytes);
    }
}
