//! Network sinks of a real daemon: a receiver that comes and goes, a daemon that is killed, a reload
//! while findings flow, and a receiver that hangs beside one that does not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Daemon, PATIENCE, is_root, rule, write};
use crate::receiver::{Receiver, Reply, Request};

/// Lines by their number, for each stream; fails where a number is missing or stands for two lines.
fn streams(requests: &[Request]) -> BTreeMap<String, BTreeMap<u64, Value>> {
    let mut streams: BTreeMap<String, BTreeMap<u64, Value>> = BTreeMap::new();
    for request in requests {
        let body: Value = serde_json::from_slice(&request.content()).unwrap();
        let stream = streams.entry(body["stream"].as_str().unwrap().to_owned()).or_default();
        for line in body["lines"].as_array().unwrap() {
            let before = stream.insert(line["seq"].as_u64().unwrap(), line.clone());
            assert!(before.is_none_or(|before| before == *line), "one number, two lines: {line}");
        }
    }
    for numbers in streams.values() {
        let last = *numbers.keys().last().unwrap();
        let missing: Vec<u64> = (1..=last).filter(|seq| !numbers.contains_key(seq)).collect();
        assert!(missing.is_empty(), "missing of {last}: {missing:?}");
    }
    streams
}

/// Marks of the findings among lines.
fn marks(test: &str, streams: &BTreeMap<String, BTreeMap<u64, Value>>) -> BTreeSet<String> {
    let begin = format!("netmark-{test}-");
    let lines = streams.values().flat_map(BTreeMap::values);
    let command = |line: &Value| {
        let command = line["line"]["process"]["command_line"].as_str()?.to_owned();
        command.split(' ').find(|word| word.starts_with(&begin)).map(str::to_owned)
    };
    lines.filter_map(command).collect()
}

/// Executes what the test's rule matches, each of them long enough to be seen with its arguments. `test`
/// tells it from what other tests execute at the same time, which every daemon sees.
fn mark(test: &str, numbers: Range<u32>) {
    let start = |number| {
        let script = format!("sleep 0.4; true netmark-{test}-{number}");
        Command::new("sh").args(["-c", &script]).spawn().unwrap()
    };
    let mut children: Vec<Child> = numbers.map(start).collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
}

fn expected(test: &str, count: u32) -> BTreeSet<String> {
    (0..count).map(|number| format!("netmark-{test}-{number}")).collect()
}

fn spooled(status: &Value) -> u64 {
    let sinks = status["sinks"].as_array().unwrap();
    let webhook = |sink: &&Value| sink["name"].as_str().unwrap().starts_with("webhook");
    sinks.iter().find(webhook).unwrap()["spooled"].as_u64().unwrap()
}

/// A webhook sink; the first line is no key of a sink.
fn webhook(receiver: &Receiver, more: &str) -> String {
    let url = receiver.url("/hook");
    format!("[[sink]]\nformat = \"json\"\ntransport = \"webhook\"\nurl = \"{url}\"\n{more}")
}

fn start(test: &str, sinks: &str) -> Daemon {
    let daemon = Daemon::start(&format!("network-{test}"), sinks);
    write(&daemon.dir.join("rules/mark.yml"), &rule(&format!("netmark-{test}-"), "high"));
    daemon.signal("HUP");
    daemon.wait_for("read the configuration again");
    daemon
}

