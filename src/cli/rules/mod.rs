//! `rules`: what rules there are, whether they load, what each is about, and whether they do what they
//! should. One file a command.

mod check;
mod docs;
mod explain;
mod list;
mod navigator;
mod test;

use bpfwatch_core::observation::Os;
use bpfwatch_core::rules::{Rule, RuleKind};
use clap::{Args, Subcommand};

use crate::exit::Outcome;

/// List, explain, check and test the rules, and write them as documents
#[derive(Debug, Args)]
pub struct Rules {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(list::List),
    Explain(explain::Explain),
    Check(check::Check),
    Test(test::Test),
    Docs(docs::Docs),
    Navigator(navigator::Navigator),
}

impl Rules {
    /// Does it.
    pub fn run(self) -> Outcome {
        match self.action {
            Action::List(list) => list.run(),
            Action::Explain(explain) => explain.run(),
            Action::Check(check) => check.run(),
            Action::Test(test) => test.run(),
            Action::Docs(docs) => docs.run(),
            Action::Navigator(navigator) => navigator.run(),
        }
    }
}

fn kind(rule: &Rule) -> &'static str {
    match rule.kind {
        RuleKind::Detection => "detection",
        RuleKind::Correlation => "correlation",
        RuleKind::Filter => "filter",
    }
}

/// The systems that a rule is for, as people write them.
fn systems(rule: &Rule) -> Vec<&'static str> {
    let name = |os: &Os| match os.as_str() {
        "linux" => "Linux",
        "macos" => "macOS",
        "freebsd" => "FreeBSD",
        "windows" => "Windows",
        "kubernetes" => "Kubernetes",
        "cisco" => "Cisco",
        "juniper" => "Juniper",
        other => other,
    };
    rule.systems.iter().map(name).collect()
}

/// ATT&CK tactics of a rule by their tags, `credential-access`.
fn tactics(rule: &Rule) -> impl Iterator<Item = &str> {
    attack(rule).filter(|tag| !is_technique(tag))
}

/// ATT&CK techniques of a rule, `T1040`.
fn techniques(rule: &Rule) -> impl Iterator<Item = String> {
    attack(rule).filter(|tag| is_technique(tag)).map(str::to_uppercase)
}

fn attack(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.shown.tags.iter().filter_map(|tag| tag.strip_prefix("attack."))
}

fn is_technique(tag: &str) -> bool {
    let digits = tag.strip_prefix(['t', 'T']).unwrap_or_default();
    digits.starts_with(|c: char| c.is_ascii_digit())
}
