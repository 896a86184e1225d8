//! `rules check`: do rules load, and if not, why: each with its line, or many by their reason.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use bpfwatch_core::rules::{Problem, Rule};
use bpfwatch_delivery::style::{Paint, Style};
use bpfwatch_delivery::visible;
use clap::Args;
use serde::Serialize;

use super::super::FormatArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Shape, counted};
use crate::wiring::rules;

/// More problems than this are told by their reasons.
const SHOWN: usize = 20;
/// Kinds of a reason that are told one by one; the rest are counted.
const KINDS: usize = 12;

/// Check that rules load, and say where they are wrong
#[derive(Debug, Args)]
#[command(after_help = "\
Without a path the shipped rules are checked. Site rules are checked as they would be
loaded, beside the shipped ones, so that ids and filter targets are known.
Where there are many problems, as with a whole repository of Sigma rules, they are
counted by reason; --verbose names each with file and line.
Exits with 65 if a rule is refused.

Examples:
  bpfwatch rules check
  bpfwatch rules check ./site-rules
  bpfwatch rules check ~/src/sigma/rules
  bpfwatch rules check ~/src/sigma/rules --format json | jq -r .what | sort | uniq -c")]
pub struct Check {
    /// Directories or files of rules.
    #[arg(value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Name each problem, however many there are.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    format: FormatArgs,
}

/// What a check found.
struct Found<'a> {
    refused: Vec<&'a Problem>,
    remarks: Vec<&'a Problem>,
    loaded: Vec<&'a Rule>,
}

impl Check {
    /// Does it.
    pub fn run(&self) -> Outcome {
        let loaded = rules::load(true, &self.paths)?;
        let files = rules::find(&self.paths)?;
        let files: HashSet<String> = files.iter().map(|file| file.display().to_string()).collect();
        let concerns = |path: &String| self.paths.is_empty() || files.contains(path);
        let (refused, remarks) = loaded
            .problems
            .iter()
            .filter(|problem| concerns(&problem.path))
            .partition(|problem| problem.refused);
        let good = loaded.set.rules().iter().filter(|rule| concerns(&rule.path)).collect();
        let found = Found { refused, remarks, loaded: good };
        let text = match self.format.format {
            Shape::Human => human(&found, self.verbose, &output::style()),
            Shape::Json => json(&found),
        };
        output::print(&text)?;
        if found.refused.is_empty() && found.loaded.is_empty() {
            return Err(Failure::new(Code::NoInput, "there is no rule there")
                .next("rules are files whose name ends in .yml"));
        }
        Ok(if found.refused.is_empty() { Code::Ok } else { Code::Data })
    }
}

fn human(found: &Found<'_>, verbose: bool, style: &Style) -> String {
    let mut out = String::new();
    let each = verbose || found.refused.len() + found.remarks.len() <= SHOWN;
    if each {
        for problem in found.refused.iter().chain(&found.remarks) {
            out += &visible::escaped(&rules::line(problem));
            out.push('\n');
        }
    }
    let (good, bad) = (found.loaded.len(), found.refused.len());
    let head = format!("{}, {good} loaded, {bad} refused", counted((good + bad) as u64, "rule"));
    style.push(&mut out, Paint::Bold, &head);
    out.push('\n');
    if !each {
        section(
            &mut out,
            style,
            "refused, because",
            &tally(found.refused.iter().map(|p| reason(p))),
        );
        let remarks = tally(found.remarks.iter().map(|p| reason(p)));
        section(&mut out, style, "loaded with a remark", &remarks);
        let sources = found.loaded.iter().map(|rule| (rule.logsource.clone(), String::new()));
        section(&mut out, style, "loaded", &tally(sources));
    }
    let never = found.loaded.iter().filter_map(|rule| {
        let field = rule.never_here.as_ref()?;
        Some((format!("{} has no such field", rule.logsource), field.clone()))
    });
    let title = "loaded, and can never match: a field that they need is not supplied";
    section(&mut out, style, title, &tally(never));
    if !each {
        style.push(&mut out, Paint::Dim, "\n--verbose names each with file and line.");
        out.push('\n');
    }
    out
}

/// How often each reason, and each of its kinds.
type Tally = BTreeMap<String, BTreeMap<String, usize>>;

fn tally(pairs: impl Iterator<Item = (String, String)>) -> Tally {
    let mut tally = Tally::new();
    for (reason, kind) in pairs {
        *tally.entry(reason).or_default().entry(kind).or_default() += 1;
    }
    tally
}

/// Sorted by count, the most frequent first; equal ones by name.
fn by_count<'a>(counts: impl Iterator<Item = (&'a String, usize)>) -> Vec<(&'a str, usize)> {
    let mut list: Vec<(&str, usize)> = counts.map(|(name, count)| (name.as_str(), count)).collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    list
}

