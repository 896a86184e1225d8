//! What the engine costs for live events: tracking and rules, with the shipped pack and a large one.
//!
//! `cargo bench --bench engine`. Observations are made beforehand, so that only the pipeline is
//! measured. CPU time is this process's (getrusage); each row is the best of some runs, because what
//! else a machine does only adds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use bpfwatch_core::rules::RuleSet;
use common::{Observations, origin, packs, usage};

/// Observations of one run.
const COUNT: usize = 50_000;
/// Runs of each row.
const RUNS: usize = 3;
/// Rules of the large pack beside the shipped ones.
const LARGE: usize = 2000;

fn main() {
    let all: Vec<Observation> = Observations::new(3).take(COUNT).collect();
    let executions: Vec<Observation> =
        Observations::new(4).filter(|o| o.kind == Kind::Executed).take(COUNT).collect();
    println!("{COUNT} observations a run, best of {RUNS}");
    println!(
        "{:<12}{:>7}{:>10}  {:<12}{:>10}{:>12}",
        "pack", "rules", "load ms", "events", "CPU us", "findings"
    );
    let packs: [(&str, &dyn Fn() -> Arc<RuleSet>); 3] =
        [("none", &Arc::default), ("shipped", &packs::shipped), ("large", &|| packs::large(LARGE))];
    for (name, load) in packs {
        let started = Instant::now();
        let rules = load();
        let loaded = started.elapsed();
        for (events, observations) in [("all", &all), ("executions", &executions)] {
            let (cpu, findings) = best(&rules, observations);
            println!(
                "{name:<12}{:>7}{:>10}  {events:<12}{:>10.2}{findings:>12}",
                rules.rules().len(),
                loaded.as_millis(),
                cpu.as_secs_f64() * 1e6 / COUNT as f64
            );
        }
    }
}

/// CPU time of the fastest run, and the findings of one.
fn best(rules: &Arc<RuleSet>, observations: &[Observation]) -> (Duration, u64) {
    let runs: Vec<_> = (0..RUNS).map(|_| run(rules, observations)).collect();
    assert!(runs.iter().all(|run| run.1 == runs[0].1), "the same input gives the same output");
    runs.into_iter().min().unwrap()
}

fn run(rules: &Arc<RuleSet>, observations: &[Observation]) -> (Duration, u64) {
    let origin = Arc::new(origin());
    let mut pipeline = Pipeline::new(Arc::clone(rules), Settings::default());
    // A live sensor gives a few at a time.
    let batches: Vec<Batch> = observations
        .chunks(16)
        .map(|few| Batch { origin: Arc::clone(&origin), observations: few.to_vec() })
        .collect();
    let mut out = |line| {
        std::hint::black_box(line);
    };
    let before = usage::cpu();
    for batch in batches {
        pipeline.feed(batch, &mut out);
    }
    pipeline.finish(&mut out);
    (usage::cpu() - before, pipeline.counters().findings)
}
