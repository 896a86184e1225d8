//! Text that an attacker chose, from a recording through rules to every output.

#![allow(clippy::unwrap_used, reason = "a failed test is a failed test")]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Runs `bpfwatch replay - ARGUMENTS` on the observations and gives what it printed.
fn replay(observations: &[Value], arguments: &[&str]) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bpfwatch"))
        .args(["replay", "-", "--level", "informational"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let meta = json!({"type": "meta", "schema": 1, "host": "web-1\u{1b}[2J", "os": "linux",
        "boot_id": "b", "bpfwatch": "0.1.0"});
    let mut text = format!("{meta}\n");
    for observation in observations {
        text.push_str(&format!("{observation}\n"));
    }
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A process that attaches a packet socket on every interface, in promiscuous mode.
fn capture(process: &Value) -> Vec<Value> {
    let line = |second: u32, kind: &str| {
        json!({"type": "observation", "at": format!("2026-11-24T02:45:{second:02}Z"), "seq": second,
            "sensor": "test", "kind": kind, "process": process})
    };
    let handle = json!({"kind": "packet_socket", "id": 9, "protocol": "ETH_P_ALL",
        "interface": "eth0\n\u{1b}]0;owned\u{7}", "socket_type": "raw", "filter": false});
    let mut all = vec![line(1, "executed")];
    for (second, kind) in [(2, "handle_opened"), (3, "handle_attached"), (4, "promiscuous")] {
        let mut with_handle = line(second, kind);
        with_handle["handle"] = handle.clone();
        all.push(with_handle);
    }
    all
}

fn findings(output: &str) -> Vec<Value> {
    let lines = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["type"] == "finding").collect()
}

fn hostile() -> Value {
    json!({"pid": 666, "start": 1, "ppid": 1, "uid": 0, "user": "root\nuid=0",
        "image": "/tmp/a\nfinding high \u{1b}[31m\u{202e}gnp.exe\u{9b}2J",
        "args": ["/tmp/a\r\n<34>1 - - forged", "\u{1b}]52;c;aGk=\u{7}", "--password", "hunter2secret"],
        "cwd": {"text": "/tmp/\\xff", "length": 6, "escaped": true},
        "image_writable_dir": true, "scope": {"kind": "container", "id": "\u{1b}[8mhidden"}})
}

#[test]
fn a_terminal_never_gets_a_control_character() {
    let output = replay(&capture(&hostile()), &["--format", "human", "--color", "never"]);
    assert!(output.contains("666"), "{output}");
    let bad: Vec<char> = output
        .chars()
        .filter(|c| *c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(c)))
        .collect();
    assert!(bad.is_empty(), "{bad:?} in {output}");
    assert!(!output.lines().any(|line| line.starts_with("finding high")), "{output}");
}

#[test]
fn a_json_line_stays_one_line_and_keeps_the_name() {
    let output = replay(&capture(&hostile()), &["--format", "json"]);
    let findings = findings(&output);
    assert_eq!(findings.len(), 1, "{output}");
    assert_eq!(findings[0]["process"]["image"], hostile()["image"]);
    assert_eq!(findings[0]["process"]["cwd"], "/tmp/\\xff");
}

#[test]
fn secrets_do_not_leave() {
    for format in ["json", "human"] {
        let output = replay(&capture(&hostile()), &["--format", format]);
        assert!(!output.contains("hunter2secret"), "{output}");
        assert!(output.contains("[redacted]"), "{output}");
    }
}

#[test]
fn two_megabytes_and_ten_thousand_arguments_are_cut_and_said_so() {
    let mut args = vec!["/usr/bin/tcpdump".to_owned()];
    args.extend((0..10_000).map(|n| format!("{n:x>200}")));
    args.push("--interface=eth9".to_owned());
    let process = json!({"pid": 7, "start": 1, "image": "/usr/bin/tcpdump", "args": args});
    let output = replay(&capture(&process), &["--format", "json"]);
    let findings = findings(&output);
    assert_eq!(findings.len(), 1);
    let process = &findings[0]["process"];
    assert_eq!(process["command_line_truncated"], true);
    let line = process["command_line"].as_str().unwrap();
    assert!(line.ends_with("--interface=eth9") && line.len() < 40_000, "{}", line.len());
}

#[test]
fn padding_that_hides_a_flag_is_a_finding_of_its_own() {
    // The telling flag stands in the middle, which no recording keeps.
    let mut args = vec!["/usr/bin/tcpdump".to_owned()];
    args.extend((0..500).map(|n| format!("{n:x>200}")));
    args.push("-w/tmp/x.pcap".to_owned());
    args.extend((0..500).map(|n| format!("{n:y>200}")));
    let process = json!({"pid": 7, "start": 1, "image": "/usr/bin/tcpdump", "args": args});
    let executed = &capture(&process)[..1];
    let found = findings(&replay(executed, &["--format", "json"]));
    assert_eq!(found.len(), 1);
    let mut rules = vec![found[0]["rule"].clone()];
    rules.extend(found[0]["rules"].as_array().into_iter().flatten().cloned());
    let truncated = |rule: &Value| {
        let title = rule["title"].as_str().unwrap_or_default().to_lowercase();
        title.contains("truncated") || title.contains("padded")
    };
    assert!(rules.iter().any(truncated), "{rules:#?}");
}
