//! The shipped rules and the data cases, read from their files.

#![allow(dead_code, reason = "not every test that reads cases asks for all of it")]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpfwatch_bsd::bsm::format::Bsm;
use bpfwatch_core::cases::{Expectation, expectations};
use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_core::observation::{Observation, Origin};
use bpfwatch_core::pipeline::Batch;
use bpfwatch_core::rules::{Problem, RuleFile, RuleSet};
use bpfwatch_core::time::Timestamp;
use bpfwatch_inputs::auditd::Auditd;
use bpfwatch_inputs::kubernetes::KubernetesAudit;
use bpfwatch_inputs::network::NetworkSyslog;
use bpfwatch_inputs::reader::{self, Delivery, Options, Source};
use bpfwatch_inputs::windows::{Evtx, WindowsJson};
use bpfwatch_macos::eslogger::Eslogger;
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
    pub parts: Vec<Part>,
    pub expected: Vec<Expectation>,
    /// It is a log, and no recording.
    pub is_log: bool,
}

/// Observations in a row of one origin.
pub struct Part {
    pub origin: Arc<Origin>,
    pub observations: Vec<Observation>,
}

impl Case {
    /// What goes through the pipeline.
    pub fn batches(&self) -> Vec<Batch> {
        let batch = |part: &Part| Batch {
            origin: Arc::clone(&part.origin),
            observations: part.observations.clone(),
        };
        self.parts.iter().map(batch).collect()
    }

    /// The system that it is of.
    pub fn os(&self) -> &'static str {
        self.parts[0].origin.os.as_str()
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
    let expected = expectations(&read(&directory.join("expected.jsonl")))
        .unwrap_or_else(|(line, what)| panic!("{name}: expected.jsonl:{line}: {what}"));
    let recording = directory.join("observations.jsonl");
    let is_log = !recording.is_file();
    let parts =
        if is_log { log(&name, directory) } else { vec![observations(&name, &read(&recording))] };
    Case { name, parts, expected, is_log }
}

fn observations(name: &str, recording: &str) -> Part {
    let mut lines = recording.lines();
    let meta: Value = serde_json::from_str(lines.next().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{name}: first line: {error}"));
    assert_eq!(meta["type"], "meta", "{name}: the first line is the meta line");
    let observations = lines
        .enumerate()
        .map(|(index, line)| {
            let mut observation: Observation = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{name}: observation {}: {error}", index + 2));
            observation.seq = index as u64;
            observation
        })
        .collect();
    Part { origin: Arc::new(serde_json::from_value(meta).unwrap()), observations }
}

/// Every format that `replay` reads, in the order of `src/wiring/inputs.rs`.
fn formats() -> Vec<Box<dyn LineDecoder>> {
    // Logs that tell no year are of the year in which they are read.
    let now = Timestamp::parse("2026-11-24T12:00:00Z").unwrap();
    vec![
        Box::new(Eslogger::default()),
        Box::new(Evtx::default()),
        Box::new(Bsm::freebsd()),
        Box::new(Bsm::macos()),
        Box::new(WindowsJson::default()),
        Box::new(KubernetesAudit::default()),
        Box::new(Auditd::default()),
        Box::new(NetworkSyslog::new(now)),
    ]
}

/// The one file `input.*`, through the decoder that its content asks for.
fn log(name: &str, directory: &Path) -> Vec<Part> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_input = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("input."))
    };
    let mut inputs = files.filter(is_input);
    let path = inputs.next().unwrap_or_else(|| panic!("{name}: no observations.jsonl, no input.*"));
    assert!(inputs.next().is_none(), "{name}: more than one input");
    let formats = formats();
    let formats: Vec<&dyn LineDecoder> = formats.iter().map(AsRef::as_ref).collect();
    let mut parts: Vec<Part> = Vec::new();
    reader::read(vec![Source::Path(path)], &formats, &Options::default(), &mut |delivery| {
        match delivery {
            Delivery::Batch(Batch { origin, observations }) => match parts.last_mut() {
                Some(part) if part.origin == origin => part.observations.extend(observations),
                _ => parts.push(Part { origin, observations }),
            },
            Delivery::Problem(problem) => panic!("{name}: {problem}"),
            Delivery::Progress(_) => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(!parts.is_empty(), "{name}: nothing was decoded");
    parts
}
