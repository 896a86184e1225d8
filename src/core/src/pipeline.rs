//! The whole way from observations to lines: tracker, rules, correlation, alerts.
//!
//! Live sensors and replay feed the same pipeline. It does nothing by itself: time passes when
//! [`Pipeline::advance`] says so or when an observation carries a later time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alerts::Remembered;
use crate::finding::{Line, SessionLine};
use crate::lane::Lane;
use crate::observation::{Observation, Origin};
use crate::rules::RuleSet;
use crate::time::Timestamp;

/// Origins that are followed at once: the hosts of a collected log take turns. One that has just begun takes
/// about 25 KB. A replay of more finishes the one that was silent for longest.
const MAX_LANES: usize = 1024;

/// Observations of one origin, in processing order.
#[derive(Debug)]
pub struct Batch {
    /// Where they come from.
    pub origin: Arc<Origin>,
    /// The observations.
    pub observations: Vec<Observation>,
}

/// What can be set about the pipeline.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Take secrets out of command lines before anything is written.
    pub redact: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { redact: true }
    }
}

/// What went through so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Observations fed.
    pub observations: u64,
    /// Findings, updates included.
    pub findings: u64,
    /// Hits that an expected filter withheld.
    pub withheld: u64,
    /// Events that sensors reported as lost.
    pub lost: u64,
    /// Findings that were folded into an earlier one.
    pub folded: u64,
    /// How often correlations let go of state before its time.
    pub forgotten: u64,
}

impl Counters {
    fn add(&mut self, other: Counters) {
        self.observations += other.observations;
        self.findings += other.findings;
        self.withheld += other.withheld;
        self.lost += other.lost;
        self.folded += other.folded;
        self.forgotten += other.forgotten;
    }
}

/// How often one expected filter withheld a hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WithheldBy {
    /// UUID of the filter.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Hits that it withheld.
    pub count: u64,
}

#[derive(Serialize, Deserialize)]
struct State {
    schema: u32,
    lanes: Vec<LaneState>,
}

#[derive(Serialize, Deserialize)]
struct LaneState {
    origin: Origin,
    sessions: Vec<Remembered>,
}

/// Version of what [`Pipeline::state`] gives.
const STATE_SCHEMA: u32 = 1;

/// Tracker, rules, correlation and alerts in a row, for each origin.
pub struct Pipeline {
    rules: Arc<RuleSet>,
    settings: Settings,
    /// In the order of their first observation.
    lanes: Vec<(Arc<Origin>, Lane)>,
    /// When each lane was last fed, in batches; beside `lanes`.
    fed: Vec<u64>,
    /// Batches so far.
    batches: u64,
    /// Counts of lanes that are finished.
    gone: Counters,
    /// What filters withheld in them.
    gone_withheld: BTreeMap<String, (String, u64)>,
    recalled: Vec<LaneState>,
}

impl Pipeline {
    /// With these rules.
    pub fn new(rules: Arc<RuleSet>, settings: Settings) -> Self {
        Self {
            rules,
            settings,
            lanes: Vec::new(),
            fed: Vec::new(),
            batches: 0,
            gone: Counters::default(),
            gone_withheld: BTreeMap::new(),
            recalled: Vec::new(),
        }
    }

    /// Processes a batch; lines come out in order.
    pub fn feed(&mut self, batch: Batch, out: &mut dyn FnMut(Line)) {
        let index = self.lane(&batch.origin, out);
        self.batches += 1;
        if let Some(fed) = self.fed.get_mut(index) {
            *fed = self.batches;
        }
        let Some((_, lane)) = self.lanes.get_mut(index) else { return };
        for observation in batch.observations {
            lane.feed(observation, out);
        }
    }

    /// Lets engine time pass up to `now`: hold-backs end, folding windows close.
    pub fn advance(&mut self, now: Timestamp, out: &mut dyn FnMut(Line)) {
        for (_, lane) in &mut self.lanes {
            lane.advance(now, out);
        }
    }

