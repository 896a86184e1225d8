//! `[[input]]`: files that grow beside what the sensors see, through rotation and a restart.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::Value;

use crate::harness::{Daemon, folder, is_root};

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn command(host: &str) -> String {
    format!(
        "<189>1: {host}: Nov 24 02:45:17: %PARSER-5-CFGLOG_LOGGEDCMD: User:eve  logged command:monitor capture {host} start\n"
    )
}

fn of(host: &'static str) -> impl Fn(&Value) -> bool {
    move |line| line["type"] == "finding" && line["host"]["name"] == host
}

#[test]
fn a_file_is_followed_through_rotation_and_a_restart() {
    if !is_root("a_file_is_followed_through_rotation_and_a_restart") {
        return;
    }
    let logs = folder("inputs-logs");
    let log = logs.join("routers.log");
    append(&log, &command("before"));
    let input = format!("[[input]]\npath = \"{}\"", log.display());
    let mut daemon = Daemon::start("inputs", &input);
    let watches = |status: &Value| {
        let sensors = status["sensors"].as_array().cloned().unwrap_or_default();
        sensors.iter().any(|sensor| sensor["name"] == "inputs" && sensor["running"] == true)
    };
    daemon.status_when(watches);
    // It has looked at the file by then: what comes now is new.
    std::thread::sleep(std::time::Duration::from_secs(1));
    append(&log, &command("first"));
    let finding = daemon.line_when(of("first"));
    assert_eq!(finding["host"]["os"], "cisco");
    assert_eq!(finding["record"]["subject"], "eve");
    assert_eq!(finding["record"]["message"], "monitor capture first start");

    fs::rename(&log, logs.join("routers.log.1")).unwrap();
    append(&log, &command("second"));
    daemon.line_when(of("second"));

    fs::copy(&log, logs.join("routers.log.2")).unwrap();
    OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
    append(&log, &command("third"));
    daemon.line_when(of("third"));
    daemon.line_when(|line| {
        line["type"] == "lost" && line["why"].as_str().unwrap().contains("truncated")
    });

    // Ended, written to meanwhile, started again: it goes on where it was.
    assert_eq!(daemon.stop(), Some(0));
    append(&log, &command("fourth"));
    daemon.killed_and_started(&input);
    daemon.line_when(of("fourth"));
    let hosts =
        |name: &str| daemon.lines().iter().filter(|line| line["host"]["name"] == name).count();
    assert_eq!(hosts("before"), 0);
    assert_eq!(hosts("third"), 1);
    let _ = fs::remove_dir_all(&logs);
}

/// A file of the replay cases, unpacked.
fn case(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    let file = fs::read(path).unwrap();
    if !name.ends_with(".gz") {
        return file;
    }
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&file[..]).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn binary_files_are_followed_through_a_restart() {
    if !is_root("binary_files_are_followed_through_a_restart") {
        return;
    }
    let logs = folder("inputs-binary");
    let (evtx, bsm) = (logs.join("Sysmon.evtx"), logs.join("current"));
    let input = format!(
        "[[input]]\npath = \"{}\"\n[[input]]\npath = \"{}\"\nhost = \"bsd-1\"\n",
        evtx.display(),
        bsm.display()
    );
    let (windows, trail) =
        (case("windows_event_log/input.evtx.gz"), case("freebsd_audit_trail/input.bsm"));
    let mut daemon = Daemon::start("inputs-binary", &input);
    // Within the fifth record, after an execution and before what process 161 does.
    let (start, end) = trail.split_at(650);
    fs::write(&evtx, &windows).unwrap();
    fs::write(&bsm, start).unwrap();
    daemon.line_when(of("WS03.corp.example"));
    let finding = daemon.line_when(of("bsd-1"));
    assert_eq!(finding["host"]["os"], "freebsd");
    assert_eq!(daemon.stop(), Some(0));

    let by = |host: &'static str, pid: u32| {
        move |line: &Value| of(host)(line) && line["process"]["pid"] == pid
    };
    let count = |daemon: &Daemon, host: &'static str, pid: u32| {
        daemon.lines().iter().filter(|line| by(host, pid)(line)).count()
    };
    let before = (count(&daemon, "WS03.corp.example", 4300), count(&daemon, "bsd-1", 97));
    assert_eq!((before, count(&daemon, "bsd-1", 161)), ((1, 1), 0));
    OpenOptions::new().append(true).open(&bsm).unwrap().write_all(end).unwrap();
    // The same records in another file, as a newer copy is.
    let copy = logs.join("copy");
    fs::write(&copy, &windows).unwrap();
    fs::rename(&copy, &evtx).unwrap();
    daemon.killed_and_started(&input);
    daemon.line_when(by("bsd-1", 161));
    std::thread::sleep(std::time::Duration::from_secs(2));
    let after = (count(&daemon, "WS03.corp.example", 4300), count(&daemon, "bsd-1", 97));
    assert_eq!(after, before);
    assert!(daemon.lines().iter().all(|line| line["type"] != "lost"), "{:#?}", daemon.lines());
    assert_eq!(daemon.stop(), Some(0));
    let _ = fs::remove_dir_all(&logs);
}
