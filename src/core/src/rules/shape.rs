//! A correlation as rsigma gets it: names, fields and times replaced by what keeps it exact and small.

use std::collections::HashMap;

use rsigma_parser::{
    ConditionExpr, ConditionOperator, CorrelationCondition, CorrelationRule, CorrelationType,
    WindowMode,
};
use yaml_serde::Value;

/// Highest number that an `event_count` or `value_count` can ask for.
pub const COUNT_LIMIT: usize = 1_000;

const NANOS: u64 = 1_000_000_000;

/// Names of the two fields that rsigma sees of a hit.
pub struct Gate;

impl Gate {
    /// Digest of what the hit is grouped by.
    pub const GROUP: &'static str = "group";
    /// What is counted or summed.
    pub const VALUE: &'static str = "value";
}

/// What a correlation takes from each hit beside its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Valued {
    /// Nothing.
    Nothing,
    /// The value of these fields, to be told apart.
    Distinct(Vec<String>),
    /// A number.
    Number(String),
}

/// A correlation in the form that is run.
#[derive(Debug, Clone)]
pub struct Shape {
    /// For rsigma: its rules are `0`, `1` ... after its own place among them, time is in nanoseconds,
    /// the group is one field.
    pub rule: CorrelationRule,
    /// Name of each of its rules in there.
    pub names: Vec<String>,
    /// For each of its rules: the fields to group by, as shown and as the rule's events name them.
    pub group_by: Vec<Vec<(String, String)>>,
    /// What to count.
    pub value: Valued,
    /// Number of steps, where they have an order; else 0.
    pub steps: usize,
    /// Time span in nanoseconds.
    pub span: i64,
    /// Hits that rsigma keeps of a group, at most.
    pub cap: usize,
}

impl Shape {
    /// Of a rule as written.
    pub fn of(written: &CorrelationRule) -> Self {
        let id = written.id.clone().unwrap_or_else(|| written.title.clone());
        let names: Vec<String> =
            (0..written.rules.len()).map(|step| format!("{step} of {id}")).collect();
        let temporal = matches!(
            written.correlation_type,
            CorrelationType::Temporal | CorrelationType::TemporalOrdered
        );
        let mut rule = written.clone();
        rule.id = Some(id);
        rule.name = None;
        rule.rules.clone_from(&names);
        rule.group_by = vec![Gate::GROUP.to_owned()];
        rule.aliases = Vec::new();
        rule.timespan.seconds = rule.timespan.seconds.saturating_mul(NANOS);
        if let Some(gap) = &mut rule.gap {
            gap.seconds = gap.seconds.saturating_mul(NANOS);
        }
        // The order is checked in the correlator; rsigma says whether all are in the window.
        if temporal {
            rule.correlation_type = CorrelationType::Temporal;
        }
        let mut value = Valued::Nothing;
        match &mut rule.condition {
            CorrelationCondition::Extended(expr) => rename(expr, &written.rules, &names),
            CorrelationCondition::Threshold { predicates, .. } if temporal => {
                *predicates = vec![(ConditionOperator::Gte, names.len() as u64)];
            }
            CorrelationCondition::Threshold { field, .. } => {
                let fields = field.take().unwrap_or_default();
                if let Some(first) = fields.first().cloned()
                    && written.correlation_type != CorrelationType::EventCount
                {
                    *field = Some(vec![Gate::VALUE.to_owned()]);
                    value = match written.correlation_type {
                        CorrelationType::ValueCount => Valued::Distinct(fields),
                        _ => Valued::Number(first),
                    };
                }
            }
        }
        let cap = cap(&rule);
        let text = Value::String(cap.to_string());
        rule.custom_attributes = HashMap::from([("rsigma.max_group_entries".to_owned(), text)]);
        let ordered = written.correlation_type == CorrelationType::TemporalOrdered;
        Self {
            span: i64::try_from(rule.timespan.seconds).unwrap_or(i64::MAX),
            // It is a limit for each rule where rsigma keeps them apart.
            cap: if temporal { cap * names.len() } else { cap },
            steps: if ordered { names.len() } else { 0 },
            group_by: written.rules.iter().map(|name| fields_of(written, name)).collect(),
            rule,
            names,
            value,
        }
    }
}

/// Entries of a group that the condition can tell apart; more of them are the same to it.
fn cap(rule: &CorrelationRule) -> usize {
    let enough = match (&rule.condition, rule.correlation_type) {
        // The last hit of each rule.
        (_, CorrelationType::Temporal) => 1,
        (CorrelationCondition::Threshold { predicates, .. }, CorrelationType::EventCount) => {
            let highest = predicates.iter().map(|(_, number)| *number).max().unwrap_or(0);
            usize::try_from(highest).unwrap_or(COUNT_LIMIT) + 1
        }
        _ => COUNT_LIMIT,
    };
    // A session keeps its first entry as an anchor, and needs the last one beside it.
    enough.clamp(if rule.window == WindowMode::Session { 2 } else { 1 }, COUNT_LIMIT + 1)
}

fn fields_of(rule: &CorrelationRule, name: &str) -> Vec<(String, String)> {
    let field = |shown: &String| {
        let alias = rule.aliases.iter().find(|alias| alias.alias == *shown);
        let field = alias.and_then(|alias| alias.mapping.get(name)).unwrap_or(shown);
        (shown.clone(), field.clone())
    };
    rule.group_by.iter().map(field).collect()
}

fn rename(expr: &mut ConditionExpr, from: &[String], to: &[String]) {
    match expr {
        ConditionExpr::And(list) | ConditionExpr::Or(list) => {
            list.iter_mut().for_each(|expr| rename(expr, from, to));
        }
        ConditionExpr::Not(expr) => rename(expr, from, to),
        ConditionExpr::Identifier(name) => {
            if let Some(new) = from.iter().position(|old| old == name).and_then(|at| to.get(at)) {
                name.clone_from(new);
            }
        }
        ConditionExpr::Selector { .. } => {}
    }
}
