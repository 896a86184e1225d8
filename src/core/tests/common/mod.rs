//! Short ways to write rules and processes in tests.

#![allow(dead_code, reason = "each test binary uses its own part")]

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::process::Process;
use bpfwatch_core::rules::{Problem, RuleFile, RuleSet};

/// A file without an ADS page.
pub fn file(path: &str, text: &str) -> RuleFile {
    RuleFile { path: path.to_owned(), text: text.to_owned(), page: None }
}

/// A UUID that ends in this number.
pub fn uuid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// A complete process_creation rule around this detection section.
pub fn detection(product: &str, detection: &str) -> String {
    rule(1, "medium", &format!("product: {product}, category: process_creation"), detection)
}

/// A complete rule.
pub fn rule(id: u32, level: &str, logsource: &str, detection: &str) -> String {
    let detection = detection.replace('\n', "\n  ");
    format!(
        "title: Rule {id}\nid: {}\nstatus: test\nlevel: {level}\nauthor: A. Author\n\
         logsource: {{{logsource}}}\ndetection:\n  {detection}\n",
        uuid(id)
    )
}

/// A complete filter.
pub fn filter(id: u32, logsource: &str, rules: &str, body: &str) -> String {
    let body = body.replace('\n', "\n  ");
    format!(
        "title: Filter {id}\nid: {}\nlogsource: {{{logsource}}}\nfilter:\n  rules: {rules}\n  {body}\n",
        uuid(id)
    )
}

/// Joins documents into one file's text.
pub fn documents(documents: &[String]) -> String {
    documents.join("---\n")
}

/// Loads what must load without a word.
pub fn load_clean(files: &[RuleFile]) -> RuleSet {
    let (set, problems) = RuleSet::load(files);
    assert_eq!(problems, [], "{}", files[0].text);
    set
}

/// Loads what must be refused; gives the problems.
pub fn refused(files: &[RuleFile]) -> Vec<Problem> {
    let (_, problems) = RuleSet::load(files);
    let refused: Vec<Problem> = problems.into_iter().filter(|problem| problem.refused).collect();
    assert!(!refused.is_empty(), "loaded: {}", files[0].text);
    refused
}

/// A process with this image and these arguments; without arguments, they are unknown.
pub fn process(image: &str, args: &[&str]) -> Process {
    Process {
        image: Some(image.into()),
        args: (!args.is_empty()).then(|| Arguments::from_list(args)),
        ..Process::from_pid(100)
    }
}
