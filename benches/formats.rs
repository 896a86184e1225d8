//! How fast logs are read, format by format: decoded alone, and through the shipped rules.
//!
//! `cargo bench --bench formats [-- --mb 50]`. What is read are the logs of `tests/cases`, again and again,
//! with other numbers each time where a format tells a repeated event from a new one. One thread, so that a
//! figure is what one core does. An EVTX file's chunks have a fixed size, and those of the case are nearly
//! empty: there the events count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

/// As in the program, see `src/platform.rs`.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::io::{Read, Write};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bpfwatch_bsd::bsm::format::Bsm;
use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use bpfwatch_core::time::Timestamp;
use bpfwatch_inputs::auditd::Auditd;
use bpfwatch_inputs::kubernetes::KubernetesAudit;
use bpfwatch_inputs::network::NetworkSyslog;
use bpfwatch_inputs::reader::{self, Delivery, Options, Source, Summary};
use bpfwatch_inputs::windows::{Evtx, WindowsJson};
use bpfwatch_macos::eslogger::Eslogger;
use common::packs;

/// A log of `tests/cases`, and what stands before the numbers that each round raises.
struct Log {
    case: &'static str,
    file: &'static str,
    numbers: &'static [&'static str],
}

const LOGS: [Log; 8] = [
    Log {
        case: "audit_log",
        file: "input.log",
        numbers: &[".100:", ".110:", ".200:", ".230:", ".231:", ".232:", ".300:"],
    },
    Log { case: "kubernetes_audit_log", file: "input.jsonl", numbers: &["-8000-"] },
    Log { case: "windows_events_dumped", file: "input.jsonl", numbers: &[] },
    Log { case: "windows_event_log", file: "input.evtx.gz", numbers: &[] },
    Log { case: "cisco_syslog", file: "input.log", numbers: &[] },
    Log { case: "junos_syslog", file: "input.log", numbers: &[] },
    Log { case: "eslogger_lines", file: "input.jsonl", numbers: &[] },
    Log { case: "freebsd_audit_trail", file: "input.bsm", numbers: &[] },
];

/// Bytes of an EVTX file's header, which stands once.
const EVTX_HEADER: usize = 4096;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let mb = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--mb", mb] => mb.parse().unwrap(),
        [] => 50,
        _ => panic!("usage: cargo bench --bench formats [-- --mb MEGABYTES]"),
    };
    println!(
        "{:<24}{:>6}{:>11}{:>12}{:>11}{:>12}{:>11}",
        "log", "MB", "records", "decode MB/s", "records/s", "replay MB/s", "records/s"
    );
    for log in &LOGS {
        row(log, mb * 1_000_000);
    }
}

fn row(log: &Log, size: usize) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("formats-{}", log.case));
    generate(log, size, &path);
    let (decode, summary) = timed(&path, &mut |_| {});
    let mut pipeline = Pipeline::new(packs::shipped(), Settings::default());
    let mut out = |line: bpfwatch_core::finding::Line| {
        std::hint::black_box(line);
    };
    let (replay, _) = timed(&path, &mut |batch| pipeline.feed(batch, &mut out));
    pipeline.finish(&mut out);
    std::fs::remove_file(&path).unwrap();
    let per = |count: u64, time: Duration| count as f64 / time.as_secs_f64();
    println!(
        "{:<24}{:>6}{:>11}{:>12.1}{:>11.0}{:>12.1}{:>11.0}",
        log.case,
        summary.bytes / 1_000_000,
        summary.lines,
        per(summary.bytes, decode) / 1e6,
        per(summary.lines, decode),
        per(summary.bytes, replay) / 1e6,
        per(summary.lines, replay),
    );
}

/// Writes the log again and again.
fn generate(log: &Log, size: usize, path: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(log.case);
    let mut bytes = std::fs::read(source.join(log.file)).unwrap();
    if log.file.ends_with(".gz") {
        let mut whole = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut whole).unwrap();
        bytes = whole;
    }
    let header = if log.file.contains("evtx") { EVTX_HEADER } else { 0 };
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    out.write_all(&bytes[..header]).unwrap();
    let body = &bytes[header..];
    let mut written = 0;
    for round in 0.. {
        if written >= size {
            break;
        }
        if log.numbers.is_empty() {
            out.write_all(body).unwrap();
            written += body.len();
            continue;
        }
        let mut text = std::str::from_utf8(body).unwrap().to_owned();
        for before in log.numbers {
            text = renumbered(&text, before, round * 1000);
        }
        out.write_all(text.as_bytes()).unwrap();
        written += text.len();
    }
    out.flush().unwrap();
}

/// The text with `add` added to each number that stands behind `before`.
fn renumbered(text: &str, before: &str, add: u64) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(at) = rest.find(before) {
        let (head, tail) = rest.split_at(at + before.len());
        let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        out.push_str(head);
        match tail[..digits].parse::<u64>() {
            Ok(number) => out += &format!("{:0width$}", number + add, width = digits),
            Err(_) => out.push_str(&tail[..digits]),
        }
        rest = &tail[digits..];
    }
    out.push_str(rest);
    out
}

/// Reads the log, and says how long that took.
fn timed(path: &Path, with: &mut dyn FnMut(Batch)) -> (Duration, Summary) {
    let now = Timestamp::parse("2026-11-24T12:00:00Z").unwrap();
    let formats: [Box<dyn LineDecoder>; 7] = [
        Box::new(Eslogger::default()),
        Box::new(Evtx::default()),
        Box::new(Bsm::freebsd()),
        Box::new(WindowsJson::default()),
        Box::new(KubernetesAudit::default()),
        Box::new(Auditd::default()),
        Box::new(NetworkSyslog::new(now)),
    ];
    let formats: Vec<&dyn LineDecoder> = formats.iter().map(AsRef::as_ref).collect();
    let options = Options { workers: NonZero::new(1), ..Options::default() };
    let started = Instant::now();
    let summary =
        reader::read(vec![Source::Path(path.to_owned())], &formats, &options, &mut |delivery| {
            match delivery {
                Delivery::Batch(batch) => with(batch),
                Delivery::Problem(problem) => panic!("{problem}"),
                Delivery::Progress(_) => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(summary.observations > 0, "{}: nothing was decoded", path.display());
    (started.elapsed(), summary)
}
