//! `rules`: what rules there are, whether they load, and what each is about.

use std::path::PathBuf;

use bpfwatch_core::rules::{Rule, RuleKind};
use bpfwatch_delivery::style::Paint;
use bpfwatch_delivery::visible;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{FormatArgs, RuleArgs};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Shape};
use crate::wiring::rules;
use crate::{page, platform};

/// List, check and explain the rules
#[derive(Debug, Args)]
pub struct Rules {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(List),
    Check(Check),
    Explain(Explain),
}

impl Rules {
    /// Does it.
    pub fn run(self) -> Outcome {
        match self.action {
            Action::List(list) => list.run(),
            Action::Check(check) => check.run(),
            Action::Explain(explain) => explain.run(),
        }
    }
}

/// List the rules in force
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bpfwatch rules list
  bpfwatch rules list --format json | jq -r 'select(.level == \"critical\") | .title'")]
struct List {
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    rules: RuleArgs,
}

/// Check that rules load, and say where they are wrong
#[derive(Debug, Args)]
#[command(after_help = "\
Without a path the shipped rules are checked. Site rules are checked as they would be
loaded, beside the shipped ones, so that ids and filter targets are known.
Exits with 65 if a rule is refused.

Examples:
  bpfwatch rules check
  bpfwatch rules check ./site-rules
  bpfwatch rules check ./site-rules/my-sensor.yml")]
struct Check {
    /// Directories or files of rules.
    #[arg(value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
}

/// Show a rule's page: what it looks for, where it is blind, what to do about a finding
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bpfwatch rules explain 6c1f2b0e
  bpfwatch rules explain unexpected process")]
struct Explain {
    /// Id, the beginning of one, or words of the title.
    #[arg(value_name = "ID|WORDS", required = true)]
    words: Vec<String>,
    #[command(flatten)]
    rules: RuleArgs,
}

/// One rule as a line of JSON.
#[derive(Serialize)]
struct RuleLine<'a> {
    #[serde(rename = "type")]
    line: &'static str,
    id: &'a str,
    title: &'a str,
    level: &'static str,
    kind: &'static str,
    logsource: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    tags: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<&'a str>,
    path: &'a str,
    rule_line: usize,
    page: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    never_here: Option<&'a str>,
}

fn kind(rule: &Rule) -> &'static str {
    match rule.kind {
        RuleKind::Detection => "detection",
        RuleKind::Correlation => "correlation",
        RuleKind::Filter => "filter",
    }
}

impl List {
    fn run(&self) -> Outcome {
        let loaded = rules::load(true, &self.rules.dirs)?;
        rules::warn(&loaded);
        let os = platform::current().origin().os;
        // A rule for every system may need a field that this one never supplies.
        let never = |index| loaded.set.never_on(index, os);
        let rules: Vec<(&Rule, Option<&str>)> = (loaded.set.rules().iter().enumerate())
            .map(|(index, rule)| (rule, rule.never_here.as_deref().or_else(|| never(index))))
            .collect();
        let text = match self.format.format {
            Shape::Human => table(&rules),
            Shape::Json => rules
                .iter()
                .map(|(rule, never)| {
                    serde_json::to_string(&json(rule, *never)).unwrap_or_default() + "\n"
                })
                .collect(),
        };
        output::print(&text)?;
        Ok(Code::Ok)
    }
}

fn json<'a>(rule: &'a Rule, never_here: Option<&'a str>) -> RuleLine<'a> {
    RuleLine {
        line: "rule",
        id: &rule.shown.id,
        title: &rule.shown.title,
        level: rule.shown.level.as_str(),
        kind: kind(rule),
        logsource: &rule.logsource,
        status: rule.status.as_deref(),
        tags: &rule.shown.tags,
        author: rule.shown.author.as_deref(),
        license: rule.shown.license.as_deref(),
        path: &rule.path,
        rule_line: rule.line,
        page: rule.page.is_some(),
        never_here,
    }
}

/// One line for each rule; the id is cut to what `rules explain` needs.
fn table(rules: &[(&Rule, Option<&str>)]) -> String {
    let style = output::style();
    let width = |of: fn(&Rule) -> &str| {
        rules.iter().map(|(rule, _)| visible::width(&visible::escaped(of(rule)))).max().unwrap_or(0)
    };
    let source_width = width(|rule| &rule.logsource).max("LOGSOURCE".len());
    let pad = |text: &str, width: usize| " ".repeat(width.saturating_sub(visible::width(text)));
    let mut out = String::new();
    let head = format!("{:<13}  {:<8}  {:<source_width$}  TITLE\n", "LEVEL", "ID", "LOGSOURCE");
    style.push(&mut out, Paint::Bold, head.trim_end());
    out.push('\n');
    for (rule, never) in rules {
        let level = rule.shown.level;
        // A filter withholds findings: it has no level of its own.
        let (paint, word) = match rule.kind {
            RuleKind::Filter => (Paint::Green, "expected"),
            _ => (Paint::of_level(level), level.as_str()),
        };
        style.push(&mut out, paint, word);
        out += &pad(word, 15);
        let id: String = rule.shown.id.chars().take(8).collect();
        let id = visible::escaped(&id);
        out += &id;
        out += &pad(&id, 10);
        let source = visible::escaped(&rule.logsource);
        out += &source;
        out += &pad(&source, source_width + 2);
        out += &visible::escaped(&rule.shown.title);
        if rule.kind == RuleKind::Correlation {
            style.push(&mut out, Paint::Dim, "  (correlation)");
        }
        if let Some(field) = never {
            let remark = format!("  (never matches here: no {})", visible::escaped(field));
            style.push(&mut out, Paint::Dim, &remark);
        }
        out.push('\n');
    }
    out
}

