//! The way of one origin's observations: tracker, rules, correlation, alerts, lines.
//!
//! Each origin has a lane of its own with an engine time of its own, so that recordings of several
//! machines can follow each other in one replay without waiting for, or correlating with, each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::alerts::{Alerts, First, Folded, Remembered, Reported, UnitId, Wait};
use crate::events::{LoggedEvent, PostureEvent, ProcessEvent, SessionEvent};
use crate::finding::{Evidence, Level, Line, Lost, RuleRef, SessionLine, Stage, Verdict};
use crate::observation::{Kind, Observation, Origin, Os};
use crate::outlook;
use crate::pipeline::{Counters, Settings};
use crate::report::Reporter;
use crate::rules::correlate::{Correlated, Correlator, Moment};
use crate::rules::{Hit, RuleSet, Verdict as Found};
use crate::session::{Change, SessionChanged};
use crate::text::Text;
use crate::time::Timestamp;
use crate::tracker::{Event, Tracker};

/// Time between two reports of the same loss.
const LOSS_WINDOW: Duration = Duration::from_secs(10);
/// Kinds of loss told apart.
const MAX_LOSSES: usize = 64;

/// What the rules said about an open session, for `scan`.
#[derive(Debug, Default)]
struct Standing {
    hits: Vec<Hit>,
    expected_by: Option<Arc<RuleRef>>,
}

#[derive(Debug)]
struct Loss {
    count: u64,
    due: Timestamp,
}

/// One origin's way through the engine.
pub struct Lane {
    rules: Arc<RuleSet>,
    tracker: Tracker,
    correlator: Correlator,
    alerts: Alerts,
    reporter: Reporter,
    standings: HashMap<Arc<str>, Standing>,
    losses: HashMap<(Arc<str>, String), Loss>,
    now: Timestamp,
    /// Position of the last observation.
    seq: u64,
    /// What is handled now comes from a sensor that tells every step in order.
    exact: bool,
    counters: Counters,
    /// Title of each filter that withheld something, and how often it did, by its id.
    withheld: BTreeMap<String, (String, u64)>,
    events: Vec<Event>,
}

