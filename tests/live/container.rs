//! Captures inside a container of runc whose root is a folder.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bundle;
use crate::harness::{Running, Scratch, Watch, about, alone};

/// A bundle that runs `command` with the host's programs and what tests write.
pub fn bundle(scratch: &Scratch, command: &[&str], host_network: bool) -> PathBuf {
    let dirs = ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/root", "/tmp"];
    bundle::bundle(&scratch.0, &dirs, command, host_network)
}

#[test]
fn captures_in_a_container() {
    let Some(_alone) = alone("captures_in_a_container", &["runc", "python3", "tcpdump"]) else {
        return;
    };
    let scratch = Scratch::new("container");
    let packet = "import socket,time; s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3)); time.sleep(4) # live-runc-packet";
    let raw = "import socket,time; s=socket.socket(socket.AF_INET,socket.SOCK_RAW,6); time.sleep(4) # live-runc-raw";
    let python = std::fs::canonicalize(crate::harness::find("python3").unwrap()).unwrap();
    let python = python.to_str().unwrap();
    let cases: [(&str, &[&str], bool, &str); 3] = [
        ("live-runc-packet", &[python, "-c", packet], false, "packet_socket"),
        ("live-runc-raw", &[python, "-c", raw], false, "raw_socket"),
        (
            "port 40011",
            &["tcpdump", "-Z", "root", "-n", "-i", "lo", "port 40011"],
            true,
            "packet_socket",
        ),
    ];
    let mut watch = Watch::start(&[]);
    for (mark, command, host_network, kind) in cases {
        let bundle = bundle(&scratch, command, host_network);
        let id = format!("bpfwatch-{}-{}", std::process::id(), kind.len() + mark.len());
        let since = Instant::now();
        let mut run = Command::new("runc");
        let running = Running::start(run.args(["run", "-b"]).arg(&bundle).arg(&id));
        let found = watch.wait_for(since, Duration::from_secs(3), |line| {
            about(line, mark) && line["session"] != Value::Null
        });
        let killed = Command::new("runc").args(["kill", &id, "KILL"]).output().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        drop(running);
        let _ = Command::new("runc").args(["delete", "-f", &id]).output().unwrap();
        let Some((finding, took)) = found else {
            panic!("{mark}: no finding; {killed:?}; {:#?}", watch.seen(|l| about(l, mark)))
        };
        eprintln!("{mark}: {took:?} after runc was started, {}", finding["rule"]["title"]);
        assert_eq!(finding["rule"]["title"], "Packet capture in a container", "{finding:#}");
        assert_eq!(finding["scope"]["kind"], "container", "{finding:#}");
        assert_eq!(finding["scope"]["id"], json!(id), "{finding:#}");
        assert_eq!(finding["session"]["handle"]["kind"], kind);
        watch.read_for(Duration::from_millis(1800));
        assert_eq!(watch.seen(|line| about(line, mark)).len(), 1, "{mark}");
    }
}
