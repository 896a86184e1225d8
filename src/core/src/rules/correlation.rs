//! Correlation rules as they are loaded: references resolved, and what the engine would get wrong
//! refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rsigma_parser::{
    ConditionExpr, ConditionOperator, CorrelationCondition, CorrelationRule, CorrelationType,
    WindowMode,
};

use rsigma_eval::correlation::compile_correlation;

use super::check::Fault;
use super::fields::Binding;
pub use super::shape::{COUNT_LIMIT, Gate, Shape, Valued};

/// Longest time span of a correlation: what is older would have to be remembered, and nobody asks.
const SPAN_LIMIT_SECS: u64 = 7 * 24 * 3600;

/// A loaded correlation.
#[derive(Debug, Clone)]
pub struct Correlation {
    /// Its place among the rules.
    pub index: usize,
    /// The rule as written.
    pub rule: CorrelationRule,
    /// The rules that it refers to, by index, in the order in which it names them.
    pub refers_to: Vec<usize>,
    /// As the correlator runs it.
    pub shape: Shape,
}

/// What correlations make of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// Some correlation refers to it.
    pub correlated: bool,
    /// It does not report by itself: every correlation that refers to it has `generate: false`, which
    /// is Sigma's default.
    pub silent: bool,
}

/// A rule that a correlation may name.
pub struct Referable<'a> {
    /// Where it stands in the caller's list.
    pub place: usize,
    /// Id, given or derived.
    pub id: &'a str,
    /// Sigma's `name`.
    pub name: Option<&'a str>,
    /// Logsource of a detection.
    pub binding: Option<Binding>,
    /// A correlation's own rule.
    pub rule: Option<&'a CorrelationRule>,
}

/// What a correlation's names mean.
pub struct Resolved {
    /// The rules that it refers to, by place, in its order.
    pub refers_to: Vec<usize>,
    /// The detections below it, through other correlations too.
    pub bases: Vec<usize>,
    /// As the correlator runs it.
    pub shape: Shape,
}

/// Something for each of some places, in order.
pub type ByPlace<T> = Vec<(usize, T)>;

