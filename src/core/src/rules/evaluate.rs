//! Asking all rules about one event.
//!
//! There is one rsigma engine for each pair of source and system, built when the first such event
//! comes, or at once where there is one system only. Expected filters stand in the same engine as rules of
//! their own, so that one pass finds both.

use std::sync::{Arc, OnceLock};

use rsigma_eval::{CompiledRule, Engine};

use super::RuleSet;
use super::fields::{Binding, SOURCES, SYSTEMS, Source};
use crate::events::{RuleEvent, SessionEvent};
use crate::finding::RuleRef;
use crate::observation::Os;

/// A rule that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The rule, as outputs show it.
    pub rule: Arc<RuleRef>,
    /// Its place in [`RuleSet::rules`].
    pub index: usize,
}

/// A hit that an expected filter withholds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// The filter.
    pub filter: Arc<RuleRef>,
    /// What it withholds.
    pub hit: Hit,
}

/// What the rules say of one event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What to report: highest level first, then by path and line.
    pub hits: Vec<Hit>,
    /// What to feed a [`Correlator`](super::correlate::Correlator): hits that some correlation refers
    /// to. Some stand in `hits` too; the others are silent by themselves (Sigma's `generate: false`).
    pub correlated: Vec<Hit>,
    /// What was not reported because it is expected, in the order of `hits`.
    pub withheld: Vec<Withheld>,
    /// The first filter that matched, whether or not a rule did.
    pub expected_by: Option<Arc<RuleRef>>,
}

/// A rule ready to be matched.
pub struct Unit {
    /// Its logsource.
    pub binding: Binding,
    /// Compiled; its `id` is its index among all rules, in decimal.
    pub rule: CompiledRule,
    /// Fields without which it cannot match.
    pub mandatory: Vec<String>,
    /// Its place in [`RuleSet::rules`].
    pub index: usize,
    /// It is an expected filter.
    pub is_filter: bool,
}

impl Unit {
    /// Takes off what the engine would copy into each match: all that is needed is which rule it was.
    fn strip(&mut self) {
        let rule = &mut self.rule;
        rule.id = Some(self.index.to_string());
        rule.title = String::new();
        rule.level = None;
        rule.tags = Vec::new();
        rule.description = None;
        rule.falsepositives = Vec::new();
        rule.include_event = false;
        rule.custom_attributes = Arc::default();
    }
}

/// An engine of these rules, if there are any.
fn engine(rules: Vec<CompiledRule>) -> Option<Engine> {
    if rules.is_empty() {
        return None;
    }
    let mut engine = Engine::new();
    engine.extend_compiled_rules(rules);
    Some(engine)
}

/// An engine of the expected filters of captures.
fn filters(units: &[Unit], os: Os) -> Option<Engine> {
    let covered = units
        .iter()
        .filter(|unit| unit.is_filter && unit.binding.covers(Source::PacketCapture, os));
    engine(covered.map(|unit| unit.rule.clone()).collect())
}

/// Which rules an engine finds to match, sorted.
fn matches(engine: &Engine, event: &impl RuleEvent) -> Vec<usize> {
    let index = |id: &Option<String>| id.as_ref().and_then(|id| id.parse::<usize>().ok());
    let results = engine.evaluate(event);
    let mut matched: Vec<usize> =
        results.iter().filter_map(|result| index(&result.header.rule_id)).collect();
    matched.sort_unstable();
    matched
}

/// Every detection and every filter, compiled.
#[derive(Default)]
pub struct Engines {
    units: Vec<Unit>,
    built: [[OnceLock<Option<Engine>>; SYSTEMS.len()]; SOURCES.len()],
    /// Expected filters of captures by themselves: they are asked more often than anything else.
    filters: [OnceLock<Option<Engine>>; SYSTEMS.len()],
}

impl Engines {
    /// Takes the compiled rules, by index.
    pub fn new(mut units: Vec<Unit>) -> Self {
        units.iter_mut().for_each(Unit::strip);
        Self { units, ..Self::default() }
    }

