//! `limit` of a sink: what is too long arrives cut, says so, and is still one whole record.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Instant;

use serde_json::Value;

use crate::harness::{Daemon, PATIENCE, is_root, rule, write};

/// Lowest `limit` for JSON.
const LIMIT: usize = 4496;

#[test]
fn a_long_command_line_arrives_cut_within_the_limit() {
    if !is_root("a_long_command_line_arrives_cut_within_the_limit") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, frames) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let mut length = Vec::new();
            // RFC 6587, 3.4.1.
            while reader.read_until(b' ', &mut length).is_ok_and(|count| count > 0) {
                let count = String::from_utf8_lossy(&length).trim().parse().unwrap();
                let mut frame = vec![0; count];
                reader.read_exact(&mut frame).unwrap();
                length.clear();
                if sender.send(String::from_utf8(frame).unwrap()).is_err() {
                    return;
                }
            }
        }
    });
    let sink = |limit: usize| {
        format!(
            "[[sink]]\nformat = \"json\"\ntransport = \"tcp\"\naddress = \"{address}\"\nlimit = {limit}\n"
        )
    };
    let daemon = Daemon::start("limit", &sink(LIMIT));
    write(&daemon.dir.join("rules/mark.yml"), &rule("limit-mark", "high"));
    daemon.signal("HUP");
    daemon.wait_for("read the configuration again");
    let finding = |mark: &str| {
        let padding = "pad ".repeat(4000);
        let script = format!("sleep 0.4; : {mark} {padding}");
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = frames.recv_timeout(left).unwrap();
            if frame.contains(mark) {
                let json = &frame[frame.find('{').unwrap()..];
                break (frame.len(), serde_json::from_str::<Value>(json).unwrap());
            }
        }
    };
    let (length, cut) = finding("limit-mark-1");
    assert!(length <= LIMIT, "{length}");
    assert_eq!(cut["cut"], true);
    assert_eq!(cut["id"].as_str().unwrap().len(), 36, "ids are whole");
    assert_eq!(cut["rule"]["title"], "Marked limit-mark");
    let command = cut["process"]["command_line"].as_str().unwrap();
    assert!(command.contains('…') && command.starts_with("sh -c "), "{command}");
    // In the file, which has room for it, it is whole.
    let whole = daemon.line_when(|line| line["id"] == cut["id"]);
    assert!(whole["cut"].is_null() && whole.to_string().len() > 16_000);

    // Another limit takes effect with a reload.
    daemon.reload(&sink(32 * 1024));
    daemon.wait_for("read the configuration again");
    let (length, whole) = finding("limit-mark-2");
    assert!(length > LIMIT && whole["cut"].is_null(), "{length}");
}
