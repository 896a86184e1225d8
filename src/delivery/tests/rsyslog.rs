//! Syslog transports against a real rsyslogd: over the local socket, UDP, TCP and TLS, with daemons
//! that end and start in between. What came is taken apart by rsyslogd and compared with what was sent:
//! one line, one message.
//!
//! Skipped, and said so, where rsyslogd is not installed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

mod fixtures;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Finding, Line};
use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::backoff::Pace;
use bpfwatch_delivery::envelope::Header;
use bpfwatch_delivery::rfc3164::Zone;
use bpfwatch_delivery::tls::TlsFiles;
use bpfwatch_delivery::transport::{
    Framing, MEMORY_BYTES, MemorySink, SyslogSocket, SyslogTcp, SyslogUdp, Tls,
};
use bpfwatch_delivery::{
    Ecs, Envelope, Format, Json, Limited, Record, Refused, Remote, Rfc3164, Rfc5424,
};
use serde_json::Value;

use support::Scratch;
use support::pki::{Authority, Identity};
use support::rsyslog::{self, Message, Rsyslog};

const PACE: Pace = Pace { first: Duration::from_millis(50), cap: Duration::from_millis(200) };

/// JSON of at most 128 kB behind an RFC 5424 header.
fn enveloped() -> Envelope<Limited<Json>> {
    Envelope {
        format: Limited::new(Json, 128 * 1024),
        header: Header::Rfc5424,
        facility: 10,
        procid: Some(77),
        zone: Zone::Utc,
    }
}

fn memory<F: Format>(format: F, remote: impl Remote + 'static) -> MemorySink<F> {
    MemorySink::start(format, Box::new(remote), MEMORY_BYTES, PACE, 7).unwrap()
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A finding with an id of its own.
fn numbered(number: usize) -> Line {
    let mut finding = fixtures::full();
    finding.id = format!("0d3b6d2a-91c4-8e77-a1b2-{number:012}");
    Line::Finding(Box::new(finding))
}

fn ids(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| json(message)["id"].as_str().unwrap().to_owned()).collect()
}

fn json(message: &Message) -> Value {
    serde_json::from_str(message.text.trim_start())
        .unwrap_or_else(|error| panic!("{error}: {:.200}", message.text))
}

/// Sends every sort of line in each format and looks at what comes out at the other end.
fn all_formats_arrive(daemon: &Rsyslog, mut open: impl FnMut(Box<dyn Format>) -> Box<dyn Sink>) {
    let lines = fixtures::lines();
    let mut before = 0;
    let formats: [Box<dyn Format>; 5] = [
        Box::new(Rfc5424 { procid: Some(77), ..Rfc5424::default() }),
        Box::new(Rfc3164 { procid: Some(77), zone: Zone::Utc, ..Rfc3164::default() }),
        Box::new(enveloped()),
        Box::new(Envelope { header: Header::Rfc3164, ..enveloped() }),
        Box::new(Envelope {
            format: Limited::new(Ecs, 128 * 1024),
            header: Header::Rfc5424,
            facility: 16,
            procid: None,
            zone: Zone::Utc,
        }),
    ];
    for (round, format) in formats.into_iter().enumerate() {
        let mut sink = open(format);
        for (_, line) in &lines {
            sink.write(line).unwrap();
        }
        sink.flush().unwrap();
        let all = daemon.messages(before + lines.len());
        // Nothing more may come: a name that starts a second record would be one.
        thread::sleep(Duration::from_millis(100));
        assert_eq!(daemon.messages(0).len(), before + lines.len(), "in round {round}");
        let got = &all[before..];
        before = all.len();
        for ((name, line), message) in lines.iter().zip(got) {
            check(round, name, line, message);
        }
    }
}

fn check(round: usize, name: &str, line: &Line, message: &Message) {
    let native = serde_json::to_value(line).unwrap();
    let kind = native["type"].as_str().unwrap();
    let facility = if round == 4 { 16 } else { 10 };
    assert_eq!(message.priority / 8, facility, "{name} in round {round}: {message:?}");
    if name == "full" {
        assert_eq!(message.host, "web-1", "in round {round}");
    }
    match round {
        0 => {
            assert_eq!(message.kind, kind);
            assert!(message.data.starts_with("[bpfwatch@32473 "), "{message:?}");
            if let Some(id) = native["id"].as_str() {
                assert!(message.data.contains(&format!("id=\"{id}\"")), "{message:?}");
            }
        }
        1 => {
            let text = message.text.trim_start();
            assert!(text.starts_with(kind), "{message:?}");
        }
        2 | 3 => assert_eq!(json(message), native, "{name} in round {round}"),
        _ => assert_eq!(json(message)["bpfwatch"]["type"], kind),
    }
}

