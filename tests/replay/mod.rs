//! The shipped rules and the data cases, read from their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpfwatch_core::cases::{Expectation, expectations};
use bpfwatch_core::observation::{Observation, Origin};
use bpfwatch_core::pipeline::Batch;
use bpfwatch_core::rules::{Problem, RuleFile, RuleSet};
use serde_json::Value;

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Everything below a directory whose name ends in `.yml`, sorted.
pub fn rule_paths(directory: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths.extend(rule_paths(&path));
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

/// The shipped rules, and what is wrong with them.
pub fn load() -> (RuleSet, Vec<Problem>) {
    let files: Vec<RuleFile> = rule_paths(&root().join("rules"))
        .iter()
        .map(|path| RuleFile {
            path: path.strip_prefix(root()).unwrap().display().to_string(),
            text: read(path),
            page: fs::read_to_string(path.with_extension("md")).ok(),
        })
        .collect();
    RuleSet::load(&files)
}

/// One directory of `tests/cases`.
pub struct Case {
    pub name: String,
    pub origin: Origin,
    pub observations: Vec<Observation>,
    pub expected: Vec<Expectation>,
}

impl Case {
    /// What goes through the pipeline.
    pub fn batch(&self) -> Batch {
        let origin = Arc::new(self.origin.clone());
        Batch { origin, observations: self.observations.clone() }
    }
}

/// All cases, or the one that BPFWATCH_CASE names.
pub fn cases() -> Vec<Case> {
    let only = std::env::var("BPFWATCH_CASE").ok();
    let mut names: Vec<PathBuf> = fs::read_dir(root().join("tests/cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .filter(|path| only.as_deref().is_none_or(|only| path.ends_with(only)))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no case {only:?} in tests/cases");
    names.iter().map(|directory| case(directory)).collect()
}

fn case(directory: &Path) -> Case {
    let name = directory.file_name().unwrap().to_string_lossy().into_owned();
    let recording = read(&directory.join("observations.jsonl"));
    let mut lines = recording.lines();
    let meta: Value = serde_json::from_str(lines.next().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{name}: first line: {error}"));
    assert_eq!(meta["type"], "meta", "{name}: the first line is the meta line");
    let mut seq = 0;
    let observations = lines
        .enumerate()
        .map(|(index, line)| {
            let mut observation: Observation = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{name}: observation {}: {error}", index + 2));
            observation.seq = seq;
            seq += 1;
            observation
        })
        .collect();
    let expected = expectations(&read(&directory.join("expected.jsonl")))
        .unwrap_or_else(|(line, what)| panic!("{name}: expected.jsonl:{line}: {what}"));
    Case { name, origin: serde_json::from_value(meta).unwrap(), observations, expected }
}
