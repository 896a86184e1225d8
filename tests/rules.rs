//! `rules test`, `docs`, `navigator` and `check` from outside: what they print, write and exit with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails is a test that fails; the exemption covers only test functions"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Output and exit code of a run; shows everything when the code is another one.
#[track_caller]
fn run(args: &[&str], code: i32) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfwatch"));
    let output = command.args(args).stdin(Stdio::null()).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "stdout:\n{out}\nstderr:\n{err}");
    (out, err)
}

fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rules-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn rule(title: &str, id: &str, image: &str) -> String {
    format!(
        "title: {title}\nid: {id}\nstatus: test\nlogsource:\n    category: process_creation\n\
         detection:\n    selection:\n        Image: {image}\n    condition: selection\nlevel: high\n"
    )
}

/// A site with one rule and one case; gives the case's expected.jsonl.
fn site(name: &str) -> (PathBuf, PathBuf) {
    let dir = folder(name);
    let text = rule("Our probe started", "6a3f8f0e-07b1-4c38-9e0a-2f0a56b8a001", "/opt/probe");
    fs::write(dir.join("probe.yml"), text).unwrap();
    let case = dir.join("cases/probe_started");
    fs::create_dir_all(&case).unwrap();
    let meta = r#"{"type":"meta","schema":1,"host":"web-1","os":"linux","boot_id":"b1","bpfwatch":"0.1.0"}"#;
    let seen = |seq: u32, pid: u32, image: &str| {
        format!(
            r#"{{"type":"observation","at":"2026-11-24T02:45:17.{seq}Z","seq":{seq},"sensor":"t","kind":"executed","process":{{"pid":{pid},"start":{pid},"image":"{image}","args":["{image}"]}}}}"#
        )
    };
    let lines = [meta.to_owned(), seen(1, 500, "/opt/probe"), seen(2, 501, "/opt/other")];
    // Any name and any format will do.
    fs::write(case.join("monday.log"), lines.join("\n") + "\n").unwrap();
    (dir, case.join("expected.jsonl"))
}

const GOOD: &str = r#"{"type":"finding","rule":"Our probe started","level":"high","process":{"pid":500}}
{"type":"never","rules":["Our probe started"],"pid":501}
"#;

#[test]
fn a_site_tests_its_own_rules() {
    let (dir, expected) = site("test");
    let site = dir.display().to_string();
    run(&["rules", "test", &site], 66);

    fs::write(&expected, GOOD).unwrap();
    let (out, _) = run(&["rules", "test", &site, "--strict"], 0);
    assert_eq!(out, "ok       cases/probe_started\n1 case, 1 as expected\n");

    fs::write(&expected, GOOD.replace("high", "low") + "{\"type\":\"closed\"}\n").unwrap();
    let (out, _) = run(&["rules", "test", &site], 1);
    assert_eq!(
        out,
        "DIFFERS  cases/probe_started\n\
         \x20   expected.jsonl:1: level: expected \"low\", found \"high\"\n\
         \x20       in finding high pid 500 /opt/probe: Our probe started\n\
         \x20   expected.jsonl:3: no such line of output came\n\
         1 case, 0 as expected, 1 differs\n"
    );
    let (out, _) = run(&["rules", "test", &site, "--format", "json"], 1);
    let case: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(case["result"], "differs");
    assert_eq!(case["differences"][0]["expected_line"], 1);

    fs::write(&expected, "{").unwrap();
    let (out, _) = run(&["rules", "test", &site], 65);
    assert!(out.starts_with("BROKEN   cases/probe_started\n    expected.jsonl:1: "), "{out}");
    run(&["rules", "test", &site, "--only", "tuesday"], 66);
}

#[test]
fn a_rule_without_a_case_is_named() {
    let (dir, expected) = site("untested");
    fs::write(&expected, GOOD).unwrap();
    let more = dir.join("more");
    fs::create_dir(&more).unwrap();
    let text = rule("Nobody tries me", "6a3f8f0e-07b1-4c38-9e0a-2f0a56b8a002", "/opt/x");
    fs::write(more.join("x.yml"), text).unwrap();
    let site = dir.display().to_string();
    let (out, _) = run(&["rules", "test", &site], 0);
    assert!(out.contains("\nuntested Nobody tries me: no case\n"), "{out}");
    run(&["rules", "test", &site, "--strict"], 1);
}

#[test]
fn documents_are_written_for_shipped_and_site_rules() {
    let (site, _) = site("docs-site");
    let dir = folder("docs").join("deep/er");
    let target = dir.display().to_string();
    let (_, err) = run(&["rules", "docs", &target, "--rules", &site.display().to_string()], 0);
    assert!(err.contains("pages written; begin with"), "{err}");
    let index = fs::read_to_string(dir.join("README.md")).unwrap();
    assert!(index.contains("[Our probe started](rules/our-probe-started.md)"), "{index}");
    let page = fs::read_to_string(dir.join("rules/our-probe-started.md")).unwrap();
    assert!(page.contains("Image: /opt/probe"), "{page}");
    let count = fs::read_dir(dir.join("rules")).unwrap().count();
    let (list, _) = run(&["rules", "list", "--format", "json"], 0);
    assert_eq!(count, list.lines().count() + 1);
    // Again over the same files.
    run(&["rules", "docs", &target], 0);
    let file = site.join("probe.yml/x");
    run(&["rules", "docs", &file.display().to_string()], 74);
}

#[test]
fn a_navigator_layer_is_printed() {
    let (out, _) = run(&["rules", "navigator"], 0);
    let layer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(layer["versions"]["layer"], "4.5");
    assert!(layer["techniques"].as_array().unwrap().len() > 10);
}

#[test]
fn many_problems_are_told_by_reason() {
    let dir = folder("check");
    for n in 0..30 {
        let id = format!("6a3f8f0e-07b1-4c38-9e0a-2f0a56b8a1{n:02}");
        let text =
            rule(&format!("Registry {n}"), &id, "/x").replace("process_creation", "registry_set");
        fs::write(dir.join(format!("{n}.yml")), text).unwrap();
    }
    let text = rule("Good", "6a3f8f0e-07b1-4c38-9e0a-2f0a56b8a200", "/x");
    let text = text
        .replace("category: process_creation", "category: process_creation\n    product: linux");
    fs::write(dir.join("good.yml"), text.replace("Image: /x", "OriginalFileName: x")).unwrap();
    let path = dir.display().to_string();
    let (out, _) = run(&["rules", "check", &path], 65);
    assert!(out.starts_with("31 rules, 1 loaded, 30 refused\n"), "{out}");
    assert!(out.contains("     30  bpfwatch sees no such events: their logsource\n"), "{out}");
    assert!(out.contains("             30  registry_set\n"), "{out}");
    assert!(out.contains("              1  OriginalFileName\n"), "{out}");
    let (out, _) = run(&["rules", "check", &path, "--verbose"], 65);
    assert_eq!(out.matches("no source for logsource registry_set").count(), 30, "{out}");
    let (out, _) = run(&["rules", "check", &path, "--format", "json"], 65);
    let summary: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(summary["refused"], 30);
    assert_eq!(summary["never_matching"], 1);
}
