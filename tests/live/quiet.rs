//! What must stay quiet: programs that use raw or packet sockets for their daily work.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Running, Scratch, Watch, about, alone, find, python, python_command};

/// A filter that accepts a prefix of each packet: attached is what matters here.
const FILTER: &str = "
import ctypes
code = (ctypes.c_char * 8)(*struct.pack('HBBI', 6, 0, 0, 64))
s.setsockopt(socket.SOL_SOCKET, 26, struct.pack('HL', 1, ctypes.addressof(code)))
s.bind(('lo', PROTOCOL))";

#[test]
fn everyday_programs() {
    let Some(_alone) = alone("everyday_programs", &["python3", "ping"]) else { return };
    let scratch = Scratch::new("quiet");
    let mut watch = Watch::start(&["--level", "informational"]);
    let mut marks = Vec::new();
    for (tool, arguments) in [
        ("ping", &["-c", "2", "-i", "0.2", "127.0.0.1"][..]),
        ("traceroute", &["-m", "2", "127.0.0.1"]),
        ("mtr", &["-r", "-c", "2", "127.0.0.1"]),
    ] {
        if find(tool).is_none() {
            eprintln!("skipped in part: everyday_programs: {tool} is not installed");
            continue;
        }
        let _ = Command::new(tool).args(arguments).output().unwrap();
        marks.push(tool);
    }
    if let Some(iptables) = find("iptables-legacy") {
        for _ in 0..20 {
            let _ = Command::new(&iptables).args(["-w", "-L", "-n"]).output().unwrap();
        }
        marks.push("iptables");
    } else {
        eprintln!("skipped in part: everyday_programs: iptables-legacy is not installed");
    }
    let mut running = Vec::new();
    for (mark, protocol) in [("live-arp", "0x0806"), ("live-lldp", "0x88cc")] {
        let open = "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)".to_owned()
            + &FILTER.replace("PROTOCOL", protocol);
        let program = python(&scratch, mark, &open);
        running.push(Running::start(&mut python_command(&program)));
        marks.push(mark);
    }
    watch.read_for(Duration::from_millis(2500));
    for mark in marks {
        let loud: Vec<&Value> =
            watch.seen(|line| about(line, mark) && line["rule"]["level"] != "informational");
        assert!(loud.is_empty(), "{mark}: {loud:#?}");
    }
}

#[test]
fn namespaces_that_come_and_go_are_let_go_of() {
    let Some(_alone) = alone("namespaces_that_come_and_go", &["ip"]) else { return };
    let watch = Watch::start(&[]);
    let id = std::process::id();
    let before = veths(id);
    for n in 0..100 {
        let name = format!("bpfw{id}-{n}");
        let veth = format!("v{id}x{n}");
        let ip = |arguments: &[&str]| {
            assert!(
                Command::new("ip").args(arguments).status().unwrap().success(),
                "{arguments:?}"
            );
        };
        ip(&["netns", "add", &name]);
        ip(&["link", "add", &veth, "type", "veth", "peer", "name", "eth0", "netns", &name]);
        ip(&["netns", "del", &name]);
    }
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(veths(id), before, "a namespace is kept alive");
    drop(watch);
}

fn veths(id: u32) -> usize {
    let prefix = format!("v{id}x");
    let names = std::fs::read_dir("/sys/class/net").unwrap();
    names
        .filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with(&prefix))
        .count()
}
