//! What came out of a case against what was expected.

use serde_json::{Map, Value};

use super::{Expectation, Output, TITLES};
use crate::rules::RuleSet;

/// One way in which the output is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Line of `expected.jsonl`; `None` where something came that no line names.
    pub line: Option<usize>,
    /// What is different.
    pub what: String,
    /// The line of output that it is about, in a few words.
    pub found: Option<String>,
}

/// All differences, in the order of the file; what came unasked stands at the end of its kind.
pub fn differences(expected: &[Expectation], output: &Output, rules: &RuleSet) -> Vec<Difference> {
    let mut out = unknown_titles(expected, rules);
    let lines: Vec<&Expectation> = expected.iter().filter(|e| e.is_line()).collect();
    in_order("line of output", &lines, &output.lines, rules, &mut out);
    let sessions: Vec<&Expectation> = expected.iter().filter(|e| e.kind == "session").collect();
    if !sessions.is_empty() {
        in_order("session", &sessions, &output.sessions, rules, &mut out);
    }
    for withheld in expected.iter().filter(|e| e.kind == "withheld") {
        for title in withheld.titles("filter") {
            let there = output.withheld.iter().find(|(filter, _)| filter == title);
            let count = there.map_or(0, |(_, count)| *count);
            let wanted = withheld.object.get("count").and_then(Value::as_u64);
            if wanted.map_or(count == 0, |wanted| wanted != count) {
                let wanted = wanted.map_or("some".to_owned(), |wanted| wanted.to_string());
                let what = format!("`{title}` withheld {count}, expected {wanted}");
                out.push(Difference { line: Some(withheld.line), what, found: None });
            }
        }
    }
    for never in expected.iter().filter(|e| e.kind == "never") {
        let banned = never.titles("rules");
        for line in output.lines.iter().chain(&output.sessions) {
            let about = never.object.get("pid").is_none_or(|pid| {
                line["process"]["pid"] == *pid || line["holders"][0]["pid"] == *pid
            }) && never
                .object
                .get("message")
                .is_none_or(|message| line["record"]["message"] == *message);
            let said: Vec<&str> = titles(line).into_iter().chain(led_by(line)).collect();
            for title in said.iter().filter(|title| about && banned.contains(title)) {
                let what = format!("`{title}` must not come");
                out.push(Difference { line: Some(never.line), what, found: Some(brief(line)) });
            }
        }
    }
    out
}

fn unknown_titles(expected: &[Expectation], rules: &RuleSet) -> Vec<Difference> {
    let mut out = Vec::new();
    for expectation in expected {
        for title in TITLES.iter().flat_map(|key| expectation.titles(key)) {
            if id(title, rules).is_none() {
                let what = format!("no rule is called `{title}`");
                out.push(Difference { line: Some(expectation.line), what, found: None });
            }
        }
    }
    out
}

fn id<'a>(title: &str, rules: &'a RuleSet) -> Option<&'a str> {
    let rule = rules.rules().iter().find(|rule| rule.shown.title == title)?;
    Some(&rule.shown.id)
}

/// Titles of the rules of a line, the leading one first.
fn titles(line: &Value) -> Vec<&str> {
    let leading = line.get("rule").into_iter();
    let others = line.get("rules").and_then(Value::as_array).into_iter().flatten();
    leading.chain(others).filter_map(|rule| rule["title"].as_str()).collect()
}

/// Titles of the rules whose hits led to a correlation of the line.
fn led_by(line: &Value) -> Vec<&str> {
    let evidence = line.get("evidence").and_then(Value::as_array).into_iter().flatten();
    evidence
        .filter(|evidence| evidence["kind"] == "correlated")
        .filter_map(|evidence| evidence["detail"].as_str()?.split_once(": "))
        .map(|(title, _)| title)
        .collect()
}

/// One line of the output in a few words.
fn brief(line: &Value) -> String {
    let process = if line["process"].is_null() { &line["holders"][0] } else { &line["process"] };
    let mut words = vec![line["type"].as_str().unwrap_or("session").to_owned()];
    words.extend(line["verdict"].as_str().map(str::to_owned));
    words.extend(line["rule"]["level"].as_str().map(str::to_owned));
    if let Some(pid) = process["pid"].as_u64() {
        words.push(format!("pid {pid}"));
    }
    words.extend(process["image"].as_str().map(str::to_owned));
    words.extend(line["record"]["message"].as_str().map(str::to_owned));
    let titles = titles(line).join(", ");
    if titles.is_empty() { words.join(" ") } else { format!("{}: {titles}", words.join(" ")) }
}

/// Compares in order; the counts must be equal.
fn in_order(
    kind: &str,
    expected: &[&Expectation],
    found: &[Value],
    rules: &RuleSet,
    out: &mut Vec<Difference>,
) {
    for (expectation, line) in std::iter::zip(expected, found) {
        for what in compare(expectation, line, rules) {
            let found = Some(brief(line));
            out.push(Difference { line: Some(expectation.line), what, found });
        }
    }
    for expectation in expected.iter().skip(found.len()) {
        let what = format!("no such {kind} came");
        out.push(Difference { line: Some(expectation.line), what, found: None });
    }
    for line in found.iter().skip(expected.len()) {
        let what = format!("one {kind} too many");
        out.push(Difference { line: None, what, found: Some(brief(line)) });
    }
}

