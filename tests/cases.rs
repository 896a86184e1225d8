//! Data cases: recordings through the real pipeline with the shipped rules, see `tests/cases/README.md`.
//!
//! Beside them stands what makes the pack whole: it loads without a remark, every rule has its ADS
//! page, and every rule and filter has a case that it matches and one that it does not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bpfwatch_core::rules::{Rule, RuleKind, RuleSet};
use serde_json::{Map, Value};

use replay::{Case, Expectation, cases, load, replay, root, rule_paths};

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

/// Titles of the rules of a line, the leading one first.
fn titles(line: &Value) -> Vec<&str> {
    let leading = line.get("rule").into_iter();
    let others = line.get("rules").and_then(Value::as_array).into_iter().flatten();
    leading.chain(others).filter_map(|rule| rule["title"].as_str()).collect()
}

fn strings<'a>(object: &'a Map<String, Value>, key: &str) -> Vec<&'a str> {
    match object.get(key) {
        None => Vec::new(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(text)) => vec![text],
        Some(other) => panic!("`{key}` is a title or a list of titles, not {other}"),
    }
}

/// Ids of the rules by their title.
struct Pack {
    ids: BTreeMap<String, String>,
}

impl Pack {
    fn id(&self, title: &str) -> Result<&str, String> {
        self.ids
            .get(title)
            .map(String::as_str)
            .ok_or_else(|| format!("no rule is called `{title}`"))
    }
}

/// Where `expected` is not in `found`.
fn missing(path: &str, expected: &Value, found: Option<&Value>, out: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(wanted), Some(Value::Object(there))) => {
            for (key, value) in wanted {
                missing(&format!("{path}.{key}"), value, there.get(key), out);
            }
        }
        (wanted, found) if Some(wanted) == found => {}
        (wanted, Some(found)) => out.push(format!("{path}: expected {wanted}, found {found}")),
        (wanted, None) => out.push(format!("{path}: expected {wanted}, found nothing")),
    }
}

/// What is wrong with a line or session of the output.
fn compare(expectation: &Expectation, found: &Value, pack: &Pack) -> Vec<String> {
    let mut wrong = Vec::new();
    if found["type"].as_str().is_some_and(|kind| kind != expectation.kind) {
        wrong.push(format!("expected a `{}`, found a `{}`", expectation.kind, found["type"]));
    }
    let all = titles(found);
    for (key, value) in &expectation.object {
        match key.as_str() {
            "rule" => {
                let title = found.get("title").or_else(|| found["rule"].get("title"));
                missing(".rule", value, title, &mut wrong);
            }
            "level" => {
                let level = found.get("level").or_else(|| found["rule"].get("level"));
                missing(".level", value, level, &mut wrong);
            }
            "rules" => {
                for title in strings(&expectation.object, "rules") {
                    if !all.contains(&title) {
                        wrong.push(format!("`{title}` is not among its rules"));
                    }
                }
            }
            "not_rules" => {
                for title in strings(&expectation.object, "not_rules") {
                    if all.contains(&title) {
                        wrong.push(format!("`{title}` is among its rules"));
                    }
                }
            }
            "expected_by" | "not_expected_by" => {
                for title in strings(&expectation.object, key) {
                    let is = pack.id(title).map(|id| found["expected_by"] == *id);
                    match is {
                        Ok(is) if is == (key == "expected_by") => {}
                        Ok(_) => wrong.push(format!("{key}: `{title}` fails")),
                        Err(what) => wrong.push(what),
                    }
                }
            }
            _ => missing(&format!(".{key}"), value, found.get(key), &mut wrong),
        }
    }
    wrong
}

/// One line of the output in a few words.
fn brief(line: &Value) -> String {
    let process = if line["process"].is_null() { &line["holders"][0] } else { &line["process"] };
    format!(
        "{} {} {} pid {} {}",
        line["type"].as_str().unwrap_or("session"),
        line["verdict"].as_str().unwrap_or_default(),
        line["rule"]["level"].as_str().unwrap_or_default(),
        process["pid"],
        titles(line).join(" | "),
    )
}

