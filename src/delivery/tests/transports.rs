//! Transports over real files and sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod fixtures;
#[path = "support/mounted.rs"]
mod mounted;

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bpfwatch_core::finding::Line;
use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::transport::{Durability, FileSink, PipeSink, StreamSink, SyslogSocket};
use bpfwatch_delivery::{Format, Human, Json, Rfc5424, Shape};
use mounted::Mounted;

/// A directory of this test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bpfwatch-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn line() -> Line {
    Line::Lost(Box::new(fixtures::lost(12, "channel full")))
}

fn json(line: &Line) -> String {
    let mut out = Vec::new();
    Json.render(line, &mut out);
    String::from_utf8(out).unwrap()
}

fn open(path: &Path) -> FileSink<Json> {
    FileSink::open(path, Json, Durability::OnFlush).unwrap()
}

#[test]
fn a_file_is_appended_to_and_closed_to_others() {
    let scratch = Scratch::new("append");
    let path = scratch.join("out.jsonl");
    open(&path).write(&line()).unwrap();
    let mut again = FileSink::open(&path, Json, Durability::EachRecord).unwrap();
    again.write(&line()).unwrap();
    again.flush().unwrap();
    assert_eq!(again.name(), format!("file {}", path.display()));
    assert_eq!(fs::read_to_string(&path).unwrap(), json(&line()).repeat(2));
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode & !0o640, 0, "mode {mode:o}");
}

#[test]
fn a_full_disk_leaves_no_part_of_a_record_in_a_file() {
    let scratch = Scratch::new("full");
    let Some(_disk) = Mounted::small(&scratch.0) else {
        println!("skipped a_full_disk_leaves_no_part_of_a_record_in_a_file: cannot mount a tmpfs");
        return;
    };
    let path = scratch.join("out.jsonl");
    let mut sink = open(&path);
    fs::write(scratch.join("fill"), vec![0; 200 * 1024]).unwrap();
    let mut written = 0;
    let mut failed = 0;
    while failed < 10 {
        match sink.write(&line()) {
            Ok(()) => written += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                failed += 1;
            }
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), json(&line()).repeat(written));
    }
    fs::remove_file(scratch.join("fill")).unwrap();
    sink.write(&line()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), json(&line()).repeat(written + 1));
}

#[test]
fn rotation_is_followed() {
    let scratch = Scratch::new("rotate");
    let (path, old) = (scratch.join("out"), scratch.join("out.1"));
    let mut sink = open(&path);
    sink.write(&line()).unwrap();
    fs::rename(&path, &old).unwrap();
    sink.write(&line()).unwrap();
    assert_eq!(fs::read_to_string(&old).unwrap(), json(&line()));
    assert_eq!(fs::read_to_string(&path).unwrap(), json(&line()));
    // Removed, and something else put in its place.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "before\n").unwrap();
    sink.write(&line()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("before\n{}", json(&line())));
    // Truncated in place (copytruncate): append mode goes on at the new end.
    fs::write(&path, "").unwrap();
    sink.write(&line()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), json(&line()));
}

#[test]
fn a_rotated_file_whose_place_cannot_be_filled_still_takes_records() {
    let scratch = Scratch::new("gone");
    let (dir, old) = (scratch.join("dir"), scratch.join("old"));
    fs::create_dir(&dir).unwrap();
    let path = dir.join("out");
    let mut sink = open(&path);
    fs::rename(&path, &old).unwrap();
    fs::remove_dir(&dir).unwrap();
    sink.write(&line()).unwrap();
    assert_eq!(fs::read_to_string(&old).unwrap(), json(&line()));
    fs::remove_file(&old).unwrap();
    assert!(sink.write(&line()).is_err(), "a record into a removed file is a lost one");
}

#[test]
fn links_and_special_files_are_refused() {
    let scratch = Scratch::new("links");
    let target = scratch.join("target");
    fs::write(&target, "mine\n").unwrap();
    let link = scratch.join("link");
    symlink(&target, &link).unwrap();
    let hard = scratch.join("hard");
    fs::hard_link(&target, &hard).unwrap();
    let socket = scratch.join("socket");
    let _bound = UnixDatagram::bind(&socket).unwrap();
    for path in [&link, &hard, &socket, &scratch.0] {
        assert!(FileSink::open(path, Json, Durability::OnFlush).is_err(), "{}", path.display());
    }
    // Put in the file's place while it is open.
    let path = scratch.join("out");
    let mut sink = open(&path);
    fs::rename(&path, scratch.join("out.1")).unwrap();
    symlink(&target, &path).unwrap();
    sink.write(&line()).unwrap();
    assert_eq!(fs::read_to_string(scratch.join("out.1")).unwrap(), json(&line()));
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine\n");
    assert_eq!(fs::metadata(&target).unwrap().nlink(), 2);
}

