//! The same with sensors and rules running in this process: was it reported, by which rules, how soon?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Finding, Level, Line, ProcessView, RuleRef, SessionLine, Stage};
use bpfwatch_core::pipeline::{Pipeline, Settings};
use bpfwatch_core::platform::{Platform, SensorSettings};
use bpfwatch_core::rules::RuleSet;
use bpfwatch_core::sensor::SensorError;

use super::{Entry, Run, failed};
use crate::exit::Failure;
use crate::wiring::live::Live;
use crate::wiring::now;

/// How long the sensors may take for their first look round.
const SETTLE: Duration = Duration::from_secs(3);
/// They are done with it when nothing came for so long.
const QUIET: Duration = Duration::from_millis(400);
/// How long a report is waited for after everything was closed.
const GRACE: Duration = Duration::from_secs(3);

/// How it went.
#[derive(Debug)]
pub struct Report {
    /// What was done.
    pub did: String,
    /// Whether it was reported.
    pub verdict: Verdict,
    /// The finding of the highest level about it.
    pub finding: Option<Box<Finding>>,
    /// All rules that reported it, highest level first.
    pub rules: Vec<Arc<RuleRef>>,
}

/// Whether it was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// By every rule that should, after this time from its start.
    Reported(Duration),
    /// It was seen, and kept quiet about as it should be, after this time.
    Quiet(Duration),
    /// It was over before more could be seen than that the device was opened, which was reported after this
    /// time.
    Unnamed(Duration),
    /// Not, or not by all: these ids are missing. None where it was not even seen, or is seen with others.
    Missed {
        /// What went wrong.
        what: &'static str,
        /// Ids of rules that should have reported it.
        rules: Vec<&'static str>,
    },
}

/// Does what the entry says with the sensors running.
///
/// # Errors
/// When no sensor can watch; inside, when the system refuses the technique.
pub fn verify(
    platform: &dyn Platform,
    rules: &Arc<RuleSet>,
    entry: &Entry,
    run: &Run,
) -> Result<Result<Report, SensorError>, Failure> {
    let pipeline = Pipeline::new(Arc::clone(rules), Settings::default());
    let mut live = Live::start(platform, &SensorSettings::default(), pipeline)?;
    settle(&mut live);
    if let Some(failure) = live.failure() {
        return Err(failure);
    }
    let mut seen = Seen::new(entry);
    let done = thread::scope(|scope| {
        let acting = scope.spawn(|| entry.act(run));
        while !acting.is_finished() {
            seen.turn(&mut live, run);
        }
        acting.join().unwrap_or_else(|_| {
            Err(failed("ended by an error in bpfwatch itself", "please report it"))
        })
    });
    let ended = Instant::now();
    while done.is_ok() && seen.reported.is_none() && ended.elapsed() < GRACE && !run.is_stopped() {
        seen.turn(&mut live, run);
        // What nothing reports within its hold time is not reported after it.
        if entry.technique.rules.is_empty() && ended.elapsed() > QUIET {
            break;
        }
    }
    live.stop(&mut |line| seen.line(line))?;
    seen.update(run);
    Ok(done.map(|did| seen.report(did, run)))
}

/// What came while a technique ran.
struct Seen<'a> {
    entry: &'a Entry,
    started: Instant,
    findings: Vec<Finding>,
    /// Sessions that were not there before, by id; with all that ever held them, and the rules.
    sessions: BTreeMap<String, Held>,
    /// When all had come that should.
    reported: Option<Duration>,
    /// When the first of its sessions was seen.
    first: Option<Duration>,
    /// When it was reported that somebody opened the device, where that is enough.
    unnamed: Option<Duration>,
}

struct Held {
    stage: Stage,
    holders: BTreeSet<u32>,
    rules: Vec<Arc<RuleRef>>,
}

impl<'a> Seen<'a> {
    fn new(entry: &'a Entry) -> Self {
        Self {
            entry,
            started: Instant::now(),
            findings: Vec::new(),
            sessions: BTreeMap::new(),
            reported: None,
            first: None,
            unnamed: None,
        }
    }

    fn turn(&mut self, live: &mut Live, run: &Run) {
        live.turn(Duration::from_millis(10), &mut |line| self.line(line));
        for line in live.pipeline.sessions(now()) {
            self.session(line);
        }
        self.update(run);
    }

    fn line(&mut self, line: Line) {
        if let Line::Finding(finding) = line {
            if is_any(&finding, self.entry.reported_without_process()) {
                self.unnamed.get_or_insert_with(|| self.started.elapsed());
            }
            self.findings.push(*finding);
        }
    }

    fn session(&mut self, line: SessionLine) {
        if line.session.pre_existing {
            return;
        }
        let held = self.sessions.entry(line.session.id).or_insert_with(|| Held {
            stage: line.session.stage,
            holders: BTreeSet::new(),
            rules: Vec::new(),
        });
        held.stage = line.session.stage;
        held.holders.extend(line.holders.iter().map(|process| process.pid));
        for rule in line.rules {
            if !held.rules.iter().any(|known| known.id == rule.id) {
                held.rules.push(rule);
            }
        }
    }

