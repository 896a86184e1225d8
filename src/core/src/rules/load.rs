//! From files to a rule set: each rule with its place, or a problem that names it.

use std::collections::HashMap;
use std::sync::Arc;

use rsigma_parser::{
    CorrelationCondition, CorrelationRule, CorrelationType, FilterRule, Level as SigmaLevel,
    SigmaRule, Status,
};

use super::check::{self, Fault};
use super::correlation::{self, Correlation, Referable};
use super::document::{self, Document};
use super::evaluate::{Engines, Unit};
use super::expected::{self, Target};
use super::fields::{Binding, Source, in_words};
use super::{Problem, Rule, RuleFile, RuleKind, RuleSet, page};
use crate::finding::{Level, RuleRef};
use crate::ids;
use crate::observation::Os;

/// One parsed rule on its way into the set.
struct Draft<'a> {
    file: &'a RuleFile,
    document: Document<'a>,
    head: Head,
    body: Body,
}

enum Body {
    Detection(Box<SigmaRule>),
    Correlation(Box<CorrelationRule>),
    Filter(Box<FilterRule>),
}

/// What all three kinds have.
struct Head {
    /// Given, or derived.
    id: String,
    title: String,
    name: Option<String>,
    status: Option<Status>,
    description: Option<String>,
    author: Option<String>,
    license: Option<String>,
    references: Vec<String>,
    tags: Vec<String>,
    level: Option<SigmaLevel>,
    falsepositives: Vec<String>,
}

macro_rules! head {
    ($rule:expr, $path:expr) => {
        Head {
            id: $rule.id.clone().unwrap_or_else(|| derived_id(&$rule.title, $path)),
            title: $rule.title.clone(),
            name: $rule.name.clone(),
            status: $rule.status,
            description: $rule.description.clone(),
            author: $rule.author.clone(),
            license: $rule.license.clone(),
            references: $rule.references.clone(),
            tags: $rule.tags.clone(),
            level: $rule.level,
            falsepositives: $rule.falsepositives.clone(),
        }
    };
}

fn derived_id(title: &str, path: &str) -> String {
    ids::derive(&[b"sigma rule", title.as_bytes(), path.as_bytes()])
}

/// Problems, and the place that the next one is at.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, draft: &Draft<'_>, key: Option<&str>, what: String, refused: bool) {
        let line = key.and_then(|key| draft.document.line_of_key(key));
        self.0.push(Problem {
            path: draft.file.path.clone(),
            line: Some(line.unwrap_or_else(|| draft.document.line())),
            rule: Some(draft.head.title.clone()),
            what,
            refused,
        });
    }

    fn refuse(&mut self, draft: &Draft<'_>, (key, what): Fault) {
        self.add(draft, key.as_deref(), what, true);
    }

    fn remark(&mut self, draft: &Draft<'_>, key: Option<&str>, what: &str) {
        self.add(draft, key, what.to_owned(), false);
    }
}

/// A detection or filter that passed; its compiled form waits for its index.
struct Passed {
    binding: Binding,
    /// Where it can match.
    compiled: Option<rsigma_eval::CompiledRule>,
    mandatory: Vec<String>,
    /// What it says of a capture can depend on promiscuous mode.
    by_promiscuous: bool,
    /// Of a filter.
    targets: Vec<usize>,
}

/// See [`RuleSet::load`] and [`RuleSet::load_for`].
pub fn load(files: &[RuleFile], only: Option<Os>) -> (RuleSet, Vec<Problem>) {
    let mut problems = Problems::default();
    let drafts = unique(parse(files, &mut problems), &mut problems);

    let mut passed: Vec<Option<Passed>> = drafts
        .iter()
        .map(|draft| {
            let Body::Detection(rule) = &draft.body else { return None };
            detection(rule, only).map_err(|fault| problems.refuse(draft, fault)).ok()
        })
        .collect();
    let known: Vec<Target<'_>> = std::iter::zip(&drafts, &passed)
        .enumerate()
        .filter_map(|(place, (draft, passed))| {
            let binding = passed.as_ref()?.binding;
            let name = draft.head.name.as_deref();
            Some(Target { id: &draft.head.id, name, binding, place })
        })
        .collect();
    let filters: Vec<(usize, Passed)> = drafts
        .iter()
        .enumerate()
        .filter_map(|(place, draft)| {
            let Body::Filter(rule) = &draft.body else { return None };
            let filter =
                filter(rule, &known, only).map_err(|fault| problems.refuse(draft, fault)).ok()?;
            Some((place, filter))
        })
        .collect();
    drop(known);
    for (place, filter) in filters {
        if let Some(slot) = passed.get_mut(place) {
            *slot = Some(filter);
        }
    }
    let correlations = correlations(&drafts, &passed, &mut problems);
    let set = assemble(&drafts, passed, correlations, only);
    problems.0.sort();
    (set, problems.0)
}