/// A stream that others can look into.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stream_is_written_at_once_or_held() {
    let out = Shared::default();
    let mut live = StreamSink::new("live", Json, out.clone(), false);
    live.write(&line()).unwrap();
    assert_eq!(out.text(), json(&line()));

    let out = Shared::default();
    let mut held = StreamSink::new("held", Json, out.clone(), true);
    held.write(&line()).unwrap();
    assert_eq!(out.text(), "");
    held.flush().unwrap();
    assert_eq!(out.text(), json(&line()));
    for _ in 0..2_000 {
        held.write(&line()).unwrap();
    }
    assert!(out.text().len() > 64 * 1024);
    drop(held);
    assert_eq!(out.text(), json(&line()).repeat(2_001));
}

#[test]
fn a_broken_pipe_is_told() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut sink = StreamSink::new("pipe", Json, writer, false);
    assert_eq!(sink.write(&line()).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

/// A format that has nothing to say.
struct Mute;

impl Format for Mute {
    fn render(&self, _: &Line, _: &mut Vec<u8>) {}
    fn shape(&self) -> Shape {
        Shape::Line
    }
}

#[test]
fn what_cannot_be_rendered_is_an_error() {
    let mut sink = StreamSink::new("mute", Mute, Shared::default(), false);
    assert_eq!(sink.write(&line()).unwrap_err().kind(), ErrorKind::InvalidData);
}

fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = vec![0; 64 * 1024];
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn syslog_gets_one_datagram_a_record() {
    let scratch = Scratch::new("syslog");
    let path = scratch.join("log");
    let receiver = UnixDatagram::bind(&path).unwrap();
    let mut sink = SyslogSocket::at(&path, Rfc5424::default(), 10).unwrap();
    for (_, line) in fixtures::lines() {
        sink.write(&line).unwrap();
        let mut record = Vec::new();
        Rfc5424::default().render(&line, &mut record);
        assert_eq!(format!("{}\n", receive(&receiver)).into_bytes(), record);
    }
    let mut sink = SyslogSocket::at(&path, Json, 3).unwrap();
    sink.write(&line()).unwrap();
    let expected = format!("<28>bpfwatch[{}]: {}", std::process::id(), json(&line()));
    assert_eq!(receive(&receiver), expected.trim_end());
    assert!(SyslogSocket::at(&path, Human::default(), 10).is_err(), "blocks are no log records");
    let mut early = SyslogSocket::at(scratch.join("none"), Json, 10).unwrap();
    let error = early.write(&line()).unwrap_err().to_string();
    assert!(error.contains("none") && error.contains("daemon"), "{error}");
}

#[test]
fn syslog_goes_to_a_stream_where_the_daemon_listens_on_one() {
    let scratch = Scratch::new("stream");
    let path = scratch.join("log");
    let listener = UnixListener::bind(&path).unwrap();
    let mut sink = SyslogSocket::at(&path, Rfc5424::default(), 10).unwrap();
    let mut expected = String::new();
    for (_, line) in fixtures::lines() {
        sink.write(&line).unwrap();
        let mut record = Vec::new();
        Rfc5424::default().render(&line, &mut record);
        expected.push_str(std::str::from_utf8(&record).unwrap());
    }
    drop(sink);
    let mut got = String::new();
    listener.accept().unwrap().0.read_to_string(&mut got).unwrap();
    assert_eq!(got, expected);
}

#[test]
fn a_record_too_long_for_a_datagram_is_cut_and_not_lost() {
    let scratch = Scratch::new("long");
    let path = scratch.join("log");
    let receiver = UnixDatagram::bind(&path).unwrap();
    let mut sink = SyslogSocket::at(&path, Json, 10).unwrap();
    let mut finding = fixtures::full();
    finding.response = vec!["x".repeat(1024 * 1024)];
    sink.write(&Line::Finding(Box::new(finding.clone()))).unwrap();
    let got = receive(&receiver);
    assert!(got.len() < 2048 && got.contains(&finding.id), "{got}");
    sink.write(&line()).unwrap();
    assert!(receive(&receiver).contains("channel full"));
}

/// A pipe without a reader holds nobody up, and one that comes, goes and comes again gets whole records.
#[test]
fn a_pipe_waits_for_no_reader() {
    let scratch = Scratch::new("fifo");
    let path = scratch.join("pipe");
    let mut sink = PipeSink::open(&path, 0o640, Json).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777 & !0o640, 0, "{mode:o}");
    let start = Instant::now();
    for _ in 0..1_000 {
        assert!(sink.write(&line()).unwrap_err().kind() == ErrorKind::NotConnected);
    }
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    for _ in 0..2 {
        let reader = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while sink.write(&line()).is_err() {
            assert!(Instant::now() < deadline, "the reader is not found");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut buffer = [0; 4096];
        let count = (&reader).read(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], json(&line()).as_bytes());
        drop(reader);
        let error = sink.write(&line()).unwrap_err();
        assert_ne!(
            error.kind(),
            ErrorKind::BrokenPipe,
            "a broken pipe would end the sink for good"
        );
    }
    assert!(PipeSink::open(scratch.join("pipe/x"), 0o640, Json).is_err());
    fs::write(scratch.join("file"), "").unwrap();
    assert!(PipeSink::open(scratch.join("file"), 0o640, Json).is_err());
}

