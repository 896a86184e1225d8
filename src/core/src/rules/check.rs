//! What a parsed rule must be before it is compiled: fields that its logsource knows, names that its
//! condition can resolve, and nothing that rsigma 0.23 evaluates wrongly.

use std::collections::BTreeSet;

use rsigma_parser::{
    ConditionExpr, Detection, DetectionItem, Detections, Modifier, Quantifier, SigmaString,
    SigmaValue,
};

use super::fields::Source;

/// Something wrong: the key that it is about, for the line, and what.
pub type Fault = (Option<String>, String);

/// Words of Sigma's condition language (Sigma specification, Condition).
const RESERVED: &[&str] = &["1", "all", "and", "any", "not", "of", "or", "them"];

/// Checks the detections of a rule or filter.
pub fn detections(detections: &Detections, source: Source) -> Result<(), Fault> {
    let mut names: Vec<&String> = detections.named.keys().collect();
    names.sort_unstable();
    for name in names {
        if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
            let what = format!(
                "`{name}` is a word of conditions: the engine never finds a selection of that name"
            );
            return Err((Some(name.clone()), what));
        }
        let Some(detection) = detections.named.get(name) else { continue };
        items(detection, &mut |item| self::item(item, source))?;
        arrays(detection, source)?;
    }
    detections.conditions.iter().try_for_each(|expr| condition(expr, detections))
}

/// Calls `visit` with each item of a detection, except those inside array blocks: their names are
/// relative to the array's member.
fn items(
    detection: &Detection,
    visit: &mut impl FnMut(&DetectionItem) -> Result<(), Fault>,
) -> Result<(), Fault> {
    match detection {
        Detection::AllOf(list) => list.iter().try_for_each(visit),
        Detection::AnyOf(list) | Detection::And(list) => {
            list.iter().try_for_each(|detection| items(detection, visit))
        }
        _ => Ok(()),
    }
}

fn arrays(detection: &Detection, source: Source) -> Result<(), Fault> {
    match detection {
        Detection::ArrayMatch { field, .. } => known(field, source),
        Detection::AnyOf(list) | Detection::And(list) => {
            list.iter().try_for_each(|detection| arrays(detection, source))
        }
        _ => Ok(()),
    }
}

fn known(field: &str, source: Source) -> Result<(), Fault> {
    if source.knows(field) {
        return Ok(());
    }
    let category = source.name();
    let hint = source
        .nearest(field)
        .map_or_else(String::new, |nearest| format!(": did you mean `{nearest}`?"));
    Err((Some(field.to_owned()), format!("{category} has no field `{field}`{hint}")))
}

fn item(item: &DetectionItem, source: Source) -> Result<(), Fault> {
    let place = || item.field.name.clone();
    if item.field.has_modifier(Modifier::Base64Offset) {
        let what = "`base64offset` is not taken: the engine misses matches of it";
        return Err((place(), what.to_owned()));
    }
    if item.field.has_modifier(Modifier::Expand) {
        let what = "`expand` is not taken: there is nothing here to fill its placeholders from";
        return Err((place(), what.to_owned()));
    }
    let Some(name) = &item.field.name else {
        if item.field.has_modifier(Modifier::All) {
            let what = "keywords with `|all` are not taken: the engine never matches them; \
                        write one keyword list each and join them with `and`";
            return Err((None, what.to_owned()));
        }
        return Ok(());
    };
    known(name, source)?;
    if item.field.has_modifier(Modifier::FieldRef) {
        for value in &item.values {
            if let SigmaValue::String(text) = value {
                known(&text.original, source).map_err(|(_, what)| (place(), what))?;
            }
        }
    }
    Ok(())
}

