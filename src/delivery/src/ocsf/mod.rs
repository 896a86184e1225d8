//! Open Cybersecurity Schema Framework, version 1.8.0: one JSON object a line.
//!
//! | line | class | activity |
//! |---|---|---|
//! | finding | Detection Finding (2004) | Create; Update where it raises the level of an earlier one |
//! | repeats | Detection Finding (2004) | Update, with `count` |
//! | closed | Detection Finding (2004) | Close |
//! | session, from `scan` | Detection Finding (2004) | Other, `Listed` |
//! | lost | Application Error (6008) | General Error |
//! | notice | Application Error (6008) | General Error |
//! | heartbeat | Application Lifecycle (6002) | Other, `Heartbeat` |
//!
//! `metadata.uid` is the line's id: the same on every try, so that a receiver can drop repeats.
//! `finding_info.uid` is that of the capture session, the same from Create to Close; `uid_alt` is the
//! finding's. Promiscuous mode, stage, packets and scope have no field in the schema: `unmapped`.

mod objects;

use bpfwatch_core::finding::{
    Closed, Finding, Heartbeat, Level, Line, Lost, Notice, Repeats, RuleRef, SessionLine, Verdict,
};
use bpfwatch_core::time::Timestamp;
use serde_json::{Map, Value};

use self::objects::{analytic, attacks, container, device, device_file, millis, process, product};
use crate::attack::Attack;
use crate::format::{Format, Shape};
use crate::json;
use crate::limit::Cut;
use crate::object::Object;
use crate::parts;
use crate::summary::Summary;

/// The version of OCSF that the fields are of.
pub const VERSION: &str = "1.8.0";

/// OCSF, one object a line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ocsf;

impl Format for Ocsf {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        let summary = Summary::of(line);
        let event = match line {
            Line::Finding(finding) => of_finding(finding),
            Line::Closed(closed) => of_closed(closed),
            Line::Repeats(repeats) => of_repeats(repeats),
            Line::Session(session) => of_session(session),
            Line::Lost(lost) => of_lost(lost),
            Line::Heartbeat(heartbeat) => of_heartbeat(heartbeat),
            Line::Notice(notice) => of_notice(notice),
        };
        json::write(&event.finish(&summary), out);
    }

    fn shape(&self) -> Shape {
        Shape::Line
    }
}

impl Cut for Ocsf {
    fn mark(&self, record: &mut Map<String, Value>, size: usize) {
        if let Some(Value::Object(metadata)) = record.get_mut("metadata") {
            metadata.insert("is_truncated".to_owned(), Value::Bool(true));
            metadata.insert("untruncated_size".to_owned(), size.into());
        }
    }
}

/// A class of the schema: its uid, name, and those of its category.
struct Class(u32, &'static str, u32, &'static str);

const DETECTION_FINDING: Class = Class(2004, "Detection Finding", 2, "Findings");
const APPLICATION_LIFECYCLE: Class =
    Class(6002, "Application Lifecycle", 6, "Application Activity");
const APPLICATION_ERROR: Class = Class(6008, "Application Error", 6, "Application Activity");

