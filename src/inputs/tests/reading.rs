//! The reader as the program uses it: real files, pipes and threads.
// Clippy knows the test functions as tests, their helpers not.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bpfwatch_core::decoder::{Decoded, LineDecoder, LineError, Sequence};
use bpfwatch_core::observation::{Observation, Os};
use bpfwatch_inputs::error::ReadError;
use bpfwatch_inputs::reader::{self, Delivery, Options, Source, Summary};
use bpfwatch_inputs::recording::Recording;

/// What was delivered, in order, in words.
fn read_all(
    sources: Vec<Source>,
    formats: &[&dyn LineDecoder],
    options: &Options,
) -> (Vec<String>, Result<Summary, ReadError>) {
    let mut seen = Vec::new();
    let summary = reader::read(sources, formats, options, &mut |delivery| {
        match delivery {
            Delivery::Batch(batch) => {
                assert!(!batch.observations.is_empty());
                for o in &batch.observations {
                    let pid = o.actor.as_ref().map_or(0, |actor| actor.pid);
                    let origin = &batch.origin;
                    seen.push(format!("{} {} {} {pid}", origin.host, origin.os.as_str(), o.seq));
                }
            }
            Delivery::Problem(problem) => seen.push(problem.to_string()),
            Delivery::Progress(_) => {}
        }
        ControlFlow::Continue(())
    });
    (seen, summary)
}

fn options(workers: usize) -> Options {
    Options { workers: NonZero::new(workers), ..Options::default() }
}