    /// Tells the technique what is known of it.
    fn update(&mut self, run: &Run) {
        let mut known = run.known();
        let own = |held: &&Held| held.holders.iter().any(|pid| known.pids.contains(pid));
        let sessions: Vec<&Held> = self.sessions.values().filter(own).collect();
        let findings = self.findings.iter().filter(|finding| is_of(finding, &known.pids));
        let rules = findings.flat_map(rules_of).chain(sessions.iter().flat_map(|held| &held.rules));
        let rules: BTreeSet<String> = rules.map(|rule| rule.id.clone()).collect();
        known.holders = sessions.iter().flat_map(|held| held.holders.iter().copied()).collect();
        known.rules = rules;
        if !sessions.is_empty() || !known.rules.is_empty() {
            self.first.get_or_insert_with(|| self.started.elapsed());
        }
        let wanted = self.entry.technique.rules;
        if !wanted.is_empty() && known.has(wanted) && known.is_handed() {
            self.reported.get_or_insert_with(|| self.started.elapsed());
        }
    }

    fn report(self, did: String, run: &Run) -> Report {
        let known = run.known().clone();
        let mut findings: Vec<Finding> =
            self.findings.iter().filter(|finding| is_of(finding, &known.pids)).cloned().collect();
        let own: Vec<&Held> = self
            .sessions
            .values()
            .filter(|held| held.holders.iter().any(|pid| known.pids.contains(pid)))
            .collect();
        let verdict = match (self.reported, self.entry.technique.rules) {
            (Some(after), _) => Verdict::Reported(after),
            (None, _) if self.unnamed.is_some() && self.first.is_none() => {
                let enough = self.entry.reported_without_process();
                findings = self.findings.into_iter().filter(|f| is_any(f, enough)).collect();
                Verdict::Unnamed(self.unnamed.unwrap_or_default())
            }
            (None, []) => quiet(self.first, &own, &findings),
            (None, wanted) => missed(wanted, &known, self.first.is_some()),
        };
        let mut rules: Vec<Arc<RuleRef>> = Vec::new();
        for rule in
            findings.iter().flat_map(rules_of).chain(own.iter().flat_map(|held| &held.rules))
        {
            if !rules.iter().any(|known| known.id == rule.id) {
                rules.push(Arc::clone(rule));
            }
        }
        rules.sort_by(|one, other| {
            other.level.cmp(&one.level).then_with(|| one.title.cmp(&other.title))
        });
        // Of findings of the same level the last one: it knows the most.
        findings.sort_by_key(|finding| finding.rule.level);
        let finding = findings.pop().map(Box::new);
        Report { did, verdict, finding, rules }
    }
}

fn missed(wanted: &'static [&'static str], known: &super::run::Known, seen: bool) -> Verdict {
    let rules: Vec<&str> = wanted.iter().copied().filter(|id| !known.rules.contains(*id)).collect();
    let what = match (seen, rules.is_empty()) {
        (false, _) => "it was not seen",
        (true, true) => "the process that holds the handle in the end was not seen to hold it",
        (true, false) => "it was seen, but not reported by every rule that should",
    };
    Verdict::Missed { what, rules }
}

fn quiet(first: Option<Duration>, own: &[&Held], findings: &[Finding]) -> Verdict {
    let rules = Vec::new();
    match first {
        None => Verdict::Missed { what: "it was not seen", rules },
        // A handle that cannot receive is no capture: keeping quiet about it is right.
        Some(after)
            if own.iter().all(|held| held.stage == Stage::Opened)
                && findings.iter().all(|finding| {
                    finding.session.is_none() || finding.rule.level <= Level::Informational
                }) =>
        {
            Verdict::Quiet(after)
        }
        Some(_) => Verdict::Missed { what: "it was reported, although it captures nothing", rules },
    }
}

/// Whether one of these rules reported it.
fn is_any(finding: &Finding, ids: &[&str]) -> bool {
    rules_of(finding).any(|rule| ids.contains(&&*rule.id))
}

fn rules_of(finding: &Finding) -> impl Iterator<Item = &Arc<RuleRef>> {
    std::iter::once(&finding.rule).chain(&finding.rules)
}

/// Whether a finding is about one of the processes.
fn is_of(finding: &Finding, pids: &BTreeSet<u32>) -> bool {
    let mut processes = finding.process.iter().chain(&finding.holders);
    processes.any(|process: &ProcessView| pids.contains(&process.pid))
}

/// Lets the sensors have their first look round, so that what they find then is not taken for news.
fn settle(live: &mut Live) {
    let started = Instant::now();
    let mut last = Instant::now();
    let mut count = 0;
    while started.elapsed() < SETTLE && (count == 0 || last.elapsed() < QUIET) {
        live.turn(Duration::from_millis(20), &mut |_| {});
        let now = live.pipeline.counters().observations;
        if now != count {
            (count, last) = (now, Instant::now());
        }
    }
}
