//! The figures for Prometheus, checked by a parser that takes only what the exposition format 0.0.4
//! and the naming conventions allow.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::harness::{Daemon, PATIENCE};

/// Families by name: kind, and samples by their labels.
type Families = BTreeMap<String, (String, BTreeMap<String, f64>)>;

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Labels between braces: names, and values with the three escapes.
fn check_labels(text: &str) {
    let mut names = BTreeSet::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect("a label has a value");
        assert!(is_name(name) && !name.starts_with("__"), "{name}");
        assert!(names.insert(name), "{name} twice");
        let mut escaped = false;
        let end = after
            .char_indices()
            .find(|(_, c)| {
                let end = *c == '"' && !escaped;
                if escaped {
                    assert!(matches!(c, '\\' | '"' | 'n'), "escape in {after}");
                }
                escaped = *c == '\\' && !escaped;
                end
            })
            .map(|(at, _)| at)
            .expect("a value ends");
        rest = &after[end + 1..];
        if let Some(more) = rest.strip_prefix(',') {
            assert!(!more.is_empty());
            rest = more;
        }
    }
}

fn parse(text: &str) -> Families {
    assert!(text.ends_with('\n'));
    let mut families = Families::new();
    let mut helped = String::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !words.is_empty(), "{line}");
            name.clone_into(&mut helped);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "HELP stands before TYPE");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(name.starts_with("bpfwatch_"), "{line}");
            let before = families.insert(name.to_owned(), (kind.to_owned(), BTreeMap::new()));
            assert!(before.is_none(), "{name} twice");
            name.clone_into(&mut current);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
                None => (series, ""),
            };
            assert_eq!(name, current, "samples follow their TYPE");
            check_labels(labels);
            let (kind, samples) = families.get_mut(name).unwrap();
            assert!(kind != "counter" || value >= 0.0, "{line}");
            assert!(samples.insert(labels.to_owned(), value).is_none(), "{series} twice");
        }
    }
    families
}

fn value(families: &Families, name: &str, labels: &str) -> f64 {
    families[name].1[labels]
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn request(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_checker_finds_faults() {
    let good = "# HELP bpfwatch_x_total X.\n# TYPE bpfwatch_x_total counter\n";
    parse(&format!("{good}bpfwatch_x_total{{a=\"b\\\\\\\"\\n\",c=\"d\"}} 1\n"));
    for bad in [
        "bpfwatch_x_total 1\n".to_owned(),
        format!("{good}bpfwatch_x_total -1\n"),
        format!("{good}bpfwatch_x_total x\n"),
        format!("{good}bpfwatch_x_total 1\nbpfwatch_x_total 2\n"),
        format!("{good}bpfwatch_x_total{{a=\"b}} 1\n"),
        format!("{good}bpfwatch_x_total{{a=\"\\q\"}} 1\n"),
        format!("{good}bpfwatch_y_total 1\n"),
        good.replace("counter", "gauge"),
        good.replace("_total", ""),
        format!("{good}{good}"),
        good.trim_end().to_owned(),
    ] {
        assert!(std::panic::catch_unwind(|| parse(&bad)).is_err(), "{bad}");
    }
}

#[test]
fn file_and_listener_give_the_same_valid_families() {
    let address = free();
    let dir = crate::harness::folder("metrics-file");
    let file = dir.join("bpfwatch.prom");
    let more = format!(
        "[metrics]\ntextfile = \"{}\"\nlisten = \"{address}\"\ninterval_s = 1\n",
        file.display()
    );
    let daemon = Daemon::start("metrics", &more);
    daemon.status_when(|status| !status["sinks"][0]["last_delivery"].is_null());
    let answer = request(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    let served = parse(body);
    assert_eq!(value(&served, "bpfwatch_sensor_up", "sensor=\"linux\""), 1.0);
    assert!(value(&served, "bpfwatch_rules", "state=\"loaded\"") > 50.0);
    let sink = format!("sink=\"file {}\"", daemon.dir.join("out.jsonl").display());
    assert!(value(&served, "bpfwatch_sink_written_total", &sink) >= 1.0);
    assert!(served["bpfwatch_build_info"].1.keys().next().unwrap().starts_with("version="));

    // Replaced whole, readable for the collector, and nothing beside it.
    let deadline = Instant::now() + PATIENCE;
    let first = std::fs::read_to_string(&file).unwrap();
    while std::fs::read_to_string(&file).unwrap() == first {
        assert!(Instant::now() < deadline, "it is not written again");
        std::thread::sleep(Duration::from_millis(50));
    }
    let written = parse(&std::fs::read_to_string(&file).unwrap());
    let names = |families: &Families| families.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&served));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);

    daemon.reload("level = \"nonsense\"");
    daemon.status_when(|status| status["reloads_refused"] == 1);
    std::thread::sleep(Duration::from_millis(300));
    let answer = request(address, "GET /metrics HTTP/1.0\r\n\r\n");
    let served = parse(answer.split_once("\r\n\r\n").unwrap().1);
    assert_eq!(value(&served, "bpfwatch_last_reload_successful", ""), 0.0);
    assert_eq!(value(&served, "bpfwatch_reloads_total", "result=\"refused\""), 1.0);
}

#[test]
fn the_listener_knows_one_request_and_waits_for_nobody() {
    let address = free();
    let daemon = Daemon::start("metrics-listen", &format!("[metrics]\nlisten = \"{address}\"\n"));
    for (text, code) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("nonsense\r\n\r\n", "400"),
        ("\r\n\r\n", "400"),
    ] {
        let answer = request(address, text);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{text}: {answer}");
    }
    // Larger than anything that is read: refused, by an answer or by a closed connection.
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = stream.write_all(&vec![b'x'; 1 << 20]);
    drop(stream);
    // Many that say nothing: for a second there may be no place, then there is one.
    let hung: Vec<_> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
        let mut answer = String::new();
        if stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200 ") {
            break;
        }
        assert!(Instant::now() < deadline, "they hold it up");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(hung);
    daemon.status();
}