#[test]
fn every_format_arrives_over_the_local_socket() {
    if rsyslog::find().is_none() {
        return;
    }
    let scratch = Scratch::new("rsyslog-local");
    let mut daemon = Rsyslog::start(scratch.path(), None);
    let socket = daemon.socket.clone();
    let lines = fixtures::lines();
    let formats: [Box<dyn Format>; 4] = [
        Box::new(Rfc5424 { limit: 1900, bare: true, ..Rfc5424::default() }),
        Box::new(Rfc3164 { bare: true, ..Rfc3164::default() }),
        Box::new(Limited::new(Json, 128 * 1024)),
        Box::new(Limited::new(Ecs, 128 * 1024)),
    ];
    let mut before = 0;
    for (round, format) in formats.into_iter().enumerate() {
        let mut sink = SyslogSocket::at(&socket, format, 10).unwrap();
        lines.iter().for_each(|(_, line)| sink.write(line).unwrap());
        let all = daemon.messages(before + lines.len());
        thread::sleep(Duration::from_millis(100));
        assert_eq!(daemon.messages(0).len(), before + lines.len(), "in round {round}");
        for ((name, line), message) in lines.iter().zip(&all[before..]) {
            let native = serde_json::to_value(line).unwrap();
            let id = native["id"].as_str().unwrap_or_default();
            assert_eq!(message.priority / 8, 10);
            match round {
                0 => assert!(message.text.contains("[bpfwatch@32473 "), "{message:?}"),
                1 => {}
                2 => assert_eq!(json(message), native, "{name}"),
                _ => assert_eq!(json(message)["bpfwatch"]["type"], native["type"]),
            }
            assert!(message.text.contains(id), "{message:?}");
        }
        before = all.len();
    }
    // Killed, and started again: the next record finds the new socket.
    let before = daemon.messages(0).len();
    let mut sink = SyslogSocket::at(&socket, Json, 10).unwrap();
    sink.write(&numbered(1)).unwrap();
    let got = daemon.messages(before + 1);
    assert_eq!(json(&got[before])["id"], "0d3b6d2a-91c4-8e77-a1b2-000000000001");
    daemon.kill();
    assert!(sink.write(&numbered(2)).is_err(), "nobody is there");
    daemon.run();
    let deadline = Instant::now() + Duration::from_secs(10);
    while sink.write(&numbered(3)).is_err() {
        assert!(Instant::now() < deadline, "it does not come back");
        thread::sleep(Duration::from_millis(50));
    }
    let got = daemon.messages(before + 2);
    assert_eq!(json(got.last().unwrap())["id"], "0d3b6d2a-91c4-8e77-a1b2-000000000003");
}

#[test]
fn every_format_arrives_over_udp() {
    if rsyslog::find().is_none() {
        return;
    }
    let scratch = Scratch::new("rsyslog-udp");
    let daemon = Rsyslog::start(scratch.path(), None);
    all_formats_arrive(&daemon, |format| {
        Box::new(memory(format, SyslogUdp::new(&local(daemon.udp))))
    });
}

#[test]
fn udp_makes_good_what_found_nobody() {
    if rsyslog::find().is_none() {
        return;
    }
    let scratch = Scratch::new("rsyslog-udp-restart");
    let mut daemon = Rsyslog::start(scratch.path(), None);
    let mut sink = memory(enveloped(), SyslogUdp::new(&local(daemon.udp)));
    sink.write(&numbered(0)).unwrap();
    daemon.messages(1);
    daemon.kill();
    for number in 1..20 {
        sink.write(&numbered(number)).unwrap();
        thread::sleep(Duration::from_millis(10));
    }
    daemon.run();
    let wanted: BTreeSet<String> = (0..20).map(id).collect();
    await_ids(&daemon, &wanted);
}

fn id(number: usize) -> String {
    format!("0d3b6d2a-91c4-8e77-a1b2-{number:012}")
}

