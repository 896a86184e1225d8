//! MITRE ATT&CK in the tags of rules: `attack.t1040` is a technique, `attack.discovery` a tactic, as
//! the appendix on tags of the Sigma specification lays down. The hyphen of its version 2 and the
//! underscore of its version 1 are both read.

use std::collections::BTreeSet;
use std::sync::Arc;

use bpfwatch_core::finding::RuleRef;

/// A tactic of the Enterprise matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tactic {
    /// `TA0007`.
    pub id: &'static str,
    /// `Discovery`.
    pub name: &'static str,
    tag: &'static str,
}

/// Tactics of ATT&CK Enterprise 19, which split Defense Evasion into Stealth, under the old id, and
/// Defense Impairment; rules of others still bear the old name.
const TACTICS: [Tactic; 16] = [
    tactic("TA0043", "Reconnaissance", "reconnaissance"),
    tactic("TA0042", "Resource Development", "resource-development"),
    tactic("TA0001", "Initial Access", "initial-access"),
    tactic("TA0002", "Execution", "execution"),
    tactic("TA0003", "Persistence", "persistence"),
    tactic("TA0004", "Privilege Escalation", "privilege-escalation"),
    tactic("TA0005", "Stealth", "stealth"),
    tactic("TA0005", "Defense Evasion", "defense-evasion"),
    tactic("TA0112", "Defense Impairment", "defense-impairment"),
    tactic("TA0006", "Credential Access", "credential-access"),
    tactic("TA0007", "Discovery", "discovery"),
    tactic("TA0008", "Lateral Movement", "lateral-movement"),
    tactic("TA0009", "Collection", "collection"),
    tactic("TA0011", "Command and Control", "command-and-control"),
    tactic("TA0010", "Exfiltration", "exfiltration"),
    tactic("TA0040", "Impact", "impact"),
];

const fn tactic(id: &'static str, name: &'static str, tag: &'static str) -> Tactic {
    Tactic { id, name, tag }
}

/// What the tags of some rules name, each once, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attack {
    /// Tactics.
    pub tactics: Vec<Tactic>,
    /// Techniques: `T1040`; that of each sub-technique among them.
    pub techniques: Vec<String>,
    /// Sub-techniques: `T1036.003`.
    pub sub_techniques: Vec<String>,
}

impl Attack {
    /// Of the tags of these rules.
    pub fn of<'a>(rules: impl IntoIterator<Item = &'a Arc<RuleRef>>) -> Self {
        let mut tactics = BTreeSet::new();
        let mut techniques = BTreeSet::new();
        let mut subs = BTreeSet::new();
        for tag in rules.into_iter().flat_map(|rule| &rule.tags) {
            let Some(name) = tag.strip_prefix("attack.") else { continue };
            if let Some((technique, sub)) = technique(name) {
                if sub.is_some() {
                    subs.insert(name.to_ascii_uppercase());
                }
                techniques.insert(technique);
            } else {
                let name = name.replace('_', "-");
                tactics.extend(TACTICS.into_iter().filter(|tactic| tactic.tag == name));
            }
        }
        Self {
            tactics: tactics.into_iter().collect(),
            techniques: techniques.into_iter().collect(),
            sub_techniques: subs.into_iter().collect(),
        }
    }
}

/// `t1036.003` as `T1036` and `003`.
fn technique(name: &str) -> Option<(String, Option<&str>)> {
    let (main, sub) = match name.split_once('.') {
        Some((main, sub)) => (main, Some(sub)),
        None => (name, None),
    };
    let digits = main.strip_prefix(['t', 'T'])?;
    let is_number =
        |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = is_number(digits, 4) && sub.is_none_or(|sub| is_number(sub, 3));
    fits.then(|| (format!("T{digits}"), sub))
}

/// Name of the technique that bpfwatch is about; of others the id says enough.
pub fn technique_name(id: &str) -> Option<&'static str> {
    (id == "T1040").then_some("Network Sniffing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfwatch_core::finding::Level;

    fn rule(tags: &[&str]) -> Arc<RuleRef> {
        Arc::new(RuleRef {
            id: String::new(),
            title: String::new(),
            level: Level::Low,
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            author: None,
            license: None,
        })
    }

    #[test]
    fn tags_are_read_and_others_left_alone() {
        let rules = [
            rule(&["attack.discovery", "attack.t1040", "attack.credential_access", "car.2016-01"]),
            rule(&["attack.credential-access", "attack.T1036.003", "attack.t10", "attack.t1036.x"]),
            rule(&["attack.g0001", "attack.", "t1040", "attack.t1040"]),
        ];
        let attack = Attack::of(&rules);
        let ids: Vec<&str> = attack.tactics.iter().map(|tactic| tactic.id).collect();
        assert_eq!(ids, ["TA0006", "TA0007"]);
        assert_eq!(attack.techniques, ["T1036", "T1040"]);
        assert_eq!(attack.sub_techniques, ["T1036.003"]);
        assert_eq!(Attack::of(&[]), Attack::default());
    }
}
