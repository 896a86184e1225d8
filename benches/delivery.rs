//! What delivery costs: formats, the spool, and transports against receivers on this machine. At the
//! end fifty times as many findings, a million unless told, go through the largest format, and memory must
//! be as it was.
//!
//! `cargo bench --bench delivery [-- --lines 20000]`. The receiver runs in the same process and shares
//! its cores: a transport alone is somewhat faster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, reason = "fixtures and receiver serve the tests too")]

#[path = "../src/delivery/tests/fixtures/mod.rs"]
mod fixtures;
#[path = "../src/delivery/tests/support/pki.rs"]
mod pki;
#[path = "../src/delivery/tests/receiver/mod.rs"]
mod receiver;

use std::fs;
use std::io::{self, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Finding, Line};
use bpfwatch_core::observation::Os;
use bpfwatch_core::sink::Sink;
use bpfwatch_core::time::Timestamp;
use bpfwatch_delivery::backoff::Pace;
use bpfwatch_delivery::http::{Proxy, Setup};
use bpfwatch_delivery::spool::{Settings, Spool, Store, Sync};
use bpfwatch_delivery::tls::TlsFiles;
use bpfwatch_delivery::transport::{
    Durability, FileSink, Framing, MemorySink, PipeSink, SpooledSink, StreamSink, SyslogSocket,
    SyslogTcp, SyslogUdp, Tls,
};
use bpfwatch_delivery::{
    Ecs, Falco, Format, Json, Ocsf, Otlp, OtlpRecord, Remote, Rfc3164, Rfc5424, Webhook,
};
use pki::Authority;
use receiver::{Receiver, Reply};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let lines = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--lines", lines] => lines.parse().unwrap(),
        [] => 20_000,
        _ => panic!("usage: cargo bench --bench delivery [-- --lines N]"),
    };
    println!("{:<34}{:>12}{:>10}{:>14}", "what", "lines/s", "MB/s", "bytes a line");
    formats(lines);
    spool(lines);
    transports(lines);
    local(lines);
    syslog(lines);
    flat(lines * 50);
}

fn told(what: &str, lines: u64, bytes: u64, took: Duration) {
    let per_second = |amount: u64| amount as f64 / took.as_secs_f64();
    println!(
        "{what:<34}{:>12.0}{:>10.1}{:>14}",
        per_second(lines),
        per_second(bytes) / 1e6,
        bytes / lines
    );
}

fn finding(number: u64) -> Line {
    Line::Finding(Box::new(Finding { id: format!("id-{number}"), ..fixtures::full() }))
}

/// A directory that is not there yet.
fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("delivery-{name}"));
    let _ = fs::remove_dir_all(&dir);
    dir
}

fn formats(lines: u64) {
    let formats: [(&str, Box<dyn Format>); 7] = [
        ("format json", Box::new(Json)),
        ("format ecs", Box::new(Ecs)),
        ("format ocsf", Box::new(Ocsf)),
        ("format falco", Box::new(Falco)),
        ("format rfc5424", Box::new(Rfc5424::default())),
        ("format rfc3164", Box::new(Rfc3164::default())),
        ("format otlp", Box::new(OtlpRecord)),
    ];
    let line = finding(1);
    for (name, format) in formats {
        let (start, mut out, mut bytes) = (Instant::now(), Vec::new(), 0);
        for _ in 0..lines {
            out.clear();
            format.render(&line, &mut out);
            bytes += out.len() as u64;
        }
        told(name, lines, bytes, start.elapsed());
    }
}

fn spool(lines: u64) {
    let mut payload = Vec::new();
    Json.render(&finding(1), &mut payload);
    for (name, sync, lines) in [
        ("spool, sync never", Sync::Never, lines),
        ("spool, sync always", Sync::Always, lines / 20),
    ] {
        let dir = folder("spool");
        let settings = Settings { sync, ..Settings::default() };
        let mut store = Store::open(&dir, settings, Timestamp::default(), 1).unwrap();
        let start = Instant::now();
        for _ in 0..lines {
            store.append(Timestamp::default(), "id", Timestamp::default(), &payload).unwrap();
        }
        told(name, lines, lines * payload.len() as u64, start.elapsed());
        drop(store);
        fs::remove_dir_all(dir).unwrap();
    }
}

fn transports(lines: u64) {
    let host = fixtures::host("web-1", Os::Linux);
    for (name, gzip) in [("webhook", false), ("webhook, gzip", true)] {
        transport(name, gzip, lines, Json, |setup, stream| {
            Box::new(Webhook::open(&setup, None, stream).unwrap())
        });
    }
    for (name, gzip) in [("otlp", false), ("otlp, gzip", true)] {
        transport(name, gzip, lines, OtlpRecord, |setup, stream| {
            Box::new(Otlp::open(&setup, &host, stream).unwrap())
        });
    }
}

fn transport(
    name: &str,
    gzip: bool,
    lines: u64,
    format: impl Format,
    open: impl FnOnce(Setup, String) -> Box<dyn Remote>,
) {
    let receiver = Receiver::start(|_| Reply::status(200));
    let dir = folder("transport");
    let spool = Spool::open(&dir, Settings::default(), 1).unwrap();
    let setup = Setup { url: receiver.url("/"), gzip, proxy: Proxy::None, ..Setup::default() };
    let remote = open(setup, spool.stream());
    let mut sink = SpooledSink::with(spool, format, remote, Pace::default(), 1).unwrap();
    let start = Instant::now();
    for number in 0..lines {
        sink.write(&finding(number)).unwrap();
    }
    let accepted = start.elapsed();
    // What is left below a full batch goes when the linger is over: not what is measured here.
    let backlog = sink.backlog().unwrap();
    while backlog.state().waiting >= 1024 {
        thread::sleep(Duration::from_millis(1));
    }
    let delivered = backlog.state().delivered;
    let took = start.elapsed();
    let sent = receiver.taken().iter().map(|request| request.body.len() as u64).sum();
    told(&format!("{name}, accepted"), lines, sent, accepted);
    told(&format!("{name}, delivered"), delivered.max(1), sent, took);
    drop(sink);
    fs::remove_dir_all(dir).unwrap();
}

