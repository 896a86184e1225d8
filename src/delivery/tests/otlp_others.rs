//! OTLP as others understand it: decoded with the official definitions of the protocol, and taken by a
//! collector that somebody else wrote. `.ci/receivers.txt` names the Python packages of both.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fixtures;
mod receiver;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Finding, Line};
use bpfwatch_core::observation::Os;
use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::backoff::Pace;
use bpfwatch_delivery::http::{Proxy, Setup};
use bpfwatch_delivery::spool::{Settings, Spool};
use bpfwatch_delivery::transport::SpooledSink;
use bpfwatch_delivery::{Otlp, OtlpRecord};
use receiver::Receiver;

fn sink(name: &str, url: String) -> (PathBuf, SpooledSink<OtlpRecord>) {
    let dir = std::env::temp_dir().join(format!("bpfwatch-others-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    let spool = Spool::open(&dir, Settings::default(), 1).unwrap();
    let setup = Setup { url, gzip: true, proxy: Proxy::None, ..Setup::default() };
    let host = fixtures::host("web-1", Os::Linux);
    let remote = Otlp::open(&setup, &host, spool.stream()).unwrap();
    let pace = Pace { first: Duration::from_millis(50), cap: Duration::from_millis(200) };
    (dir, SpooledSink::with(spool, OtlpRecord, Box::new(remote), pace, 1).unwrap())
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "still waiting: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Decodes standard input; refuses any field that the definitions do not know, at any depth.
const DECODE: &str = "
import sys
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
def known(message):
    assert len(UnknownFieldSet(message)) == 0, message
    for field, value in message.ListFields():
        for one in (value if not isinstance(value, (Message, str, bytes)) and hasattr(value, '__iter__') else [value]):
            if isinstance(one, Message):
                known(one)
request = ExportLogsServiceRequest()
request.ParseFromString(sys.stdin.buffer.read())
known(request)
print(MessageToJson(request, indent=None))
";

#[test]
fn the_official_definitions_read_every_sort_of_line() {
    let importable = Command::new("python3")
        .args(["-c", "import opentelemetry.proto.collector.logs.v1.logs_service_pb2"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !importable {
        println!(
            "skipped the_official_definitions_read_every_sort_of_line: needs python3 with \
             opentelemetry-proto"
        );
        return;
    }
    let receiver = Receiver::good();
    let (dir, mut sink) = sink("official", receiver.url(""));
    let lines = fixtures::lines();
    for (_, line) in &lines {
        sink.write(line).unwrap();
    }
    until("delivery", || sink.backlog().unwrap().state().waiting == 0);
    let mut records = Vec::new();
    for request in receiver.taken() {
        let mut python = Command::new("python3")
            .args(["-c", DECODE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        python.stdin.take().unwrap().write_all(&request.content()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success());
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let logs = &value["resourceLogs"][0];
        let attributes = logs["resource"]["attributes"].as_array().unwrap();
        assert!(attributes.iter().any(|attribute| {
            attribute["key"] == "host.name" && attribute["value"]["stringValue"] == "web-1"
        }));
        records.extend(logs["scopeLogs"][0]["logRecords"].as_array().unwrap().clone());
    }
    assert_eq!(records.len(), lines.len());
    for (record, (_, line)) in records.iter().zip(&lines) {
        let native = serde_json::to_value(line).unwrap();
        assert_eq!(
            record["eventName"].as_str().unwrap(),
            format!("bpfwatch.{}", native["type"].as_str().unwrap())
        );
        assert!(record["severityNumber"].as_str().unwrap().starts_with("SEVERITY_NUMBER_"));
        assert!(!record["body"]["stringValue"].as_str().unwrap().is_empty());
    }
    fs::remove_dir_all(dir).unwrap();
}

/// Rotel, a collector, that prints what it takes.
struct Rotel {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Rotel {
    fn program() -> Option<PathBuf> {
        let find =
            "import importlib.util as u; print(u.find_spec('rotel').submodule_search_locations[0])";
        let output =
            Command::new("python3").args(["-c", find]).stderr(Stdio::null()).output().ok()?;
        let folder = String::from_utf8(output.stdout).ok()?;
        let program = PathBuf::from(folder.trim()).join("rotel-agent");
        program.is_file().then_some(program)
    }

    fn start(program: &PathBuf, address: SocketAddr) -> Self {
        let mut child = Command::new(program)
            .args(["start", "--exporter", "blackhole"])
            .args(["--debug-log", "logs", "--debug-log-verbosity", "detailed"])
            .args(["--otlp-http-endpoint", &address.to_string()])
            .args(["--otlp-grpc-endpoint", &free_address().to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&said);
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let rotel = Self { child, said };
        until("the collector", || TcpStream::connect(address).is_ok());
        rotel
    }

    /// Ids of the records that it printed.
    fn ids(&self) -> BTreeSet<String> {
        let said = self.said.lock().unwrap();
        let id = |line: &String| {
            let rest = line.split_once("log.record.uid: Str(")?.1;
            Some(rest.trim_end_matches(')').to_owned())
        };
        said.iter().filter_map(id).collect()
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_collector_of_others_takes_all_of_it_though_it_was_away() {
    let Some(program) = Rotel::program() else {
        println!(
            "skipped a_collector_of_others_takes_all_of_it_though_it_was_away: needs python3 with \
             rotel"
        );
        return;
    };
    let address = free_address();
    let first = Rotel::start(&program, address);
    let (dir, mut sink) = sink("rotel", format!("http://{address}"));
    let put = |sink: &mut SpooledSink<OtlpRecord>, from: u64, to: u64| {
        for number in from..=to {
            let finding = Finding { id: format!("id-{number}"), ..fixtures::full() };
            sink.write(&Line::Finding(Box::new(finding))).unwrap();
        }
    };
    put(&mut sink, 1, 50);
    until("the first", || first.ids().len() == 50);
    // Else some would come to the second one again.
    until("the answer", || sink.backlog().unwrap().state().waiting == 0);
    drop(first);
    put(&mut sink, 51, 100);
    let second = Rotel::start(&program, address);
    until("the others", || second.ids().len() == 50);
    assert_eq!(second.ids(), (51..=100).map(|number| format!("id-{number}")).collect());
    until("the answer", || sink.backlog().unwrap().state().waiting == 0);
    assert_eq!(sink.backlog().unwrap().state().lost, 0);
    drop(sink);
    fs::remove_dir_all(dir).unwrap();
}
