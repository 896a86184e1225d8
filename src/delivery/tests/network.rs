//! Network sinks from line to receiver: spool, courier and transports against a receiver that fails,
//! hangs, refuses, comes and goes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod fixtures;
mod receiver;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Finding, Line};
use bpfwatch_core::sink::{BacklogState, Sink};
use bpfwatch_delivery::backoff::Pace;
use bpfwatch_delivery::http::{Proxy, Setup};
use bpfwatch_delivery::otlp::proto::{
    Any, ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse, KeyValue,
};
use bpfwatch_delivery::spool::{Settings, Spool};
use bpfwatch_delivery::transport::SpooledSink;
use bpfwatch_delivery::{Format, Json, Otlp, OtlpRecord, Remote, Webhook};
use prost::Message;
use receiver::{Receiver, Reply, Request};

/// A directory that is removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("bpfwatch-network-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }
    fn secret(&self, name: &str, value: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        fs::write(&path, value).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PACE: Pace = Pace { first: Duration::from_millis(10), cap: Duration::from_millis(100) };

fn setup(url: String) -> Setup {
    Setup { url, proxy: Proxy::None, ..Setup::default() }
}

/// No linger, so that tests need not wait for it.
struct Eager(Webhook);

impl Remote for Eager {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn linger(&self) -> Duration {
        Duration::ZERO
    }
    fn deliver(
        &mut self,
        batch: &[bpfwatch_delivery::Record],
    ) -> Result<(), bpfwatch_delivery::Refused> {
        self.0.deliver(batch)
    }
}

fn webhook_with(dir: &Dir, setup: &Setup, key: Option<&PathBuf>) -> SpooledSink<Json> {
    let spool = Spool::open(&dir.spool(), Settings::default(), 1).unwrap();
    let remote = Eager(Webhook::open(setup, key, spool.stream()).unwrap());
    SpooledSink::with(spool, Json, Box::new(remote), PACE, 1).unwrap()
}

fn webhook(dir: &Dir, url: String) -> SpooledSink<Json> {
    webhook_with(dir, &setup(url), None)
}

fn otlp(dir: &Dir, setup: &Setup) -> SpooledSink<OtlpRecord> {
    let spool = Spool::open(&dir.spool(), Settings::default(), 1).unwrap();
    let host = fixtures::host("web-1", bpfwatch_core::observation::Os::Macos);
    let remote = Otlp::open(setup, &host, spool.stream()).unwrap();
    SpooledSink::with(spool, OtlpRecord, Box::new(remote), PACE, 1).unwrap()
}

fn finding(number: u64) -> Line {
    Line::Finding(Box::new(Finding { id: format!("id-{number}"), ..fixtures::full() }))
}

fn state<F: Format>(sink: &SpooledSink<F>) -> BacklogState {
    sink.backlog().unwrap().state()
}

/// Waits until it holds; fails after half a minute.
fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "still waiting: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Numbers and ids of the lines of webhook requests.
fn lines(requests: &[Request]) -> Vec<(u64, String)> {
    let mut out = Vec::new();
    for request in requests {
        let value: serde_json::Value = serde_json::from_slice(&request.content()).unwrap();
        for line in value["lines"].as_array().unwrap() {
            assert_eq!(line["line"]["id"], line["id"]);
            out.push((line["seq"].as_u64().unwrap(), line["id"].as_str().unwrap().to_owned()));
        }
    }
    out
}

/// Fails unless the lines, repeats apart, are 1 to `last` without a gap.
fn assert_contiguous(lines: &[(u64, String)], last: u64) {
    let unique: BTreeMap<u64, &String> = lines.iter().map(|(seq, id)| (*seq, id)).collect();
    let gaps: Vec<u64> = (1..=last).filter(|seq| !unique.contains_key(seq)).take(9).collect();
    assert!(gaps.is_empty() && unique.len() as u64 == last, "never came: {gaps:?} ...");
    for (seq, id) in unique {
        assert_eq!(*id, format!("id-{seq}"));
    }
}

#[test]
fn a_line_after_a_quiet_time_goes_at_once_and_many_go_together() {
    let (dir, receiver) = (Dir::new("batches"), Receiver::good());
    // With the real linger of three seconds.
    let spool = Spool::open(&dir.spool(), Settings::default(), 1).unwrap();
    let remote = Webhook::open(&setup(receiver.url("/hook")), None, spool.stream()).unwrap();
    let mut sink = SpooledSink::with(spool, Json, Box::new(remote), PACE, 1).unwrap();
    let start = Instant::now();
    sink.write(&finding(1)).unwrap();
    until("the first line", || state(&sink).delivered == 1);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    for number in 2..=100 {
        sink.write(&finding(number)).unwrap();
    }
    until("the others", || state(&sink).delivered == 100);
    assert!(start.elapsed() >= Duration::from_secs(3), "gathered: {:?}", start.elapsed());
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2, "one for the first, one for all others");
    assert_eq!(requests[0].line, "POST /hook HTTP/1.1");
    assert_eq!(requests[0].headers["content-type"], "application/json");
    assert!(requests[0].headers["user-agent"].starts_with("bpfwatch/"));
    assert_contiguous(&lines(&requests), 100);
}