/// Parses every document, in the order of path and line.
fn parse<'a>(files: &'a [RuleFile], problems: &mut Problems) -> Vec<Draft<'a>> {
    let mut files: Vec<&RuleFile> = files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut drafts = Vec::new();
    for file in files {
        let mut refuse = |line: Option<usize>, what: String| {
            let path = file.path.clone();
            problems.0.push(Problem { path, line, rule: None, what, refused: true });
        };
        let documents = match document::split(&file.text) {
            Ok(documents) => documents,
            Err(what) => {
                refuse(None, what);
                continue;
            }
        };
        if documents.is_empty() {
            refuse(None, "there is no rule in the file".to_owned());
        }
        for document in documents {
            match parse_one(file, document) {
                Ok((draft, remarks)) => {
                    for remark in remarks {
                        problems.remark(&draft, None, &remark);
                    }
                    drafts.push(draft);
                }
                Err((line, what)) => problems.0.push(Problem {
                    path: file.path.clone(),
                    line: Some(line.unwrap_or_else(|| document.line())),
                    rule: None,
                    what,
                    refused: true,
                }),
            }
        }
    }
    drafts
}

type Parsed<'a> = (Draft<'a>, Vec<String>);

fn parse_one<'a>(
    file: &'a RuleFile,
    document: Document<'a>,
) -> Result<Parsed<'a>, (Option<usize>, String)> {
    document::check(&document)?;
    let parsed = rsigma_parser::parse_sigma_yaml(document.text)
        .map_err(|error| (None, error.to_string()))?;
    let (mut rules, mut correlations, mut filters) =
        (parsed.rules, parsed.correlations, parsed.filters);
    let (head, body) = if let Some(rule) = rules.pop() {
        (head!(rule, &file.path), Body::Detection(Box::new(rule)))
    } else if let Some(rule) = correlations.pop() {
        (head!(rule, &file.path), Body::Correlation(Box::new(rule)))
    } else if let Some(rule) = filters.pop() {
        (head!(rule, &file.path), Body::Filter(Box::new(rule)))
    } else {
        let what = parsed.errors.join("; ");
        let at_condition = what.starts_with("Condition parse error");
        let line = at_condition.then(|| document.line_of_key("condition")).flatten();
        return Err((line, what));
    };
    let given = match &body {
        Body::Detection(rule) => &rule.id,
        Body::Correlation(rule) => &rule.id,
        Body::Filter(rule) => &rule.id,
    };
    let mut remarks = parsed.errors;
    match given {
        None => remarks
            .push(format!("the rule has no id: {} was derived from its title and path", head.id)),
        Some(id) if uuid::Uuid::try_parse(id).is_err() => {
            remarks.push(format!("the id `{id}` is no UUID"));
        }
        Some(_) => {}
    }
    if head.level.is_none() && !matches!(body, Body::Filter(_)) {
        remarks.push("the rule has no level: taken as medium".to_owned());
    }
    Ok((Draft { file, document, head, body }, remarks))
}

/// Leaves out what has the id of an earlier rule.
fn unique<'a>(drafts: Vec<Draft<'a>>, problems: &mut Problems) -> Vec<Draft<'a>> {
    let mut seen: HashMap<String, (String, usize)> = HashMap::new();
    let mut kept = Vec::new();
    for draft in drafts {
        let id = draft.head.id.to_lowercase();
        if let Some((path, line)) = seen.get(&id) {
            let what = format!("the id {} is that of the rule at {path}:{line}", draft.head.id);
            problems.refuse(&draft, (Some("id".to_owned()), what));
        } else {
            seen.insert(id, (draft.file.path.clone(), draft.document.line()));
            kept.push(draft);
        }
    }
    kept
}