impl Lane {
    /// For this origin.
    pub fn new(origin: &Arc<Origin>, rules: &Arc<RuleSet>, settings: &Settings) -> Self {
        Self {
            rules: Arc::clone(rules),
            tracker: Tracker::new(Arc::clone(origin)),
            correlator: Correlator::new(Arc::clone(rules)),
            alerts: Alerts::default(),
            reporter: Reporter::new(origin, Arc::clone(rules), settings.redact),
            standings: HashMap::new(),
            losses: HashMap::new(),
            now: Timestamp::default(),
            seq: 0,
            exact: false,
            counters: Counters::default(),
            withheld: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Takes one observation.
    pub fn feed(&mut self, observation: Observation, out: &mut dyn FnMut(Line)) {
        self.counters.observations += 1;
        self.seq = observation.seq;
        self.advance(observation.at, out);
        self.exact = observation.is_exact();
        let mut events = std::mem::take(&mut self.events);
        self.tracker.observe(observation, &mut events);
        self.handle(&mut events, out);
        self.events = events;
        self.exact = false;
        // What need not wait.
        if self.alerts.next_due().is_some_and(|due| due <= self.now) {
            self.report_due(Some(self.now), out);
        }
    }

    /// Lets time pass up to `now`, timer by timer.
    pub fn advance(&mut self, now: Timestamp, out: &mut dyn FnMut(Line)) {
        while let Some(due) = self.next_due()
            && due <= now
        {
            self.now = self.now.max(due);
            let mut events = std::mem::take(&mut self.events);
            self.tracker.advance(due, &mut events);
            self.handle(&mut events, out);
            self.events = events;
            self.report_due(Some(due), out);
            self.report_losses(due, out);
        }
        self.now = self.now.max(now);
    }

    /// When something is next due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let losses = self.losses.values().filter(|loss| loss.count > 0).map(|loss| loss.due).min();
        let due = [self.tracker.next_due(), self.alerts.next_due(), losses];
        due.into_iter().flatten().min()
    }

    /// Whatever is pending comes out.
    pub fn finish(&mut self, out: &mut dyn FnMut(Line)) {
        // Hold-backs last at most two seconds; what they bring may be a finding.
        if let Some(due) = self.tracker.next_due() {
            self.advance(due.max(self.now) + Duration::from_secs(2), out);
        }
        self.report_due(None, out);
        for repeated in self.alerts.folds.end(None) {
            out(self.reporter.repeats(&repeated));
        }
        let last = self.now + LOSS_WINDOW;
        self.report_losses(last, out);
    }

    /// Every open session with its verdict, oldest first.
    pub fn sessions(&self, now: Timestamp) -> Vec<SessionLine> {
        let tracked = self.tracker.sessions();
        tracked
            .iter()
            .map(|session| {
                let standing = self.standings.get(&session.id);
                let hits = standing.map_or(&[][..], |standing| &standing.hits);
                let expected_by = standing.and_then(|standing| standing.expected_by.as_ref());
                let alarming = hits.iter().any(|hit| hit.rule.level > Level::Informational);
                let verdict = match (alarming, expected_by) {
                    (true, _) => Verdict::Unexpected,
                    (false, Some(_)) => Verdict::Expected,
                    (false, None) => Verdict::Unknown,
                };
                self.reporter.session_line(session, hits, expected_by, verdict, now)
            })
            .collect()
    }

    /// What went through.
    pub fn counters(&self) -> Counters {
        let forgotten = self.counters.forgotten + self.correlator.forgotten();
        Counters { forgotten, ..self.counters }
    }

    /// Title of each filter that withheld something, and how often it did, by its id.
    pub fn withheld(&self) -> impl Iterator<Item = (&str, (&str, u64))> {
        self.withheld.iter().map(|(id, (title, count))| (&**id, (&**title, *count)))
    }

    /// Puts other rules in force; what is open is asked about again.
    pub fn set_rules(&mut self, origin: &Origin, rules: &Arc<RuleSet>, settings: &Settings) {
        self.counters.forgotten += self.correlator.forgotten();
        self.correlator = Correlator::new(Arc::clone(rules));
        self.reporter = Reporter::new(origin, Arc::clone(rules), settings.redact);
        self.rules = Arc::clone(rules);
        // A hit knows its rule by place. Rules that are gone take their hits with them.
        let places: HashMap<&str, usize> =
            rules.rules().iter().enumerate().map(|(at, rule)| (&*rule.shown.id, at)).collect();
        self.alerts.map_hits(|hit| {
            let index = *places.get(&*hit.rule.id)?;
            Some(Hit { rule: Arc::clone(&rules.rules().get(index)?.shown), index })
        });
        self.standings.clear();
        for session in self.tracker.sessions() {
            let change = match session.stage() {
                Stage::Opened => Change::Opened,
                Stage::Attached => Change::Attached,
                Stage::Reading => Change::Reading,
            };
            let changed = SessionChanged { at: self.now, seq: self.seq, change, session };
            let found = self.rules.evaluate(&SessionEvent::new(&changed));
            let withheld: Vec<Hit> = found.withheld.iter().map(|w| w.hit.clone()).collect();
            self.alerts.session(&changed, &found.hits, &withheld, || Wait::ForMore);
            self.stands(&changed.session.id, found);
        }
    }

    fn count_withheld(&mut self, found: &Found) {
        for withheld in &found.withheld {
            self.counters.withheld += 1;
            let filter = &withheld.filter;
            if let Some((_, count)) = self.withheld.get_mut(&filter.id) {
                *count += 1;
            } else {
                self.withheld.insert(filter.id.clone(), (filter.title.clone(), 1));
            }
        }
    }

    /// Sessions that were reported and are still open.
    pub fn remember(&self) -> Vec<Remembered> {
        let units = self.alerts.units();
        let reported = units.filter_map(|unit| {
            let reported = unit.reported.as_ref()?;
            Some(Remembered::of(unit.capture()?, &reported.finding, reported.level))
        });
        reported.collect()
    }

    /// Sessions that are not to be reported again.
    pub fn recall(&mut self, remembered: Vec<Remembered>) {
        self.alerts.remembered = remembered.into_iter().map(|r| (r.key(), r)).collect();
    }

    fn handle(&mut self, events: &mut Vec<Event>, out: &mut dyn FnMut(Line)) {
        let os = self.reporter.os();
        for event in events.drain(..) {
            match event {
                Event::Executed { at, seq, process, lineage } => {
                    let event = ProcessEvent::new(&process, os, Some(lineage));
                    let found = self.rules.evaluate(&event);
                    self.count_withheld(&found);
                    if found.hits.is_empty() && found.correlated.is_empty() {
                        continue;
                    }
                    self.alerts.executed(&process, &found.hits, at, seq);
                    let what = process.image.as_ref().map_or("", Text::as_str);
                    let moment = Moment { at, seq, what };
                    let fired = self.correlator.feed(&event, moment, &found.correlated);
                    if let Some((hits, evidence)) = self.correlated(fired) {
                        self.alerts.executed(&process, &hits, at, seq);
                        self.alerts.add_evidence_of_process(&process, at, evidence);
                    }
                }
                Event::Session(changed) => self.session(&changed, out),
                Event::Posture(observation) => {
                    let actor = observation.actor.as_deref();
                    if let Some(event) = PostureEvent::new(&observation.kind, os, actor) {
                        let found = self.rules.evaluate(&event);
                        self.count_withheld(&found);
                        self.alerts.posture(&observation, &found.hits);
                    }
                }
                Event::Logged(observation) => self.logged(&observation, os),
                Event::Exited { process, .. } => self.alerts.exited(process),
                Event::Lost(observation) => self.lost(observation, out),
            }
        }
    }

    fn logged(&mut self, observation: &Observation, os: Os) {
        let Kind::Logged { record } = &observation.kind else { return };
        let event = LoggedEvent::new(record, os, observation.actor.as_deref());
        let found = self.rules.evaluate(&event);
        self.count_withheld(&found);
        if found.hits.is_empty() && found.correlated.is_empty() {
            return;
        }
        self.alerts.logged(observation, record, &found.hits);
        let (at, seq) = (observation.at, observation.seq);
        let moment = Moment { at, seq, what: record.message.as_str() };
        let fired = self.correlator.feed(&event, moment, &found.correlated);
        if let Some((hits, evidence)) = self.correlated(fired) {
            let unit = self.alerts.logged(observation, record, &hits);
            self.alerts.add_evidence(unit, evidence);
        }
    }

    fn session(&mut self, changed: &SessionChanged, out: &mut dyn FnMut(Line)) {
        let event = SessionEvent::new(changed);
        let found = self.rules.evaluate(&event);
        self.count_withheld(&found);
        let withheld: Vec<Hit> = found.withheld.iter().map(|w| w.hit.clone()).collect();
        // Asked only where something is to be said: a session that was reported changes many times more.
        let wait = || {
            let settled = self.exact && outlook::is_settled(&self.rules, changed, &found);
            if settled { Wait::Not } else { Wait::ForMore }
        };
        self.alerts.session(changed, &found.hits, &withheld, wait);
        let owner = changed.session.owner().and_then(|owner| owner.image.as_ref());
        let what = owner.map_or("", Text::as_str);
        let moment = Moment { at: changed.at, seq: changed.seq, what };
        let fired = self.correlator.feed(&event, moment, &found.correlated);
        if let Some((hits, evidence)) = self.correlated(fired) {
            self.alerts.session(changed, &hits, &[], wait);
            self.alerts.add_evidence_of_session(&changed.session.id, evidence);
        }
        if changed.session.closed_at.is_none() {
            return self.stands(&changed.session.id, found);
        }
        self.standings.remove(&changed.session.id);
        if changed.change != Change::Closed {
            return;
        }
        let unit = self.alerts.of_session(&changed.session.id);
        let Some(leading) = unit.and_then(|unit| unit.hits.first()).map(|(hit, _)| hit.clone())
        else {
            return;
        };
        if let Some(reported) = self.alerts.ended(&changed.session.id)
            && reported.shown
        {
            out(Line::Closed(Box::new(self.reporter.closed(&reported, &leading, changed))));
        }
    }

    /// The hits of correlations that fired, and what led to them as evidence.
    fn correlated(&self, fired: Vec<Correlated>) -> Option<(Vec<Hit>, Vec<Evidence>)> {
        if fired.is_empty() {
            return None;
        }
        let mut evidence: Vec<Evidence> = Vec::new();
        for contribution in fired.iter().flat_map(|fired| &fired.contributions) {
            let rule = self.rules.rules().get(contribution.rule);
            let title = rule.map_or("", |rule| &rule.shown.title);
            let what = self.reporter.text(&Text::from(&*contribution.what));
            evidence.push(Evidence {
                time: contribution.at,
                kind: "correlated",
                pid: None,
                detail: Some(format!("{title}: {what}")),
            });
        }
        Some((fired.into_iter().map(|fired| fired.hit).collect(), evidence))
    }

    fn report_due(&mut self, now: Option<Timestamp>, out: &mut dyn FnMut(Line)) {
        while let Some((at, id)) = self.alerts.next_to_report(now) {
            self.refresh(id, at);
            self.alerts.leave_open(id);
            self.report(id, at, out);
        }
        for repeated in self.alerts.folds.end(Some(self.now)) {
            out(self.reporter.repeats(&repeated));
        }
    }

    /// Brings a unit's session up to date: a filter attached a moment after the bind, or the name of
    /// its interface, need not have made an event.
    fn refresh(&mut self, id: UnitId, at: Timestamp) {
        let Some(changed) = self.alerts.unit(id).and_then(|unit| unit.session.as_ref()) else {
            return;
        };
        let Some(session) = self.tracker.session(changed.session.handle.key()) else { return };
        // What did not change since it was asked about needs no second answer.
        if session.id != changed.session.id || Arc::ptr_eq(session, &changed.session) {
            return;
        }
        let changed = SessionChanged { at, session: Arc::clone(session), ..*changed };
        let found = self.rules.evaluate(&SessionEvent::new(&changed));
        let Some(unit) = self.alerts.unit_mut(id) else { return };
        unit.hits.retain(|(hit, _)| !found.withheld.iter().any(|w| w.hit.index == hit.index));
        unit.add_hits(&found.hits, at);
        let session = Arc::clone(&changed.session.id);
        unit.session = Some(changed);
        self.stands(&session, found);
    }

    /// Keeps what the rules last said about an open session.
    fn stands(&mut self, session: &Arc<str>, found: Found) {
        let standing = Standing { hits: found.hits, expected_by: found.expected_by };
        self.standings.insert(Arc::clone(session), standing);
    }

    fn report(&mut self, id: UnitId, at: Timestamp, out: &mut dyn FnMut(Line)) {
        let Some(unit) = self.alerts.unit(id) else { return };
        let (Some(level), Some(variant), true) = (unit.level(), unit.variant(), unit.has_news())
        else {
            self.alerts.reported(id, None);
            return;
        };
        let executed_at = unit.subject().and_then(|s| self.tracker.lineage().executed_at(s.key()));
        let Some(finding) = self.reporter.finding(unit, executed_at) else { return };
        let group = unit.group();
        let shown_before = unit.reported.clone().filter(|reported| reported.shown);
        let first = || First {
            id: finding.id.clone(),
            title: finding.rule.title.clone(),
            level,
            image: finding.process.as_ref().and_then(|process| process.image.clone()),
            what: finding.record.as_ref().map(|record| record.message.clone()),
        };
        let again = unit.reported.is_some();
        let folded = self.alerts.folds.take(group, variant, at, again, first);
        // What later lines refer to is a finding that was shown, where there was one.
        let reported = match (&folded, shown_before) {
            (Folded::Repeat(_), Some(before)) => Reported { level, ..before },
            (folded, _) => {
                Reported { finding: finding.id.clone(), level, shown: *folded == Folded::New }
            }
        };
        match folded {
            Folded::New => {
                self.counters.findings += 1;
                out(Line::Finding(Box::new(finding)));
            }
            Folded::Repeat(repeated) => {
                self.counters.folded += 1;
                if let Some(repeated) = repeated {
                    out(self.reporter.repeats(&repeated));
                }
            }
        }
        self.alerts.reported(id, Some(reported));
    }

    /// A loss is said at once; the same loss again within ten seconds is added up.
    fn lost(&mut self, observation: Observation, out: &mut dyn FnMut(Line)) {
        let Kind::Lost { count, why } = observation.kind else { return };
        self.counters.lost += count.max(1);
        let key = (observation.sensor, why.to_string());
        if let Some(loss) = self.losses.get_mut(&key)
            && observation.at < loss.due
        {
            loss.count += count.max(1);
            return;
        }
        if self.losses.len() >= MAX_LOSSES {
            self.losses.retain(|_, loss| loss.count > 0);
        }
        let pending = self.losses.get(&key).map_or(0, |loss| loss.count);
        self.losses.insert(key.clone(), Loss { count: 0, due: observation.at + LOSS_WINDOW });
        out(self.loss_line(observation.at, &key, pending + count));
    }

    fn report_losses(&mut self, now: Timestamp, out: &mut dyn FnMut(Line)) {
        let due = self.losses.iter().filter(|(_, loss)| loss.count > 0 && loss.due <= now);
        let mut due: Vec<_> = due.map(|(key, _)| key.clone()).collect();
        due.sort();
        for key in due {
            let Some(loss) = self.losses.remove(&key) else { continue };
            out(self.loss_line(loss.due.min(now), &key, loss.count));
        }
    }

    fn loss_line(&self, time: Timestamp, key: &(Arc<str>, String), count: u64) -> Line {
        Line::Lost(Box::new(Lost {
            time,
            host: Arc::clone(self.reporter.host()),
            sensor: key.0.to_string(),
            count,
            why: key.1.clone(),
        }))
    }
}
