//! Data cases: recordings through the real pipeline with the shipped rules, see `tests/cases/README.md`.
//!
//! Beside them stands what makes the pack whole: it loads without a remark, every rule has its ADS
//! page, and every rule and filter has a case that it matches and one that it does not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bpfwatch_core::observation::{Observation, Origin};
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use bpfwatch_core::rules::{Problem, Rule, RuleFile, RuleKind, RuleSet};
use bpfwatch_core::time::Timestamp;
use serde_json::{Map, Value};

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

/// Time after the last observation at which the open sessions are looked at: all has settled then.
const SETTLED: Duration = Duration::from_secs(2);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Everything below a directory whose name ends in `.yml`, sorted.
fn rule_paths(directory: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths.extend(rule_paths(&path));
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

fn load() -> (RuleSet, Vec<Problem>) {
    let files: Vec<RuleFile> = rule_paths(&root().join("rules"))
        .iter()
        .map(|path| RuleFile {
            path: path.strip_prefix(root()).unwrap().display().to_string(),
            text: read(path),
            page: fs::read_to_string(path.with_extension("md")).ok(),
        })
        .collect();
    RuleSet::load(&files)
}

/// One line of `expected.jsonl`.
struct Expectation {
    line: usize,
    kind: String,
    object: Map<String, Value>,
}

struct Case {
    name: String,
    origin: Origin,
    observations: Vec<Observation>,
    expected: Vec<Expectation>,
}

fn cases() -> Vec<Case> {
    let only = std::env::var("BPFWATCH_CASE").ok();
    let mut names: Vec<PathBuf> = fs::read_dir(root().join("tests/cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .filter(|path| only.as_deref().is_none_or(|only| path.ends_with(only)))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no case {only:?} in tests/cases");
    names.iter().map(|directory| case(directory)).collect()
}

fn case(directory: &Path) -> Case {
    let name = directory.file_name().unwrap().to_string_lossy().into_owned();
    let recording = read(&directory.join("observations.jsonl"));
    let mut lines = recording.lines();
    let meta: Value = serde_json::from_str(lines.next().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{name}: first line: {error}"));
    assert_eq!(meta["type"], "meta", "{name}: the first line is the meta line");
    let mut seq = 0;
    let observations = lines
        .enumerate()
        .map(|(index, line)| {
            let mut observation: Observation = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{name}: observation {}: {error}", index + 2));
            observation.seq = seq;
            seq += 1;
            observation
        })
        .collect();
    let expected = read(&directory.join("expected.jsonl"))
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let line_number = index + 1;
            let mut object: Map<String, Value> = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{name}: expected {line_number}: {error}"));
            let kind = object.remove("type").and_then(|kind| kind.as_str().map(str::to_owned));
            let kind = kind.unwrap_or_else(|| panic!("{name}: expected {line_number}: no type"));
            Expectation { line: line_number, kind, object }
        })
        .collect();
    Case { name, origin: serde_json::from_value(meta).unwrap(), observations, expected }
}

/// What came out: lines, and open sessions as `scan` shows them.
struct Output {
    lines: Vec<Value>,
    sessions: Vec<Value>,
}

fn replay(case: &Case, rules: &Arc<RuleSet>) -> Output {
    let mut pipeline = Pipeline::new(Arc::clone(rules), Settings::default());
    let mut lines = Vec::new();
    let mut out = |line| lines.push(serde_json::to_value(&line).unwrap());
    let batch =
        Batch { origin: Arc::new(case.origin.clone()), observations: case.observations.clone() };
    let last = case.observations.iter().map(|o| o.at).max().unwrap_or(Timestamp::default());
    pipeline.feed(batch, &mut out);
    pipeline.advance(last + SETTLED, &mut out);
    let sessions = pipeline
        .sessions(last + SETTLED)
        .iter()
        .map(|session| serde_json::to_value(session).unwrap())
        .collect();
    pipeline.finish(&mut out);
    Output { lines, sessions }
}

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
    // Correlations do not reach the lines yet; their cases come with them.
    for rule in rules.rules().iter().filter(|rule| rule.kind != RuleKind::Correlation) {
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