fn bind(logsource: &rsigma_parser::LogSource) -> Result<Binding, Fault> {
    Binding::of(logsource).ok_or_else(|| {
        let what = format!("no source for logsource {}", in_words(logsource));
        (Some("logsource".to_owned()), what)
    })
}

fn detection(rule: &SigmaRule, only: Option<Os>) -> Result<Passed, Fault> {
    let binding = bind(&rule.logsource)?;
    check::detections(&rule.detection, binding.source)?;
    let compiled = only
        .is_none_or(|os| binding.covers(binding.source, os))
        .then(|| rsigma_eval::compile_rule(rule))
        .transpose()
        .map_err(|error| (None, error.to_string()))?;
    let mandatory = check::mandatory(&rule.detection);
    let by_promiscuous =
        binding.source == Source::PacketCapture && check::mentions(&rule.detection, "Promiscuous");
    Ok(Passed { binding, compiled, mandatory, by_promiscuous, targets: Vec::new() })
}

fn filter(filter: &FilterRule, known: &[Target<'_>], only: Option<Os>) -> Result<Passed, Fault> {
    let logsource = filter
        .logsource
        .as_ref()
        .ok_or_else(|| (Some("filter".to_owned()), "a filter needs a logsource".to_owned()))?;
    let rule = expected::as_rule(filter, logsource)?;
    let mut passed = detection(&rule, only)?;
    passed.targets = expected::targets(filter, passed.binding, known)?;
    Ok(passed)
}

/// The correlations whose references can be resolved, by place.
fn correlations(
    drafts: &[Draft<'_>],
    passed: &[Option<Passed>],
    problems: &mut Problems,
) -> Vec<(usize, correlation::Resolved)> {
    let candidates: Vec<Referable<'_>> = std::iter::zip(drafts, passed)
        .enumerate()
        .filter_map(|(place, (draft, passed))| {
            let (binding, rule) = match &draft.body {
                Body::Detection(_) => (Some(passed.as_ref()?.binding), None),
                Body::Correlation(rule) => (None, Some(&**rule)),
                Body::Filter(_) => return None,
            };
            let name = draft.head.name.as_deref();
            Some(Referable { place, id: &draft.head.id, name, binding, rule })
        })
        .collect();
    let (resolved, faults) = correlation::resolve(&candidates);
    for (place, fault) in faults {
        if let Some(draft) = drafts.get(place) {
            problems.refuse(draft, fault);
        }
    }
    resolved
}

/// Gives each rule that passed its index, and puts all together.
fn assemble(
    drafts: &[Draft<'_>],
    passed: Vec<Option<Passed>>,
    correlations: Vec<(usize, correlation::Resolved)>,
    only: Option<Os>,
) -> RuleSet {
    let mut correlations: HashMap<usize, correlation::Resolved> =
        correlations.into_iter().collect();
    let mut index_of = vec![None; drafts.len()];
    let mut count = 0;
    for (place, slot) in index_of.iter_mut().enumerate() {
        if passed.get(place).is_some_and(Option::is_some) || correlations.contains_key(&place) {
            *slot = Some(count);
            count += 1;
        }
    }
    let index = |place: usize| index_of.get(place).copied().flatten();
    let indices = |places: &[usize]| -> Vec<usize> {
        places.iter().filter_map(|place| index(*place)).collect()
    };
    let bindings: Vec<Option<Binding>> =
        passed.iter().map(|passed| passed.as_ref().map(|passed| passed.binding)).collect();
    let mut set = RuleSet::default();
    let mut units = Vec::new();
    for (place, (draft, passed)) in std::iter::zip(drafts, passed).enumerate() {
        let Some(index) = index(place) else { continue };
        let mut never_here = None;
        let mut by_promiscuous = false;
        let systems;
        let logsource = match (&draft.body, passed, correlations.remove(&place)) {
            (Body::Correlation(rule), _, Some(resolved)) => {
                let rule = (**rule).clone();
                // One that is made of steps needs all of them.
                let needs_all = matches!(rule.condition, CorrelationCondition::Threshold { .. })
                    && matches!(
                        rule.correlation_type,
                        CorrelationType::Temporal | CorrelationType::TemporalOrdered
                    );
                let refers_to = indices(&resolved.refers_to);
                let shape = resolved.shape;
                set.correlations.push(Correlation { index, rule, refers_to, shape });
                let bases: Vec<Binding> =
                    resolved.bases.iter().filter_map(|base| *bindings.get(*base)?).collect();
                systems = systems_of(&bases, needs_all);
                logsources(drafts, &resolved.bases)
            }
            (body, Some(passed), _) => {
                let is_filter = matches!(body, Body::Filter(_));
                if is_filter {
                    let targets = indices(&passed.targets);
                    set.filters.push(expected::Filter { index, targets });
                }
                never_here = never(&passed);
                systems = systems_of(&[passed.binding], true);
                let words = logsource_of(draft);
                by_promiscuous = passed.by_promiscuous && !is_filter;
                let Passed { binding, compiled, mandatory, .. } = passed;
                units.extend(compiled.map(|rule| Unit {
                    binding,
                    rule,
                    mandatory,
                    index,
                    is_filter,
                }));
                words
            }
            _ => continue,
        };
        let mut rule = Rule { systems, ..listed(draft, logsource, never_here) };
        if only.is_some() {
            rule.page = None;
        }
        if by_promiscuous {
            set.promiscuous = set.promiscuous.max(Some(rule.shown.level));
        }
        set.rules.push(rule);
    }
    set.engines = match only {
        Some(os) => Engines::of(os, units),
        None => Engines::new(units),
    };
    set.roles = correlation::roles(&set.correlations, set.rules.len());
    set
}

/// The systems of any of these, or of all of them, in their order.
fn systems_of(bindings: &[Binding], all: bool) -> Vec<Os> {
    let covers = |os: &Os| {
        let mut each = bindings.iter().map(|binding| binding.covers(binding.source, *os));
        if all { each.all(|covers| covers) } else { each.any(|covers| covers) }
    };
    super::fields::SYSTEMS.into_iter().filter(covers).collect()
}

/// A mandatory field that no system of the rule's logsource supplies.
fn never(passed: &Passed) -> Option<String> {
    let source = passed.binding.source;
    let systems =
        || super::fields::SYSTEMS.into_iter().filter(|os| passed.binding.covers(source, *os));
    let missing = |field: &&String| !systems().any(|os| source.supplies(field, os));
    passed.mandatory.iter().find(missing).cloned()
}

fn logsource_of(draft: &Draft<'_>) -> String {
    match &draft.body {
        Body::Detection(rule) => in_words(&rule.logsource),
        Body::Filter(rule) => rule.logsource.as_ref().map_or_else(String::new, in_words),
        Body::Correlation(_) => String::new(),
    }
}

fn logsources(drafts: &[Draft<'_>], places: &[usize]) -> String {
    let mut words: Vec<String> =
        places.iter().filter_map(|place| drafts.get(*place)).map(logsource_of).collect();
    words.sort_unstable();
    words.dedup();
    words.join(", ")
}

fn listed(draft: &Draft<'_>, logsource: String, never_here: Option<String>) -> Rule {
    let head = &draft.head;
    let kind = match &draft.body {
        Body::Detection(_) => RuleKind::Detection,
        Body::Correlation(_) => RuleKind::Correlation,
        Body::Filter(_) => RuleKind::Filter,
    };
    let level = match (kind, head.level) {
        (RuleKind::Filter, _) | (_, Some(SigmaLevel::Informational)) => Level::Informational,
        (_, Some(SigmaLevel::Low)) => Level::Low,
        (_, Some(SigmaLevel::Medium) | None) => Level::Medium,
        (_, Some(SigmaLevel::High)) => Level::High,
        (_, Some(SigmaLevel::Critical)) => Level::Critical,
    };
    let status = head.status.map(|status| match status {
        Status::Stable => "stable",
        Status::Test => "test",
        Status::Experimental => "experimental",
        Status::Deprecated => "deprecated",
        Status::Unsupported => "unsupported",
    });
    Rule {
        shown: Arc::new(RuleRef {
            id: head.id.clone(),
            title: head.title.clone(),
            level,
            tags: head.tags.clone(),
            author: head.author.clone(),
            license: head.license.clone(),
        }),
        kind,
        path: draft.file.path.clone(),
        line: draft.document.line(),
        status: status.map(str::to_owned),
        logsource,
        systems: Vec::new(),
        references: head.references.clone(),
        description: head.description.clone(),
        falsepositives: head.falsepositives.clone(),
        page: draft.file.page.clone(),
        response: draft.file.page.as_deref().map(page::response).unwrap_or_default(),
        never_here,
    }
}