#[test]
fn nothing_is_lost_over_an_absent_receiver_a_kill_and_a_reload() {
    if !is_root("nothing_is_lost_over_an_absent_receiver_a_kill_and_a_reload") {
        return;
    }
    let receiver = Receiver::good();
    let address = receiver.address;
    let sink = webhook(&receiver, "");
    let mut daemon = start("lost", &sink);
    mark("lost", 0..10);
    let deadline = Instant::now() + PATIENCE;
    while marks("lost", &streams(&receiver.taken())).len() < 10 {
        assert!(Instant::now() < deadline, "{:?}", marks("lost", &streams(&receiver.taken())));
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut taken = receiver.end();

    // Nobody there: it says so, waits, and is killed while it waits.
    mark("lost", 10..30);
    daemon.status_when(|status| spooled(status) >= 20);
    daemon.wait_for("warning: sink webhook");
    daemon.killed_and_started(&sink);

    // Back again, and a reload in the midst of more of it.
    let receiver = Receiver::start_at(address, None, |_| Reply::Slow(Duration::from_millis(5)));
    let packed = webhook(&receiver, "compression = \"gzip\"\n");
    mark("lost", 30..40);
    daemon.reload(&packed);
    mark("lost", 40..60);
    daemon.wait_for("read the configuration again");
    daemon.line_when(|line| line.to_string().contains("netmark-lost-59"));
    daemon.status_when(|status| spooled(status) == 0);
    assert_eq!(daemon.stop(), Some(0));
    taken.extend(receiver.end());
    assert!(taken.iter().any(|request| request.headers.contains_key("content-encoding")));
    let streams = streams(&taken);
    assert_eq!(streams.len(), 1, "one stream over all of it");
    assert_eq!(marks("lost", &streams), expected("lost", 60));
}

#[test]
fn a_receiver_that_hangs_delays_no_other_sink_and_not_the_end() {
    if !is_root("a_receiver_that_hangs_delays_no_other_sink_and_not_the_end") {
        return;
    }
    let (hanging, good) = (Receiver::start(|_| Reply::Hang), Receiver::good());
    let sinks = webhook(&hanging, "") + &webhook(&good, "");
    let mut daemon = start("hangs", &sinks);
    mark("hangs", 0..20);
    daemon.line_when(|line| line.to_string().contains("netmark-hangs-19"));
    let deadline = Instant::now() + PATIENCE;
    while marks("hangs", &streams(&good.taken())) != expected("hangs", 20) {
        assert!(Instant::now() < deadline, "{:?}", marks("hangs", &streams(&good.taken())));
        std::thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    assert_eq!(daemon.stop(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(6), "stopping took {:?}", start.elapsed());
    daemon.wait_for("they stay in the spool");
    // Its first request, the daemon's first heartbeat, was never answered.
    assert_eq!(hanging.taken().len(), 0);
    assert!(!hanging.requests().is_empty());
}

#[test]
fn a_reload_that_is_refused_sends_nothing_and_drops_nothing() {
    if !is_root("a_reload_that_is_refused_sends_nothing_and_drops_nothing") {
        return;
    }
    let (shut, other) = (Receiver::start(|_| Reply::status(503)), Receiver::good());
    // The same spool, of the receiver that is named; the least that it can hold would drop what waits.
    let to = |receiver: &Receiver, more: &str| {
        webhook(receiver, &format!("spool.name = \"one\"\n{more}"))
    };
    let mut daemon = start("refused", &to(&shut, ""));
    mark("refused", 0..20);
    let waiting = spooled(&daemon.status_when(|status| spooled(status) >= 20));
    let nowhere = "[[sink]]\nformat = \"json\"\ntransport = \"file\"\npath = \"/nonexistent/x\"\n";
    daemon.reload(&(to(&other, "spool.max_mib = 1\n") + nowhere));
    daemon.wait_for("the old one goes on");
    mark("refused", 20..30);
    daemon.status_when(|status| spooled(status) >= waiting + 10);
    assert_eq!(other.requests().len(), 0, "sent by a configuration that was refused");
    // Without what was wrong with it.
    daemon.reload(&to(&other, ""));
    daemon.wait_for("read the configuration again");
    daemon.status_when(|status| spooled(status) == 0);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(marks("refused", &streams(&other.taken())), expected("refused", 30));
}

#[test]
fn two_sinks_do_not_share_a_spool() {
    let receiver = Receiver::good();
    let both = webhook(&receiver, "") + &webhook(&receiver, "");
    let dir = crate::harness::folder("network-two");
    let config = dir.join("bpfwatch.toml");
    write(&config, &format!("state_dir = \"{}/state\"\n{both}", dir.display()));
    let output = crate::harness::program().args(["run", "--config"]).arg(&config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("same spool") && said.contains("spool.name"), "{said}");
}

#[test]
fn config_check_tells_what_is_wrong_with_a_receiver() {
    let dir = crate::harness::folder("network-check");
    let config = dir.join("bpfwatch.toml");
    let check = |sink: &str| {
        write(&config, &format!("state_dir = \"{}/state\"\n{sink}", dir.display()));
        let mut command = crate::harness::program();
        let output = command.args(["config", "check", "--config"]).arg(&config).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let otlp = "[[sink]]\ntransport = \"otlp\"\nurl = ";
    for (keys, word) in [
        ("\"collector\"", "like https://host:port/path"),
        ("\"https://user:secret@collector\"", "use `token_file`"),
        ("\"https://collector\"\nca = \"/nonexistent.pem\"", "/nonexistent.pem"),
        ("\"https://collector\"\ntoken_file = \"/nonexistent\"", "/nonexistent"),
        ("\"https://collector\"\nproxy = \"gopher://x\"", "`proxy`"),
    ] {
        let (code, said) = check(&format!("{otlp}{keys}\n"));
        assert!(matches!(code, Some(66 | 74 | 78)), "{code:?}: {said}");
        assert!(said.contains(word), "{said}");
        assert!(!said.contains("secret@"), "{said}");
    }
    // What only the start would find.
    for (keys, word) in [
        (
            "[hardening]\nkeep_capabilities = [\"CAP_DAC_OVERIDE\"]",
            "no capability `CAP_DAC_OVERIDE`",
        ),
        ("[[input]]\npath = \"/var/log/audit.log\"\nformat = \"audit\"", "/var/log/audit.log"),
    ] {
        let (code, said) = check(keys);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(word) && said.contains("next: "), "{said}");
    }
    for format in ["auditd", "evtx", "bsm", "bsm-macos"] {
        let (code, said) =
            check(&format!("[[input]]\npath = \"/nonexistent\"\nformat = \"{format}\""));
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = check(&format!("{otlp}\"http://127.0.0.1:4318\"\n"));
    assert_eq!(code, Some(0), "{said}");
    assert!(!dir.join("state").exists(), "looking makes nothing");
}
