//! Turns rule hits into alerts: one for each session, not one for each rule.
//!
//! A hit on an execution waits 1.2 s for the handle that it may lead to; a hit on a session waits
//! 300 ms, so that promiscuous mode and the other rules come in the same alert. Where the sensor tells every
//! step and the rules say that no further one matters ([`crate::outlook`]), it does not wait, and takes
//! the execution that led to it along. A second line about
//! the same session comes only when the level rises, and one when it ends.

mod fold;
mod restart;
mod unit;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::finding::Evidence;
use crate::handle::HandleKey;
use crate::logged::Logged;
use crate::observation::{Kind, Observation};
use crate::process::{Process, ProcessKey};
use crate::rules::Hit;
use crate::session::SessionChanged;
use crate::time::Timestamp;

pub use fold::{First, Folded, Folds, Repeated};
pub use restart::Remembered;
pub use unit::{Reported, Unit};

/// How long a matching execution waits for a handle, or for the next execution on the way to one.
const EXECUTION_WAIT: Duration = Duration::from_millis(1200);
/// How long executions that follow each other (tshark, then dumpcap three times) can wait in all.
const EXECUTION_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long a matching session waits for what belongs to it.
const SESSION_WAIT: Duration = Duration::from_millis(300);
/// How long a promiscuous interface waits for the session that explains it.
const POSTURE_WAIT: Duration = Duration::from_millis(1500);
/// Alerts in the making, reported ones of open sessions included.
const MAX_UNITS: usize = 16_384;

/// Interfaces whose last promiscuous session is remembered.
const MAX_INTERFACES: usize = 1024;

/// Whether a hit on a session waits for what may belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// What is still to come would change neither whether nor how loudly it is reported.
    Not,
    /// More may be on its way.
    ForMore,
}

/// Number of a unit: order of beginning.
pub type UnitId = u64;

/// The alerts of one origin.
#[derive(Debug, Default)]
pub struct Alerts {
    units: BTreeMap<UnitId, Unit>,
    next: UnitId,
    by_session: HashMap<Arc<str>, UnitId>,
    by_root: HashMap<u32, Vec<UnitId>>,
    due: BTreeSet<(Timestamp, UnitId)>,
    /// Folding of what is reported.
    pub folds: Folds,
    /// Sessions reported before a restart.
    pub remembered: HashMap<HandleKey, Remembered>,
    /// When each interface was last seen to be promiscuous through a session.
    explained: HashMap<(Option<u64>, String), Timestamp>,
    last_execution: Option<Timestamp>,
}

impl Alerts {
    /// A process was executed and rules matched.
    pub fn executed(&mut self, process: &Arc<Process>, hits: &[Hit], at: Timestamp, seq: u64) {
        if hits.is_empty() {
            return;
        }
        self.last_execution = Some(at);
        let id = self.of_lineage(process, at).unwrap_or_else(|| {
            let id = self.begin(at, seq);
            if let Some(unit) = self.units.get_mut(&id) {
                unit.root = Some(process.key());
            }
            self.by_root.entry(process.pid).or_default().push(id);
            id
        });
        if let Some(unit) = self.units.get_mut(&id) {
            unit.add_hits(hits, at);
            unit.add_execution(process, hits, at);
        }
        self.schedule_execution(id, at);
    }

