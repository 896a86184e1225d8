//! Data cases: recordings through the real pipeline with the shipped rules, see `tests/cases/README.md`.
//!
//! Beside them stands what makes the pack whole: it loads without a remark, every rule has its ADS
//! page, and every rule and filter has a case that it matches and one that it does not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod replay;

use std::collections::BTreeSet;
use std::sync::Arc;

use bpfwatch_core::cases::{Covered, Difference, differences, replay};
use bpfwatch_core::rules::RuleKind;

use replay::{cases, load, root, rule_paths};

/// Sensors of the formats of logs, as observations name them.
const FORMATS: [&str; 7] = [
    "eslogger",
    "freebsd.bsm",
    "kubernetes.audit",
    "linux.audit",
    "network.syslog",
    "windows.evtx",
    "windows.json",
];

/// Sections of an ADS page, in their order.
const SECTIONS: [&str; 9] = [
    "Goal",
    "Categorization",
    "Strategy Abstract",
    "Technical Context",
    "Blind Spots and Assumptions",
    "False Positives",
    "Priority",
    "Validation",
    "Response",
];

#[test]
fn cases_give_what_they_expect() {
    let (rules, _) = load();
    let rules = Arc::new(rules);
    let mut report = String::new();
    for case in cases() {
        let output = replay(case.batches(), &rules);
        if std::env::var_os("BPFWATCH_CASE").is_some() {
            output.lines.iter().chain(&output.sessions).for_each(|line| println!("{line}"));
        }
        let wrong = differences(&case.expected, &output, &rules);
        if !wrong.is_empty() {
            report += &format!("\n{}\n", case.name);
        }
        for Difference { line, what, found } in wrong {
            let line = line.map_or(String::new(), |line| format!("expected.jsonl:{line}: "));
            let found = found.map_or(String::new(), |found| format!("\n      in {found}"));
            report += &format!("    {line}{what}{found}\n");
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn every_format_of_logs_has_a_case_from_its_bytes() {
    if std::env::var_os("BPFWATCH_CASE").is_some() {
        println!("skipped: BPFWATCH_CASE names one case");
        return;
    }
    let logs = cases().into_iter().filter(|case| case.is_log);
    let seen = logs.flat_map(|case| case.parts).flat_map(|part| part.observations);
    let sensors: BTreeSet<String> = seen.map(|seen| seen.sensor.to_string()).collect();
    assert_eq!(sensors.iter().map(String::as_str).collect::<Vec<_>>(), FORMATS);
}

#[test]
fn a_replay_gives_the_same_bytes_each_time() {
    let (rules, _) = load();
    let rules = Arc::new(rules);
    for case in cases() {
        let first = replay(case.batches(), &rules);
        let second = replay(case.batches(), &rules);
        assert_eq!(first.lines, second.lines, "{}", case.name);
        assert_eq!(first.sessions, second.sessions, "{}", case.name);
    }
}

#[test]
fn the_pack_loads_without_a_remark() {
    let (rules, problems) = load();
    let remarks: Vec<String> =
        problems.iter().map(|p| format!("{}:{:?}: {}", p.path, p.line, p.what)).collect();
    assert!(remarks.is_empty(), "{}", remarks.join("\n"));
    let files = rule_paths(&root().join("rules")).len();
    assert_eq!(rules.rules().len(), files, "one rule a file");
    let titles: BTreeSet<&str> = rules.rules().iter().map(|r| r.shown.title.as_str()).collect();
    assert_eq!(titles.len(), files, "titles are unlike each other");
    for rule in rules.rules() {
        assert_eq!(rule.never_here, None, "{} can never match", rule.path);
    }
}

#[test]
fn every_rule_has_a_whole_ads_page() {
    let (rules, _) = load();
    let mut wrong = Vec::new();
    for rule in rules.rules() {
        let Some(page) = &rule.page else {
            if rule.kind != RuleKind::Filter {
                wrong.push(format!("{}: no page", rule.path));
            }
            continue;
        };
        let mut fault = |what: String| wrong.push(format!("{}: {what}", rule.path));
        if page.lines().next() != Some(&format!("# {}", rule.shown.title)) {
            fault("the page does not begin with the rule's title".to_owned());
        }
        let sections: Vec<(&str, &str)> = page
            .split("\n## ")
            .skip(1)
            .map(|section| section.split_once('\n').unwrap_or((section, "")))
            .collect();
        let names: Vec<&str> = sections.iter().map(|(name, _)| name.trim()).collect();
        if names != SECTIONS {
            fault(format!("sections are {names:?}"));
        }
        for (name, text) in sections {
            if text.split_whitespace().count() < 3 {
                fault(format!("section {name} is empty"));
            }
        }
        if !(3..=6).contains(&rule.response.len()) {
            fault(format!("{} response steps", rule.response.len()));
        }
        for rest in page.split("tests/cases/").skip(1) {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            let name = &rest[..end.unwrap_or(rest.len())];
            if !root().join("tests/cases").join(name).is_dir() {
                fault(format!("the page names the case `{name}`, which is not there"));
            }
        }
        let level = rule.shown.level.as_str();
        if !page.to_lowercase().contains(&format!("## priority\n\n{level}.")) {
            fault(format!("the page's priority is not `{level}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_and_filter_has_a_case_for_it_and_one_against_it() {
    if std::env::var_os("BPFWATCH_CASE").is_some() {
        println!("skipped: BPFWATCH_CASE names one case");
        return;
    }
    let (rules, _) = load();
    let mut covered = Covered::default();
    cases().iter().for_each(|case| covered.add(&case.expected));
    let mut wrong = Vec::new();
    for rule in rules.rules() {
        let title = &rule.shown.title;
        if !covered.matched.contains(title) {
            wrong.push(format!("no case that `{title}` must match"));
        }
        if !covered.spared.contains(title) {
            wrong.push(format!("no case that `{title}` must not match"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