/// Transports of this machine, one write a line.
fn local(lines: u64) {
    let dir = folder("local");
    fs::create_dir_all(&dir).unwrap();
    let mut stream = StreamSink::new("null", Json, io::sink(), false);
    writes("stream, json", lines, &Json, &mut stream);
    for (name, durability, lines) in [
        ("file, json, sync never", Durability::Never, lines),
        ("file, json, sync always", Durability::EachRecord, lines / 20),
    ] {
        let mut file = FileSink::open(dir.join("out"), Json, durability).unwrap();
        writes(name, lines, &Json, &mut file);
    }
    let mut pipe = PipeSink::open(dir.join("pipe"), 0o600, Json).unwrap();
    let path = dir.join("pipe");
    thread::spawn(move || io::copy(&mut fs::File::open(path).unwrap(), &mut io::sink()));
    // Until its reader is there.
    while pipe.write(&finding(1)).is_err() {
        thread::sleep(Duration::from_millis(100));
    }
    writes("pipe, json", lines, &Json, &mut pipe);
    drop(pipe);
    let receiver = UnixDatagram::bind(dir.join("log")).unwrap();
    thread::spawn(move || while receiver.recv(&mut [0; 65_536]).is_ok() {});
    let format = Rfc5424 { bare: true, ..Rfc5424::default() };
    let mut socket = SyslogSocket::at(dir.join("log"), format, 10).unwrap();
    writes("local syslog", lines, &format, &mut socket);
    fs::remove_dir_all(dir).unwrap();
}

fn writes(name: &str, lines: u64, format: &dyn Format, sink: &mut dyn Sink) {
    let mut record = Vec::new();
    format.render(&finding(1), &mut record);
    let start = Instant::now();
    for number in 0..lines {
        sink.write(&finding(number)).unwrap();
    }
    told(name, lines, lines * record.len() as u64, start.elapsed());
}

/// Syslog over the network, from memory.
fn syslog(lines: u64) {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap().to_string();
    thread::spawn(move || while udp.recv(&mut [0; 65_536]).is_ok() {});
    sends("syslog udp", lines, Box::new(SyslogUdp::new(&address)));
    for framing in [Framing::OctetCounting, Framing::Newline] {
        let tcp = SyslogTcp::new(&swallow(), framing, None);
        sends(&format!("syslog tcp, {framing:?}"), lines, Box::new(tcp));
    }
    let dir = folder("tls");
    fs::create_dir_all(&dir).unwrap();
    let authority = Authority::new(&dir, "ca");
    let config = server(&authority);
    let files = TlsFiles { ca: Some(authority.file), ..TlsFiles::default() };
    let tls = Some(Tls { files, server_name: Some("localhost".to_owned()) });
    let tls = SyslogTcp::new(&swallow_tls(config), Framing::OctetCounting, tls);
    sends("syslog tls", lines, Box::new(tls));
    fs::remove_dir_all(dir).unwrap();
}

/// A server for the name `localhost`.
fn server(authority: &Authority) -> Arc<ServerConfig> {
    let identity = authority.issue("server", &["localhost"]);
    let builder = ServerConfig::builder_with_provider(bpfwatch_delivery::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

/// As [`swallow`], within TLS.
fn swallow_tls(config: Arc<ServerConfig>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let session = ServerConnection::new(config).unwrap();
        let mut stream = StreamOwned::new(session, stream);
        while stream.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {}
    });
    address
}

/// The address of a receiver that reads and forgets.
fn swallow() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {}
    });
    address
}

fn sends(name: &str, lines: u64, remote: Box<dyn Remote>) {
    let format = Rfc5424::default();
    let mut record = Vec::new();
    format.render(&finding(1), &mut record);
    let mut sink = MemorySink::start(format, remote, usize::MAX, Pace::default(), 1).unwrap();
    let start = Instant::now();
    for number in 0..lines {
        sink.write(&finding(number)).unwrap();
    }
    let backlog = sink.backlog().unwrap();
    while backlog.state().waiting > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    told(name, lines, lines * record.len() as u64, start.elapsed());
}

/// Many findings through the largest format and a connection: nothing may stay behind.
fn flat(lines: u64) {
    let remote = Box::new(SyslogTcp::new(&swallow(), Framing::OctetCounting, None));
    let mut sink = MemorySink::start(Ocsf, remote, 4 << 20, Pace::default(), 1).unwrap();
    let backlog = sink.backlog().unwrap();
    let line = finding(1);
    let mut before = None;
    let start = Instant::now();
    for number in 0..lines {
        sink.write(&line).unwrap();
        while backlog.state().waiting > 500 {
            thread::yield_now();
        }
        if number == lines / 10 {
            before = resident_kib();
        }
    }
    told("ocsf over tcp, memory bounded", lines, lines, start.elapsed());
    let (Some(before), Some(after)) = (before, resident_kib()) else { return };
    println!("memory after a tenth {before} KiB, after all {after} KiB");
    assert_eq!(backlog.state().lost, 0);
    assert!(after < before + 4096, "memory grows");
}

/// `VmRSS`, where the system has it (proc_pid_status(5)).
fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