    /// A session changed. `hits` are the rules that match it now, `withheld` those that a filter keeps
    /// quiet in its present state. `wait` is asked where there is something to report.
    pub fn session(
        &mut self,
        changed: &SessionChanged,
        hits: &[Hit],
        withheld: &[Hit],
        wait: impl FnOnce() -> Wait,
    ) {
        let session = &changed.session;
        if session.promiscuous_at.is_some()
            && let Some(interface) = &session.handle.interface
        {
            if self.explained.len() >= MAX_INTERFACES {
                self.explained.clear();
            }
            let key = (session.handle.netns, interface.to_string());
            self.explained.insert(key, changed.at);
        }
        let known = self.by_session.get(&session.id).copied();
        let lineage = || session.owner().and_then(|owner| self.of_lineage(owner, changed.at));
        let expected = !withheld.is_empty() && hits.is_empty();
        let id = match known.or_else(|| if expected { None } else { lineage() }) {
            Some(id) => id,
            None if hits.is_empty() => return,
            None => self.begin(changed.at, changed.seq),
        };
        self.by_session.insert(Arc::clone(&session.id), id);
        let remembered = self.remembered.remove(&session.handle.key());
        let Some(unit) = self.units.get_mut(&id) else { return };
        if let Some(remembered) = remembered
            && remembered.is_of(session)
        {
            unit.reported.get_or_insert(Reported {
                finding: remembered.finding,
                level: remembered.level,
                shown: true,
            });
        }
        unit.session = Some(changed.clone());
        unit.hits.retain(|(hit, _)| !withheld.iter().any(|w| w.index == hit.index));
        unit.add_hits(hits, changed.at);
        if unit.has_news() {
            unit.at_once = wait() == Wait::Not;
            let wait = if unit.at_once { Duration::ZERO } else { SESSION_WAIT };
            self.schedule(id, changed.at + wait);
        }
    }

    /// An interface became promiscuous or a device's access was loosened, and rules matched.
    pub fn posture(&mut self, observation: &Observation, hits: &[Hit]) {
        if hits.is_empty() {
            return;
        }
        let id = self.begin(observation.at, observation.seq);
        if let Some(unit) = self.units.get_mut(&id) {
            unit.process.clone_from(&observation.actor);
            unit.posture = Some(observation.clone());
            unit.add_hits(hits, observation.at);
        }
        self.schedule(id, observation.at + POSTURE_WAIT);
    }

    /// Rules matched a record of a log. Where it names a process, the record belongs to what is said of
    /// that process and its lineage; else it stands for itself. Gives the unit that it went to.
    pub fn logged(
        &mut self,
        observation: &Observation,
        record: &Arc<Logged>,
        hits: &[Hit],
    ) -> Option<UnitId> {
        if hits.is_empty() {
            return None;
        }
        let Observation { at, seq, actor, .. } = observation;
        let known = match actor {
            Some(process) => self.of_lineage(process, *at),
            // The same record again, for the correlations that it made fire.
            None => {
                self.units.last_key_value().filter(|(_, unit)| unit.is_of(*seq)).map(|(id, _)| *id)
            }
        };
        let id = known.unwrap_or_else(|| {
            let id = self.begin(*at, *seq);
            if let (Some(unit), Some(process)) = (self.units.get_mut(&id), actor) {
                unit.root = Some(process.key());
                self.by_root.entry(process.pid).or_default().push(id);
            }
            id
        });
        if let Some(unit) = self.units.get_mut(&id) {
            unit.add_hits(hits, *at);
            unit.add_record(record, actor.as_ref(), hits, *at);
        }
        match actor {
            Some(_) => self.schedule_execution(id, *at),
            None => self.schedule(id, *at),
        }
        Some(id)
    }

    /// What led to a correlation that fired on a record of a log.
    pub fn add_evidence(&mut self, unit: Option<UnitId>, evidence: Vec<Evidence>) {
        if let Some(unit) = unit.and_then(|id| self.units.get_mut(&id)) {
            unit.add_correlated(evidence);
        }
    }

    /// What led to a correlation that fired on an execution of this process.
    pub fn add_evidence_of_process(
        &mut self,
        process: &Process,
        at: Timestamp,
        evidence: Vec<Evidence>,
    ) {
        let id = self.of_lineage(process, at);
        if let Some(unit) = id.and_then(|id| self.units.get_mut(&id)) {
            unit.add_correlated(evidence);
        }
    }

    /// What led to a correlation that fired on a change of this session.
    pub fn add_evidence_of_session(&mut self, session: &str, evidence: Vec<Evidence>) {
        let id = self.by_session.get(session);
        if let Some(unit) = id.and_then(|id| self.units.get_mut(id)) {
            unit.add_correlated(evidence);
        }
    }