/// Compares in order; the counts must be equal.
fn in_order(
    what: &str,
    expected: &[&Expectation],
    found: &[Value],
    pack: &Pack,
    wrong: &mut Vec<String>,
) {
    for (expectation, line) in std::iter::zip(expected, found) {
        for fault in compare(expectation, line, pack) {
            wrong.push(format!(
                "expected.jsonl:{}: {fault}\n      in {}",
                expectation.line,
                brief(line)
            ));
        }
    }
    for expectation in expected.iter().skip(found.len()) {
        wrong.push(format!("expected.jsonl:{}: no such {what} came", expectation.line));
    }
    for line in found.iter().skip(expected.len()) {
        wrong.push(format!("one {what} too many: {}", brief(line)));
    }
}

fn check(case: &Case, rules: &Arc<RuleSet>, pack: &Pack) -> Vec<String> {
    let output = replay(case, rules);
    let mut wrong = Vec::new();
    let of = |kinds: &[&str]| -> Vec<&Expectation> {
        case.expected.iter().filter(|e| kinds.contains(&e.kind.as_str())).collect()
    };
    in_order(
        "line",
        &of(&["finding", "closed", "repeats", "lost"]),
        &output.lines,
        pack,
        &mut wrong,
    );
    let sessions = of(&["session"]);
    if !sessions.is_empty() {
        in_order("session", &sessions, &output.sessions, pack, &mut wrong);
    }
    for never in of(&["never"]) {
        let banned = strings(&never.object, "rules");
        for line in output.lines.iter().chain(&output.sessions) {
            let about = never.object.get("pid").is_none_or(|pid| {
                line["process"]["pid"] == *pid || line["holders"][0]["pid"] == *pid
            });
            for title in titles(line).iter().filter(|title| about && banned.contains(title)) {
                wrong.push(format!("expected.jsonl:{}: `{title}` in {}", never.line, brief(line)));
            }
        }
    }
    for expectation in &case.expected {
        if !["finding", "closed", "repeats", "lost", "session", "never"]
            .contains(&expectation.kind.as_str())
        {
            wrong.push(format!(
                "expected.jsonl:{}: no type `{}`",
                expectation.line, expectation.kind
            ));
        }
        for key in ["rule", "rules", "not_rules", "expected_by", "not_expected_by"] {
            for title in strings(&expectation.object, key) {
                if let Err(what) = pack.id(title) {
                    wrong.push(format!("expected.jsonl:{}: {what}", expectation.line));
                }
            }
        }
    }
    if std::env::var_os("BPFWATCH_CASE").is_some() {
        for line in output.lines.iter().chain(&output.sessions) {
            println!("{line}");
        }
    }
    wrong
}

fn pack(rules: &RuleSet) -> Pack {
    let entry = |rule: &Rule| (rule.shown.title.clone(), rule.shown.id.clone());
    Pack { ids: rules.rules().iter().map(entry).collect() }
}

#[test]
fn cases_give_what_they_expect() {
    let (rules, _) = load();
    let rules = Arc::new(rules);
    let pack = pack(&rules);
    let mut report = String::new();
    for case in cases() {
        let wrong = check(&case, &rules, &pack);
        if !wrong.is_empty() {
            report += &format!("\n{}\n    {}\n", case.name, wrong.join("\n    "));
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn a_replay_gives_the_same_bytes_each_time() {
    let (rules, _) = load();
    let rules = Arc::new(rules);
    for case in cases() {
        let first = replay(&case, &rules);
        let second = replay(&case, &rules);
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
    let mut matched: BTreeSet<String> = BTreeSet::new();
    let mut spared: BTreeSet<String> = BTreeSet::new();
    for case in cases() {
        for expectation in &case.expected {
            let take = |into: &mut BTreeSet<String>, key: &str| {
                into.extend(strings(&expectation.object, key).into_iter().map(str::to_owned));
            };
            if expectation.kind == "never" {
                take(&mut spared, "rules");
                continue;
            }
            for key in ["rule", "rules", "expected_by"] {
                take(&mut matched, key);
            }
            for key in ["not_rules", "not_expected_by"] {
                take(&mut spared, key);
            }
        }
    }
    let mut wrong = Vec::new();
    for rule in rules.rules() {
        let title = &rule.shown.title;
        if !matched.contains(title) {
            wrong.push(format!("no case that `{title}` must match"));
        }
        if !spared.contains(title) {
            wrong.push(format!("no case that `{title}` must not match"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
