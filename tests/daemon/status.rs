//! `bpfwatch status`: what it shows, to whom, and that nobody can hold it up.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::harness::{Daemon, ask, folder, is_root, program};

#[test]
fn it_tells_of_everything() {
    let mut daemon = Daemon::start("status", "");
    let status = daemon.status_when(|status| !status["sinks"][0]["last_delivery"].is_null());
    assert_eq!(status["type"], "status");
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["sensors"][0]["running"], true);
    assert!(status["sources"].as_array().unwrap().len() > 5);
    assert!(status["coverage"]["ok"].as_u64().unwrap() > 0);
    assert!(status["rules_loaded"].as_u64().unwrap() > 50);
    assert_eq!(status["rules_refused"], 0);
    assert!(status["files"][0].as_str().unwrap().ends_with("bpfwatch.toml"));
    for key in [
        "uptime_s",
        "observations",
        "findings",
        "withheld",
        "folded",
        "forgotten",
        "lost",
        "backlog_bytes",
        "backlog_limit_bytes",
        "lag_ms",
        "reloads_taken",
        "reloads_refused",
    ] {
        assert!(status[key].is_u64(), "{key} in {status:#}");
    }
    assert!(status["withheld_by"].is_array());

    let human = ask(&daemon.socket());
    assert!(human.status.success());
    let text = String::from_utf8(human.stdout).unwrap();
    for word in ["daemon", "sensor", "sources", "engine", "findings", "rules", "sink"] {
        assert!(text.contains(&format!("\n{word} ")) || text.starts_with(word), "{word}: {text}");
    }
    assert!(!text.contains("unknown"), "{text}");

    // A second one at the same socket goes without, and takes nothing from the first.
    let second = program()
        .args(["status", "--config"])
        .arg(daemon.dir.join("bpfwatch.toml"))
        .output()
        .unwrap();
    assert!(second.status.success(), "{second:?}");
    assert_eq!(daemon.stop(), Some(0));
    assert!(!daemon.socket().exists());
    let gone = ask(&daemon.socket());
    assert_eq!(gone.status.code(), Some(69));
    let error = String::from_utf8(gone.stderr).unwrap();
    assert!(error.contains("no daemon answers") && error.contains("next: "), "{error}");
}

#[test]
fn clients_that_hang_hold_nobody_up() {
    let daemon = Daemon::start("status-hang", "");
    let hung: Vec<_> = (0..100).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
    let start = Instant::now();
    daemon.status();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(hung);
    daemon.status();
}

#[test]
fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
    let daemon = Daemon::start("status-left", "");
    // As after a crash.
    daemon.signal("KILL");
    std::thread::sleep(Duration::from_millis(200));
    assert!(daemon.socket().exists());
    let dir = daemon.dir.clone();
    let file = dir.join("bpfwatch.toml");
    let restart = |name: &str| {
        let out = std::fs::File::create(dir.join(name)).unwrap();
        let mut command = program();
        Killed(command.args(["run", "--config"]).arg(&file).stderr(out).spawn().unwrap())
    };
    let next = restart("second");
    let deadline = Instant::now() + crate::harness::PATIENCE;
    while !ask(&daemon.socket()).status.success() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    let _third = restart("third");
    let deadline = Instant::now() + crate::harness::PATIENCE;
    while !std::fs::read_to_string(dir.join("third")).unwrap().contains("started") {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = std::fs::read_to_string(dir.join("third")).unwrap();
    assert!(said.contains("another bpfwatch answers there"), "{said}");
    assert_eq!(daemon.status()["pid"], next.0.id());
}

/// A daemon that does not outlive its test, however that ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn only_root_is_answered() {
    let test = "only_root_is_answered";
    if !is_root(test) {
        return;
    }
    let daemon = Daemon::start("status-peer", "");
    // nobody, where file permissions would let him.
    let mode = std::fs::Permissions::from_mode;
    let as_nobody = || {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(env!("CARGO_BIN_EXE_bpfwatch"))
            .args(["status", "--socket"])
            .arg(daemon.socket())
            .output()
    };
    let refused = match as_nobody() {
        Ok(output) if output.status.code() != Some(126) && output.status.code() != Some(127) => {
            output
        }
        _ => return eprintln!("skipped: {test}: setpriv is not there, or nobody cannot run it"),
    };
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    let run = daemon.dir.join("run");
    assert_eq!(std::fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(daemon.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&run, mode(0o755)).unwrap();
    std::fs::set_permissions(daemon.socket(), mode(0o666)).unwrap();
    let refused = as_nobody().unwrap();
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    assert!(refused.stdout.is_empty());
    daemon.wait_for("user 65534 asked for the status");
    daemon.status();
}

#[test]
fn without_a_socket_there_is_an_error_that_says_what_to_do() {
    let dir = folder("status-none");
    let missing = ask(&dir.join("status.sock"));
    assert_eq!(missing.status.code(), Some(69));
    let config = dir.join("off.toml");
    crate::harness::write(&config, "[status]\nsocket = \"\"\n");
    let off = program().args(["status", "--config"]).arg(&config).output().unwrap();
    assert_eq!(off.status.code(), Some(78));
}