/// What is wrong with a line or session of the output.
fn compare(expectation: &Expectation, found: &Value, rules: &RuleSet) -> Vec<String> {
    let mut wrong = Vec::new();
    if found["type"].as_str().is_some_and(|kind| kind != expectation.kind) {
        wrong.push(format!("expected a `{}`, found a {}", expectation.kind, found["type"]));
    }
    let (rules_there, led_by) = (titles(found), led_by(found));
    for (key, value) in sorted(&expectation.object) {
        match key.as_str() {
            "rule" => {
                let title = found.get("title").or_else(|| found["rule"].get("title"));
                missing("rule", value, title, &mut wrong);
            }
            "level" => {
                let level = found.get("level").or_else(|| found["rule"].get("level"));
                missing("level", value, level, &mut wrong);
            }
            "rules" | "not_rules" | "led_by" | "not_led_by" => {
                let there = if key.ends_with("led_by") { &led_by } else { &rules_there };
                let wanted = !key.starts_with("not_");
                for title in expectation.titles(key) {
                    if there.contains(&title) != wanted {
                        let verb = if wanted { "is not" } else { "is" };
                        let list =
                            if key.ends_with("led_by") { "what led to it" } else { "its rules" };
                        wrong.push(format!("`{title}` {verb} among {list}"));
                    }
                }
            }
            "expected_by" | "not_expected_by" => {
                for title in expectation.titles(key) {
                    let is = id(title, rules).is_some_and(|id| found["expected_by"] == *id);
                    if is != (key == "expected_by") {
                        let verb = if is { "expects" } else { "does not expect" };
                        wrong.push(format!("`{title}` {verb} it"));
                    }
                }
            }
            _ => missing(key, value, found.get(key), &mut wrong),
        }
    }
    wrong
}

/// By key: whether a map of serde_json keeps its order depends on what else is built with it.
fn sorted(object: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// Where `expected` is not in `found`.
fn missing(path: &str, expected: &Value, found: Option<&Value>, out: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(wanted), Some(Value::Object(there))) => {
            for (key, value) in sorted(wanted) {
                missing(&format!("{path}.{key}"), value, there.get(key), out);
            }
        }
        (wanted, found) if Some(wanted) == found => {}
        (wanted, Some(found)) => out.push(format!("{path}: expected {wanted}, found {found}")),
        (wanted, None) => out.push(format!("{path}: expected {wanted}, found nothing")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::expectations;
    use super::*;
    use crate::rules::RuleFile;

    fn rules() -> RuleSet {
        let rule = |title: &str| {
            format!(
                "title: {title}\nid: {}\nlevel: low\nlogsource:\n  category: process_creation\n\
                 detection:\n  a:\n    Image: /x\n  condition: a\n",
                crate::ids::derive(&[title.as_bytes()])
            )
        };
        let text = ["A", "B"].map(rule).join("---\n");
        RuleSet::load(&[RuleFile { path: "r.yml".to_owned(), text, page: None }]).0
    }

    fn said(expected: &str, lines: Vec<Value>) -> Vec<String> {
        let output = Output { lines, withheld: vec![("B".to_owned(), 2)], ..Output::default() };
        let all = differences(&expectations(expected).unwrap(), &output, &rules());
        all.into_iter().map(|d| format!("{:?} {}", d.line, d.what)).collect()
    }

    #[test]
    fn says_each_difference_with_its_line() {
        let finding = json!({"type":"finding","rule":{"title":"A","level":"low"},"rules":[],
            "process":{"pid":5},"evidence":[{"kind":"correlated","detail":"B: /x"}]});
        let good = r#"{"type":"finding","rule":"A","level":"low","process":{"pid":5},"led_by":"B","not_rules":["B"]}"#;
        assert_eq!(said(good, vec![finding.clone()]), Vec::<String>::new());
        assert_eq!(said(good, vec![]), ["Some(1) no such line of output came"]);
        assert_eq!(said("", vec![finding.clone()]), ["None one line of output too many"]);
        let wrong = r#"{"type":"closed","level":"high","process":{"pid":6},"rules":["B"],"not_led_by":["B"]}"#;
        assert_eq!(
            said(wrong, vec![finding.clone()]),
            [
                "Some(1) expected a `closed`, found a \"finding\"",
                "Some(1) level: expected \"high\", found \"low\"",
                "Some(1) `B` is among what led to it",
                "Some(1) process.pid: expected 6, found 5",
                "Some(1) `B` is not among its rules",
            ]
        );
        let never = format!("{good}\n{}", r#"{"type":"never","rules":["B"],"pid":5}"#);
        assert_eq!(said(&never, vec![finding.clone()]), ["Some(2) `B` must not come"]);
        let other = format!("{good}\n{}", r#"{"type":"never","rules":["B"],"pid":7}"#);
        assert_eq!(said(&other, vec![finding]), Vec::<String>::new());
        let withheld = r#"{"type":"withheld","filter":"B","count":2}"#;
        assert_eq!(said(withheld, vec![]), Vec::<String>::new());
        let withheld = r#"{"type":"withheld","filter":"A"}"#;
        assert_eq!(said(withheld, vec![]), ["Some(1) `A` withheld 0, expected some"]);
        let named = r#"{"type":"never","rules":["C"]}"#;
        assert_eq!(said(named, vec![]), ["Some(1) no rule is called `C`"]);
    }
}
