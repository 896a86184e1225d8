//! Rule cases: a recording, and what must come out of it.
//!
//! The project's own cases and those of a site are of one form, which `tests/cases/README.md` and
//! `bpfwatch rules test --help` describe. Nothing is read or written here.

mod compare;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::pipeline::{Batch, Pipeline, Settings};
use crate::rules::RuleSet;
use crate::time::Timestamp;

pub use compare::{Difference, differences};

/// Time after the last observation at which the open sessions are looked at: all has settled then.
const SETTLED: Duration = Duration::from_secs(2);

/// What a line of `expected.jsonl` may say of a line of output.
const LINES: [&str; 4] = ["finding", "closed", "repeats", "lost"];
/// Keys that name rules by their titles.
const TITLES: [&str; 8] = [
    "rule",
    "rules",
    "not_rules",
    "led_by",
    "not_led_by",
    "expected_by",
    "not_expected_by",
    "filter",
];

/// One line of `expected.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// Line of the file, from 1.
    pub line: usize,
    /// Its `type`: `finding`, `closed`, `repeats`, `lost`, `session`, `withheld` or `never`.
    pub kind: String,
    /// The other keys.
    object: Map<String, Value>,
}

impl Expectation {
    fn titles(&self, key: &str) -> Vec<&str> {
        match self.object.get(key) {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(text)) => vec![text],
            _ => Vec::new(),
        }
    }

    fn is_line(&self) -> bool {
        LINES.contains(&self.kind.as_str())
    }
}

/// Reads `expected.jsonl`.
///
/// # Errors
/// The line, from 1, and what is wrong with it.
pub fn expectations(text: &str) -> Result<Vec<Expectation>, (usize, String)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    numbered
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(line, text)| expectation(line, text).map_err(|what| (line, what)))
        .collect()
}

fn expectation(line: usize, text: &str) -> Result<Expectation, String> {
    let mut object: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("no JSON object: {error}"))?;
    let kind = match object.remove("type") {
        Some(Value::String(kind)) => kind,
        _ => return Err("an expectation has a `type`".to_owned()),
    };
    if !LINES.contains(&kind.as_str()) && !["session", "withheld", "never"].contains(&&*kind) {
        return Err(format!(
            "there is no type `{kind}`: use finding, closed, repeats, lost, session, withheld \
             or never"
        ));
    }
    for key in TITLES {
        let good = match object.get(key) {
            None | Some(Value::String(_)) => true,
            Some(Value::Array(list)) => list.iter().all(Value::is_string),
            Some(_) => false,
        };
        if !good {
            return Err(format!("`{key}` is a title or a list of titles"));
        }
    }
    if kind == "withheld" && !object.contains_key("filter") {
        return Err("`withheld` needs `filter`, the title of the filter that withholds".to_owned());
    }
    if kind == "never" && !object.contains_key("rules") {
        return Err("`never` needs `rules`, the titles that must not come".to_owned());
    }
    Ok(Expectation { line, kind, object })
}

/// What came out of a case.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output {
    /// Lines, in order.
    pub lines: Vec<Value>,
    /// Sessions open two seconds after the last observation, as `scan` lists them.
    pub sessions: Vec<Value>,
    /// Title of each filter that withheld something, and how often it did.
    pub withheld: Vec<(String, u64)>,
}

/// Sends a recording through the real pipeline.
pub fn replay(batches: Vec<Batch>, rules: &Arc<RuleSet>) -> Output {
    let mut pipeline = Pipeline::new(Arc::clone(rules), Settings::default());
    let mut output = Output::default();
    let json = |value| serde_json::to_value(value).unwrap_or_default();
    let times = batches.iter().flat_map(|batch| &batch.observations).map(|seen| seen.at);
    let settled = times.max().unwrap_or(Timestamp::default()) + SETTLED;
    let mut out = |line| output.lines.push(serde_json::to_value(&line).unwrap_or_default());
    for batch in batches {
        pipeline.feed(batch, &mut out);
    }
    pipeline.advance(settled, &mut out);
    let sessions = pipeline.sessions(settled).iter().map(json).collect();
    pipeline.finish(&mut out);
    output.withheld =
        pipeline.withheld().into_iter().map(|filter| (filter.title, filter.count)).collect();
    output.sessions = sessions;
    output
}

/// Titles of the rules and filters that a set of cases says must match, and must not.
#[derive(Debug, Default)]
pub struct Covered {
    /// Must match.
    pub matched: BTreeSet<String>,
    /// Must not.
    pub spared: BTreeSet<String>,
}

impl Covered {
    /// Adds what a case says.
    pub fn add(&mut self, expected: &[Expectation]) {
        for expectation in expected {
            let take = |into: &mut BTreeSet<String>, keys: &[&str]| {
                let titles = keys.iter().flat_map(|key| expectation.titles(key));
                into.extend(titles.map(str::to_owned));
            };
            if expectation.kind == "never" {
                take(&mut self.spared, &["rules"]);
            } else {
                take(&mut self.matched, &["rule", "rules", "led_by", "expected_by", "filter"]);
                take(&mut self.spared, &["not_rules", "not_led_by", "not_expected_by"]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expectation_says_what_is_wrong_with_it() {
        let wrong = |text: &str| expectations(text).unwrap_err();
        assert_eq!(wrong("\n{").0, 2);
        assert_eq!(wrong("{}").1, "an expectation has a `type`");
        assert!(wrong(r#"{"type":"x"}"#).1.contains("no type `x`"));
        assert!(wrong(r#"{"type":"finding","rules":[1]}"#).1.contains("`rules`"));
        assert!(wrong(r#"{"type":"withheld"}"#).1.contains("needs `filter`"));
        assert!(wrong(r#"{"type":"never"}"#).1.contains("needs `rules`"));
        assert_eq!(expectations("\n").unwrap(), []);
    }

    #[test]
    fn covered_takes_what_must_and_what_must_not() {
        let text = r#"{"type":"finding","rule":"A","rules":["B"],"not_rules":["C"],"led_by":"D"}
{"type":"never","rules":["E"]}
{"type":"session","expected_by":"F","not_expected_by":"G"}"#;
        let mut covered = Covered::default();
        covered.add(&expectations(text).unwrap());
        assert_eq!(covered.matched.iter().collect::<Vec<_>>(), ["A", "B", "D", "F"]);
        assert_eq!(covered.spared.iter().collect::<Vec<_>>(), ["C", "E", "G"]);
    }
}
