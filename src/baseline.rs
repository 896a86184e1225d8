//! What captures on this host in the ordinary course of things, learnt from findings.
//!
//! Findings are grouped by who captured and through what; [`sigma`] writes each group as an expected
//! filter for somebody to review. Nothing takes effect by itself. A group that a filter could not tell
//! from an intruder's doing is written as a comment or left out, with the reason.

mod sigma;

use std::collections::{BTreeMap, BTreeSet};

use bpfwatch_core::finding::{
    Finding, Level, Line, ProcessView, RuleRef, SessionLine, SessionView,
};
use bpfwatch_core::observation::Os;
use bpfwatch_core::rules::{RuleKind, RuleSet};
use bpfwatch_core::scope::Scope;
use bpfwatch_core::time::Timestamp;

pub use sigma::text;

/// Groups that are kept: a host with more of them has no ordinary course of things.
const MAX_GROUPS: usize = 1000;
/// Command lines that are kept of a group, as evidence.
const MAX_LINES: usize = 3;
/// Executables that run other people's code: the image alone says nothing about who captures.
const INTERPRETERS: &[&str] = &[
    "bash", "busybox", "dash", "deno", "java", "ksh", "lua", "node", "perl", "php", "python",
    "ruby", "sh", "tclsh", "zsh",
];
/// "Capture under way before monitoring began": a restart of the monitor finds the same capture so.
const UNDER_WAY: &str = "d6071131-06e7-4273-a1f2-3a6ecf949789";
/// Parents of what the system starts by itself, on systems that name no unit.
const STARTERS: &[&str] = &["/sbin/init", "/usr/sbin/daemon", "/usr/sbin/cron", "/sbin/launchd"];

/// Who captures, and through what: what makes a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// System that it was seen on.
    pub os: Os,
    /// Sigma category of the rules that matched.
    pub category: String,
    /// Executable.
    pub image: String,
    /// Service manager's unit, where it is one that keeps its name.
    pub unit: Option<String>,
    /// Signing identifier and team.
    pub signature: (Option<String>, Option<String>),
    /// Where it runs.
    pub place: Place,
    /// Kind of the handle, where there is one.
    pub handle: Option<&'static str>,
}

/// Where a group runs, as far as it keeps its name from one start to the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The host, or unknown.
    Host,
    /// A jail, by name.
    Jail(String),
    /// A container, by image where that is known.
    Container(Option<String>),
    /// A network namespace.
    Namespace,
}

/// What was seen of a group.
#[derive(Debug, Clone)]
pub struct Group {
    /// Rules that matched: id to title and level.
    pub rules: BTreeMap<String, (String, Level)>,
    /// How many findings and sessions.
    pub count: u64,
    /// Times of the first and the last.
    pub seen: (Timestamp, Timestamp),
    /// Host names.
    pub hosts: BTreeSet<String>,
    /// Users.
    pub users: BTreeSet<String>,
    /// Interfaces.
    pub interfaces: BTreeSet<String>,
    /// Protocols.
    pub protocols: BTreeSet<String>,
    /// Tags of eBPF programs.
    pub programs: BTreeSet<String>,
    /// Some command lines, redacted.
    pub lines: BTreeSet<String>,
    /// There were more command lines, or one that is not whole.
    pub more_lines: bool,
    /// Some session was promiscuous.
    pub promiscuous: bool,
    /// Every session had a packet filter.
    pub filtered: bool,
    /// Every executable belonged to root.
    pub root_owned: bool,
    /// Part of the operating system, by its signature.
    pub platform_binary: bool,
    /// Some executable was deleted, or lay where others may write.
    pub replaceable: bool,
    /// The parent, where it was always the same.
    pub parent: Option<String>,
}