    /// A process ended.
    pub fn exited(&mut self, process: ProcessKey) {
        let Some(ids) = self.by_root.get(&process.pid) else { return };
        for id in ids.clone() {
            let Some(unit) = self.units.get_mut(&id) else { continue };
            if unit.root.is_some_and(|root| same(root, process)) {
                unit.root_ended = true;
                self.drop_if_done(id);
            }
        }
    }

    /// When something is next to be reported, or a folding window ends.
    pub fn next_due(&self) -> Option<Timestamp> {
        let unit = self.due.first().map(|(at, _)| *at);
        unit.into_iter().chain(self.folds.next_due()).min()
    }

    /// The next unit to report at `now`, in order of time; any for `None`. The caller reports it and
    /// calls [`Alerts::reported`].
    pub fn next_to_report(&mut self, now: Option<Timestamp>) -> Option<(Timestamp, UnitId)> {
        let &(at, id) = self.due.first()?;
        if now.is_some_and(|now| at > now) {
            return None;
        }
        self.due.pop_first();
        let unit = self.units.get_mut(&id)?;
        unit.due = None;
        if self.is_explained(id, at) {
            self.remove(id);
            return self.next_to_report(now);
        }
        Some((at, id))
    }

    /// Replaces every hit: rules have other places in another set. One that has none is taken away,
    /// unless it was said already: then its end is still to be said.
    pub fn map_hits(&mut self, map: impl Fn(&Hit) -> Option<Hit>) {
        for unit in self.units.values_mut() {
            let said = unit.reported.is_some();
            unit.hits.retain_mut(|(hit, _)| match map(hit) {
                Some(new) => {
                    *hit = new;
                    true
                }
                None => {
                    hit.index = usize::MAX;
                    said
                }
            });
            unit.sort_hits();
        }
    }

    /// A filter mostly comes a moment after the rest. Of a unit that is reported without waiting for one it
    /// is left open whether there is any.
    pub fn leave_open(&mut self, id: UnitId) {
        let Some(unit) = self.units.get_mut(&id).filter(|unit| unit.at_once) else { return };
        unit.at_once = false;
        if let Some(changed) = &mut unit.session
            && changed.session.handle.filter == Some(false)
        {
            Arc::make_mut(&mut changed.session).handle.filter = None;
        }
    }

    /// A unit.
    pub fn unit(&self, id: UnitId) -> Option<&Unit> {
        self.units.get(&id)
    }

    /// A unit, to be changed.
    pub fn unit_mut(&mut self, id: UnitId) -> Option<&mut Unit> {
        self.units.get_mut(&id)
    }

    /// The unit of a session.
    pub fn of_session(&self, session: &str) -> Option<&Unit> {
        self.by_session.get(session).and_then(|id| self.units.get(id))
    }

    /// All units of sessions, oldest first.
    pub fn units(&self) -> impl Iterator<Item = &Unit> {
        self.units.values()
    }

    /// The unit was reported, or turned out to be nothing (`None`).
    pub fn reported(&mut self, id: UnitId, reported: Option<Reported>) {
        if let Some(unit) = self.units.get_mut(&id)
            && reported.is_some()
        {
            unit.reported = reported;
        }
        self.drop_if_done(id);
    }

    /// The session of a reported unit ended: gives the unit's report once, and forgets it.
    pub fn ended(&mut self, session: &str) -> Option<Reported> {
        let id = *self.by_session.get(session)?;
        let unit = self.units.get(&id)?;
        if unit.due.is_some() {
            return None;
        }
        let reported = unit.reported.clone();
        self.remove(id);
        reported
    }

    fn begin(&mut self, at: Timestamp, seq: u64) -> UnitId {
        if self.units.len() >= MAX_UNITS
            && let Some(oldest) = self.units.first_key_value().map(|(id, _)| *id)
        {
            self.remove(oldest);
        }
        self.next += 1;
        self.units.insert(self.next, Unit::new(at, seq));
        self.next
    }

