//! Correlation: several hits by time and group make one more.
//!
//! Windows, counts, distinct values and sums are rsigma's. Around it stands what 0.23 gets wrong or
//! leaves unbounded:
//!
//! | trait of 0.23 | here |
//! |---|---|
//! | time in seconds, so no order within one | it is given nanoseconds, each hit a later one |
//! | a missing group-by field makes one group of all that miss it | such a hit is not fed |
//! | keys and values of any length are kept | it is given digests |
//! | fires again at every further hit | one firing a group within the time span |
//! | `temporal` without a condition fires at any one of its rules | asks for all of them |
//! | `temporal_ordered` takes one event for two steps, and exponential time | one slot a step, here |
//! | what a correlation over another one sees is unguarded | fed from here, like any hit |
//! | state grows with the rate of hits | bounded in groups and in entries, counted in [`Correlator::forgotten`] |

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rsigma_eval::{
    CorrelationConfig, CorrelationEngine, DetectionBody, EvaluationResult, Event, EventValue,
    ResultBody, RuleHeader,
};

use super::correlation::{Gate, Shape, Valued};
use super::{Hit, RuleSet};
use crate::ids;
use crate::time::Timestamp;

/// Groups kept at once, over all correlations.
const MAX_GROUPS: usize = 10_000;
/// Hits that rsigma may keep at once, over all groups.
const MAX_ENTRIES: usize = 100_000;
/// Contributing hits kept of a group.
const RING: usize = 16;
/// Contributing hits kept at once, over all groups.
const MAX_CONTRIBUTIONS: usize = 20_000;
/// Bytes kept of the description of a contributing hit, and of a value that is grouped by.
const TEXT_LIMIT: usize = 120;
/// How often expired groups are let go.
const EVICTION: Duration = Duration::from_secs(60);

/// A correlation that fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correlated {
    /// The correlation.
    pub hit: Hit,
    /// What its contributions have in common: field and value, each value at most 120 bytes.
    pub group: Vec<(String, String)>,
    /// The last 16 hits that led to it, oldest first.
    pub contributions: Vec<Contribution>,
}

/// A hit that led to a correlation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// When.
    pub at: Timestamp,
    /// `seq` of its observation.
    pub seq: u64,
    /// Index of its rule.
    pub rule: usize,
    /// What the caller said of it.
    pub what: Arc<str>,
}

/// An event as hits of it are fed.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// When.
    pub at: Timestamp,
    /// `seq` of its observation.
    pub seq: u64,
    /// A short word on it, such as the image; the first 120 bytes are kept.
    pub what: &'a str,
}

/// State of one group of one correlation.
#[derive(Debug)]
struct Group {
    touched: i64,
    fired: Option<i64>,
    /// Hits that rsigma may keep of it.
    entries: usize,
    /// Of an ordered correlation: for each step reached, the latest start that leads there.
    steps: Box<[Option<i64>]>,
    ring: VecDeque<Contribution>,
}

/// All correlations of a rule set, with their state. One for each origin.
pub struct Correlator {
    rules: Arc<RuleSet>,
    engine: CorrelationEngine,
    groups: HashMap<String, Group>,
    contributions: usize,
    entries: usize,
    /// Time of the last hit fed, in nanoseconds; each hit has one of its own.
    tick: i64,
    evict_at: Timestamp,
    forgotten: u64,
}

/// One hit on its way into one correlation.
struct Feed {
    /// Place of the correlation in the set.
    correlation: usize,
    /// Which of its rules it is.
    step: usize,
    group: Vec<(String, String)>,
    value: Option<Value>,
    rule: usize,
}

/// What rsigma sees of a hit.
struct Fed<'a> {
    group: &'a str,
    value: Option<&'a Value>,
}

enum Value {
    Distinct(String),
    Number(f64),
}

impl Correlator {
    /// With no state yet.
    pub fn new(rules: Arc<RuleSet>) -> Self {
        let engine = engine(&rules);
        Self {
            rules,
            engine,
            groups: HashMap::new(),
            contributions: 0,
            entries: 0,
            tick: 0,
            evict_at: Timestamp::default(),
            forgotten: 0,
        }
    }

