//! Expected capture: Sigma filters, each compiled as a detection of its own.
//!
//! rsigma merges a filter into the rules that it names: those then cannot say why they kept quiet, and
//! an unknown target or a condition of another form fails silently. Here a filter that matches says
//! so, and what it cannot do is refused when it is loaded.

use rsigma_parser::{
    ConditionExpr, Detections, FilterRule, FilterRuleTarget, LogSource, SigmaRule,
};

use super::check::Fault;
use super::fields::{Binding, in_words};

/// A loaded filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Its place among the rules.
    pub index: usize,
    /// The rules that it withholds, sorted.
    pub targets: Vec<usize>,
}

impl Filter {
    /// Whether it is about this rule.
    pub fn withholds(&self, index: usize) -> bool {
        self.targets.binary_search(&index).is_ok()
    }
}

/// A rule that a filter may name.
pub struct Target<'a> {
    /// Id, given or derived.
    pub id: &'a str,
    /// Sigma's `name`.
    pub name: Option<&'a str>,
    /// Its logsource.
    pub binding: Binding,
    /// Where it stands in the caller's list.
    pub place: usize,
}

/// The filter as a rule that matches what is expected.
///
/// # Errors
/// When the condition is none of `not NAME` and `not (A or B ...)`.
pub fn as_rule(filter: &FilterRule, logsource: &LogSource) -> Result<SigmaRule, Fault> {
    let wrong = |what: String| (Some("condition".to_owned()), what);
    let [condition] = filter.detection.conditions.as_slice() else {
        return Err(wrong("a filter has one condition".to_owned()));
    };
    let names = names(condition).ok_or_else(|| {
        let found = filter.detection.condition_strings.join("; ");
        let what = format!(
            "the condition of a filter is `not NAME` or `not (A or B)`, with names written out: \
             that is what says which part of it matched; found `{found}`"
        );
        wrong(what)
    })?;
    let mut named = filter.detection.named.clone();
    if let Some(missing) = names.iter().find(|name| !named.contains_key(**name)) {
        return Err(wrong(format!("the condition names `{missing}`, which is not defined")));
    }
    let mut unused: Vec<&String> = named.keys().filter(|name| !names.contains(&&***name)).collect();
    unused.sort_unstable();
    if let Some(unused) = unused.first() {
        let what = format!("the condition does not name `{unused}`, which would be without effect");
        return Err((Some((*unused).clone()), what));
    }
    named.retain(|name, _| names.contains(&name.as_str()));
    let alternatives = names.iter().map(|name| ConditionExpr::Identifier((*name).to_owned()));
    Ok(SigmaRule {
        title: filter.title.clone(),
        logsource: logsource.clone(),
        detection: Detections {
            named,
            conditions: vec![ConditionExpr::Or(alternatives.collect())],
            condition_strings: filter.detection.condition_strings.clone(),
            timeframe: None,
        },
        sigma_version: filter.sigma_version,
        id: filter.id.clone(),
        name: None,
        related: Vec::new(),
        taxonomy: None,
        status: None,
        description: None,
        license: None,
        author: None,
        references: Vec::new(),
        date: None,
        modified: None,
        fields: Vec::new(),
        falsepositives: Vec::new(),
        level: None,
        tags: Vec::new(),
        scope: Vec::new(),
        custom_attributes: Default::default(),
    })
}

/// Names of the selections that are excluded; `None` where the condition has another form.
fn names(condition: &ConditionExpr) -> Option<Vec<&str>> {
    fn name(expr: &ConditionExpr) -> Option<&str> {
        match expr {
            ConditionExpr::Identifier(name) => Some(name),
            _ => None,
        }
    }
    let ConditionExpr::Not(inner) = condition else { return None };
    match &**inner {
        ConditionExpr::Or(list) => list.iter().map(name).collect(),
        other => Some(vec![name(other)?]),
    }
}

/// Places of the rules that a filter withholds.
///
/// # Errors
/// When a target is no rule, or the logsource fits none of them.
pub fn targets(
    filter: &FilterRule,
    binding: Binding,
    known: &[Target<'_>],
) -> Result<Vec<usize>, Fault> {
    let place = |key: &str| Some(key.to_owned());
    let fits = |target: &&Target<'_>| binding.meets(target.binding);
    let words = || filter.logsource.as_ref().map_or_else(String::new, in_words);
    match &filter.rules {
        FilterRuleTarget::Any => {
            let all: Vec<usize> = known.iter().filter(fits).map(|target| target.place).collect();
            if all.is_empty() {
                let what = format!("no rule has the logsource {} that this filter is for", words());
                return Err((place("logsource"), what));
            }
            Ok(all)
        }
        FilterRuleTarget::Specific(names) => {
            let mut places = Vec::new();
            let mut misfits = 0;
            for name in names {
                let named = |target: &&Target<'_>| target.id == name || target.name == Some(name);
                let mut found = known.iter().filter(named).peekable();
                if found.peek().is_none() {
                    let what = format!("there is no detection rule `{name}` to filter");
                    return Err((place("rules"), what));
                }
                for target in found {
                    if fits(&target) {
                        places.push(target.place);
                    } else {
                        misfits += 1;
                    }
                }
            }
            if misfits > 0 {
                let what = format!(
                    "the logsource {} does not fit {misfits} of the rules that the filter names",
                    words()
                );
                return Err((place("logsource"), what));
            }
            places.sort_unstable();
            places.dedup();
            Ok(places)
        }
    }
}