#[test]
fn a_receiver_that_comes_and_goes_has_all_of_it_in_the_end() {
    let dir = Dir::new("comes-and-goes");
    let mut receiver = Receiver::good();
    let address = receiver.address;
    let mut sink = webhook(&dir, receiver.url("/"));
    let mut requests = Vec::new();
    let mut number = 0;
    for round in 0..8_u64 {
        for _ in 0..200 {
            number += 1;
            sink.write(&finding(number)).unwrap();
        }
        // Gone in the midst of it, however far it came; then back, in a mood of its own.
        thread::sleep(Duration::from_millis(round * 7));
        requests.extend(receiver.end());
        thread::sleep(Duration::from_millis(50));
        let count = AtomicUsize::new(0);
        receiver = Receiver::start_at(address, None, move |_| {
            match (count.fetch_add(1, Ordering::Relaxed), round % 4) {
                (0, 1) => Reply::status(503),
                (0 | 1, 2) => Reply::Close,
                (0, 3) => Reply::Status(429, vec![("retry-after", "0".to_owned())], Vec::new()),
                _ => Reply::status(200),
            }
        });
    }
    until("everything", || state(&sink).waiting == 0);
    requests.extend(receiver.end());
    assert_contiguous(&lines(&requests), number);
    let state = state(&sink);
    assert_eq!((state.delivered, state.lost), (number, 0), "{state:?}");
}

#[test]
fn a_receiver_that_is_down_costs_nothing_and_says_why() {
    let dir = Dir::new("down");
    let address = Receiver::good().address;
    let mut sink = webhook(&dir, format!("http://{address}/"));
    let start = Instant::now();
    for number in 1..=10_000 {
        sink.write(&finding(number)).unwrap();
    }
    println!("10,000 findings into the spool: {:?}", start.elapsed());
    until("trouble", || state(&sink).trouble.is_some());
    let down = state(&sink);
    assert_eq!((down.waiting, down.lost), (10_000, 0));
    assert!(down.trouble.as_ref().unwrap().contains("refused"), "{down:?}");
    drop(sink);
    // The next start finds it all, and a receiver that is back, though slow.
    let receiver = Receiver::start_at(address, None, |_| Reply::Slow(Duration::from_millis(20)));
    let sink = webhook(&dir, format!("http://{address}/"));
    until("everything", || state(&sink).waiting == 0);
    assert_eq!(state(&sink).trouble, None);
    let got = lines(&receiver.requests());
    assert_contiguous(&got, 10_000);
    assert_eq!(got.len(), 10_000, "nothing came twice");
    let most = receiver.requests().iter().map(|request| request.body.len()).max().unwrap();
    assert!(most < 2 << 20, "a batch of {most} bytes");
}

#[test]
fn a_receiver_that_hangs_holds_up_neither_writing_nor_stopping() {
    let dir = Dir::new("hangs");
    let receiver = Receiver::start(|_| Reply::Hang);
    let mut sink = webhook(&dir, receiver.url("/"));
    sink.write(&finding(1)).unwrap();
    until("the request", || !receiver.requests().is_empty());
    let start = Instant::now();
    for number in 2..=1000 {
        sink.write(&finding(number)).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(2), "writing took {:?}", start.elapsed());
    let start = Instant::now();
    // Opened anew beside the courier that still waits, as a reload does.
    let good = Receiver::good();
    let second = webhook(&dir, good.url("/"));
    drop(sink);
    assert!(start.elapsed() < Duration::from_secs(2), "stopping took {:?}", start.elapsed());
    until("everything", || state(&second).waiting == 0);
    assert_contiguous(&lines(&good.requests()), 1000);
}