    /// Takes the hits of one event that correlations refer to ([`Verdict`](super::Verdict)'s
    /// `correlated`), in the order of processing. Gives the correlations that fire and report by
    /// themselves, highest level first.
    pub fn feed(
        &mut self,
        event: &impl Event,
        moment: Moment<'_>,
        correlated: &[Hit],
    ) -> Vec<Correlated> {
        let mut out = Vec::new();
        if correlated.is_empty() {
            return out;
        }
        self.advance(moment.at);
        let rules = Arc::clone(&self.rules);
        let what: Arc<str> = shortened(moment.what).into();
        let mut queue: VecDeque<Feed> = VecDeque::new();
        for (place, correlation) in rules.correlations.iter().enumerate() {
            // Later steps first: one event is not two steps of an order.
            for (step, rule) in correlation.refers_to.iter().enumerate().rev() {
                if !correlated.iter().any(|hit| hit.index == *rule) {
                    continue;
                }
                let shape = &correlation.shape;
                let Some(group) = group_of(shape, step, event) else { continue };
                let Some(value) = value_of(shape, event) else { continue };
                queue.push_back(Feed { correlation: place, step, group, value, rule: *rule });
            }
        }
        while let Some(feed) = queue.pop_front() {
            let Some(fired) = self.take(&rules, feed, moment, &what) else { continue };
            for (place, above) in rules.correlations.iter().enumerate() {
                let Some(step) = above.refers_to.iter().position(|below| *below == fired.hit.index)
                else {
                    continue;
                };
                let wanted =
                    |field: &String| fired.group.iter().find(|(name, _)| name == field).cloned();
                let Some(group) = above.rule.group_by.iter().map(wanted).collect() else {
                    continue;
                };
                let rule = fired.hit.index;
                queue.push_back(Feed { correlation: place, step, group, value: None, rule });
            }
            if !rules.roles.get(fired.hit.index).is_some_and(|role| role.silent) {
                out.push(fired);
            }
        }
        out.sort_by_key(|fired| (std::cmp::Reverse(fired.hit.rule.level), fired.hit.index));
        out
    }

    /// Lets time pass: what has expired is let go once a minute.
    pub fn advance(&mut self, now: Timestamp) {
        self.tick = self.tick.max(now.nanos());
        if now < self.evict_at {
            return;
        }
        self.evict_at = now + EVICTION;
        self.evict();
    }

    /// How often state was let go before its time because there was too much of it.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn evict(&mut self) {
        self.engine.evict_expired(self.tick);
        let tick = self.tick;
        let longest = self.rules.correlations.iter().map(|c| c.shape.span).max().unwrap_or(0);
        self.groups.retain(|_, group| tick.saturating_sub(group.touched) <= longest);
        self.count();
    }

    fn count(&mut self) {
        self.contributions = self.groups.values().map(|group| group.ring.len()).sum();
        self.entries = self.groups.values().map(|group| group.entries).sum();
    }

    /// Feeds one hit to one correlation; says whether that fires.
    fn take(
        &mut self,
        rules: &RuleSet,
        feed: Feed,
        moment: Moment<'_>,
        what: &Arc<str>,
    ) -> Option<Correlated> {
        let correlation = rules.correlations.get(feed.correlation)?;
        let shape = &correlation.shape;
        self.make_room();
        self.tick = self.tick.saturating_add(1);
        let tick = self.tick;
        let key = key(feed.correlation, &feed.group);

        let group = self.groups.entry(key.clone()).or_insert_with(|| Group {
            touched: tick,
            fired: None,
            entries: 0,
            steps: vec![None; shape.steps].into_boxed_slice(),
            ring: VecDeque::new(),
        });
        group.touched = tick;
        if group.ring.len() == RING {
            group.ring.pop_front();
            self.contributions -= 1;
        }
        group.ring.push_back(Contribution {
            at: moment.at,
            seq: moment.seq,
            rule: feed.rule,
            what: Arc::clone(what),
        });
        self.contributions += 1;
        let in_order = shape.steps == 0 || in_order(&mut group.steps, feed.step, tick, shape.span);

        if group.entries < shape.cap {
            group.entries += 1;
            self.entries += 1;
        }
        let fed = Fed { group: &key, value: feed.value.as_ref() };
        let result = detection(shape.names.get(feed.step)?);
        let results = self.engine.process_with_detections(&fed, vec![result], tick);
        let fired = in_order && results.iter().any(EvaluationResult::is_correlation);
        let group = self.groups.get_mut(&key)?;
        let again = group.fired.is_some_and(|last| tick.saturating_sub(last) < shape.span);
        if !fired || again {
            return None;
        }
        group.fired = Some(tick);
        let index = correlation.index;
        let rule = Arc::clone(&rules.rules.get(index)?.shown);
        let shown =
            feed.group.into_iter().map(|(name, value)| (name, shortened(&value).to_owned()));
        Some(Correlated {
            hit: Hit { rule, index },
            group: shown.collect(),
            contributions: group.ring.iter().cloned().collect(),
        })
    }

    /// Keeps groups, contributions and entries within their bounds before one more of each.
    fn make_room(&mut self) {
        if self.groups.len() >= MAX_GROUPS || self.contributions >= MAX_CONTRIBUTIONS {
            // Each was touched at a tick of its own, so which ones go does not depend on chance.
            let mut ages: Vec<i64> = self.groups.values().map(|group| group.touched).collect();
            ages.sort_unstable();
            let eldest = ages.get(ages.len() / 10).copied().unwrap_or(i64::MAX);
            self.groups.retain(|_, group| group.touched > eldest);
            self.count();
            self.forgotten += 1;
        }
        if self.entries >= MAX_ENTRIES {
            self.evict();
            if self.entries > MAX_ENTRIES / 2 {
                // rsigma can let go only of what is old. To start anew misses a correlation at most.
                self.engine = engine(&self.rules);
                self.groups.values_mut().for_each(|group| group.entries = 0);
                self.entries = 0;
                self.forgotten += 1;
            }
        }
    }
}