/// Waits until each of these has come. At-least-once: some may have come twice.
fn await_ids(daemon: &Rsyslog, wanted: &BTreeSet<String>) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let got: BTreeSet<String> = ids(&daemon.messages(0)).into_iter().collect();
        assert!(got.is_subset(wanted), "{:?}", got.difference(wanted));
        if got == *wanted {
            return;
        }
        let missing: Vec<_> = wanted.difference(&got).collect();
        assert!(Instant::now() < deadline, "missing: {missing:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn tcp(port: u16) -> SyslogTcp {
    SyslogTcp::new(&local(port), Framing::OctetCounting, None)
}

#[test]
fn tcp_keeps_the_order_in_both_framings() {
    if rsyslog::find().is_none() {
        return;
    }
    let scratch = Scratch::new("rsyslog-tcp");
    let daemon = Rsyslog::start(scratch.path(), None);
    for framing in [Framing::OctetCounting, Framing::Newline] {
        let mut sink = memory(enveloped(), SyslogTcp::new(&local(daemon.tcp), framing, None));
        let before = daemon.messages(0).len();
        for number in 0..200 {
            sink.write(&numbered(number)).unwrap();
        }
        let got = ids(&daemon.messages(before + 200)[before..]);
        assert_eq!(got, (0..200).map(id).collect::<Vec<_>>(), "{framing:?}");
    }
}

#[test]
fn every_format_arrives_over_tcp_with_octet_counting() {
    if rsyslog::find().is_none() {
        return;
    }
    let scratch = Scratch::new("rsyslog-octets");
    let daemon = Rsyslog::start(scratch.path(), None);
    all_formats_arrive(&daemon, |format| Box::new(memory(format, tcp(daemon.tcp))));
}

/// A finding of which the JSON has about so many bytes.
fn large(bytes: usize) -> Finding {
    let mut finding = fixtures::full();
    if let Some(process) = &mut finding.process {
        process.command_line = Some(format!("/tmp/x {}", "a\u{1f600} ".repeat(bytes / 6)));
    }
    finding
}

fn takes_a_long_record_and_survives_restarts(daemon: &mut Rsyslog, remote: impl Remote + 'static) {
    let mut sink = memory(enveloped(), remote);
    let long = Line::Finding(Box::new(large(100_000)));
    sink.write(&long).unwrap();
    let got = daemon.messages(1);
    assert!(got[0].text.len() > 100_000, "{}", got[0].text.len());
    assert_eq!(json(&got[0]), serde_json::to_value(&long).unwrap());
    let mut wanted = BTreeSet::from([fixtures::full().id]);
    let mut write = |sink: &mut MemorySink<_>, numbers: std::ops::Range<usize>| {
        for number in numbers {
            sink.write(&numbered(number)).unwrap();
            wanted.insert(id(number));
        }
    };
    for round in 0..4 {
        let first = 1_000 * round;
        let before = daemon.messages(0).len();
        write(&mut sink, first..first + 25);
        // A killed daemon takes with it what it had read and not yet written.
        daemon.messages(before + 25);
        if round % 2 == 0 {
            daemon.kill()
        } else {
            daemon.stop()
        }
        write(&mut sink, first + 25..first + 50);
        daemon.run();
        write(&mut sink, first + 50..first + 75);
        // Between two batches, with nothing under way, it ends and starts without being noticed.
        daemon.messages(before + 75);
        daemon.stop();
        daemon.run();
    }
    await_ids(daemon, &wanted);
    let state = sink.backlog().unwrap().state();
    assert_eq!((state.waiting, state.lost), (0, 0), "{state:?}");
}

#[test]
fn tcp_takes_a_long_record_and_survives_restarts() {
    if rsyslog::find().is_none() {
        return;
    }
    let scratch = Scratch::new("rsyslog-restart");
    let mut daemon = Rsyslog::start(scratch.path(), None);
    let remote = tcp(daemon.tcp);
    takes_a_long_record_and_survives_restarts(&mut daemon, remote);
}

struct Tried {
    scratch: Scratch,
    authority: Authority,
    server: Identity,
    client: Identity,
}