/// What becomes of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A filter.
    Written,
    /// A filter that is commented out: somebody must think first.
    Commented(&'static str),
    /// No filter can tell it from an intruder's doing.
    Left(&'static str),
}

/// Findings, grouped.
#[derive(Debug, Default)]
pub struct Baseline {
    groups: BTreeMap<Key, Group>,
    /// Findings that no filter can be made of, by reason.
    pub unusable: BTreeMap<&'static str, u64>,
}

impl Baseline {
    /// Takes a line of output; only findings matter. `rules` are those that it came from.
    pub fn line(&mut self, line: &Line, rules: &RuleSet) {
        let Line::Finding(finding) = line else { return };
        let Finding { time, process, session, scope, .. } = &**finding;
        let hits = std::iter::once(&finding.rule).chain(&finding.rules);
        let seen = Seen {
            time: *time,
            host: &finding.host.name,
            os: finding.host.os,
            process: process.as_ref(),
            session: session.as_ref(),
            scope: scope.as_deref(),
            // A raised finding is the same capture as before.
            counts: finding.update_of.is_none(),
        };
        self.take(&seen, hits, rules);
    }

    /// Takes an open session: what is still open may match more rules than when it was reported.
    pub fn session(&mut self, line: &SessionLine, rules: &RuleSet) {
        let seen = Seen {
            time: line.time,
            host: &line.host.name,
            os: line.host.os,
            process: line.holders.first(),
            session: Some(&line.session),
            scope: line.scope.as_deref(),
            counts: false,
        };
        let hits = line.rules.iter().filter(|rule| rule.level > Level::Informational);
        self.take(&seen, hits, rules);
    }

    fn take<'a>(
        &mut self,
        seen: &Seen<'_>,
        hits: impl Iterator<Item = &'a std::sync::Arc<RuleRef>>,
        rules: &RuleSet,
    ) {
        let mut by_category: BTreeMap<&str, Vec<&RuleRef>> = BTreeMap::new();
        for hit in hits {
            let known = rules.rules().iter().find(|rule| rule.shown.id == hit.id);
            // A correlation follows from its rules, and falls silent with them.
            let Some(rule) = known.filter(|rule| rule.kind == RuleKind::Detection) else {
                continue;
            };
            let category = rule.logsource.rsplit('/').next().unwrap_or_default();
            by_category.entry(category).or_default().push(hit);
        }
        for (category, hits) in by_category {
            let Some(image) = seen.process.and_then(|process| process.image.clone()) else {
                *self.unusable.entry("nobody could be named as its owner").or_default() += 1;
                continue;
            };
            if !matches!(category, "packet_capture" | "process_creation") {
                *self.unusable.entry("it is about no process that captures").or_default() += 1;
                continue;
            }
            let key = seen.key(category, image);
            if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
                *self.unusable.entry("there are too many different ones").or_default() += 1;
                continue;
            }
            let group = self.groups.entry(key).or_insert_with(|| Group::new(seen));
            group.add(seen, &hits);
            let under_way = rules.rules().iter().find(|rule| rule.shown.id == UNDER_WAY);
            if let Some(rule) = under_way.filter(|_| category == "packet_capture") {
                group.name(&rule.shown);
            }
        }
    }

    /// Every group with what becomes of it, in a fixed order.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, &Group, Fate)> {
        self.groups.iter().map(|(key, group)| (key, group, group.fate(key)))
    }
}

/// One finding or session, as far as a group needs it.
struct Seen<'a> {
    time: Timestamp,
    host: &'a str,
    os: Os,
    process: Option<&'a ProcessView>,
    session: Option<&'a SessionView>,
    scope: Option<&'a Scope>,
    counts: bool,
}

impl Seen<'_> {
    fn key(&self, category: &str, image: String) -> Key {
        let text = |text: &Option<bpfwatch_core::text::Text>| text.as_ref().map(|t| t.to_string());
        let identity = self.process.and_then(|process| process.identity.as_deref());
        let place = match self.scope {
            None | Some(Scope::Host) => Place::Host,
            Some(Scope::Jail { name, .. }) => Place::Jail(name.to_string()),
            Some(Scope::Container { image, .. }) => Place::Container(text(image)),
            Some(Scope::Namespace { .. }) => Place::Namespace,
        };
        let captures = category == "packet_capture";
        Key {
            os: self.os,
            category: category.to_owned(),
            image,
            unit: self.process.and_then(|process| process.unit.clone()).filter(|u| is_lasting(u)),
            signature: identity
                .map_or((None, None), |known| (text(&known.signing_id), text(&known.team_id))),
            place,
            handle: self.session.filter(|_| captures).map(|known| known.handle.kind.as_str()),
        }
    }
}

