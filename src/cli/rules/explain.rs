//! `rules explain`: a rule's page on the terminal.

use bpfwatch_core::rules::Rule;
use clap::Args;

use super::super::RuleArgs;
use super::kind;
use crate::exit::{Code, Failure, Outcome};
use crate::output;
use crate::page;
use crate::wiring::rules;

/// Show a rule's page: what it looks for, where it is blind, what to do about a finding
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bpfwatch rules explain 6c1f2b0e
  bpfwatch rules explain unexpected process")]
pub struct Explain {
    /// Id, the beginning of one, or words of the title.
    #[arg(value_name = "ID|WORDS", required = true)]
    words: Vec<String>,
    #[command(flatten)]
    rules: RuleArgs,
}

impl Explain {
    /// Prints it.
    pub fn run(&self) -> Outcome {
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