impl Tried {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let authority = Authority::new(scratch.path(), "authority");
        let server = authority.issue("server", &["localhost", "127.0.0.1"]);
        let client = authority.issue("client", &["web-1"]);
        Self { scratch, authority, server, client }
    }

    fn daemon(&self) -> Rsyslog {
        Rsyslog::start(self.scratch.path(), Some((&self.authority, &self.server)))
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            ca: Some(self.authority.file.clone()),
            certificate: Some(self.client.certificate.clone()),
            key: Some(self.client.key.clone()),
        }
    }
}

fn tls(port: u16, files: TlsFiles) -> SyslogTcp {
    let tls = Tls { files, server_name: None };
    SyslogTcp::new(&local(port), Framing::OctetCounting, Some(tls))
}

fn record() -> Record {
    let mut bytes = Vec::new();
    Rfc5424::default().render(&numbered(1), &mut bytes);
    let (seq, id) = (1, id(1));
    Record { seq, id, time: fixtures::full().time, bytes }
}

fn refusal(mut remote: SyslogTcp) -> String {
    match remote.deliver(&[record()]) {
        Err(Refused::Later { taken: 0, why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tls_takes_a_long_record_and_survives_restarts() {
    if rsyslog::find().is_none() || !rsyslog::has_tls() {
        return;
    }
    let tried = Tried::new("rsyslog-tls");
    let mut daemon = tried.daemon();
    let remote = tls(daemon.mutual, tried.files());
    takes_a_long_record_and_survives_restarts(&mut daemon, remote);
}

#[test]
fn a_wrong_certificate_is_refused_and_said_clearly() {
    if rsyslog::find().is_none() || !rsyslog::has_tls() {
        return;
    }
    let tried = Tried::new("rsyslog-refused");
    let daemon = tried.daemon();
    let dir = tried.scratch.path();

    let mut good = tls(daemon.tls, TlsFiles { certificate: None, key: None, ..tried.files() });
    good.deliver(&[record()]).unwrap();
    daemon.messages(1);

    let stranger = Authority::new(dir, "stranger");
    let why =
        refusal(tls(daemon.tls, TlsFiles { ca: Some(stranger.file.clone()), ..tried.files() }));
    assert!(why.contains("is not from an authority in") && why.contains("stranger.pem"), "{why}");

    let name = Tls { files: tried.files(), server_name: Some("logs.example.com".to_owned()) };
    let remote = SyslogTcp::new(&local(daemon.tls), Framing::OctetCounting, Some(name));
    let why = refusal(remote);
    assert!(why.contains("not for the name logs.example.com"), "{why}");

    let none = TlsFiles { certificate: None, key: None, ..tried.files() };
    let why = refusal(tls(daemon.mutual, none));
    assert!(why.contains("client certificate"), "{why}");

    let other = stranger.issue("other", &["web-1"]);
    let files =
        TlsFiles { certificate: Some(other.certificate), key: Some(other.key), ..tried.files() };
    let why = refusal(tls(daemon.mutual, files));
    assert!(why.contains("client certificate"), "{why}");

    let why = refusal(tls(daemon.tcp, tried.files()));
    assert!(why.contains("TLS"), "{why}");
    // Of all that only the good one came.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(daemon.messages(0).len(), 1);
}

#[test]
fn files_that_are_wrong_are_told_apart() {
    let tried = Tried::new("tls-files");
    let files = tried.files();
    files.client().unwrap();
    let error = |files: TlsFiles| files.client().unwrap_err().to_string();
    let none = Some(Path::new("/nowhere/ca.pem").to_owned());
    assert!(error(TlsFiles { ca: none, ..files.clone() }).contains("/nowhere/ca.pem"));
    assert!(error(TlsFiles { ca: files.key.clone(), ..files.clone() }).contains("no certificate"));
    assert!(error(TlsFiles { key: None, ..files.clone() }).contains("go together"));
    let swapped = TlsFiles { key: files.certificate.clone(), ..files.clone() };
    let swapped = error(swapped);
    assert!(swapped.contains("private key"), "{swapped}");
    let other = tried.authority.issue("second", &["x"]);
    let unfit = error(TlsFiles { key: Some(other.key.clone()), ..files.clone() });
    assert!(unfit.contains("client.pem"), "{unfit}");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&other.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = error(TlsFiles { key: Some(other.key), ..files });
    assert!(open.contains("chmod 0600"), "{open}");
}