    /// The unit that waits for a handle in the lineage of this process. A log does not tell when
    /// processes end: after a while its pids are those of others.
    fn of_lineage(&self, process: &Process, at: Timestamp) -> Option<UnitId> {
        if self.by_root.is_empty() {
            return None;
        }
        let ancestors = process.ancestors.iter().map(|a| ProcessKey { pid: a.pid, start: a.start });
        std::iter::once(process.key()).chain(ancestors).find_map(|key| {
            self.by_root.get(&key.pid)?.iter().copied().find(|id| {
                self.units.get(id).is_some_and(|unit| {
                    unit.session.is_none()
                        && unit.root.is_some_and(|root| {
                            let fresh =
                                root.start.is_some() || at.since(unit.began_at) < fold::WINDOW;
                            fresh && same(root, key)
                        })
                })
            })
        })
    }

    /// Waits for the handle that executions lead to, from the last of them on.
    fn schedule_execution(&mut self, id: UnitId, at: Timestamp) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        if unit.reported.is_some() || unit.session.is_some() {
            return self.schedule(id, at + SESSION_WAIT);
        }
        if let Some(due) = unit.due.take() {
            self.due.remove(&(due, id));
        }
        let due = (at + EXECUTION_WAIT).min(unit.began_at + EXECUTION_WAIT_MAX);
        self.schedule(id, due.max(at));
    }

    /// Sets the time of the report, unless an earlier one is set.
    fn schedule(&mut self, id: UnitId, at: Timestamp) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        if !unit.has_news() {
            return;
        }
        if let Some(due) = unit.due {
            if due <= at {
                return;
            }
            self.due.remove(&(due, id));
        }
        unit.due = Some(at);
        self.due.insert((at, id));
    }

    /// A promiscuous interface needs no alert of its own when a session says why it is so, or when an
    /// execution of the same moment is reported.
    fn is_explained(&self, id: UnitId, now: Timestamp) -> bool {
        let Some(Unit { posture: Some(posture), .. }) = self.units.get(&id) else { return false };
        let Kind::InterfacePromiscuous { interface, .. } = &posture.kind else { return false };
        let near = |other: Timestamp| {
            let window = POSTURE_WAIT + POSTURE_WAIT;
            other.since(posture.at) <= window && posture.at.since(other) <= window
        };
        let key = (interface.netns, interface.name.to_string());
        let open = self.units.values().any(|unit| {
            unit.capture().is_some_and(|capture| {
                capture.promiscuous
                    && capture.handle.netns == key.0
                    && capture.handle.interface.as_ref() == Some(&interface.name)
            })
        });
        open || self.explained.get(&key).is_some_and(|at| near(*at))
            || self.last_execution.is_some_and(|at| near(at) && at <= now)
    }

    fn drop_if_done(&mut self, id: UnitId) {
        let Some(unit) = self.units.get(&id) else { return };
        if unit.due.is_some() {
            return;
        }
        let done = match &unit.session {
            Some(changed) => changed.session.closed_at.is_some(),
            None => {
                unit.root_ended
                    || unit.root.is_none()
                    || unit.posture.is_some()
                    || unit.hits.is_empty()
            }
        };
        if done {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: UnitId) {
        let Some(unit) = self.units.remove(&id) else { return };
        if let Some(due) = unit.due {
            self.due.remove(&(due, id));
        }
        if let Some(changed) = &unit.session {
            self.by_session.remove(&changed.session.id);
        }
        if let Some(root) = unit.root
            && let Some(ids) = self.by_root.get_mut(&root.pid)
        {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_root.remove(&root.pid);
            }
        }
    }
}

/// Whether both name the same process, as far as both know its start.
fn same(a: ProcessKey, b: ProcessKey) -> bool {
    a.pid == b.pid && (a.start == b.start || a.start.is_none() || b.start.is_none())
}
