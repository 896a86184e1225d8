//! Builds lines from what the engine knows. The only place where a process becomes output, and so the
//! place where the redactor stands.

use std::sync::Arc;

use crate::alerts::{Repeated, Reported, Unit};
use crate::finding::{
    Closed, Finding, Host, Line, Repeats, RuleRef, SessionLine, SessionView, Verdict,
};
use crate::ids;
use crate::observation::{Origin, Os};
use crate::rules::{Hit, RuleSet};
use crate::session::{CaptureSession, SessionChanged};
use crate::text::Text;
use crate::time::Timestamp;
use crate::view::Viewer;

/// Builds the lines of one origin.
pub struct Reporter {
    rules: Arc<RuleSet>,
    host: Arc<Host>,
    /// Digest of the origin, part of each id.
    origin: String,
    viewer: Viewer,
}

impl Reporter {
    /// For this origin.
    pub fn new(origin: &Origin, rules: Arc<RuleSet>, redact: bool) -> Self {
        let boot = origin.boot_id.as_ref().map_or("", Text::as_str);
        let host = Host { name: origin.host.to_string(), os: origin.os };
        let parts = [
            b"origin",
            origin.host.as_str().as_bytes(),
            origin.os.as_str().as_bytes(),
            boot.as_bytes(),
        ];
        Self {
            rules,
            host: Arc::new(host),
            origin: ids::derive(&parts),
            viewer: Viewer::new(redact),
        }
    }

    /// The machine.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Its operating system.
    pub fn os(&self) -> Os {
        self.host.os
    }

    /// A text in output.
    pub fn text(&self, text: &Text) -> String {
        self.viewer.text(text)
    }

    /// The finding of a unit as it stands; `None` where no rule matches it.
    pub fn finding(&self, unit: &Unit, executed_at: Option<Timestamp>) -> Option<Finding> {
        let (leading, time) = unit.hits.first()?;
        let capture = unit.capture();
        let subject = unit.subject();
        let mut redacted = 0;
        let process = subject.map(|process| self.viewer.process(process, &mut redacted));
        let record = unit.record.as_ref();
        let record = record.map(|record| Box::new(self.viewer.record(record, &mut redacted)));
        let others =
            capture.map_or(&[][..], |capture| capture.holders.get(1..).unwrap_or_default());
        let holders =
            others.iter().map(|process| self.viewer.process(process, &mut redacted)).collect();
        let anchor = match capture {
            Some(capture) => capture.id.to_string(),
            None => format!("{} {:?}", unit.seq, unit.root),
        };
        let id = self.id(&["finding", &leading.rule.id, &anchor, leading.rule.level.as_str()]);
        let update_of = unit.reported.as_ref().filter(|r| r.shown).map(|r| r.finding.clone());
        Some(Finding {
            id,
            time: *time,
            host: Arc::clone(&self.host),
            rule: Arc::clone(&leading.rule),
            rules: unit.hits.iter().skip(1).map(|(hit, _)| Arc::clone(&hit.rule)).collect(),
            session: capture.map(view),
            process,
            record,
            holders,
            scope: subject.and_then(|process| process.scope.clone()),
            evidence: unit.evidence(executed_at, |image| self.viewer.text(image)),
            update_of,
            redacted,
            response: self.response(leading),
        })
    }

    /// The end of a reported session.
    pub fn closed(&self, reported: &Reported, leading: &Hit, changed: &SessionChanged) -> Closed {
        let session = &changed.session;
        let ended = session.closed_at.unwrap_or(changed.at);
        let duration = ended.since(session.opened_at());
        Closed {
            id: self.id(&["closed", &session.id]),
            time: ended,
            host: Arc::clone(&self.host),
            finding: reported.finding.clone(),
            title: leading.rule.title.clone(),
            level: leading.rule.level,
            session: view(session),
            image: session
                .owner()
                .and_then(|owner| owner.image.as_ref())
                .map(|image| self.viewer.text(image)),
            pid: session.owner().map(|owner| owner.pid),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// A count of repeats.
    pub fn repeats(&self, repeated: &Repeated) -> Line {
        let first = &repeated.first;
        Line::Repeats(Box::new(Repeats {
            id: self.id(&["repeats", &first.id, &repeated.count.to_string()]),
            time: repeated.last_at,
            host: Arc::clone(&self.host),
            finding: first.id.clone(),
            title: first.title.clone(),
            level: first.level,
            image: first.image.clone(),
            what: first.what.clone(),
            repeats: repeated.count,
            since: repeated.since,
        }))
    }

    /// An open session as `scan` shows it.
    pub fn session_line(
        &self,
        session: &CaptureSession,
        hits: &[Hit],
        expected_by: Option<&Arc<RuleRef>>,
        verdict: Verdict,
        time: Timestamp,
    ) -> SessionLine {
        let mut redacted = 0;
        let holders = session.holders.iter();
        SessionLine {
            time,
            host: Arc::clone(&self.host),
            session: view(session),
            holders: holders.map(|process| self.viewer.process(process, &mut redacted)).collect(),
            scope: session.owner().and_then(|owner| owner.scope.clone()),
            verdict,
            expected_by: expected_by.map(|rule| rule.id.clone()),
            rules: hits.iter().map(|hit| Arc::clone(&hit.rule)).collect(),
        }
    }

    fn id(&self, parts: &[&str]) -> String {
        let mut all: Vec<&[u8]> = vec![self.origin.as_bytes()];
        all.extend(parts.iter().map(|part| part.as_bytes()));
        ids::derive(&all)
    }

    fn response(&self, hit: &Hit) -> Vec<String> {
        self.rules.rules().get(hit.index).map(|rule| rule.response.clone()).unwrap_or_default()
    }
}

fn view(session: &CaptureSession) -> SessionView {
    SessionView {
        id: session.id.to_string(),
        stage: session.stage(),
        promiscuous: session.promiscuous || session.promiscuous_at.is_some(),
        opened_at: session.opened_at(),
        closed_at: session.closed_at,
        pre_existing: session.pre_existing,
        packets: session.packets,
        handle: session.handle.clone(),
    }
}