#[test]
fn one_record_that_is_never_taken_is_set_aside_alone() {
    let dir = Dir::new("poison");
    let poison = |request: &Request| {
        let body = String::from_utf8(request.content()).unwrap();
        if body.contains("\"id-37\"") {
            return Reply::Status(400, Vec::new(), b"cannot parse".to_vec());
        }
        Reply::status(200)
    };
    let receiver = Receiver::start(poison);
    let gate = receiver.address;
    // All of them in one batch: written before there is anybody to take them.
    let mut sink = webhook(&dir, "http://127.0.0.1:9/".to_owned());
    for number in 1..=100 {
        sink.write(&finding(number)).unwrap();
    }
    drop(sink);
    let sink = webhook(&dir, format!("http://{gate}/"));
    until("everything", || state(&sink).waiting == 0);
    let state = state(&sink);
    assert_eq!((state.delivered, state.lost), (99, 1), "{state:?}");
    assert!(state.why.contains("1 refused by the receiver"), "{state:?}");
    let folder = dir.spool().join("poison");
    let kept = fs::read_to_string(folder.join("00000000000000000037.records")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&kept).unwrap()["id"], "id-37");
    let why = fs::read_to_string(folder.join("00000000000000000037.why")).unwrap();
    assert_eq!(why, "HTTP 400: cannot parse\n");
    assert!(receiver.requests().len() < 30, "{} requests", receiver.requests().len());
}

#[test]
fn a_receiver_that_refuses_everything_is_not_hammered() {
    let dir = Dir::new("all-refused");
    let receiver = Receiver::start(|_| Reply::status(400));
    let mut sink = webhook(&dir, "http://127.0.0.1:9/".to_owned());
    for number in 1..=5000 {
        sink.write(&finding(number)).unwrap();
    }
    drop(sink);
    let sink = webhook(&dir, receiver.url("/"));
    until("everything", || state(&sink).waiting == 0);
    assert_eq!(state(&sink).lost, 5000);
    assert!(receiver.requests().len() < 100, "{} requests", receiver.requests().len());
}

#[test]
fn too_large_a_batch_goes_in_smaller_ones() {
    let dir = Dir::new("large");
    let receiver = Receiver::start(|request| {
        Reply::status(if request.body.len() > 20_000 { 413 } else { 200 })
    });
    let mut sink = webhook(&dir, "http://127.0.0.1:9/".to_owned());
    for number in 1..=100 {
        sink.write(&finding(number)).unwrap();
    }
    drop(sink);
    let sink = webhook(&dir, receiver.url("/"));
    until("everything", || state(&sink).waiting == 0);
    assert_eq!(state(&sink).lost, 0);
    assert_contiguous(&lines(&receiver.taken()), 100);
}

#[test]
fn a_receiver_that_fails_over_one_record_gets_the_others() {
    let dir = Dir::new("faulty");
    let receiver = Receiver::start(|request| {
        let body = String::from_utf8(request.content()).unwrap();
        Reply::status(if body.contains("\"id-3\"") { 500 } else { 200 })
    });
    let mut sink = webhook(&dir, receiver.url("/"));
    for number in 1..=10 {
        sink.write(&finding(number)).unwrap();
    }
    until("everything", || state(&sink).waiting == 0);
    let state = state(&sink);
    assert_eq!((state.delivered, state.lost), (9, 1), "{state:?}");
}

