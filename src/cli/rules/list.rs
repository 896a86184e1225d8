//! `rules list`: the rules in force, one a line.

use bpfwatch_core::rules::{Rule, RuleKind};
use bpfwatch_delivery::style::Paint;
use bpfwatch_delivery::visible;
use clap::Args;
use serde::Serialize;

use super::super::{FormatArgs, RuleArgs};
use super::kind;
use crate::exit::{Code, Outcome};
use crate::output::{self, Shape};
use crate::platform;
use crate::wiring::rules;

/// List the rules in force
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bpfwatch rules list
  bpfwatch rules list --format json | jq -r 'select(.level == \"critical\") | .title'")]
pub struct List {
    #[command(flatten)]
    format: FormatArgs,
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

impl List {
    /// Prints them.
    pub fn run(&self) -> Outcome {
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