    /// When something is next due, so that a live caller need not wake before.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.lanes.iter().filter_map(|(_, lane)| lane.next_due()).min()
    }

    /// The end of a replay or of the program: whatever is pending comes out.
    pub fn finish(&mut self, out: &mut dyn FnMut(Line)) {
        for (_, lane) in &mut self.lanes {
            lane.finish(out);
        }
    }

    /// Every open session with its verdict, for `scan`, oldest first.
    pub fn sessions(&self, now: Timestamp) -> Vec<SessionLine> {
        self.lanes.iter().flat_map(|(_, lane)| lane.sessions(now)).collect()
    }

    /// What went through so far.
    pub fn counters(&self) -> Counters {
        let mut all = self.gone;
        for (_, lane) in &self.lanes {
            all.add(lane.counters());
        }
        all
    }

    /// How often each expected filter withheld a hit, by its id.
    pub fn withheld(&self) -> Vec<WithheldBy> {
        let mut all: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
        let present = self.lanes.iter().flat_map(|(_, lane)| lane.withheld());
        let gone =
            self.gone_withheld.iter().map(|(id, (title, count))| (&**id, (&**title, *count)));
        for (id, (title, count)) in present.chain(gone) {
            all.entry(id).or_insert((title, 0)).1 += count;
        }
        let by = |(id, (title, count)): (&str, (&str, u64))| WithheldBy {
            id: id.to_owned(),
            title: title.to_owned(),
            count,
        };
        all.into_iter().map(by).collect()
    }

    /// Puts other rules in force. What is open stays open, and is asked about again: only what is more
    /// serious than what was said comes out. Correlations begin anew.
    pub fn set_rules(&mut self, rules: &Arc<RuleSet>, settings: Settings) {
        self.rules = Arc::clone(rules);
        self.settings = settings;
        for (origin, lane) in &mut self.lanes {
            lane.set_rules(origin, &self.rules, &self.settings);
        }
    }

    /// What has to survive a restart: which sessions were reported, at which level. JSON.
    pub fn state(&self) -> serde_json::Value {
        let lanes = self.lanes.iter().map(|(origin, lane)| LaneState {
            origin: Origin::clone(origin),
            sessions: lane.remember(),
        });
        let state = State { schema: STATE_SCHEMA, lanes: lanes.collect() };
        serde_json::to_value(state).unwrap_or_default()
    }

    /// Takes back what [`Pipeline::state`] gave; sessions in it that are still there stay silent.
    ///
    /// # Errors
    /// When the value is no state of this version; nothing is changed then.
    pub fn restore(&mut self, state: &serde_json::Value) -> Result<(), String> {
        let state: State = Deserialize::deserialize(state)
            .map_err(|error| format!("not a state of bpfwatch: {error}"))?;
        if state.schema != STATE_SCHEMA {
            return Err(format!("state of version {}, expected {STATE_SCHEMA}", state.schema));
        }
        self.recalled = state.lanes;
        Ok(())
    }

    /// Index of the lane of this origin, made where there is none.
    fn lane(&mut self, origin: &Arc<Origin>, out: &mut dyn FnMut(Line)) -> usize {
        // A source gives the same origin again and again: that is told without a look into it.
        let same = self.lanes.iter().position(|(known, _)| Arc::ptr_eq(known, origin));
        let known = same.or_else(|| self.lanes.iter().position(|(known, _)| known == origin));
        if let Some(index) = known {
            return index;
        }
        if self.lanes.len() >= MAX_LANES {
            let silent = self.fed.iter().enumerate().min_by_key(|(_, fed)| **fed);
            let index = silent.map_or(0, |(index, _)| index);
            self.fed.remove(index);
            let (_, mut silent) = self.lanes.remove(index);
            silent.finish(out);
            self.gone.add(silent.counters());
            for (id, (title, count)) in silent.withheld() {
                let first = || (title.to_owned(), 0);
                let sum = self.gone_withheld.entry(id.to_owned()).or_insert_with(first);
                sum.1 += count;
            }
        }
        let mut lane = Lane::new(origin, &self.rules, &self.settings);
        let recalled = self.recalled.iter().position(|state| state.origin == **origin);
        if let Some(index) = recalled {
            lane.recall(self.recalled.swap_remove(index).sessions);
        }
        self.lanes.push((Arc::clone(origin), lane));
        self.fed.push(self.batches);
        self.lanes.len() - 1
    }
}
