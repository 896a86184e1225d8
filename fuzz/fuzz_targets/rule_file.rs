//! A rule file of any text: what cannot be loaded is named, with a line that the file has.
#![no_main]

use bpfwatch_core::rules::{RuleFile, RuleSet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let lines = text.split('\n').count();
    let (rules, problems) =
        RuleSet::load(&[RuleFile { path: "rule.yml".to_owned(), text, page: None }]);
    for rule in rules.rules() {
        assert!((1..=lines).contains(&rule.line), "{rule:?}");
    }
    for problem in problems {
        assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem:?}");
    }
});