/// A reader that stops within a record gets the rest of it before the next one.
#[test]
fn a_slow_reader_of_a_pipe_sees_no_torn_record() {
    let scratch = Scratch::new("slow");
    let path = scratch.join("pipe");
    let mut sink = PipeSink::open(&path, 0o600, Json).unwrap();
    let mut reader =
        fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path).unwrap();
    let long = Line::Lost(Box::new(fixtures::lost(1, &"y".repeat(50_000))));
    let mut failed = 0;
    while failed == 0 {
        failed += usize::from(sink.write(&long).is_err());
    }
    let mut got = Vec::new();
    let mut drain = |got: &mut Vec<u8>| {
        let mut buffer = vec![0; 256 * 1024];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            got.extend_from_slice(&buffer[..count]);
        }
    };
    drain(&mut got);
    let deadline = Instant::now() + Duration::from_secs(10);
    while sink.write(&line()).is_err() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
        drain(&mut got);
    }
    drain(&mut got);
    let got = String::from_utf8(got).unwrap();
    assert!(got.ends_with('\n'));
    for record in got.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(record).is_ok(), "{record:.100}");
    }
    assert_eq!(got.lines().last(), Some(json(&line()).trim_end()));
}

#[test]
fn syslog_is_reconnected_to() {
    let scratch = Scratch::new("restart");
    let path = scratch.join("log");
    let first = UnixDatagram::bind(&path).unwrap();
    let mut sink = SyslogSocket::at(&path, Json, 10).unwrap();
    sink.write(&line()).unwrap();
    receive(&first);
    // Restarted between two records: nothing is lost.
    drop(first);
    fs::remove_file(&path).unwrap();
    let second = UnixDatagram::bind(&path).unwrap();
    sink.write(&line()).unwrap();
    receive(&second);
    // Away: each record fails, at once after the first, and it comes back by itself.
    drop(second);
    fs::remove_file(&path).unwrap();
    assert!(sink.write(&line()).is_err());
    let third = UnixDatagram::bind(&path).unwrap();
    let start = Instant::now();
    assert_eq!(sink.write(&line()).unwrap_err().kind(), ErrorKind::NotConnected);
    while sink.write(&line()).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
    receive(&third);
}

#[test]
fn a_receiver_that_does_not_read_delays_nobody_for_long() {
    let scratch = Scratch::new("stuck");
    let path = scratch.join("log");
    let _receiver = UnixDatagram::bind(&path).unwrap();
    let mut sink = SyslogSocket::at(&path, Json, 10).unwrap();
    let start = Instant::now();
    let failed = (0..100_000).filter(|_| sink.write(&line()).is_err()).take(1_000).count();
    assert_eq!(failed, 1_000, "the queue of a receiver that does not read is full some day");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
