//! The command line from outside: what the real program prints and exits with.
//!
//! Needs no privileges: live commands are tried in `live.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails is a test that fails; the exemption covers only test functions"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A finished run.
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("ended by a signal"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks the exit code; shows everything when it is another one.
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfwatch"));
    command.stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

fn run(args: &[&str]) -> Run {
    Run::of(program().args(args).output().unwrap())
}

fn run_with_input(args: &[&str], input: &str) -> Run {
    let mut child = program()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Run::of(child.wait_with_output().unwrap())
}

/// A directory of its own for a test, writable by its owner alone.
fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

const META: &str =
    r#"{"type":"meta","schema":1,"host":"web-1","os":"linux","boot_id":"b1","bpfwatch":"0.1.0"}"#;

/// One process that executes, opens a packet socket on eth0 and closes it again.
fn recording() -> String {
    let process = r#""process":{"pid":4242,"start":9,"ppid":1,"uid":0,"user":"root","name":"sniffer","image":"/tmp/sniffer","args":["/tmp/sniffer","-i","eth0"],"image_writable_dir":true,"scope":{"kind":"host"}}"#;
    let handle = r#","handle":{"kind":"packet_socket","id":77,"interface":"eth0","protocol":"ETH_P_ALL","socket_type":"raw"}"#;
    let line = |at: &str, seq: u32, kind: &str, rest: &str| {
        format!(
            r#"{{"type":"observation","at":"2026-11-24T02:45:{at}Z","seq":{seq},"sensor":"test","kind":"{kind}",{process}{rest}}}"#
        )
    };
    let lines = [
        META.to_owned(),
        line("17.000000", 0, "executed", ""),
        line("17.010000", 1, "handle_opened", handle),
        line("17.020000", 2, "handle_attached", handle),
        line("19.000000", 3, "handle_closed", handle),
    ];
    lines.join("\n") + "\n"
}

const RULE: &str = "\
title: Sniffer of the tests
id: 0b6f3f0a-6d0e-4b5e-9a53-0a9c4f1f7c11
status: test
description: Matches the recording of the tests.
author: bpfwatch
date: 2026-11-24
logsource:
    category: packet_capture
detection:
    selection:
        Image|endswith: /sniffer
        CurrentStage: attached
    condition: selection
level: critical
";

#[test]
fn every_command_has_help_with_an_example() {
    let commands: [&[&str]; 19] = [
        &["scan"],
        &["watch"],
        &["run"],
        &["status"],
        &["replay"],
        &["rules", "list"],
        &["rules", "check"],
        &["rules", "explain"],
        &["rules", "test"],
        &["rules", "docs"],
        &["rules", "navigator"],
        &["doctor"],
        &["emulate"],
        &["baseline"],
        &["config", "check"],
        &["config", "default"],
        &["mdm-profile"],
        &["completions"],
        &["man"],
    ];
    let top = run(&["--help"]).exits(0);
    assert!(top.out.contains("Exit codes:") && top.out.contains("  78  "), "{}", top.out);
    for command in commands {
        let help = run(&[command, &["--help"]].concat()).exits(0);
        assert!(help.out.contains("Example"), "{command:?}:\n{}", help.out);
        let line = format!("  bpfwatch {}", command.join(" "));
        assert!(help.out.contains(&line), "{command:?}:\n{}", help.out);
        assert!(help.out.lines().all(|line| line.chars().count() <= 100), "{command:?}");
        assert!(top.out.contains(&format!("\n  {} ", command[0])), "{command:?} is not listed");
    }
}

#[test]
fn a_baseline_is_learnt_from_recordings() {
    let dir = folder("baseline");
    let capture = |image: &str, unit: &str, handle: u64| {
        let process = format!(
            r#"{{"pid":{handle},"start":1,"ppid":1,"uid":0,"image":"{image}","args":["{image}"],"image_owner":0,"image_deleted":false,"image_writable_dir":false,"unit":"{unit}","scope":{{"kind":"host"}}}}"#
        );
        let handle = format!(
            r#"{{"kind":"packet_socket","id":{handle},"protocol":"ETH_P_ALL","socket_type":"raw","interface":"eth0"}}"#
        );
        let line = |kind: &str, at: u32| {
            format!(
                r#"{{"type":"observation","at":"2026-11-24T08:00:0{at}Z","sensor":"t","kind":"{kind}","process":{process},"handle":{handle}}}"#
            )
        };
        format!("{}\n{}\n", line("handle_opened", 1), line("handle_attached", 1))
    };
    let recorded = format!(
        "{META}\n{}{}",
        capture("/usr/sbin/flowd", "flowd.service", 7),
        capture("/opt/x", "session-1.scope", 8)
    );
    let recording = file(&dir, "monday.jsonl", &recorded);
    let learnt = dir.join("learnt.yml").display().to_string();
    let made = run(&["baseline", &recording, "--output", &learnt]).exits(0);
    assert!(made.err.contains("1 filter, 1 commented out"), "{}", made.err);
    assert!(made.out.is_empty());
    run(&["rules", "check", &learnt]).exits(0);

    let before = run(&["replay", &recording, "--format", "json"]).exits(0);
    let after = run(&["replay", &recording, "--format", "json", "--rules", &learnt]).exits(0);
    assert!(before.out.contains("/usr/sbin/flowd") && before.out.contains("/opt/x"));
    assert!(
        !after.out.contains("/usr/sbin/flowd") && after.out.contains("/opt/x"),
        "{}",
        after.out
    );

    // What is there is not overwritten, and nothing is learnt before that is known.
    let again = run(&["baseline", &recording, "--output", &learnt]);
    assert_ne!(again.code, 0);
    assert!(again.err.contains("learnt.yml"), "{}", again.err);
}

#[test]
fn a_profile_for_mdm_carries_the_settings_of_the_file() {
    let dir = folder("mdm");
    let config = file(&dir, "fleet.toml", "level = \"high\"\n[heartbeat]\ninterval_s = 60\n");
    let made = run(&["mdm-profile", "--team-id", "ABCDE12345", "--config", &config]).exits(0);
    let wanted = "<key>interval_s</key>\n\t\t\t\t<integer>60</integer>";
    assert!(
        made.out.contains("<string>high</string>") && made.out.contains(wanted),
        "{}",
        made.out
    );
    let wrong = file(&dir, "wrong.toml", "lvel = \"high\"\n");
    let refused = run(&["mdm-profile", "--team-id", "ABCDE12345", "--config", &wrong]).exits(78);
    assert!(refused.err.contains("did you mean `level`?"), "{}", refused.err);
    run(&["mdm-profile", "--team-id", "abc"]).exits(64);
}

#[test]
fn a_wrong_command_line_exits_with_64() {
    for args in [
        &["scna"][..],
        &[],
        &["scan", "--no-such-flag"],
        &["scan", "--format", "xml"],
        &["watch", "--for", "soon"],
        &["replay"],
        &["replay", "x", "--os", "plan9"],
        &["replay", "x", "--level", "loud"],
        &["emulate"],
        &["emulate", "open", "--hold", "1h"],
        &["emulate", "no-such-technique"],
    ] {
        let run = run(args);
        assert_eq!(run.code, 64, "{args:?}: {}", run.err);
        assert!(run.out.is_empty() && !run.err.is_empty(), "{args:?}");
    }
    assert!(run(&["scna"]).err.contains("scan"), "the nearest command is named");
    assert!(run(&["--version"]).exits(0).out.starts_with("bpfwatch "));
}

#[test]
fn the_default_configuration_checks() {
    let dir = folder("config-default");
    let text = run(&["config", "default"]).exits(0).out;
    let config = file(&dir, "bpfwatch.toml", &text);
    let check = run(&["config", "check", "--config", &config]).exits(0);
    assert!(check.out.contains("good"), "{}", check.out);
}

#[test]
fn a_wrong_key_is_named_with_its_place() {
    let dir = folder("config-wrong");
    let config = file(&dir, "typo.toml", "redact = true\n\n[sensors]\nscan_intervall_ms = 500\n");
    for args in [&["config", "check", "--config", &config][..], &["run", "--config", &config]] {
        let refused = run(args).exits(78);
        assert!(refused.err.contains("typo.toml:4: "), "{}", refused.err);
        assert!(refused.err.contains("`scan_intervall_ms`"), "{}", refused.err);
        assert!(refused.err.contains("did you mean `scan_interval_ms`?"), "{}", refused.err);
    }
    let missing = dir.join("missing.toml").display().to_string();
    run(&["config", "check", "--config", &missing]).exits(66);
    run(&["run", "--config", &missing]).exits(66);
}

#[test]
fn what_others_may_write_is_refused() {
    let dir = folder("config-open");
    let config = file(&dir, "open.toml", "");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
    for args in [&["config", "check", "--config", &config][..], &["run", "--config", &config]] {
        let refused = run(args).exits(78);
        assert!(refused.err.contains("open.toml may be written by everybody"), "{}", refused.err);
        assert!(refused.err.contains("next: "), "{}", refused.err);
    }
    let rules = dir.join("rules");
    fs::create_dir(&rules).unwrap();
    let text = format!("[rules]\ndirs = [{:?}]\n", rules.display().to_string());
    let config = file(&dir, "rules.toml", &text);
    fs::set_permissions(&rules, fs::Permissions::from_mode(0o755)).unwrap();
    run(&["config", "check", "--config", &config]).exits(0);
    fs::set_permissions(&rules, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = run(&["config", "check", "--config", &config]).exits(78);
    assert!(refused.err.contains("rules may be written by everybody"), "{}", refused.err);
    // A good file in a directory where others could put another one in its place.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    run(&["config", "check", "--config", &config]).exits(78);
}

#[test]
fn each_kind_of_wrong_configuration_names_its_place_and_what_to_do() {
    let dir = folder("config-table");
    let sink = |rest: &str| format!("[[sink]]\nformat = \"json\"\n{rest}\n");
    // Text, line, a word of the message, a word of the advice.
    let table = [
        ("level = ".to_owned(), 1, "value", "config default"),
        ("redact = true\nredact = false\n".to_owned(), 2, "duplicate", "config default"),
        ("\nlvel = \"low\"\n".to_owned(), 2, "`lvel`", "`level`"),
        ("[sensor]\n".to_owned(), 1, "`sensor`", "`sensors`"),
        ("[metrics]\nintervals = 3\n".to_owned(), 2, "`intervals`", "`interval_s`"),
        ("level = \"urgent\"\n".to_owned(), 1, "critical", "config default"),
        ("level = 3\n".to_owned(), 1, "`level`: wanted string", "config default"),
        ("redact = \"yes\"\n".to_owned(), 1, "`redact`: invalid type", "config default"),
        ("[sensors]\nscan_interval_ms = 1\n".to_owned(), 2, "50 to 3600000", "config default"),
        ("[heartbeat]\ninterval_s = -1\n".to_owned(), 2, "-1", "config default"),
        ("[rules]\ndirs = [\"rules\"]\n".to_owned(), 2, "absolute", "config default"),
        ("[status]\nsocket = \"s.sock\"\n".to_owned(), 2, "absolute", "config default"),
        ("[metrics]\ntextfile = \"/x/y.txt\"\n".to_owned(), 2, ".prom", "config default"),
        ("[metrics]\nlisten = \"0.0.0.0:1\"\n".to_owned(), 2, "loopback", "config default"),
        ("[metrics]\nlisten = \"localhost\"\n".to_owned(), 2, "127.0.0.1:9464", "default"),
        ("[metrics]\ninterval_s = 0\n".to_owned(), 2, "1 to 3600", "config default"),
        ("[hardening]\nwritable = [\"x\"]\n".to_owned(), 2, "absolute", "config default"),
        ("[hardening]\nenabeld = true\n".to_owned(), 2, "`enabeld`", "`enabled`"),
        (sink("transport = \"fil\""), 3, "`fil`", "`file`"),
        (sink("transport = \"file\""), 1, "`path`", "config default"),
        (sink("transport = \"file\"\npath = \"x\""), 4, "absolute", "config default"),
    ];
    for (text, line, what, next) in &table {
        let config = file(&dir, "bpfwatch.toml", text);
        let wrong = run(&["config", "check", "--config", &config]).exits(78);
        assert!(wrong.err.contains(&format!("{config}:{line}: ")), "{text}\n{}", wrong.err);
        let (first, advice) = wrong.err.split_once("next: ").unwrap();
        assert!(first.contains(what), "{text}\n{}", wrong.err);
        assert!(advice.contains(next), "{text}\n{}", wrong.err);
        // The daemon takes it as little.
        let refused = run(&["run", "--config", &config]).exits(78);
        assert_eq!(refused.err, wrong.err);
    }
}

#[test]
fn the_folder_beside_the_configuration_is_read_after_it() {
    let dir = folder("config-folder");
    let more = dir.join(if cfg!(target_os = "freebsd") { "bpfwatch.d" } else { "conf.d" });
    fs::create_dir(&more).unwrap();
    fs::set_permissions(&more, fs::Permissions::from_mode(0o755)).unwrap();
    let sink = "[[sink]]\nformat = \"json\"\ntransport = \"stdout\"\n";
    let config = file(&dir, "bpfwatch.toml", &format!("level = \"high\"\n{sink}"));
    let first = file(&more, "10-site.toml", &format!("level = \"low\"\n{sink}"));
    let second = file(&more, "20-role.toml", "[heartbeat]\ninterval_s = 9\n");
    file(&more, "notes.txt", "not read");
    file(&more, ".hidden.toml", "not = read");
    let args = ["config", "check", "--config", config.as_str()];
    let good = run(&args).exits(0);
    let names = format!("{config}, {first}, {second}: good");
    assert!(good.out.starts_with(&names), "{}", good.out);
    assert!(good.out.contains("2 sinks"), "{}", good.out);

    // An error names the file that it is in.
    fs::write(&second, "\n[heartbeat]\ninterval = 9\n").unwrap();
    let wrong = run(&args).exits(78);
    assert!(wrong.err.contains(&format!("{second}:3: ")), "{}", wrong.err);
    fs::write(&second, "").unwrap();
    fs::set_permissions(&second, fs::Permissions::from_mode(0o666)).unwrap();
    let refused = run(&args).exits(78);
    assert!(refused.err.contains("20-role.toml may be written by everybody"), "{}", refused.err);
    fs::set_permissions(&second, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&more, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = run(&args).exits(78);
    assert!(refused.err.contains("may be written by everybody"), "{}", refused.err);
}

#[test]
fn shipped_rules_load_and_list() {
    let check = run(&["rules", "check"]).exits(0);
    let summary = check.out.lines().last().unwrap();
    let list = run(&["rules", "list", "--format", "json"]).exits(0);
    let count = list.out.lines().count();
    assert_eq!(summary, format!("{count} rules, {count} loaded, 0 refused"));
    for line in list.out.lines() {
        let rule: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(rule["type"], "rule");
        for key in ["id", "title", "level", "kind", "logsource", "path"] {
            assert!(rule[key].is_string(), "{key} in {line}");
        }
    }
}

#[test]
fn site_rules_are_checked_with_file_and_line() {
    let dir = folder("rules-check");
    file(&dir, "good.yml", RULE);
    let path = dir.display().to_string();
    let check = run(&["rules", "check", &path]).exits(0);
    assert!(check.out.ends_with("1 rule, 1 loaded, 0 refused\n"), "{}", check.out);

    // A field that no event has, and a file that is no rule.
    let wrong = RULE.replace("Image|endswith", "Imgae|endswith").replace("0b6f", "1b6f");
    file(&dir, "wrong.yml", &wrong);
    file(&dir, "broken.yml", "title: [\n");
    file(&dir, "notes.txt", "no rule at all");
    let check = run(&["rules", "check", &path]).exits(65);
    assert!(check.out.contains("wrong.yml:"), "{}", check.out);
    assert!(check.out.contains("Imgae"), "{}", check.out);
    assert!(check.out.contains("broken.yml:"), "{}", check.out);
    assert!(check.out.ends_with("3 rules, 1 loaded, 2 refused\n"), "{}", check.out);

    // One file alone.
    let good = dir.join("good.yml").display().to_string();
    run(&["rules", "check", &good]).exits(0);
    run(&["rules", "check", "/nonexistent"]).exits(66);
}

#[test]
fn a_rule_is_explained_by_id_prefix_and_words() {
    let dir = folder("rules-explain");
    file(&dir, "sniffer.yml", RULE);
    file(&dir, "sniffer.md", "# Sniffer of the tests\n\n## Goal\n\nTo be found by `explain`.\n");
    let path = dir.display().to_string();
    for words in [
        &["0b6f3f0a-6d0e-4b5e-9a53-0a9c4f1f7c11"][..],
        &["0B6F3F0A"],
        &["sniffer", "tests"],
        &["Sniffer of the tests"],
    ] {
        let args = [&["rules", "explain", "--rules", &path], words].concat();
        let page = run(&args).exits(0);
        assert!(page.out.contains("To be found by"), "{words:?}: {}", page.out);
        assert!(page.out.contains("critical"), "{}", page.out);
        assert!(!page.out.contains('\x1b'), "no colour in a pipe");
    }
    let near = run(&["rules", "explain", "--rules", &path, "snifer", "test"]).exits(66);
    assert!(near.err.contains("Sniffer of the tests"), "{}", near.err);
    let args = ["rules", "explain", "--rules", &path, "--color", "always", "0b6f3f0a"];
    assert!(run(&args).exits(0).out.contains("\x1b["));
}

#[test]
fn replay_reads_files_and_standard_input_alike() {
    let dir = folder("replay");
    file(&dir, "sniffer.yml", RULE);
    let rules = dir.display().to_string();
    let recording = recording();
    let path = file(&dir, "r.jsonl", &recording);
    let from_file = run(&["replay", &path, "--rules", &rules, "--format", "json"]).exits(0);
    let args = ["replay", "-", "--rules", &rules, "--format", "json"];
    assert_eq!(from_file.out, run_with_input(&args, &recording).exits(0).out);
    let finding: serde_json::Value = from_file
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|line: &serde_json::Value| line["type"] == "finding")
        .expect("a finding");
    assert_eq!(finding["rule"]["title"], "Sniffer of the tests");
    assert_eq!(finding["rule"]["level"], "critical");
    assert_eq!(finding["process"]["pid"], 4242);
    assert_eq!(finding["host"]["name"], "web-1");
    assert!(from_file.err.contains("5 lines, 4 observations"), "{}", from_file.err);

    let human = run(&["replay", &path, "--rules", &rules]).exits(0);
    assert!(human.out.contains("Sniffer of the tests"), "{}", human.out);
    assert!(!human.out.contains('\x1b'));
    for _ in 0..5 {
        let again = run(&["replay", &path, "--rules", &rules, "--format", "json"]).exits(0);
        assert_eq!(again.out, from_file.out, "the same recording gives the same bytes");
    }
}

#[test]
fn what_was_decoded_is_a_recording_again() {
    let args = ["replay", "-", "--observations"];
    let once = run_with_input(&args, &recording()).exits(0).out;
    assert_eq!(once, recording());
    assert_eq!(run_with_input(&args, &once).exits(0).out, once);
}

#[test]
fn an_audit_trail_is_known_by_its_content() {
    let trail = concat!(env!("CARGO_MANIFEST_DIR"), "/bsd/tests/data/ioctl-jail.bsm");
    let replayed = run(&["replay", trail, "--format", "json"]).exits(0);
    let finding: serde_json::Value = serde_json::from_str(&replayed.out).unwrap();
    assert_eq!(finding["host"]["os"], "freebsd");
    assert_eq!(finding["rule"]["title"], "Packet capture in a jail");
    assert_eq!(finding["scope"], serde_json::json!({"kind": "jail", "name": "vn"}));
    assert_eq!(finding["session"]["promiscuous"], true);
    let bytes = std::fs::read(trail).unwrap();
    let dir = folder("trail");
    let cut = dir.join("cut.bsm");
    std::fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    let cut = run(&["replay", cut.to_str().unwrap(), "--format", "json"]).exits(0);
    assert_eq!(cut.out, replayed.out);
    assert!(cut.err.contains("record 9: the trail ends within a record"), "{}", cut.err);
}

#[test]
fn bad_lines_are_named_and_the_rest_goes_on() {
    let dir = folder("replay-bad");
    file(&dir, "sniffer.yml", RULE);
    let rules = dir.display().to_string();
    let recording = recording();
    let mut lines: Vec<&str> = recording.lines().collect();
    lines.insert(2, "this is no JSON");
    lines.push(
        r#"{"type":"observation","at":"2026-11-24T02:46:00Z","sensor":"t","kind":"teleported"}"#,
    );
    let path = file(&dir, "bad.jsonl", &lines.join("\n"));
    let args = ["replay", &path, "--rules", &rules, "--format", "json"];
    let lax = run(&args).exits(0);
    assert!(lax.err.contains("bad.jsonl:3: "), "{}", lax.err);
    assert!(lax.err.contains("bad.jsonl:7: "), "{}", lax.err);
    assert!(lax.err.contains("2 bad records"), "{}", lax.err);
    assert!(lax.out.contains("Sniffer of the tests"), "{}", lax.out);
    let strict = run(&[&args[..], &["--strict"]].concat()).exits(65);
    assert_eq!(strict.out, lax.out, "everything is read all the same");
    // Of the right kind after all, and every line bad: shown up to a limit.
    let many = file(&dir, "many", &"junk\n".repeat(500));
    let many = run(&["replay", &many, "--input", "recording"]).exits(0);
    assert!(many.err.contains("500 bad records"), "{}", many.err);
    assert!(many.err.lines().count() < 30, "{}", many.err);
}

#[test]
fn what_cannot_be_replayed_is_said() {
    let dir = folder("replay-wrong");
    run(&["replay", "/nonexistent.jsonl"]).exits(66);
    let other = file(&dir, "syslog", "Nov 24 02:45:17 web-1 kernel: hello\n");
    let unknown = run(&["replay", &other]).exits(65);
    assert!(unknown.err.contains("--input"), "{}", unknown.err);
    let named = run(&["replay", &other, "--input", "no-such-format"]).exits(64);
    assert!(named.err.contains("recording"), "the formats are named: {}", named.err);
}

/// `bpfwatch replay -` between two pipes, for what happens while it runs.
fn replaying(arguments: &[&str]) -> Child {
    program()
        .args(["replay", "-", "--format", "json"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn findings_come_while_a_pipe_is_open() {
    let dir = folder("replay-live");
    file(&dir, "sniffer.yml", RULE);
    let rules = dir.display().to_string();
    let mut child = replaying(&["--rules", &rules]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(recording().as_bytes()).unwrap();
    input.flush().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(child.try_wait().unwrap().is_none(), "it still waits for more");
    assert!(line.contains("Sniffer of the tests"), "{line}");
    drop(input);
    assert!(child.wait().unwrap().success());
}

/// As `eslogger ... | bpfwatch replay -` is used on a Mac: records come one by one and never end.
#[test]
fn findings_come_while_eslogger_runs() {
    let mut child = replaying(&[]);
    let mut input = child.stdin.take().unwrap();
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/eslogger_lines/input.jsonl");
    let records = fs::read_to_string(case).unwrap();
    let mut records = records.split_inclusive('\n');
    let mut write = |record: &str| {
        // A pipe gives parts of records.
        for part in record.as_bytes().chunks(record.len() / 2 + 1) {
            input.write_all(part).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // It is executed, it opens a device, and a second later something else happens.
    records.by_ref().take(3).for_each(&mut write);
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert!(line.contains("\"/private/tmp/.u/agent\"") && line.contains("/dev/bpf0"), "{line}");
    assert!(child.try_wait().unwrap().is_none(), "it still waits for more");
    records.for_each(&mut write);
    assert!(child.try_wait().unwrap().is_none(), "it still waits for more");
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let mut child = program()
        .args(["replay", "-", "--observations"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut input = child.stdin.take().unwrap();
    let started = Instant::now();
    // It ends, and closes its input, before all of it is written.
    while input.write_all(recording().as_bytes()).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10), "it reads on");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).exits(0).out;
        for word in ["bpfwatch", "replay", "observations"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    run(&["completions", "dsh"]).exits(64);
}

#[test]
fn manual_pages_for_every_command() {
    let page = run(&["man"]).exits(0).out;
    assert!(page.contains(".TH BPFWATCH 8"), "{page}");
    assert!(page.contains("Exit codes"), "{page}");
    let dir = folder("man");
    run(&["man", &dir.display().to_string()]).exits(0);
    for name in ["bpfwatch", "bpfwatch-scan", "bpfwatch-rules-explain", "bpfwatch-run"] {
        let page = fs::read_to_string(dir.join(format!("{name}.8"))).unwrap();
        assert!(page.contains(".TH") && page.contains(".SH NAME"), "{name}");
    }
    run(&["man", "/nonexistent/directory"]).exits(66);
}