/// Each name in a condition must be there: an unknown one is silently false, or true under `not`.
fn condition(expr: &ConditionExpr, detections: &Detections) -> Result<(), Fault> {
    let place = || Some("condition".to_owned());
    match expr {
        ConditionExpr::And(list) | ConditionExpr::Or(list) => {
            list.iter().try_for_each(|expr| condition(expr, detections))
        }
        ConditionExpr::Not(expr) => condition(expr, detections),
        ConditionExpr::Identifier(name) => {
            if detections.named.contains_key(name) {
                return Ok(());
            }
            Err((place(), format!("the condition names `{name}`, which is not defined")))
        }
        ConditionExpr::Selector { pattern, .. } => {
            if detections.named.keys().any(|name| pattern.matches_detection_name(name)) {
                return Ok(());
            }
            Err((
                place(),
                format!("the condition names `{pattern}`, and nothing of that name is defined"),
            ))
        }
    }
}

/// Whether what the rule says can depend on a field. Never wrongly false: keywords and array blocks may mean
/// any field.
pub fn mentions(detections: &Detections, field: &str) -> bool {
    detections.named.values().any(|detection| mentioned(detection, field))
}

fn mentioned(detection: &Detection, field: &str) -> bool {
    match detection {
        Detection::AllOf(items) => items.iter().any(|item| {
            item.field.has_modifier(Modifier::FieldRef)
                || item.field.name.as_deref().is_none_or(|name| name == field)
        }),
        Detection::AnyOf(list) | Detection::And(list) => {
            list.iter().any(|detection| mentioned(detection, field))
        }
        _ => true,
    }
}

/// Fields without which no condition of the rule can be true, sorted.
pub fn mandatory(detections: &Detections) -> Vec<String> {
    let alternatives = detections.conditions.iter().map(|expr| of_condition(expr, detections));
    common(alternatives).into_iter().map(str::to_owned).collect()
}

type Names<'a> = BTreeSet<&'a str>;

/// What all alternatives need.
fn common<'a>(mut alternatives: impl Iterator<Item = Names<'a>>) -> Names<'a> {
    let Some(first) = alternatives.next() else { return Names::new() };
    alternatives.fold(first, |all, next| all.intersection(&next).copied().collect())
}

fn of_condition<'a>(expr: &ConditionExpr, detections: &'a Detections) -> Names<'a> {
    match expr {
        ConditionExpr::And(list) => {
            list.iter().flat_map(|expr| of_condition(expr, detections)).collect()
        }
        ConditionExpr::Or(list) => common(list.iter().map(|expr| of_condition(expr, detections))),
        ConditionExpr::Not(_) => Names::new(),
        ConditionExpr::Identifier(name) => {
            detections.named.get(name).map(of_detection).unwrap_or_default()
        }
        ConditionExpr::Selector { quantifier, pattern } => {
            let matching = detections
                .named
                .iter()
                .filter(|(name, _)| pattern.matches_detection_name(name))
                .map(|(_, detection)| of_detection(detection));
            match quantifier {
                Quantifier::All => matching.flatten().collect(),
                Quantifier::Count(0) => Names::new(),
                Quantifier::Any | Quantifier::Count(_) => common(matching),
            }
        }
    }
}

fn of_detection(detection: &Detection) -> Names<'_> {
    match detection {
        Detection::AllOf(items) => items.iter().filter_map(of_item).collect(),
        Detection::AnyOf(list) => common(list.iter().map(of_detection)),
        Detection::And(list) => list.iter().flat_map(of_detection).collect(),
        _ => Names::new(),
    }
}

fn of_item(item: &DetectionItem) -> Option<&str> {
    let can_be_absent = |value: &SigmaValue| matches!(value, SigmaValue::Null);
    let absent = if item.field.has_modifier(Modifier::Exists) {
        item.values.iter().any(says_no)
    } else {
        item.values.iter().any(can_be_absent)
    };
    if absent { None } else { item.field.name.as_deref() }
}

fn says_no(value: &SigmaValue) -> bool {
    match value {
        SigmaValue::Bool(exists) => !exists,
        SigmaValue::String(SigmaString { original, .. }) => matches!(&**original, "false" | "no"),
        _ => false,
    }
}