/// Resolves all correlations; those that cannot be come back with the reason, by place.
pub fn resolve(known: &[Referable<'_>]) -> (ByPlace<Resolved>, ByPlace<Fault>) {
    let mut by_name: HashMap<&str, Vec<&Referable<'_>>> = HashMap::new();
    for referable in known {
        by_name.entry(referable.id).or_default().push(referable);
        if let Some(name) = referable.name.filter(|name| *name != referable.id) {
            by_name.entry(name).or_default().push(referable);
        }
    }
    let mut faults: BTreeMap<usize, Fault> = BTreeMap::new();
    let mut refers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for referable in known {
        let Some(rule) = referable.rule else { continue };
        match form(rule).and_then(|()| references(rule, &by_name)) {
            Ok(places) => {
                refers.insert(referable.place, places);
            }
            Err(fault) => {
                faults.insert(referable.place, fault);
            }
        }
    }
    let by_place: HashMap<usize, &Referable<'_>> =
        known.iter().map(|referable| (referable.place, referable)).collect();
    // From the detections upwards: whatever never gets its turn is in a cycle, or above a bad one.
    let mut done: BTreeMap<usize, Resolved> = BTreeMap::new();
    loop {
        let ready = |places: &[usize], done: &BTreeMap<usize, Resolved>| {
            places.iter().all(|place| {
                done.contains_key(place)
                    || by_place.get(place).is_some_and(|known| known.binding.is_some())
            })
        };
        let next = refers.iter().find(|(_, places)| ready(places, &done)).map(|(place, _)| *place);
        let Some(place) = next else { break };
        let Some(refers_to) = refers.remove(&place) else { break };
        let Some(rule) = by_place.get(&place).and_then(|known| known.rule) else { continue };
        match level(rule, &refers_to, &by_place, &done) {
            Ok(bases) => {
                let shape = Shape::of(rule);
                done.insert(place, Resolved { refers_to, bases, shape });
            }
            Err(fault) => {
                faults.insert(place, fault);
            }
        }
    }
    for place in refers.keys() {
        let what = "it refers to a correlation that refers back to it, or that was refused";
        faults.insert(*place, (Some("rules".to_owned()), what.to_owned()));
    }
    (done.into_iter().collect(), faults.into_iter().collect())
}

fn fault(key: &str, what: impl Into<String>) -> Fault {
    (Some(key.to_owned()), what.into())
}

/// What can be said of a correlation by itself.
fn form(rule: &CorrelationRule) -> Result<(), Fault> {
    if rule.rules.is_empty() {
        return Err(fault("correlation", "a correlation names at least one rule"));
    }
    let distinct: BTreeSet<&String> = rule.rules.iter().collect();
    if distinct.len() != rule.rules.len() {
        return Err(fault("rules", "a correlation names each rule once"));
    }
    let span = rule.timespan.seconds;
    if span == 0 || span > SPAN_LIMIT_SECS {
        return Err(fault("timespan", format!("the time span is 1 s to {SPAN_LIMIT_SECS} s")));
    }
    if rule.window == WindowMode::Session && rule.gap.as_ref().is_some_and(|gap| gap.seconds > span)
    {
        return Err(fault("gap", "the gap is longer than the time span"));
    }
    let ordered = rule.correlation_type == CorrelationType::TemporalOrdered;
    if ordered && rule.window != WindowMode::Sliding {
        return Err(fault("window", "temporal_ordered goes with a sliding window"));
    }
    if let CorrelationCondition::Threshold { predicates, field, .. } = &rule.condition {
        threshold(rule, predicates, field.is_some())?;
    }
    // The rest is rsigma's to say.
    compile_correlation(&Shape::of(rule).rule)
        .map(|_| ())
        .map_err(|error| fault("correlation", error.to_string()))
}

fn threshold(
    rule: &CorrelationRule,
    predicates: &[(ConditionOperator, u64)],
    has_field: bool,
) -> Result<(), Fault> {
    let highest = predicates.iter().map(|(_, number)| *number).max().unwrap_or(0);
    let from_below = |(operator, number): &(ConditionOperator, u64)| match operator {
        ConditionOperator::Gt => true,
        ConditionOperator::Gte | ConditionOperator::Eq => *number > 0,
        _ => false,
    };
    match rule.correlation_type {
        CorrelationType::Temporal | CorrelationType::TemporalOrdered => {
            let all = rule.rules.len() as u64;
            // What rsigma makes of no condition at all is `gte: 1`.
            if predicates == [(ConditionOperator::Gte, 1)]
                || predicates == [(ConditionOperator::Gte, all)]
            {
                return Ok(());
            }
            let what = "a temporal correlation asks for all of its rules, \
                        or has a condition of their names";
            Err(fault("condition", what))
        }
        CorrelationType::EventCount | CorrelationType::ValueCount => {
            if !predicates.iter().any(from_below) {
                let what = "the condition is true at the first event: \
                            give it a lower bound (gt, gte or eq)";
                return Err(fault("condition", what));
            }
            if highest > COUNT_LIMIT as u64 {
                let what = format!("no more than {COUNT_LIMIT} are counted");
                return Err(fault("condition", what));
            }
            if rule.correlation_type == CorrelationType::ValueCount && !has_field {
                return Err(fault("condition", "value_count needs a `field` in its condition"));
            }
            Ok(())
        }
        _ if !has_field => {
            Err(fault("condition", "this type of correlation needs a `field` in its condition"))
        }
        _ => Ok(()),
    }
}

/// Places of the rules that it names.
fn references(
    rule: &CorrelationRule,
    by_name: &HashMap<&str, Vec<&Referable<'_>>>,
) -> Result<Vec<usize>, Fault> {
    let mut places = Vec::new();
    for name in &rule.rules {
        match by_name.get(name.as_str()).map(Vec::as_slice) {
            Some([one]) => places.push(one.place),
            Some([_, ..]) => {
                return Err(fault("rules", format!("more than one rule is named `{name}`")));
            }
            _ => {
                return Err(fault(
                    "rules",
                    format!("there is no rule `{name}`, or it was refused"),
                ));
            }
        }
    }
    let mut distinct = places.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() != places.len() {
        return Err(fault("rules", "a correlation names each rule once"));
    }
    if let CorrelationCondition::Extended(expr) = &rule.condition {
        extended(expr, &rule.rules)?;
    }
    for alias in &rule.aliases {
        if let Some(unknown) = alias.mapping.keys().filter(|name| !rule.rules.contains(name)).min()
        {
            return Err(fault(
                "aliases",
                format!("the alias names `{unknown}`, which is not in `rules`"),
            ));
        }
    }
    Ok(places)
}

fn extended(expr: &ConditionExpr, rules: &[String]) -> Result<(), Fault> {
    match expr {
        ConditionExpr::And(list) | ConditionExpr::Or(list) => {
            list.iter().try_for_each(|expr| extended(expr, rules))
        }
        ConditionExpr::Not(expr) => extended(expr, rules),
        ConditionExpr::Identifier(name) if rules.contains(name) => Ok(()),
        ConditionExpr::Identifier(name) => Err(fault(
            "condition",
            format!("the condition names `{name}`, which is not in `rules`"),
        )),
        ConditionExpr::Selector { .. } => {
            Err(fault("condition", "the condition of a correlation has no `1 of` or `all of`"))
        }
    }
}

/// Checks a correlation against what stands below it; gives the detections there.
fn level(
    rule: &CorrelationRule,
    refers_to: &[usize],
    by_place: &HashMap<usize, &Referable<'_>>,
    done: &BTreeMap<usize, Resolved>,
) -> Result<Vec<usize>, Fault> {
    let mut bases = Vec::new();
    for (place, name) in std::iter::zip(refers_to, &rule.rules) {
        if let Some(below) = done.get(place) {
            chained(rule, *place, by_place)?;
            bases.extend(&below.bases);
            continue;
        }
        let Some(binding) = by_place.get(place).and_then(|known| known.binding) else { continue };
        for field in &rule.group_by {
            let alias = rule.aliases.iter().find(|alias| alias.alias == *field);
            let field = match alias {
                None => field,
                Some(alias) => alias.mapping.get(name).ok_or_else(|| {
                    fault("aliases", format!("the alias `{field}` does not name `{name}`"))
                })?,
            };
            known(binding, field, "group-by")?;
        }
        if let CorrelationCondition::Threshold { field: Some(fields), .. } = &rule.condition {
            fields.iter().try_for_each(|field| known(binding, field, "field"))?;
        }
        bases.push(*place);
    }
    bases.sort_unstable();
    bases.dedup();
    Ok(bases)
}

/// A correlation over another one sees only that one's group: what it groups by must be in there.
fn chained(
    rule: &CorrelationRule,
    below: usize,
    by_place: &HashMap<usize, &Referable<'_>>,
) -> Result<(), Fault> {
    let Some(below) = by_place.get(&below).and_then(|known| known.rule) else { return Ok(()) };
    if let Some(field) = rule.group_by.iter().find(|field| !below.group_by.contains(field)) {
        let what = format!("it groups by `{field}`, and `{}` below it does not", below.title);
        return Err(fault("group-by", what));
    }
    let counts = matches!(
        rule.correlation_type,
        CorrelationType::EventCount | CorrelationType::Temporal | CorrelationType::TemporalOrdered
    );
    if counts {
        return Ok(());
    }
    Err(fault("type", "a correlation over another one has no field to take values of"))
}

fn known(binding: Binding, field: &str, key: &str) -> Result<(), Fault> {
    if !binding.source.knows(field) {
        let category = binding.source.name();
        return Err(fault(key, format!("{category} has no field `{field}`")));
    }
    // rsigma has no key for a list: all events would fall into one group.
    if matches!(field, "Stage" | "AncestorImages") {
        return Err(fault(key, format!("`{field}` is a list, which has no single value")));
    }
    Ok(())
}

/// What each of `count` rules is to the correlations.
pub fn roles(correlations: &[Correlation], count: usize) -> Vec<Role> {
    let mut roles = vec![Role::default(); count];
    for correlation in correlations {
        for index in &correlation.refers_to {
            if let Some(role) = roles.get_mut(*index) {
                role.silent = !correlation.rule.generate && (role.silent || !role.correlated);
                role.correlated = true;
            }
        }
    }
    roles
}