/// `activity_id` and its name. 99 is Other, whose name is the source's own.
struct Activity(u32, &'static str);

const CREATE: Activity = Activity(1, "Create");
const UPDATE: Activity = Activity(2, "Update");
const CLOSE: Activity = Activity(3, "Close");
const LISTED: Activity = Activity(99, "Listed");
const GENERAL_ERROR: Activity = Activity(1, "General Error");
const HEARTBEAT: Activity = Activity(99, "Heartbeat");

/// An event while it is put together.
struct Event {
    fields: Object,
    metadata: Object,
    /// `finding_info`.
    info: Object,
    /// What the schema has no field for.
    unmapped: Object,
    /// Interface of the capture, for `device`.
    interface: Option<String>,
    version: Option<&'static str>,
}

impl Event {
    fn new(class: &Class, activity: &Activity, level: Level) -> Self {
        let mut fields = Object::new();
        fields.put("class_uid", class.0);
        fields.put("class_name", class.1);
        fields.put("category_uid", class.2);
        fields.put("category_name", class.3);
        fields.put("activity_id", activity.0);
        fields.put("activity_name", activity.1);
        fields.put("type_uid", class.0 * 100 + activity.0);
        fields.put("type_name", format!("{}: {}", class.1, activity.1));
        let (severity, name) = severity(level);
        fields.put("severity_id", severity);
        fields.put("severity", name);
        Self {
            fields,
            metadata: Object::new(),
            info: Object::new(),
            unmapped: Object::new(),
            interface: None,
            version: None,
        }
    }

    fn status(&mut self, id: u32, name: &str) {
        self.fields.put("status_id", id);
        self.fields.put("status", name);
    }

    fn rule(&mut self, rule: &RuleRef) {
        self.info.put("title", rule.title.as_str());
        self.info.put("analytic", analytic(rule));
        let mut own = Object::new();
        own.put_some("author", rule.author.as_deref());
        own.put_some("license", rule.license.as_deref());
        own.put_list("tags", rule.tags.iter().map(String::as_str));
        self.unmapped.put_object("rule", own);
    }

    /// First and last time of what it is about.
    fn span(&mut self, first: Timestamp, last: Timestamp) {
        self.fields.put("start_time", millis(first));
        self.fields.put("end_time", millis(last));
        self.info.put("first_seen_time", millis(first));
        self.info.put("last_seen_time", millis(last));
    }

    fn finish(mut self, summary: &Summary) -> Value {
        self.metadata.put("version", VERSION);
        self.metadata.put("product", product(self.version));
        self.metadata.put("event_code", summary.kind);
        self.metadata.put("original_time", summary.time.to_string());
        self.fields.put("time", millis(summary.time));
        self.fields.put("message", summary.message.as_str());
        if self.info.is_empty() {
            // Findings have a device of their own; other classes take it with this profile.
            self.metadata.put_list("profiles", ["host"]);
        }
        self.fields.put("device", device(summary.host, self.interface.as_deref()));
        self.fields.put_object("metadata", self.metadata);
        self.fields.put_object("finding_info", self.info);
        self.fields.put_object("unmapped", self.unmapped);
        self.fields.into()
    }
}

/// Sigma's levels are those of OCSF but for the top one, Fatal, which means a lost machine.
fn severity(level: Level) -> (u32, &'static str) {
    match level {
        Level::Informational => (1, "Informational"),
        Level::Low => (2, "Low"),
        Level::Medium => (3, "Medium"),
        Level::High => (4, "High"),
        Level::Critical => (5, "Critical"),
    }
}

fn of_finding(finding: &Finding) -> Event {
    let activity = if finding.update_of.is_some() { UPDATE } else { CREATE };
    let mut event = Event::new(&DETECTION_FINDING, &activity, finding.rule.level);
    event.status(1, "New");
    event.fields.put("is_alert", true);
    event.metadata.put("uid", finding.id.as_str());
    let session = finding.session.as_ref();
    event.metadata.put_some("correlation_uid", session.map(|session| session.id.as_str()));
    event.info.put("uid", session.map_or(&finding.id, |session| &session.id).as_str());
    event.info.put("uid_alt", finding.id.as_str());
    event.info.put("created_time", millis(finding.time));
    event.rule(&finding.rule);
    event.info.put_list(
        "attacks",
        attacks(&Attack::of(std::iter::once(&finding.rule).chain(&finding.rules))),
    );
    event.info.put_list("related_analytics", finding.rules.iter().map(|rule| analytic(rule)));
    event.info.put_list(
        "related_events",
        finding.update_of.iter().map(|id| {
            let mut related = Object::new();
            related.put("uid", id.as_str());
            related.put("type_uid", DETECTION_FINDING.0 * 100 + CREATE.0);
            related
        }),
    );
    let first = finding.evidence.iter().map(|evidence| evidence.time).min();
    let last = finding.evidence.iter().map(|evidence| evidence.time).max();
    event.span(first.unwrap_or(finding.time), last.unwrap_or(finding.time));
    event.fields.put_list("evidences", evidences(finding));
    if !finding.response.is_empty() {
        let mut remediation = Object::new();
        remediation.put("desc", finding.response.join("\n"));
        event.fields.put_object("remediation", remediation);
    }
    if let Some(session) = session {
        event.unmapped.put_object("session", parts::session(session));
        event.interface = session.handle.interface.as_ref().map(|name| name.as_str().to_owned());
    }
    if let Some(scope) = finding.scope.as_deref() {
        event.unmapped.put_object("scope", parts::scope(scope));
    }
    if let Some(record) = &finding.record {
        event.unmapped.put_object("record", parts::record(record));
    }
    if finding.redacted > 0 {
        event.unmapped.put("redacted", finding.redacted);
    }
    event.unmapped.put_list(
        "other_rules",
        finding.rules.iter().map(|rule| {
            let mut own = Object::new();
            own.put("id", rule.id.as_str());
            own.put("level", rule.level.as_str());
            own.put_some("author", rule.author.as_deref());
            own.put_some("license", rule.license.as_deref());
            own
        }),
    );
    event
}

/// The capture with its process, container, device node and what was seen; then the other holders.
fn evidences(finding: &Finding) -> Vec<Object> {
    let mut first = Object::new();
    first.put("name", "capture");
    first.put_some("process", finding.process.as_ref().map(process));
    first.put_some("container", finding.scope.as_deref().and_then(container));
    let device = finding.session.as_ref().and_then(|session| session.handle.device.as_ref());
    first.put_some("file", device.map(|device| device_file(device.as_str())));
    let mut data = Object::new();
    data.put_native("observed", &finding.evidence);
    first.put_object("data", data);
    let others = finding.holders.iter().map(|holder| {
        let mut other = Object::new();
        other.put("name", "holder");
        other.put_object("process", process(holder));
        other
    });
    std::iter::once(first).chain(others).collect()
}

fn of_closed(closed: &Closed) -> Event {
    let mut event = Event::new(&DETECTION_FINDING, &CLOSE, closed.level);
    event.fields.put("is_alert", false);
    event.metadata.put("uid", closed.id.as_str());
    event.metadata.put("correlation_uid", closed.session.id.as_str());
    event.info.put("uid", closed.session.id.as_str());
    event.info.put("uid_alt", closed.finding.as_str());
    event.info.put("title", closed.title.as_str());
    event.span(closed.session.opened_at, closed.time);
    let mut evidence = Object::new();
    let mut process = Object::new();
    process.put_some("pid", closed.pid);
    process.put_some("path", closed.image.as_deref());
    if closed.pid.is_some() {
        evidence.put_object("process", process);
        event.fields.put_list("evidences", [evidence]);
    }
    event.unmapped.put_object("session", parts::session(&closed.session));
    event.unmapped.put("duration_ms", closed.duration_ms);
    let interface = closed.session.handle.interface.as_ref();
    event.interface = interface.map(|name| name.as_str().to_owned());
    event
}

fn of_repeats(repeats: &Repeats) -> Event {
    let mut event = Event::new(&DETECTION_FINDING, &UPDATE, repeats.level);
    event.fields.put("is_alert", true);
    event.metadata.put("uid", repeats.id.as_str());
    event.info.put("uid", repeats.finding.as_str());
    event.info.put("uid_alt", repeats.finding.as_str());
    event.info.put("title", repeats.title.as_str());
    event.span(repeats.since, repeats.time);
    event.fields.put("count", repeats.repeats);
    let length = repeats.time.since(repeats.since).as_millis();
    event.fields.put_some("duration", u64::try_from(length).ok());
    event.unmapped.put_some("image", repeats.image.as_deref());
    event
}

fn of_session(line: &SessionLine) -> Event {
    let rule = line.rules.first();
    let level = match line.verdict {
        Verdict::Unexpected => rule.map_or(Level::Medium, |rule| rule.level),
        Verdict::Expected | Verdict::Unknown => Level::Informational,
    };
    let mut event = Event::new(&DETECTION_FINDING, &LISTED, level);
    event.fields.put("is_alert", line.verdict == Verdict::Unexpected);
    event.metadata.put("correlation_uid", line.session.id.as_str());
    event.info.put("uid", line.session.id.as_str());
    event.info.put("title", "Capture handle");
    if let Some(rule) = rule {
        event.rule(rule);
        event.info.put_list("attacks", attacks(&Attack::of(&line.rules)));
    }
    event.span(line.session.opened_at, line.time);
    let container = line.scope.as_deref().and_then(container);
    event.fields.put_list(
        "evidences",
        line.holders.iter().map(|holder| {
            let mut evidence = Object::new();
            evidence.put("name", "holder");
            evidence.put_object("process", process(holder));
            evidence.put_some("container", container.clone());
            evidence
        }),
    );
    event.unmapped.put_object("session", parts::session(&line.session));
    if let Some(scope) = line.scope.as_deref() {
        event.unmapped.put_object("scope", parts::scope(scope));
    }
    event.unmapped.put_native("verdict", &line.verdict);
    event.unmapped.put_some("expected_by", line.expected_by.as_deref());
    let interface = line.session.handle.interface.as_ref();
    event.interface = interface.map(|name| name.as_str().to_owned());
    event
}

fn of_lost(lost: &Lost) -> Event {
    let mut event = Event::new(&APPLICATION_ERROR, &GENERAL_ERROR, Level::Medium);
    event.status(2, "Failure");
    event.fields.put("status_detail", lost.why.as_str());
    event.unmapped.put("sensor", lost.sensor.as_str());
    event.unmapped.put("count", lost.count);
    event
}

fn of_notice(notice: &Notice) -> Event {
    let mut event = Event::new(&APPLICATION_ERROR, &GENERAL_ERROR, notice.level);
    event.fields.put("status_code", notice.event.as_str());
    event.fields.put("status_detail", notice.detail.as_str());
    event
}

fn of_heartbeat(heartbeat: &Heartbeat) -> Event {
    let mut event = Event::new(&APPLICATION_LIFECYCLE, &HEARTBEAT, Level::Informational);
    event.status(1, "Success");
    event.version = Some(heartbeat.version);
    event.fields.put("app", product(Some(heartbeat.version)));
    event.unmapped.put_native("heartbeat", heartbeat);
    event
}
