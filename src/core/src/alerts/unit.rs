//! One alert in the making: a session, or before there is one the lineage that may lead to it.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::finding::{Evidence, Level, Stage};
use crate::logged::Logged;
use crate::observation::{Kind, Observation};
use crate::process::{Process, ProcessKey};
use crate::rules::Hit;
use crate::session::{CaptureSession, SessionChanged};
use crate::text::Text;
use crate::time::Timestamp;

use super::fold::{GroupKey, Variant};

/// Hits and pieces of evidence kept of one alert.
const MAX_KEPT: usize = 32;

/// What was said about a unit already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Id of the finding that was shown last, or of the one that it folded into.
    pub finding: String,
    /// Level that was reported.
    pub level: Level,
    /// It was shown: not folded, and not from before a restart.
    pub shown: bool,
}

/// An alert in the making.
#[derive(Debug)]
pub struct Unit {
    /// First process of the lineage that matched a rule by its execution.
    pub root: Option<ProcessKey>,
    /// That process has ended.
    pub root_ended: bool,
    /// The process to name while there is no session.
    pub process: Option<Arc<Process>>,
    /// Level of the hit that made `process` the one to name.
    process_level: Option<Level>,
    /// Last change of the session, with its state.
    pub session: Option<SessionChanged>,
    /// What was seen about an interface or a device.
    pub posture: Option<Observation>,
    /// The record of a log to show: the first one of the highest level.
    pub record: Option<Arc<Logged>>,
    record_level: Option<Level>,
    /// Records that matched, in order.
    records: Vec<(Timestamp, Arc<Logged>)>,
    /// Rules that matched, each once, with the time at which it first did.
    pub hits: Vec<(Hit, Timestamp)>,
    /// Executions that matched, in order.
    executions: Vec<(Timestamp, Arc<Process>)>,
    /// What led to correlations that fired.
    correlated: Vec<Evidence>,
    /// When it began.
    pub began_at: Timestamp,
    /// Position of the observation that began it.
    pub seq: u64,
    /// When it is to be reported; `None` when there is nothing new to report.
    pub due: Option<Timestamp>,
    /// It is to be reported without waiting for what may still come.
    pub at_once: bool,
    /// What was said already.
    pub reported: Option<Reported>,
}

impl Unit {
    /// An empty one.
    pub fn new(at: Timestamp, seq: u64) -> Self {
        Self {
            root: None,
            root_ended: false,
            process: None,
            process_level: None,
            session: None,
            posture: None,
            record: None,
            record_level: None,
            records: Vec::new(),
            hits: Vec::new(),
            executions: Vec::new(),
            correlated: Vec::new(),
            began_at: at,
            seq,
            due: None,
            at_once: false,
            reported: None,
        }
    }

    /// Adds hits that are new to it.
    pub fn add_hits(&mut self, hits: &[Hit], at: Timestamp) {
        for hit in hits {
            if self.hits.len() < MAX_KEPT && !self.hits.iter().any(|(k, _)| k.index == hit.index) {
                self.hits.push((hit.clone(), at));
            }
        }
        self.sort_hits();
    }

    /// Highest level first, then the order of the rules.
    pub fn sort_hits(&mut self) {
        self.hits.sort_by(|(a, _), (b, _)| {
            b.rule.level.cmp(&a.rule.level).then_with(|| a.index.cmp(&b.index))
        });
    }

    /// Adds an execution that matched; the process of the highest level is the one to name, the later
    /// one of equals (`sudo tcpdump`, then `tcpdump`).
    pub fn add_execution(&mut self, process: &Arc<Process>, hits: &[Hit], at: Timestamp) {
        let level = hits.iter().map(|hit| hit.rule.level).max();
        if level >= self.process_level {
            self.process = Some(Arc::clone(process));
            self.process_level = level;
        }
        if self.executions.len() < MAX_KEPT {
            self.executions.push((at, Arc::clone(process)));
        }
    }

    /// Adds a record of a log that matched, and the process that it names.
    pub fn add_record(
        &mut self,
        record: &Arc<Logged>,
        actor: Option<&Arc<Process>>,
        hits: &[Hit],
        at: Timestamp,
    ) {
        let level = hits.iter().map(|hit| hit.rule.level).max();
        if level > self.record_level {
            self.record = Some(Arc::clone(record));
            self.record_level = level;
        }
        if self.process.is_none() {
            self.process = actor.cloned();
            self.process_level = level;
        }
        let known = self.records.iter().any(|(_, known)| Arc::ptr_eq(known, record));
        if self.records.len() < MAX_KEPT && !known {
            self.records.push((at, Arc::clone(record)));
        }
    }

    /// Whether it is about a record of a log that stands for itself, and began with this observation.
    pub fn is_of(&self, seq: u64) -> bool {
        self.record.is_some() && self.root.is_none() && self.seq == seq
    }

    /// Adds what led to a correlation that fired, as far as it is not there yet.
    pub fn add_correlated(&mut self, evidence: Vec<Evidence>) {
        for one in evidence {
            if self.correlated.len() < MAX_KEPT && !self.correlated.contains(&one) {
                self.correlated.push(one);
            }
        }
    }

    /// Level of the leading rule.
    pub fn level(&self) -> Option<Level> {
        self.hits.first().map(|(hit, _)| hit.rule.level)
    }

