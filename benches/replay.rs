//! What a replay costs: CPU, wall time and memory, beside parsing alone.
//!
//! `cargo bench --bench replay [-- --mb 200]`; `-- --generate 200 FILE` leaves such a file. Each way runs in a process of its own, so that CPU time
//! (getrusage) and peak memory are its own. The aims: a replay costs at most twice the CPU of parsing the
//! same file into the same type with as many threads; two cores need at most 0.65 of the wall time
//! of one; a file of any size stays under 200 MB of memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

/// As in the program, see `src/platform.rs`.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::fs::File;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bpfwatch_core::observation::Observation;
use bpfwatch_core::pipeline::{Pipeline, Settings};
use bpfwatch_inputs::reader::{self, Delivery, Options, Source};
use bpfwatch_inputs::recording::{Recording, RecordingWriter};
use common::{packs, usage};

/// Ways to treat the file.
const WAYS: &[&str] = &["parse", "read", "replay"];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--one", way, threads, path] => one(way, threads.parse().unwrap(), Path::new(path)),
        ["--generate", mb, path] => {
            generate(Path::new(path), mb.parse::<u64>().unwrap() * 1_000_000);
        }
        ["--mb", mb] => all(mb.parse().unwrap()),
        [] => all(200),
        _ => panic!("usage: cargo bench --bench replay [-- --mb MEGABYTES]"),
    }
}

/// Generates the file and runs each way in a process of its own.
fn all(mb: u64) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("replay-{mb}.jsonl"));
    let lines = generate(&path, mb * 1_000_000);
    let size = path.metadata().unwrap().len();
    println!("{lines} lines, {} MB, {} bytes a line", size / 1_000_000, size / lines);
    println!(
        "{:<8}{:>8}{:>10}{:>10}{:>8}{:>9}",
        "way", "threads", "CPU s", "wall s", "MB/s", "peak MB"
    );
    let mut results = Vec::new();
    for threads in [1, 2] {
        for way in WAYS {
            let result = run(way, threads, &path);
            println!(
                "{way:<8}{threads:>8}{:>10.2}{:>10.2}{:>8.0}{:>9}",
                result.cpu.as_secs_f64(),
                result.wall.as_secs_f64(),
                size as f64 / 1e6 / result.wall.as_secs_f64(),
                result.peak_kb / 1000
            );
            results.push(result);
        }
    }
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    for (threads, of) in [(1, &results[..3]), (2, &results[3..])] {
        let cost = ratio(of[2].cpu, of[0].cpu);
        println!("replay CPU over parse CPU, {threads} threads: {cost:.2} (aim: at most 2.00)");
    }
    let gain = ratio(results[5].wall, results[2].wall);
    println!("replay wall with two threads over one: {gain:.2} (aim: at most 0.65)");
    std::fs::remove_file(&path).unwrap();
}

struct Outcome {
    cpu: Duration,
    wall: Duration,
    peak_kb: u64,
}

fn run(way: &str, threads: usize, path: &Path) -> Outcome {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--one", way, &threads.to_string()])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{way}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [cpu, wall, peak_kb] = numbers[..] else { panic!("{text}") };
    Outcome { cpu: Duration::from_micros(cpu), wall: Duration::from_micros(wall), peak_kb }
}

/// Writes a recording of at least `size` bytes; how many lines it has.
fn generate(path: &Path, size: u64) -> u64 {
    let _ = std::fs::remove_file(path);
    let mut writer = RecordingWriter::create(path, &common::origin(), "bench").unwrap();
    let mut lines = 1;
    for observation in common::Observations::new(1) {
        writer.write(&observation).unwrap();
        lines += 1;
        if lines % 1000 == 0 {
            writer.flush().unwrap();
            if path.metadata().unwrap().len() >= size {
                break;
            }
        }
    }
    lines
}

/// One way, in this process; prints CPU and wall time in microseconds and peak memory in KB.
fn one(way: &str, threads: usize, path: &Path) {
    let started = Instant::now();
    let observations = match way {
        "parse" => parse(threads, path),
        "read" => read(threads, path, &mut |_| {}),
        "replay" => replay(threads, path),
        _ => panic!("no such way: {way}"),
    };
    let wall = started.elapsed();
    assert!(observations > 0);
    println!("{} {} {}", usage::cpu().as_micros(), wall.as_micros(), usage::peak_kb());
}

/// Nothing but serde_json: each thread takes its part of the file.
fn parse(threads: usize, path: &Path) -> u64 {
    let size = path.metadata().unwrap().len();
    std::thread::scope(|scope| {
        let part = |index: u64| {
            let bounds = [index, index + 1].map(|n| size * n / threads as u64);
            scope.spawn(move || parse_part(path, bounds))
        };
        let parts: Vec<_> = (0..threads as u64).map(part).collect();
        parts.into_iter().map(|part| part.join().unwrap()).sum()
    })
}

/// Parses the lines that begin between the bounds, in blocks of 256 KiB.
fn parse_part(path: &Path, [from, to]: [u64; 2]) -> u64 {
    use std::io::{BufRead, BufReader, Seek, SeekFrom};
    let mut file = BufReader::with_capacity(256 * 1024, File::open(path).unwrap());
    let mut line = Vec::new();
    let mut at = from;
    if from > 0 {
        file.seek(SeekFrom::Start(from - 1)).unwrap();
        at += file.read_until(b'\n', &mut line).unwrap() as u64 - 1;
    }
    let mut count = 0;
    while at < to {
        line.clear();
        at += file.read_until(b'\n', &mut line).unwrap() as u64;
        if let Ok(observation) = serde_json::from_slice::<Observation>(&line) {
            std::hint::black_box(observation);
            count += 1;
        }
    }
    count
}

/// The reader; checks that the order is that of the file.
fn read(threads: usize, path: &Path, with: &mut dyn FnMut(bpfwatch_core::pipeline::Batch)) -> u64 {
    let options = Options { workers: NonZero::new(threads), ..Options::default() };
    let mut next = 0;
    let sources = vec![Source::Path(path.to_owned())];
    reader::read(sources, &[&Recording], &options, &mut |delivery| {
        match delivery {
            Delivery::Batch(batch) => {
                for observation in &batch.observations {
                    assert_eq!(observation.seq, next, "out of order");
                    next += 1;
                }
                with(batch);
            }
            Delivery::Problem(problem) => panic!("{problem}"),
            Delivery::Progress(_) => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap()
    .observations
}

fn replay(threads: usize, path: &Path) -> u64 {
    let mut pipeline = Pipeline::new(packs::shipped(), Settings::default());
    let mut out = |line: bpfwatch_core::finding::Line| {
        std::hint::black_box(line);
    };
    let count = read(threads, path, &mut |batch| pipeline.feed(batch, &mut out));
    pipeline.finish(&mut out);
    count
}