#[test]
fn retry_after_is_respected() {
    let dir = Dir::new("retry-after");
    let count = AtomicU32::new(0);
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Status(429, vec![("retry-after", "1".to_owned())], Vec::new()),
        _ => Reply::status(200),
    });
    let mut sink = webhook(&dir, receiver.url("/"));
    let start = Instant::now();
    sink.write(&finding(1)).unwrap();
    until("it", || state(&sink).waiting == 0);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn a_token_goes_to_its_address_and_nowhere_else() {
    let dir = Dir::new("token");
    let elsewhere = Receiver::good();
    let to = elsewhere.url("/");
    let moved = Arc::new(AtomicU32::new(1));
    let now = Arc::clone(&moved);
    let receiver = Receiver::start(move |_| match now.load(Ordering::Relaxed) {
        0 => Reply::status(200),
        _ => Reply::Status(308, vec![("location", to.clone())], Vec::new()),
    });
    let token = dir.secret("token", "first\n");
    let setup = Setup { token_file: Some(token), ..setup(receiver.url("/")) };
    let mut sink = webhook_with(&dir, &setup, None);
    sink.write(&finding(1)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    let trouble = state(&sink).trouble.unwrap();
    assert!(trouble.contains("not followed") && trouble.contains("`url`"), "{trouble}");
    assert!(elsewhere.requests().is_empty());
    // Replaced while it runs.
    dir.secret("token", "other\n");
    moved.store(0, Ordering::Relaxed);
    until("it", || state(&sink).waiting == 0);
    let requests = receiver.requests();
    assert_eq!(requests[0].headers["authorization"], "Bearer first");
    assert_eq!(requests.last().unwrap().headers["authorization"], "Bearer other");
}

#[test]
fn a_wrong_token_waits_for_an_operator() {
    let dir = Dir::new("unauthorized");
    let receiver = Receiver::start(|request| {
        let good =
            request.headers.get("authorization").is_some_and(|token| token == "Bearer right");
        Reply::status(if good { 200 } else { 401 })
    });
    let token = dir.secret("token", "wrong");
    let setup = Setup { token_file: Some(token), ..setup(receiver.url("/")) };
    let mut sink = webhook_with(&dir, &setup, None);
    sink.write(&finding(1)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    assert!(state(&sink).trouble.unwrap().contains("is the token right?"));
    dir.secret("token", "right");
    until("it", || state(&sink).waiting == 0);
    assert_eq!(state(&sink).lost, 0);
}

#[test]
fn a_signature_is_over_what_was_received() {
    use base64::Engine;
    use hmac::Mac;
    let (dir, receiver) = (Dir::new("signature"), Receiver::good());
    let key = dir.secret("key", "a-long-random-word");
    let setup = Setup { gzip: true, ..setup(receiver.url("/")) };
    let mut sink = webhook_with(&dir, &setup, Some(&key));
    sink.write(&finding(1)).unwrap();
    until("it", || state(&sink).waiting == 0);
    let request = &receiver.requests()[0];
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"a-long-random-word").unwrap();
    let (id, time) = (&request.headers["webhook-id"], &request.headers["webhook-timestamp"]);
    mac.update(format!("{id}.{time}.").as_bytes());
    mac.update(&request.body);
    let expected = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(request.headers["webhook-signature"], format!("v1,{expected}"));
    assert_eq!(request.headers["content-encoding"], "gzip");
    assert_contiguous(&lines(&receiver.requests()), 1);
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Any::String(text) => Some(text.clone()),
        Any::Int(number) => Some(number.to_string()),
        Any::Bool(yes) => Some(yes.to_string()),
        other => Some(format!("{other:?}")),
    }
}

#[test]
fn otlp_carries_severity_body_attributes_and_resource() {
    let (dir, receiver) = (Dir::new("otlp"), Receiver::good());
    let setup = Setup { gzip: true, ..setup(receiver.url("")) };
    let mut sink = otlp(&dir, &setup);
    sink.write(&finding(1)).unwrap();
    until("it", || state(&sink).waiting == 0);
    let request = &receiver.requests()[0];
    assert_eq!(request.line, "POST /v1/logs HTTP/1.1");
    assert_eq!(request.headers["content-type"], "application/x-protobuf");
    assert_eq!(request.headers["content-encoding"], "gzip");
    let export = ExportLogsServiceRequest::decode(&request.content()[..]).unwrap();
    let [logs] = &export.resource_logs[..] else { panic!("{export:?}") };
    let resource = &logs.resource.as_ref().unwrap().attributes;
    for (key, value) in
        [("service.name", "bpfwatch"), ("host.name", "web-1"), ("os.type", "darwin")]
    {
        assert_eq!(text(resource, key).as_deref(), Some(value));
    }
    let [record] = &logs.scope_logs[0].log_records[..] else { panic!("{export:?}") };
    assert_eq!((record.severity_number, record.severity_text.as_str()), (17, "high"));
    assert_eq!(record.event_name, "bpfwatch.finding");
    assert_eq!(record.time_unix_nano, 1_795_488_317_138_456_000);
    assert!(record.observed_time_unix_nano > record.time_unix_nano / 2);
    let Some(Any::String(body)) = &record.body.as_ref().unwrap().value else {
        panic!("{record:?}")
    };
    assert!(body.starts_with("Packet capture inside a container: "), "{body}");
    for (key, value) in [
        ("log.record.uid", "id-1"),
        ("bpfwatch.seq", "1"),
        ("process.pid", "4242"),
        ("process.executable.path", "/tmp/.cache/tcpdump"),
        ("security_rule.name", "Packet capture inside a container"),
        ("bpfwatch.rule.level", "high"),
        ("bpfwatch.session.promiscuous", "true"),
        ("bpfwatch.session.handle.interface", "lo"),
        ("bpfwatch.scope.kind", "container"),
    ] {
        assert_eq!(text(&record.attributes, key).as_deref(), Some(value), "{key}");
    }
    let mut keys: Vec<_> = record.attributes.iter().map(|attribute| &attribute.key).collect();
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all, "keys of attributes are unique");
}