impl Check {
    fn run(&self) -> Outcome {
        let loaded = rules::load(true, &self.paths)?;
        let files = rules::find(&self.paths)?;
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let concerns = |path: &String| files.is_empty() || files.contains(path);
        let mut out = String::new();
        let mut refused = 0;
        for problem in loaded.problems.iter().filter(|problem| concerns(&problem.path)) {
            refused += usize::from(problem.refused);
            out += &visible::escaped(&rules::line(problem));
            out.push('\n');
        }
        let good = loaded.set.rules().iter().filter(|rule| concerns(&rule.path)).count();
        out += &format!("{} rules, {good} loaded, {refused} refused\n", good + refused);
        output::print(&out)?;
        if good + refused == 0 && !self.paths.is_empty() {
            return Err(Failure::new(Code::NoInput, "there is no rule there")
                .next("rules are files whose name ends in .yml"));
        }
        Ok(if refused > 0 { Code::Data } else { Code::Ok })
    }
}

impl Explain {
    fn run(&self) -> Outcome {
        let loaded = rules::load(true, &self.rules.dirs)?;
        rules::warn(&loaded);
        let rules = loaded.set.rules();
        let wanted = self.words.join(" ");
        let found = find(rules, &wanted);
        match found.as_slice() {
            [rule] => {
                output::print(&page::render(rule, kind(rule), &output::style()))?;
                Ok(Code::Ok)
            }
            [] => {
                let failure = Failure::new(Code::NoInput, format!("there is no rule `{wanted}`"));
                Err(match suggestions(rules, &wanted) {
                    near if near.is_empty() => failure.next("`bpfwatch rules list` shows them all"),
                    near => failure.next(format!("did you mean one of these?\n{near}")),
                })
            }
            several => {
                let what = format!("`{wanted}` is said of {} rules", several.len());
                let list = listed(several.iter().copied().take(10));
                Err(Failure::new(Code::NoInput, what).next(format!("name one of them:\n{list}")))
            }
        }
    }
}

/// The rule of that id; else those whose id begins so; else those whose title has all the words.
fn find<'a>(rules: &'a [Rule], wanted: &str) -> Vec<&'a Rule> {
    let wanted = wanted.to_lowercase();
    let select = |test: &dyn Fn(&Rule) -> bool| -> Vec<&'a Rule> {
        rules.iter().filter(|rule| test(rule)).collect()
    };
    let exact = select(&|rule| {
        rule.shown.id.to_lowercase() == wanted || rule.shown.title.to_lowercase() == wanted
    });
    if !exact.is_empty() {
        return exact;
    }
    let begins = select(&|rule| rule.shown.id.to_lowercase().starts_with(&wanted));
    if !begins.is_empty() {
        return begins;
    }
    select(&|rule| {
        let title = rule.shown.title.to_lowercase();
        wanted.split_whitespace().all(|word| title.contains(word))
    })
}

/// Up to five rules whose title is most like what was asked for.
fn suggestions(rules: &[Rule], wanted: &str) -> String {
    let wanted = wanted.to_lowercase();
    let mut near: Vec<(f64, &Rule)> = rules
        .iter()
        .map(|rule| (likeness(&wanted, &rule.shown.title.to_lowercase()), rule))
        .filter(|(likeness, _)| *likeness > 0.5)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    listed(near.into_iter().map(|(_, rule)| rule).take(5))
}

/// How many of the wanted words stand in the title, one mistyped counting in part.
fn likeness(wanted: &str, title: &str) -> f64 {
    let words: Vec<&str> = wanted.split_whitespace().collect();
    let best = |word: &str| {
        title
            .split(|c: char| !c.is_alphanumeric())
            .map(|other| strsim::normalized_damerau_levenshtein(word, other))
            .filter(|likeness| *likeness > 0.6)
            .fold(0.0, f64::max)
    };
    words.iter().map(|word| best(word)).sum::<f64>() / words.len().max(1) as f64
}

fn listed<'a>(rules: impl Iterator<Item = &'a Rule>) -> String {
    let lines: Vec<String> =
        rules.map(|rule| format!("    {}  {}", rule.shown.id, rule.shown.title)).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_word_is_near() {
        assert!(likeness("promiscous", "interface became promiscuous") > 0.5);
        assert!(likeness("promiscuous interface", "interface became promiscuous") > 0.9);
        assert!(likeness("quux", "interface became promiscuous") < 0.1);
    }
}