    /// For one system: its engines take the rules instead of copying them.
    pub fn of(os: Os, mut units: Vec<Unit>) -> Self {
        units.iter_mut().for_each(Unit::strip);
        let engines = Self::default();
        if let Some(slot) = engines.filters.get(os as usize) {
            let _ = slot.set(filters(&units, os));
        }
        for (source, slots) in std::iter::zip(SOURCES, &engines.built) {
            let covered = units.extract_if(.., |unit| unit.binding.covers(source, os));
            let engine = engine(covered.map(|unit| unit.rule).collect());
            if let Some(slot) = slots.get(os as usize) {
                // It is new, so nothing stands in it.
                let _ = slot.set(engine);
            }
        }
        engines
    }

    /// See [`RuleSet::never_on`].
    pub fn never_on(&self, index: usize, os: Os) -> Option<&str> {
        let place = self.units.binary_search_by_key(&index, |unit| unit.index).ok()?;
        let unit = self.units.get(place)?;
        // A rule for another system is not silent because of what this one lacks.
        if unit.binding.product.is_some_and(|product| product != os) {
            return None;
        }
        let missing = |field: &&String| !unit.binding.source.supplies(field, os);
        unit.mandatory.iter().find(missing).map(String::as_str)
    }

    fn engine(&self, source: Source, os: Os) -> Option<&Engine> {
        let slot = self.built.get(source as usize)?.get(os as usize)?;
        slot.get_or_init(|| {
            let covered = self.units.iter().filter(|unit| unit.binding.covers(source, os));
            engine(covered.map(|unit| unit.rule.clone()).collect())
        })
        .as_ref()
    }

    /// See [`RuleSet::withholds`].
    pub fn withholds(&self, event: &SessionEvent<'_>, hits: &[Hit], set: &RuleSet) -> bool {
        let os = event.os();
        let Some(slot) = self.filters.get(os as usize) else { return false };
        let Some(engine) = slot.get_or_init(|| filters(&self.units, os)) else { return false };
        matches(engine, event).iter().any(|index| {
            let filter = set.filters.binary_search_by_key(index, |filter| filter.index);
            let filter = filter.ok().and_then(|place| set.filters.get(place));
            filter.is_some_and(|filter| hits.iter().any(|hit| filter.withholds(hit.index)))
        })
    }

    /// See [`RuleSet::evaluate`].
    pub fn evaluate(&self, event: &impl RuleEvent, set: &RuleSet) -> Verdict {
        let mut verdict = Verdict::default();
        let Some(engine) = self.engine(event.source(), event.os()) else { return verdict };
        let matched = matches(engine, event);
        if matched.is_empty() {
            return verdict;
        }
        // `filters` is sorted by index too, so the first one that matches leads.
        let expected: Vec<_> = set
            .filters
            .iter()
            .filter(|filter| matched.binary_search(&filter.index).is_ok())
            .collect();
        let shown = |index: usize| set.rules.get(index).map(|rule| Arc::clone(&rule.shown));
        verdict.expected_by = expected.first().and_then(|filter| shown(filter.index));

        let mut hits: Vec<Hit> = matched
            .into_iter()
            .filter(|index| set.filters.binary_search_by_key(index, |filter| filter.index).is_err())
            .filter_map(|index| Some(Hit { rule: shown(index)?, index }))
            .collect();
        // Stable, and they are in the order of path and line.
        hits.sort_by_key(|hit| std::cmp::Reverse(hit.rule.level));
        for hit in hits {
            let role = set.roles.get(hit.index).copied().unwrap_or_default();
            let withholds = expected.iter().find(|filter| filter.withholds(hit.index));
            if let Some(filter) = withholds.and_then(|filter| shown(filter.index)) {
                verdict.withheld.push(Withheld { filter, hit });
                continue;
            }
            if role.correlated {
                verdict.correlated.push(hit.clone());
            }
            if !role.silent {
                verdict.hits.push(hit);
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<RuleSet>();
    }
}