/// An engine that knows the correlations, under names of ours, and no state.
fn engine(rules: &RuleSet) -> CorrelationEngine {
    let mut engine = CorrelationEngine::new(CorrelationConfig {
        max_state_entries: MAX_GROUPS,
        max_group_entries: Some(super::correlation::COUNT_LIMIT + 1),
        emit_detections: false,
        ..CorrelationConfig::default()
    });
    for correlation in &rules.correlations {
        // It was compiled once when it was loaded.
        let _ = engine.add_correlation(&correlation.shape.rule);
    }
    engine
}

/// One slot a step: reaches `step` at `tick`, and says whether that completes an order that began
/// within the span. Each slot keeps the latest possible start, so no earlier hit need be kept.
fn in_order(steps: &mut [Option<i64>], step: usize, tick: i64, span: i64) -> bool {
    let start = match step.checked_sub(1) {
        None => Some(tick),
        Some(before) => steps.get(before).copied().flatten(),
    };
    let (Some(start), last) = (start, step + 1 == steps.len()) else { return false };
    if let Some(slot) = steps.get_mut(step) {
        *slot = (*slot).max(Some(start));
    }
    last && tick.saturating_sub(start) <= span
}

/// What an event has for the fields that a correlation groups by; `None` where one is missing.
fn group_of(shape: &Shape, step: usize, event: &impl Event) -> Option<Vec<(String, String)>> {
    let fields = shape.group_by.get(step)?;
    fields
        .iter()
        .map(|(shown, field)| Some((shown.clone(), scalar(&event.get_field(field)?)?)))
        .collect()
}

/// The value that a correlation counts or sums: none where it wants none, nothing where it is missing.
fn value_of(shape: &Shape, event: &impl Event) -> Option<Option<Value>> {
    match &shape.value {
        Valued::Nothing => Some(None),
        Valued::Number(field) => Some(Some(Value::Number(event.get_field(field)?.as_f64()?))),
        Valued::Distinct(fields) => {
            let values: Option<Vec<String>> =
                fields.iter().map(|field| scalar(&event.get_field(field)?)).collect();
            let values = values?;
            let parts: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
            Some(Some(Value::Distinct(ids::derive(&parts))))
        }
    }
}

fn scalar(value: &EventValue<'_>) -> Option<String> {
    value.as_str().map(Cow::into_owned)
}

/// A group's key: as short for a long command line as for a number.
fn key(correlation: usize, group: &[(String, String)]) -> String {
    let number = correlation.to_le_bytes();
    let mut parts: Vec<&[u8]> = vec![&number];
    parts.extend(group.iter().map(|(_, value)| value.as_bytes()));
    ids::derive(&parts)
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(TEXT_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn detection(name: &str) -> EvaluationResult {
    EvaluationResult {
        header: RuleHeader {
            rule_title: String::new(),
            rule_id: Some(name.to_owned()),
            level: None,
            tags: Vec::new(),
            custom_attributes: Arc::default(),
            enrichments: None,
        },
        body: ResultBody::Detection(DetectionBody {
            matched_selections: Vec::new(),
            matched_fields: Vec::new(),
            event: None,
        }),
    }
}

impl Event for Fed<'_> {
    fn get_field(&self, path: &str) -> Option<EventValue<'_>> {
        match (path, self.value) {
            (Gate::GROUP, _) => Some(EventValue::Str(Cow::Borrowed(self.group))),
            (Gate::VALUE, Some(Value::Distinct(value))) => {
                Some(EventValue::Str(Cow::Borrowed(value)))
            }
            (Gate::VALUE, Some(Value::Number(value))) => Some(EventValue::Float(*value)),
            _ => None,
        }
    }

    fn any_string_value(&self, _: &dyn Fn(&str) -> bool) -> bool {
        false
    }

    fn all_string_values(&self) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
