//! SIGHUP: a good configuration is taken whole, a bad one not at all, and nothing is lost meanwhile.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Daemon, folder, is_root, rule, write};

#[test]
fn a_good_one_is_taken_and_a_bad_one_is_not() {
    let daemon = Daemon::start("reload", "");
    daemon.reload("level = \"high\"");
    daemon.wait_for("read the configuration again");
    let status = daemon.status_when(|status| status["reloads_taken"] == 1);
    assert_eq!(status["reload"]["taken"], true);

    // Each refused for another reason; the old one goes on.
    let bad_rules = daemon.dir.join("rules/bad.yml");
    let refused = |count: u64, word: &str| {
        daemon.wait_for("the old one goes on");
        let status = daemon.status_when(|status| status["reloads_refused"] == count);
        assert_eq!(status["reload"]["taken"], false);
        let error = status["reload"]["error"].as_str().unwrap();
        assert!(error.contains(word), "{error}");
        assert_eq!(status["sensors"][0]["running"], true);
        let notice = daemon.line_when(|line| {
            line["type"] == "notice" && line["detail"].as_str().unwrap().contains(word)
        });
        assert_eq!(notice["event"], "reload_refused");
        let beat = |line: &Value| line["type"] == "heartbeat" && line["reload"]["taken"] == false;
        daemon.line_when(|line| beat(line) && line["reload"]["error"].as_str().unwrap() == error);
    };
    daemon.reload("lvel = \"high\"");
    refused(1, "did you mean `level`");
    daemon.reload("[heartbeat]\ninterval_s = \"x\"");
    refused(2, "interval_s");
    daemon.reload("[sensors]\nscan_interval_ms = 777");
    refused(3, "[sensors] cannot change while running");
    let sink = "[[sink]]\nformat = \"json\"\ntransport = \"file\"\npath = \"/nonexistent/x/y\"";
    daemon.reload(sink);
    refused(4, "/nonexistent/x/y");
    write(&bad_rules, "title: [\n");
    std::fs::set_permissions(&bad_rules, std::fs::Permissions::from_mode(0o666)).unwrap();
    daemon.reload("level = \"high\"");
    refused(5, "bad.yml may be written by everybody");

    // A rule that is wrong is left out, and named where findings go.
    std::fs::set_permissions(&bad_rules, std::fs::Permissions::from_mode(0o644)).unwrap();
    daemon.signal("HUP");
    let status = daemon.status_when(|status| status["reloads_taken"] == 2);
    assert_eq!(status["rules_refused"], 1);
    assert!(status["refused_rules"][0].as_str().unwrap().contains("bad.yml"));
    let notice = daemon.line_when(|line| line["event"] == "rules_refused");
    assert!(notice["detail"].as_str().unwrap().contains("bad.yml"), "{notice}");
}

#[test]
fn sinks_that_stay_keep_their_account_and_others_come_and_go() {
    let daemon = Daemon::start("reload-sinks", "");
    let written = |status: &Value| status["sinks"][0]["written"].as_u64().unwrap();
    let before = written(&daemon.status_when(|status| written(status) >= 1));
    let other = daemon.dir.join("other.jsonl");
    let more = format!(
        "[[sink]]\nformat = \"json\"\ntransport = \"file\"\npath = \"{}\"\n",
        other.display()
    );
    daemon.reload(&more);
    let status = daemon.status_when(|status| status["sinks"].as_array().unwrap().len() == 2);
    assert!(status["sinks"][0]["name"].as_str().unwrap().contains("other.jsonl"));
    assert!(status["sinks"][1]["written"].as_u64().unwrap() >= before);
    daemon.status_when(|status| status["sinks"][0]["written"].as_u64().unwrap() >= 1);
    daemon.reload("");
    daemon.status_when(|status| status["sinks"].as_array().unwrap().len() == 1);
    assert!(std::fs::read_to_string(&other).unwrap().contains("heartbeat"));
}

#[test]
fn a_sink_where_the_daemon_may_not_write_any_more_says_what_to_do() {
    let test = "a_sink_where_the_daemon_may_not_write_any_more_says_what_to_do";
    let daemon = Daemon::start("reload-elsewhere", "");
    let confined = |check: &Value| check["name"] == "files" && check["state"] == "ok";
    let status = daemon.status();
    if !status["hardening"].as_array().unwrap().iter().any(confined) {
        return eprintln!("skipped: {test}: needs Landlock: {:#}", status["hardening"]);
    }
    let path = folder("reload-elsewhere-new").join("out.jsonl");
    let sink = format!(
        "[[sink]]\nformat = \"json\"\ntransport = \"file\"\npath = \"{}\"\n",
        path.display()
    );
    daemon.reload(&sink);
    daemon.wait_for("the old one goes on");
    daemon.wait_for("restart it, or name this one in [hardening] writable");
    assert!(!path.exists());
}

/// Processes that live for a moment, each with a mark of its own.
fn start(count: usize, round: usize) -> Vec<Child> {
    let one = |index: usize| {
        let script = format!("sleep 0.4; : reload-mark-{round}-{index}-");
        Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap()
    };
    (0..count).map(one).collect()
}

#[test]
fn nothing_is_lost_while_rules_change_again_and_again() {
    if !is_root("nothing_is_lost_while_rules_change_again_and_again") {
        return;
    }
    let mut daemon =
        Daemon::start("reload-load", "level = \"medium\"\n[heartbeat]\ninterval_s = 1");
    let site = daemon.dir.join("rules/site.yml");
    let rounds = 12;
    let each = 12;
    for round in 0..rounds {
        // Another rule set each time, and each of them matches.
        let level = if round % 2 == 0 { "high" } else { "critical" };
        write(&site, &rule("reload-mark-", level));
        if round == 0 {
            daemon.signal("HUP");
            daemon.status_when(|status| status["reloads_taken"] == 1);
        } else {
            daemon.signal("HUP");
        }
        let children = start(each, round);
        std::thread::sleep(Duration::from_millis(150));
        for mut child in children {
            child.wait().unwrap();
        }
    }
    let status = daemon.status_when(|status| status["reloads_taken"].as_u64().unwrap() >= 2);
    assert_eq!(status["reloads_refused"], 0);
    assert_eq!(status["lost"], 0, "{status:#}");
    let lines = || {
        let mut seen = BTreeSet::new();
        for line in daemon.lines() {
            let Some(command) = line["process"]["command_line"].as_str() else { continue };
            let Some((_, mark)) = command.split_once("reload-mark-") else { continue };
            seen.insert(mark.split('-').take(2).collect::<Vec<_>>().join("-"));
        }
        seen
    };
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while lines().len() < rounds * each && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    let missing: Vec<String> = (0..rounds)
        .flat_map(|round| (0..each).map(move |index| format!("{round}-{index}")))
        .filter(|mark| !lines().contains(mark))
        .collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert_eq!(daemon.stop(), Some(0));
}