fn section(out: &mut String, style: &Style, title: &str, tally: &Tally) {
    if tally.is_empty() {
        return;
    }
    out.push('\n');
    style.push(out, Paint::Bold, title);
    out.push('\n');
    let sums = tally.iter().map(|(reason, kinds)| (reason, kinds.values().sum()));
    for (reason, count) in by_count(sums) {
        *out += &format!("{count:>7}  {}\n", visible::escaped(reason));
        let kinds = tally.get(reason).map(BTreeMap::iter).unwrap_or_default();
        let kinds = by_count(kinds.map(|(kind, count)| (kind, *count)));
        let named: Vec<_> = kinds.iter().filter(|(kind, _)| !kind.is_empty()).collect();
        for (kind, count) in named.iter().take(KINDS) {
            style.push(out, Paint::Dim, &format!("{count:>15}  {}", visible::escaped(kind)));
            out.push('\n');
        }
        if let Some(rest @ [_, ..]) = named.get(KINDS..) {
            let sum: usize = rest.iter().map(|(_, count)| count).sum();
            style.push(out, Paint::Dim, &format!("{sum:>15}  of {} more kinds", rest.len()));
            out.push('\n');
        }
    }
}

/// A problem's reason, and what kind of it.
fn reason(problem: &Problem) -> (String, String) {
    let what = &problem.what;
    if let Some(logsource) = what.strip_prefix("no source for logsource ") {
        return ("bpfwatch sees no such events: their logsource".to_owned(), logsource.to_owned());
    }
    if what.starts_with("Condition parse error") {
        let kind = if what.contains("| count(") || what.contains("| near") || what.contains(" | ") {
            "aggregation of old Sigma (`| count() ...`): write a correlation"
        } else {
            ""
        };
        return ("the condition cannot be read".to_owned(), kind.to_owned());
    }
    if what.starts_with("Missing required field") || what.starts_with("there is no rule") {
        return ("the file is no Sigma rule".to_owned(), what.clone());
    }
    if let Some((source, rest)) = what.split_once(" has no field ") {
        let field = rest.split('`').nth(1).unwrap_or(rest);
        return (
            "a field that its logsource does not have".to_owned(),
            format!("{source}: {field}"),
        );
    }
    if what.starts_with("the id ") {
        return ("the id is that of another rule".to_owned(), String::new());
    }
    // Where a name is in it, it would be a reason of its own each time.
    let text = what.split(": ").next().unwrap_or(what);
    (text.to_owned(), String::new())
}

/// A problem as a line of JSON.
#[derive(Serialize)]
struct ProblemLine<'a> {
    #[serde(rename = "type")]
    line: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    what: &'a str,
}

fn json(found: &Found<'_>) -> String {
    let mut out = String::new();
    let lists = [("refused", &found.refused), ("remark", &found.remarks)];
    for (line, problem) in
        lists.iter().flat_map(|(line, list)| list.iter().map(move |problem| (*line, problem)))
    {
        let line = ProblemLine {
            line,
            path: &problem.path,
            rule_line: problem.line,
            title: problem.rule.as_deref(),
            what: &problem.what,
        };
        out += &serde_json::to_string(&line).unwrap_or_default();
        out.push('\n');
    }
    let never = found.loaded.iter().filter(|rule| rule.never_here.is_some()).count();
    let sum = serde_json::json!({
        "type": "summary", "loaded": found.loaded.len(), "refused": found.refused.len(),
        "remarks": found.remarks.len(), "never_matching": never,
    });
    out + &sum.to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(what: &str) -> Problem {
        Problem {
            path: "a.yml".into(),
            line: Some(3),
            rule: None,
            what: what.into(),
            refused: true,
        }
    }

    #[test]
    fn reasons_do_not_depend_on_names() {
        let (reason, kind) = reason(&problem("no source for logsource windows/registry_set"));
        assert_eq!(
            (&*reason, &*kind),
            ("bpfwatch sees no such events: their logsource", "windows/registry_set")
        );
        let (reason, kind) =
            super::reason(&problem("process_creation has no field `Imgae`: did you mean `Image`?"));
        assert_eq!(
            (&*reason, &*kind),
            ("a field that its logsource does not have", "process_creation: Imgae")
        );
    }

    #[test]
    fn many_are_told_by_reason_and_the_rest_is_counted() {
        let kinds: Vec<Problem> = (0..KINDS + 9)
            .flat_map(|n| vec![problem(&format!("no source for logsource s{n:02}")); 30 - n])
            .collect();
        let found = Found { refused: kinds.iter().collect(), remarks: vec![], loaded: vec![] };
        let text = human(&found, false, &Style::default());
        assert!(
            text.starts_with("420 rules, 0 loaded, 420 refused\n\nrefused, because\n"),
            "{text}"
        );
        assert!(text.contains("\n             30  s00\n             29  s01\n"), "{text}");
        assert!(text.contains("  of 9 more kinds\n"), "{text}");
        assert_eq!(human(&found, true, &Style::default()).matches("a.yml:3: ").count(), 420);
    }
}