/// Whether a unit keeps its name: sessions of users and transient units do not.
fn is_lasting(unit: &str) -> bool {
    !unit.ends_with(".scope") && !unit.starts_with("run-") && !unit.starts_with("user@")
}

impl Group {
    fn new(seen: &Seen<'_>) -> Self {
        Self {
            rules: BTreeMap::new(),
            count: 0,
            seen: (seen.time, seen.time),
            hosts: BTreeSet::new(),
            users: BTreeSet::new(),
            interfaces: BTreeSet::new(),
            protocols: BTreeSet::new(),
            programs: BTreeSet::new(),
            lines: BTreeSet::new(),
            more_lines: false,
            promiscuous: false,
            filtered: true,
            root_owned: true,
            platform_binary: true,
            replaceable: false,
            parent: parent(seen),
        }
    }

    fn add(&mut self, seen: &Seen<'_>, hits: &[&RuleRef]) {
        self.count += u64::from(seen.counts || self.count == 0);
        self.seen = (self.seen.0.min(seen.time), self.seen.1.max(seen.time));
        self.hosts.insert(seen.host.to_owned());
        for hit in hits {
            self.name(hit);
        }
        if self.parent != parent(seen) {
            self.parent = None;
        }
        if let Some(session) = seen.session {
            let handle = &session.handle;
            self.promiscuous |= session.promiscuous;
            self.filtered &= handle.filter == Some(true);
            self.interfaces.extend(handle.interface.as_ref().map(|name| name.to_string()));
            self.protocols.extend(handle.protocol.as_ref().map(|name| name.to_string()));
            let tag = handle.program.as_ref().and_then(|program| program.tag.as_ref());
            self.programs.extend(tag.map(|tag| tag.to_string()));
        }
        let Some(process) = seen.process else { return };
        self.users.extend(process.user.clone().or(process.uid.map(|uid| uid.to_string())));
        self.root_owned &= process.image_owner == Some(0);
        self.replaceable |=
            process.image_deleted == Some(true) || process.image_writable_dir == Some(true);
        let identity = process.identity.as_deref();
        self.platform_binary &= identity.is_some_and(|known| known.platform_binary == Some(true));
        let Some(line) = &process.command_line else { return };
        self.more_lines |= process.command_line_truncated == Some(true);
        if self.lines.len() < MAX_LINES {
            self.lines.insert(line.clone());
        } else {
            self.more_lines |= !self.lines.contains(line);
        }
    }

    fn name(&mut self, rule: &RuleRef) {
        self.rules.insert(rule.id.clone(), (rule.title.clone(), rule.level));
    }

    /// The highest level among its rules.
    pub fn level(&self) -> Level {
        self.rules.values().map(|(_, level)| *level).max().unwrap_or(Level::Informational)
    }

    fn fate(&self, key: &Key) -> Fate {
        let signed =
            key.signature.0.is_some() && (self.platform_binary || key.signature.1.is_some());
        if self.replaceable {
            return Fate::Left("its executable was deleted, or lies where others may write");
        }
        if !signed && !self.root_owned {
            return Fate::Left("its executable is not known to belong to root");
        }
        if is_interpreter(&key.image) && key.unit.is_none() {
            return Fate::Left("an interpreter: the executable does not say whose code captures");
        }
        if matches!(key.place, Place::Container(None)) {
            return Fate::Commented(
                "the container's image is not known: it would be expected of every container",
            );
        }
        let started_by_system =
            self.parent.as_deref().is_some_and(|parent| STARTERS.contains(&parent));
        if key.unit.is_none() && !signed && !started_by_system {
            return Fate::Commented(
                "no service started it: it would be expected of whoever can start it",
            );
        }
        if self.level() >= Level::High {
            return Fate::Commented("it was reported as high or critical");
        }
        Fate::Written
    }
}

fn parent(seen: &Seen<'_>) -> Option<String> {
    seen.process?.ancestors.first()?.image.clone()
}

fn is_interpreter(image: &str) -> bool {
    let name = image.rsplit(['/', '\\']).next().unwrap_or(image);
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS.contains(&stem)
}

#[cfg(test)]
mod tests;