#[test]
fn every_conventional_name_is_of_a_field_that_exists() {
    let mut known = std::collections::BTreeSet::new();
    fn walk(path: &str, value: &serde_json::Value, known: &mut std::collections::BTreeSet<String>) {
        if let Some(fields) = value.as_object() {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, value, known);
            }
        }
        known.insert(path.to_owned());
    }
    for (_, line) in fixtures::lines() {
        walk("", &serde_json::to_value(&line).unwrap(), &mut known);
    }
    for (native, _) in bpfwatch_delivery::otlp::attributes::NAMES {
        assert!(known.contains(native), "{native}");
    }
}

#[test]
fn a_partial_success_of_otlp_is_counted_and_not_sent_again() {
    let dir = Dir::new("partial");
    let receiver = Receiver::start(|_| {
        let partial = ExportLogsPartialSuccess {
            rejected_log_records: 1,
            error_message: "too old".to_owned(),
        };
        let response = ExportLogsServiceResponse { partial_success: Some(partial) };
        Reply::Status(200, Vec::new(), response.encode_to_vec())
    });
    let mut sink = otlp(&dir, &setup(receiver.url("")));
    sink.write(&finding(1)).unwrap();
    until("it", || state(&sink).waiting == 0);
    let state = state(&sink);
    assert_eq!((state.delivered, state.lost), (0, 1), "{state:?}");
    assert!(state.trouble.unwrap().contains("too old"));
    assert_eq!(receiver.requests().len(), 1);
}

#[test]
fn a_request_goes_through_a_proxy_that_is_named() {
    let (dir, receiver) = (Dir::new("proxy"), Receiver::good());
    // A proxy that answers every CONNECT with a refusal shows that it was asked.
    let proxy = Receiver::start(|_| Reply::status(502));
    let setup = Setup {
        proxy: Proxy::Url(format!("http://{}", proxy.address)),
        ..setup(receiver.url("/"))
    };
    let mut sink = webhook_with(&dir, &setup, None);
    sink.write(&finding(1)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    assert!(receiver.requests().is_empty());
    let asked = &proxy.requests()[0];
    assert!(asked.line.contains(&receiver.address.to_string()), "{}", asked.line);
}

/// An authority, and a certificate of it for a name; PEM of the one, server configuration of the other.
fn authority(name: &str) -> (String, Arc<rustls::ServerConfig>) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(bpfwatch_delivery::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], key)
        .unwrap();
    (ca.pem(), Arc::new(config))
}

#[test]
fn a_certificate_of_a_stranger_is_refused_and_said_clearly() {
    let dir = Dir::new("tls");
    let (ca, server) = authority("localhost");
    let (other_ca, _) = authority("localhost");
    let any = "127.0.0.1:0".parse().unwrap();
    let receiver = Receiver::start_at(any, Some(server), |_| Reply::status(200));
    let url = format!("https://localhost:{}/", receiver.address.port());
    let trusting = |pem: &str| {
        let mut setup = setup(url.clone());
        setup.tls.ca = Some(dir.secret("ca.pem", pem));
        setup
    };
    let wrong = trusting(&other_ca);
    let mut sink = webhook_with(&dir, &wrong, None);
    sink.write(&finding(1)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    let trouble = state(&sink).trouble.unwrap();
    assert!(trouble.contains("certificate of localhost is not from an authority"), "{trouble}");
    assert!(trouble.contains("ca.pem"), "{trouble}");
    assert!(receiver.requests().is_empty(), "nothing was sent to a stranger");
    drop(sink);
    let sink = webhook_with(&dir, &trusting(&ca), None);
    until("it", || state(&sink).waiting == 0);
    assert_contiguous(&lines(&receiver.taken()), 1);
    drop(sink);
    // The right authority, and another name.
    let mut by_address = trusting(&ca);
    by_address.url = format!("https://127.0.0.1:{}/", receiver.address.port());
    let mut sink = webhook_with(&dir, &by_address, None);
    sink.write(&finding(2)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    let trouble = state(&sink).trouble.unwrap();
    assert!(trouble.contains("is not for the name 127.0.0.1"), "{trouble}");
}