    /// Whether there is more to say than was said.
    pub fn has_news(&self) -> bool {
        self.level() > self.reported.as_ref().map(|reported| reported.level)
    }

    /// The session's state.
    pub fn capture(&self) -> Option<&CaptureSession> {
        self.session.as_ref().map(|changed| &*changed.session)
    }

    /// The process that a finding names: the session's owner, else who matched by execution.
    pub fn subject(&self) -> Option<&Arc<Process>> {
        self.capture().and_then(CaptureSession::owner).or(self.process.as_ref())
    }

    /// What findings of one group share.
    pub fn group(&self) -> GroupKey {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        if let Some(process) = self.subject() {
            add(process.image.as_ref().map_or("", |image| image.as_str()).as_bytes());
            if let Some(args) = &process.args {
                args.head().chain(args.tail()).for_each(|argument| add(argument.as_bytes()));
            }
            // The user who ran it: tcpdump changes its own a moment after it opened the handle.
            let ran = self.executions.iter().find(|(_, ran)| ran.is_same(process.key()));
            let user = ran.and_then(|(_, ran)| ran.uid).or(process.uid);
            add(format!("{:?} {user:?}", process.scope).as_bytes());
        } else if let Some(capture) = self.capture() {
            // Nobody is known to hold it: each such handle stands for itself.
            add(capture.id.as_bytes());
        }
        let unnamed = self.subject().is_none_or(|process| process.image.is_none());
        if let (true, Some(record)) = (unnamed, &self.record) {
            // Who did what, by which log: how often is told by the count.
            add(record.log.as_str().as_bytes());
            add(record.subject.as_ref().map_or("", Text::as_str).as_bytes());
            add(record.message.as_str().as_bytes());
        }
        if let Some(posture) = &self.posture {
            // Each of a system's devices is as good as another: a change of all of them is one.
            let kind = match &posture.kind {
                Kind::AccessLoosened { mode, uid, gid, member, .. } => {
                    format!("{:?}", (mode, uid, gid, member))
                }
                kind => format!("{kind:?}"),
            };
            add(kind.as_bytes());
        }
        let digest = hash.finalize();
        let mut key = GroupKey::default();
        key.copy_from_slice(&digest[..16]);
        key
    }

    /// What it may differ in from others of its group.
    pub fn variant(&self) -> Option<Variant> {
        let level = self.level()?;
        // Promiscuous mode is asked for on an interface, also when the bind was not seen yet.
        let receives =
            |c: &&CaptureSession| c.stage() > Stage::Opened || c.promiscuous_at.is_some();
        let handle = self.capture().filter(receives).map(|capture| {
            let interface = capture.handle.interface.as_ref();
            (capture.handle.kind, interface.map(|name| name.to_string()))
        });
        Some(Variant { handle, level })
    }

    /// What was seen, in order of time. `show` makes an image fit for output.
    pub fn evidence(
        &self,
        executed_at: Option<Timestamp>,
        show: impl Fn(&Text) -> String,
    ) -> Vec<Evidence> {
        let executed = |time, process: &Process| Evidence {
            time,
            kind: "executed",
            pid: Some(process.pid),
            detail: process.image.as_ref().map(&show),
        };
        let mut all: Vec<Evidence> =
            self.executions.iter().map(|(at, process)| executed(*at, process)).collect();
        if let Some(capture) = self.capture() {
            if let (Some(owner), Some(at)) = (capture.owner(), executed_at)
                && !self.executions.iter().any(|(_, process)| process.pid == owner.pid)
            {
                all.push(executed(at, owner));
            }
            for (time, kind) in [
                (capture.reached[0], "handle_opened"),
                (capture.reached[1], "handle_attached"),
                (capture.promiscuous_at, "promiscuous"),
                (capture.reached[2], "handle_active"),
                (capture.closed_at, "handle_closed"),
            ] {
                let seen = time.map(|time| Evidence { time, kind, pid: None, detail: None });
                all.extend(seen);
            }
        }
        all.extend(self.records.iter().map(|(time, record)| Evidence {
            time: *time,
            kind: "logged",
            pid: None,
            detail: Some(show(&record.message)),
        }));
        all.extend(self.correlated.iter().cloned());
        if let Some(posture) = &self.posture {
            let (kind, detail) = (posture.kind.name(), changed(&posture.kind, &show));
            all.push(Evidence { time: posture.at, kind, pid: None, detail });
        }
        // Stable: what happened in the same moment stays in the order above.
        all.sort_by_key(|evidence| evidence.time);
        all
    }
}

/// What was changed and how: there is neither session nor record to show it.
fn changed(kind: &Kind, show: impl Fn(&Text) -> String) -> Option<String> {
    match kind {
        Kind::InterfacePromiscuous { interface, .. } => Some(show(&interface.name)),
        Kind::AccessLoosened { path, mode, uid, gid, member } => {
            let mut words = vec![show(path)];
            words.extend(mode.map(|mode| format!("mode {mode:o}")));
            words.extend(uid.map(|uid| format!("owner {uid}")));
            words.extend(gid.map(|gid| format!("group {gid}")));
            words.extend(member.as_ref().map(|member| format!("member {}", show(member))));
            Some(words.join(", "))
        }
        _ => None,
    }
}
