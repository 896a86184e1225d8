//! `rules navigator`: what the rules cover, as a layer of the ATT&CK Navigator.
//!
//! Layer format 4.5 (attack-navigator, layers/LAYERFORMATv4_5.md).

use std::collections::{BTreeMap, BTreeSet};

use bpfwatch_core::rules::{Rule, RuleKind};
use clap::Args;
use serde_json::{Value, json};

use super::super::RuleArgs;
use super::{systems, techniques};
use crate::exit::{Code, Outcome};
use crate::output::{self, counted};
use crate::wiring::rules;

/// ATT&CK version whose tactics and techniques the shipped rules name.
const ATTACK: &str = "19";
/// The darkest colour stands for this many rules and more.
const MOST: usize = 10;

/// Print what the rules cover as a layer for the ATT&CK Navigator
#[derive(Debug, Args)]
#[command(after_help = "\
Each technique's score is its number of rules (10 and more have the darkest colour); its
comment names them, with level and systems. Load the file with `Open Existing Layer`.

Examples:
  bpfwatch rules navigator > bpfwatch-layer.json
  bpfwatch rules navigator --rules ./site-rules > layer.json")]
pub struct Navigator {
    #[command(flatten)]
    rules: RuleArgs,
}

impl Navigator {
    /// Prints it.
    pub fn run(&self) -> Outcome {
        let loaded = rules::load(true, &self.rules.dirs)?;
        rules::warn(&loaded);
        let text = format!("{:#}\n", layer(loaded.set.rules()));
        output::print(&text)?;
        Ok(Code::Ok)
    }
}

fn layer(rules: &[Rule]) -> Value {
    let mut by_technique: BTreeMap<String, Vec<&Rule>> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| rule.kind != RuleKind::Filter) {
        for technique in techniques(rule) {
            by_technique.entry(technique).or_default().push(rule);
        }
    }
    let parents: BTreeSet<&str> =
        by_technique.keys().filter_map(|id| Some(id.split_once('.')?.0)).collect();
    let techniques: Vec<Value> = by_technique
        .iter()
        .map(|(id, rules)| technique(id, rules, parents.contains(id.as_str())))
        .collect();
    json!({
        "name": "bpfwatch",
        "versions": { "attack": ATTACK, "navigator": "5.2.0", "layer": "4.5" },
        "domain": "enterprise-attack",
        "description": "Techniques that the rules of bpfwatch see beside T1040, Network Sniffing. \
                        FreeBSD is no platform of ATT&CK: its rules stand under the others' names.",
        "filters": { "platforms": platforms(rules) },
        "sorting": 3,
        "layout": {
            "layout": "side", "showID": true, "showName": true, "expandedSubtechniques": "annotated",
        },
        "hideDisabled": false,
        "techniques": techniques,
        "gradient": { "colors": ["#e8f1fb", "#1f5fa8"], "minValue": 0, "maxValue": MOST },
        "legendItems": [
            { "label": "one rule", "color": "#d4e3f3" },
            { "label": "ten rules and more", "color": "#1f5fa8" },
        ],
        "selectTechniquesAcrossTactics": true,
        "metadata": [{ "name": "bpfwatch", "value": env!("CARGO_PKG_VERSION") }],
        "links": [{ "label": "T1040", "url": "https://attack.mitre.org/techniques/T1040/" }],
    })
}

fn technique(id: &str, rules: &[&Rule], is_parent: bool) -> Value {
    let lines: Vec<String> = rules
        .iter()
        .map(|rule| {
            let id: String = rule.shown.id.chars().take(8).collect();
            let systems = systems(rule).join(", ");
            format!("{id} {} ({}; {systems})", rule.shown.title, rule.shown.level.as_str())
        })
        .collect();
    let mut levels: BTreeMap<_, usize> = BTreeMap::new();
    let mut on: BTreeSet<&str> = BTreeSet::new();
    for rule in rules {
        *levels.entry(std::cmp::Reverse(rule.shown.level)).or_default() += 1;
        on.extend(systems(rule));
    }
    let levels: Vec<String> =
        levels.iter().map(|(level, count)| format!("{count} {}", level.0.as_str())).collect();
    json!({
        "techniqueID": id,
        "score": rules.len(),
        "enabled": true,
        "comment": format!("{}\n{}", counted(rules.len() as u64, "rule"), lines.join("\n")),
        "metadata": [
            { "name": "levels", "value": levels.join(", ") },
            { "name": "systems", "value": on.into_iter().collect::<Vec<_>>().join(", ") },
        ],
        "links": [{ "label": id, "url": super::docs::technique_url(id) }],
        "showSubtechniques": is_parent,
    })
}

/// Platforms of ATT&CK that the rules are about.
fn platforms(rules: &[Rule]) -> Vec<&'static str> {
    let all: BTreeSet<&str> = rules.iter().flat_map(systems).collect();
    let names = [
        ("Windows", "Windows"),
        ("Linux", "Linux"),
        ("macOS", "macOS"),
        ("Kubernetes", "Containers"),
        ("Cisco", "Network Devices"),
    ];
    names.iter().filter(|(mine, _)| all.contains(mine)).map(|(_, theirs)| *theirs).collect()
}

#[cfg(test)]
mod tests {
    use bpfwatch_core::rules::RuleSet;

    use super::*;
    use crate::shipped;

    #[test]
    fn the_shipped_layer_has_what_the_format_asks_for() {
        let (set, _) = RuleSet::load(&shipped::files());
        let layer = layer(set.rules());
        assert_eq!(layer["versions"]["layer"], "4.5");
        assert_eq!(layer["domain"], "enterprise-attack");
        let techniques = layer["techniques"].as_array().unwrap();
        let t1040 = techniques.iter().find(|t| t["techniqueID"] == "T1040").unwrap();
        let rules = set.rules().iter().filter(|rule| rule.kind != RuleKind::Filter).count();
        assert_eq!(t1040["score"], rules, "every rule is about T1040");
        assert!(
            t1040["comment"].as_str().unwrap().contains("8ad31f45 Packet capture by an unexpected")
        );
        let mut ids: Vec<&str> =
            techniques.iter().map(|t| t["techniqueID"].as_str().unwrap()).collect();
        for id in &ids {
            let digits: String = id.chars().filter(char::is_ascii_digit).collect();
            assert!(id.starts_with('T') && (digits.len() == 4 || digits.len() == 7), "{id}");
        }
        ids.dedup();
        assert_eq!(ids.len(), techniques.len());
    }
}