fn line(seq: usize, padding: usize) -> String {
    format!(
        r#"{{"type":"observation","at":"2026-11-24T02:45:17.000000Z","seq":{seq},"sensor":"t","kind":"executed","process":{{"pid":{seq},"args":["x","{}"]}}}}"#,
        "p".repeat(padding)
    )
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bpfwatch-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> Source {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        Source::Path(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const META: &str = r#"{"type":"meta","schema":1,"host":"web-1","os":"freebsd"}"#;
const META_2: &str = r#"{"type":"meta","schema":1,"host":"mac-2","os":"macos"}"#;

#[test]
fn origins_errors_and_a_cut_end_come_in_order() {
    let dir = Dir::new("order");
    let text = [
        META,
        &line(1, 0),
        "",
        "{\"type\":\"observation\",\"oops\"",
        &line(2, 0),
        META_2,
        &line(1, 0),
        &line(2, 0)[..60],
    ]
    .join("\n");
    for workers in [1, 4] {
        let sources = vec![dir.file("a", &text), dir.file("b", line(9, 0)), dir.file("c", "")];
        let (seen, summary) = read_all(sources, &[&Recording], &options(workers));
        let a = dir.0.join("a").display().to_string();
        assert_eq!(
            seen,
            [
                "web-1 freebsd 1 1".to_owned(),
                format!("{a}:4: cut short: EOF while parsing an object (column 28)"),
                "web-1 freebsd 2 2".to_owned(),
                "mac-2 macos 1 1".to_owned(),
                format!("{a}:8: cut short: EOF while parsing a string (column 60)"),
                "unknown linux 9 9".to_owned(),
            ]
        );
        let summary = summary.unwrap();
        assert_eq!((summary.lines, summary.observations, summary.problems), (9, 4, 2));
        assert_eq!(summary.bytes, (text.len() + line(9, 0).len()) as u64);
    }
}

#[test]
fn many_chunks_on_many_threads_stay_in_order() {
    let dir = Dir::new("many");
    let mut text = String::new();
    for seq in 0..20_000 {
        writeln!(text, "{}", line(seq, seq % 700)).unwrap();
    }
    assert!(text.len() > 20 * 256 * 1024);
    let source = dir.file("a", &text);
    let Source::Path(path) = &source else { unreachable!() };
    for workers in [1, 2, 7] {
        let sources = vec![Source::Path(path.clone())];
        let (seen, summary) = read_all(sources, &[&Recording], &options(workers));
        assert_eq!(summary.unwrap().observations, 20_000);
        assert!(seen.iter().enumerate().all(|(n, s)| *s == format!("unknown linux {n} {n}")));
    }
}

#[test]
fn the_receiver_can_stop() {
    let dir = Dir::new("stop");
    let text: String = (0..20_000).map(|seq| line(seq, 300) + "\n").collect();
    for workers in [1, 3] {
        let mut batches = 0;
        let sources = vec![dir.file("a", &text), dir.file("b", &text)];
        let summary = reader::read(sources, &[&Recording], &options(workers), &mut |delivery| {
            batches += usize::from(matches!(delivery, Delivery::Batch(_)));
            if batches == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(summary.unwrap().stopped);
        assert_eq!(batches, 3);
    }
}

#[test]
fn progress_reaches_the_total() {
    let dir = Dir::new("progress");
    let text: String = (0..5_000).map(|seq| line(seq, 300) + "\n").collect();
    let sources = vec![dir.file("a", &text), dir.file("b", &text)];
    let mut last = None;
    reader::read(sources, &[&Recording], &options(2), &mut |delivery| {
        if let Delivery::Progress(progress) = delivery {
            assert!(last < Some(progress.read));
            assert_eq!(progress.total, Some(2 * text.len() as u64));
            last = Some(progress.read);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(last, Some(2 * text.len() as u64));
}

/// Names the same thing as a slow pipe does: each line must come before the next one is written.
#[test]
fn a_line_from_a_pipe_is_delivered_when_it_arrives() {
    for workers in [1, 2] {
        let (bytes, mut pipe) = std::io::pipe().unwrap();
        let (sender, delivered) = mpsc::channel();
        let reading = std::thread::spawn(move || {
            let source = Source::Stream { name: "pipe".into(), bytes: Box::new(bytes) };
            reader::read(vec![source], &[&Recording], &options(workers), &mut |delivery| {
                if let Delivery::Batch(batch) = delivery {
                    sender.send(batch.observations.len()).unwrap();
                }
                ControlFlow::Continue(())
            })
        });
        for seq in 0..5 {
            // Half a line waits, a whole one does not.
            let text = line(seq, 10) + "\n";
            pipe.write_all(&text.as_bytes()[..40]).unwrap();
            assert!(delivered.recv_timeout(Duration::from_millis(20)).is_err());
            pipe.write_all(&text.as_bytes()[40..]).unwrap();
            assert_eq!(delivered.recv_timeout(Duration::from_secs(10)), Ok(1));
        }
        drop(pipe);
        assert_eq!(reading.join().unwrap().unwrap().observations, 5);
    }
}

#[test]
fn a_line_beyond_the_cap_is_named_and_the_rest_goes_on() {
    let dir = Dir::new("long");
    let mut text = line(1, 0);
    text.push('\n');
    text.push_str(&"x".repeat(17 * 1024 * 1024));
    text.push('\n');
    text.push_str(&line(3, 0));
    for workers in [1, 2] {
        let (seen, summary) =
            read_all(vec![dir.file("a", &text)], &[&Recording], &options(workers));
        assert_eq!(seen[0], "unknown linux 1 1");
        assert!(seen[1].contains("a:2: line of 17825792 bytes skipped"), "{}", seen[1]);
        assert_eq!(seen[2], "unknown linux 3 3");
        assert_eq!(summary.unwrap().lines, 3);
    }
}

#[test]
fn says_what_cannot_be_read() {
    let dir = Dir::new("cannot");
    let fails = |source, options: &Options| {
        read_all(vec![source], &[&Recording], options).1.unwrap_err().to_string()
    };
    let missing = Source::Path(dir.0.join("missing"));
    assert!(fails(missing, &options(2)).contains("missing: cannot be opened: No such file"));
    let folder = fails(Source::Path(dir.0.clone()), &options(2));
    assert!(folder.contains("cannot be opened") && folder.contains("directory"), "{folder}");
    assert!(fails(dir.file("a", "%PDF"), &options(2)).contains("formats recording"));
    let other = Options { input: Some("evtx".into()), ..options(2) };
    assert!(fails(dir.file("b", META), &other).contains("no input format `evtx`"));
}

#[test]
fn the_named_format_is_taken_whatever_the_content() {
    let dir = Dir::new("named");
    let named = Options { input: Some("recording".into()), os: Some(Os::Macos), ..options(1) };
    let text = format!("junk\n{}\n", line(4, 0));
    let (seen, _) = read_all(vec![dir.file("a", text)], &[&Recording], &named);
    assert!(seen[0].contains("a:1: expected value"), "{}", seen[0]);
    assert_eq!(seen[1], "unknown macos 4 4");
}

/// Lets through every third observation of a source.
#[derive(Default)]
struct EveryThird(u32);

impl Sequence for EveryThird {
    fn pass(&mut self, observation: Observation, out: &mut Vec<Observation>) {
        self.0 += 1;
        if self.0.is_multiple_of(3) {
            out.push(observation);
        }
    }
}

/// A format whose observations need each other.
struct Thirds;

impl LineDecoder for Thirds {
    fn name(&self) -> &'static str {
        "thirds"
    }
    fn sniff(&self, _: &[u8]) -> bool {
        true
    }
    fn os(&self) -> Option<Os> {
        None
    }
    fn keeps_seq(&self) -> bool {
        true
    }
    fn sequence(&self) -> Option<Box<dyn Sequence>> {
        Some(Box::new(EveryThird::default()))
    }
    fn decode(&self, line: &[u8], out: &mut Vec<Observation>) -> Result<Decoded, LineError> {
        Recording.decode(line, out)
    }
}

#[test]
fn a_sequence_sees_all_of_a_source_in_order_and_nothing_of_another() {
    let dir = Dir::new("sequence");
    let text: String = (1..=5_000).map(|seq| line(seq, 300) + "\n").collect();
    for workers in [1, 3] {
        let sources = vec![dir.file("a", &text), dir.file("b", &text)];
        let (seen, _) = read_all(sources, &[&Thirds], &options(workers));
        let one = (1..=5_000).filter(|seq| seq % 3 == 0).map(|n| format!("unknown linux {n} {n}"));
        assert!(one.clone().chain(one).eq(seen));
    }
}

/// A format whose records carry no number, with lines that it skips and one that makes it panic.
struct Numbers;

impl LineDecoder for Numbers {
    fn name(&self) -> &'static str {
        "numbers"
    }
    fn sniff(&self, line: &[u8]) -> bool {
        line.first().is_some_and(u8::is_ascii_digit)
    }
    fn os(&self) -> Option<Os> {
        Some(Os::Windows)
    }
    fn decode(&self, line: &[u8], out: &mut Vec<Observation>) -> Result<Decoded, LineError> {
        match line {
            b"skip" => return Ok(Decoded::Skipped),
            b"panic" => panic!("as the test wants it"),
            _ => {}
        }
        for _ in 0..2 {
            Recording.decode(self::line(77, 0).as_bytes(), out)?;
        }
        // What stands before an error is not delivered.
        if line == b"half" { Err(LineError::new("half a record")) } else { Ok(Decoded::Observed) }
    }
}

#[test]
fn records_without_a_number_are_numbered() {
    let dir = Dir::new("numbers");
    let sources = vec![dir.file("a", "1\nskip\nhalf\n2\n"), dir.file("b", "1\n")];
    let (seen, summary) = read_all(sources, &[&Recording, &Numbers], &options(2));
    let half = format!("{}:3: half a record", dir.0.join("a").display());
    let o = |seq| format!("unknown windows {seq} 77");
    assert_eq!(seen, [o(0), o(1), half, o(2), o(3), o(4), o(5)]);
    assert_eq!(summary.unwrap().skipped, 1);
}

#[test]
fn a_panic_in_a_decoder_is_an_error_and_no_hang() {
    let dir = Dir::new("panic");
    let started = Instant::now();
    for workers in [1, 2, 3] {
        let source = dir.file("a", "1\npanic\n");
        let (seen, result) = read_all(vec![source], &[&Numbers], &options(workers));
        assert!(matches!(result, Err(ReadError::Worker { .. })), "{seen:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_panic_of_the_receiver_reaches_the_caller() {
    let dir = Dir::new("receiver");
    let text: String = (0..20_000).map(|seq| line(seq, 300) + "\n").collect();
    let Source::Path(path) = dir.file("a", &text) else { unreachable!() };
    let reading = std::thread::spawn(move || {
        let sources = vec![Source::Path(path)];
        reader::read(sources, &[&Recording], &options(3), &mut |_| panic!("as the test wants it"))
    });
    assert!(reading.join().is_err());
}
