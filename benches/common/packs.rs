//! Rules to measure with: the shipped ones, and many made up.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bpfwatch_core::rules::{RuleFile, RuleSet};

use super::Numbers;

/// The rules in `rules/`.
pub fn shipped() -> Arc<RuleSet> {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("rules"), &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    load(&files)
}

/// The shipped rules and `count` more on executions, of the kind that public Sigma packs hold: some
/// images, some words of the command line, an exception.
pub fn large(count: usize) -> Arc<RuleSet> {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("rules"), &mut files);
    let mut numbers = Numbers::new(7);
    for index in 0..count {
        let mut word = || format!("w{:x}", numbers.next() & 0xFF_FFFF);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "title: Made up {index}\nid: 00000000-0000-4000-8000-{index:012x}\nstatus: test\n\
             description: Made up to measure with.\nauthor: bpfwatch developers\n\
             date: 2026-11-24\nlicense: MIT OR Apache-2.0\n\
             logsource:\n    category: process_creation\n    product: linux\ndetection:\n"
        );
        let [a, b, c, d, e] = [word(), word(), word(), word(), word()];
        let _ = write!(
            text,
            "    image:\n        Image|endswith:\n            - /{a}\n            - /{b}\n\
             \x20   words:\n        CommandLine|contains:\n            - ' --{c} '\n            - {d}\n\
             \x20   exception:\n        ParentImage|endswith: /{e}\n"
        );
        let condition = if index % 3 == 0 { "words and not exception" } else { "image and words" };
        let _ = write!(text, "    condition: {condition}\nlevel: low\n");
        files.push(RuleFile { path: format!("made-up/{index}.yml"), text, page: None });
    }
    load(&files)
}

fn load(files: &[RuleFile]) -> Arc<RuleSet> {
    let (rules, problems) = RuleSet::load(files);
    if let Some(problem) = problems.iter().find(|problem| problem.refused) {
        panic!("{problem:?}");
    }
    assert_eq!(rules.rules().len(), files.len());
    Arc::new(rules)
}

fn collect(dir: &Path, files: &mut Vec<RuleFile>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let page = std::fs::read_to_string(path.with_extension("md")).ok();
            files.push(RuleFile { path: path.display().to_string(), text, page });
        }
    }
}
