//! Elastic Common Schema, version 9.4.0: one JSON object a line, for Elasticsearch and what else knows
//! its fields.
//!
//! A finding is `event.kind: alert`. What ECS has no field for (the capture session and its handle,
//! the scope, evidence, response steps) stands under `bpfwatch` as in native JSON.

use bpfwatch_core::finding::{
    Closed, Finding, Heartbeat, Host, Level, Line, Lost, Notice, ProcessView, Repeats, RuleRef,
    SessionLine, SessionView, Verdict,
};
use bpfwatch_core::observation::Os;
use bpfwatch_core::scope::Scope;
use serde_json::{Map, Value};

use crate::attack::{Attack, technique_name};
use crate::format::{Format, Shape};
use crate::json;
use crate::limit::Cut;
use crate::object::{Object, file_name};
use crate::parts;
use crate::summary::Summary;

/// The version of ECS that the fields are of.
pub const VERSION: &str = "9.4.0";

/// Elastic Common Schema, one object a line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ecs;

impl Format for Ecs {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        let summary = Summary::of(line);
        let record = match line {
            Line::Finding(finding) => of_finding(finding),
            Line::Closed(closed) => of_closed(closed),
            Line::Repeats(repeats) => of_repeats(repeats),
            Line::Lost(lost) => of_lost(lost),
            Line::Session(session) => of_session(session),
            Line::Heartbeat(heartbeat) => of_heartbeat(heartbeat),
            Line::Notice(notice) => of_notice(notice),
        };
        json::write(&record.finish(&summary), out);
    }

    fn shape(&self) -> Shape {
        Shape::Line
    }
}

impl Cut for Ecs {
    fn mark(&self, record: &mut Map<String, Value>, _: usize) {
        if let Some(Value::Object(own)) = record.get_mut("bpfwatch") {
            own.insert("cut".to_owned(), Value::Bool(true));
        }
    }
}

/// The parts of a document that several lines have, while it is put together.
#[derive(Default)]
struct Record {
    event: Object,
    /// `observer.ingress.interface.name`.
    interface: Option<String>,
    /// `observer.version`.
    version: Option<&'static str>,
    /// `log.level`.
    level: Option<Level>,
    /// What ECS does not have.
    own: Object,
    /// Other field sets.
    rest: Object,
}

impl Record {
    /// `kind`, `action` and `type` of the event.
    fn new(kind: &str, action: &str, kinds: &[&str]) -> Self {
        let mut record = Self::default();
        record.event.put("kind", kind);
        record.event.put("action", action);
        record.event.put_list("type", kinds.iter().copied());
        record
    }

    fn categories(&mut self, categories: &[&str]) {
        self.event.put_list("category", categories.iter().copied());
    }

    /// Severity in steps of Sigma's levels, 1 to 5, and the level itself.
    fn level(&mut self, level: Level) {
        self.event.put("severity", level as u8 + 1);
        self.level = Some(level);
    }

    fn rule(&mut self, rule: &RuleRef) {
        let mut fields = Object::new();
        fields.put("id", rule.id.as_str());
        fields.put("name", rule.title.as_str());
        fields.put_list("author", rule.author.as_deref());
        fields.put_some("license", rule.license.as_deref());
        self.rest.put_object("rule", fields);
        self.rest.put_list("tags", rule.tags.iter().map(String::as_str));
    }

    fn threat(&mut self, attack: &Attack) {
        if *attack == Attack::default() {
            return;
        }
        let mut tactic = Object::new();
        tactic.put_list("id", attack.tactics.iter().map(|tactic| tactic.id));
        tactic.put_list("name", attack.tactics.iter().map(|tactic| tactic.name));
        let mut technique = Object::new();
        let ids = || attack.techniques.iter().map(String::as_str);
        technique.put_list("id", ids());
        technique.put_list("name", ids().filter_map(technique_name));
        let mut sub = Object::new();
        sub.put_list("id", attack.sub_techniques.iter().map(String::as_str));
        technique.put_object("subtechnique", sub);
        let mut threat = Object::new();
        threat.put("framework", "MITRE ATT&CK");
        threat.put_object("tactic", tactic);
        threat.put_object("technique", technique);
        self.rest.put_object("threat", threat);
    }

    fn session(&mut self, session: &SessionView) {
        self.event.put_time("start", session.opened_at);
        if let Some(closed) = session.closed_at {
            self.event.put_time("end", closed);
            let length = closed.since(session.opened_at).as_nanos();
            self.event.put_some("duration", u64::try_from(length).ok());
        }
        self.own.put_object("session", parts::session(session));
        self.interface = session.handle.interface.as_ref().map(|name| name.as_str().to_owned());
    }

    fn process(&mut self, process: &ProcessView) {
        self.rest.put_object("process", process_fields(process));
        let mut user = Object::new();
        user.put_some("name", process.user.as_deref());
        user.put_some("id", process.uid.map(|uid| uid.to_string()));
        self.rest.put_object("user", user);
        let mut related = Object::new();
        related.put_list("user", process.user.as_deref());
        self.rest.put_object("related", related);
        let mut own = Object::new();
        own.put_some("unit", process.unit.as_deref());
        own.put_some("tty", process.tty.as_deref());
        own.put_some("image_deleted", process.image_deleted);
        own.put_some("command_line_truncated", process.command_line_truncated);
        let identity = process.identity.as_ref();
        own.put_some("platform_binary", identity.and_then(|identity| identity.platform_binary));
        if let Some(responsible) = &process.responsible {
            own.put_native("responsible", responsible);
        }
        if process.ancestors.len() > 1 {
            own.put_native("ancestors", &process.ancestors);
        }
        self.own.put_object("process", own);
    }

    fn scope(&mut self, scope: Option<&Scope>) {
        let Some(scope) = scope else { return };
        self.own.put_object("scope", parts::scope(scope));
        let Scope::Container { id, runtime, image, pod, .. } = scope else { return };
        let mut container = Object::new();
        container.put("id", id.as_str());
        container.put_text("runtime", runtime.as_ref());
        let mut fields = Object::new();
        fields.put_text("name", image.as_ref());
        container.put_object("image", fields);
        self.rest.put_object("container", container);
        let Some(pod) = pod else { return };
        let mut orchestrator = Object::new();
        orchestrator.put("type", "kubernetes");
        let mut resource = Object::new();
        resource.put("type", "pod");
        match pod.as_str().split_once('/') {
            Some((namespace, name)) => {
                orchestrator.put("namespace", namespace);
                resource.put("name", name);
            }
            None => resource.put("id", pod.as_str()),
        }
        orchestrator.put_object("resource", resource);
        self.rest.put_object("orchestrator", orchestrator);
    }

    /// The whole document.
    fn finish(mut self, summary: &Summary) -> Value {
        let mut out = self.rest;
        out.put_time("@timestamp", summary.time);
        out.put("message", summary.message.as_str());
        let mut ecs = Object::new();
        ecs.put("version", VERSION);
        out.put_object("ecs", ecs);
        self.event.put("module", "bpfwatch");
        self.event.put("provider", "bpfwatch");
        self.event.put("dataset", format!("bpfwatch.{}", summary.kind));
        out.put_object("event", self.event);
        if let Some(level) = self.level {
            let mut log = Object::new();
            log.put("level", level.as_str());
            out.put_object("log", log);
        }
        out.put_object("host", host(summary.host));
        let mut observer = Object::new();
        observer.put("product", "bpfwatch");
        observer.put("vendor", "bpfwatch");
        observer.put("type", "sensor");
        observer.put("hostname", summary.host.name.as_str());
        observer.put_some("version", self.version);
        if let Some(name) = self.interface {
            let mut interface = Object::new();
            interface.put("name", name);
            let mut ingress = Object::new();
            ingress.put_object("interface", interface);
            observer.put_object("ingress", ingress);
        }
        out.put_object("observer", observer);
        self.own.put("type", summary.kind);
        out.put_object("bpfwatch", self.own);
        out.into()
    }
}

fn of_finding(finding: &Finding) -> Record {
    let action = match finding.update_of {
        Some(_) => "capture-level-raised",
        None => "capture-detected",
    };
    let mut record = Record::new("alert", action, &["info"]);
    record.categories(match finding.process {
        Some(_) => &["intrusion_detection", "network", "process"],
        None => &["intrusion_detection", "network"],
    });
    record.event.put("id", finding.id.as_str());
    record.level(finding.rule.level);
    record.rule(&finding.rule);
    record.threat(&Attack::of(std::iter::once(&finding.rule).chain(&finding.rules)));
    if let Some(session) = &finding.session {
        record.session(session);
    }
    if let Some(process) = &finding.process {
        record.process(process);
    }
    record.scope(finding.scope.as_deref());
    let own = &mut record.own;
    own.put_list(
        "other_rules",
        finding.rules.iter().map(|rule| {
            let mut fields = Object::new();
            fields.put("id", rule.id.as_str());
            fields.put("name", rule.title.as_str());
            fields.put("level", rule.level.as_str());
            fields.put_some("author", rule.author.as_deref());
            fields.put_some("license", rule.license.as_deref());
            fields
        }),
    );
    own.put_list("holders", finding.holders.iter().map(process_fields));
    if let Some(logged) = &finding.record {
        own.put_object("record", parts::record(logged));
    }
    own.put_some("update_of", finding.update_of.as_deref());
    if finding.redacted > 0 {
        own.put("redacted", finding.redacted);
    }
    own.put_native("evidence", &finding.evidence);
    own.put_list("response", finding.response.iter().map(String::as_str));
    record
}

fn of_closed(closed: &Closed) -> Record {
    let mut record = Record::new("event", "capture-ended", &["end"]);
    record.categories(&["network", "process"]);
    record.event.put("id", closed.id.as_str());
    record.level(closed.level);
    record.session(&closed.session);
    record.short_process(closed.pid, closed.image.as_deref());
    record.short_rule(&closed.title);
    record.own.put("finding", closed.finding.as_str());
    record
}

fn of_repeats(repeats: &Repeats) -> Record {
    let mut record = Record::new("alert", "capture-repeated", &["info"]);
    record.categories(&["intrusion_detection", "network"]);
    record.event.put("id", repeats.id.as_str());
    record.event.put_time("start", repeats.since);
    record.event.put_time("end", repeats.time);
    record.level(repeats.level);
    record.short_process(None, repeats.image.as_deref());
    record.short_rule(&repeats.title);
    record.own.put("finding", repeats.finding.as_str());
    record.own.put("repeats", repeats.repeats);
    record
}

fn of_lost(lost: &Lost) -> Record {
    let mut record = Record::new("event", "events-lost", &["error"]);
    record.categories(&["host"]);
    record.event.put("outcome", "failure");
    record.event.put("reason", lost.why.as_str());
    record.level(Level::Medium);
    record.own.put("sensor", lost.sensor.as_str());
    record.own.put("count", lost.count);
    record
}

fn of_session(line: &SessionLine) -> Record {
    let mut record = Record::new("state", "capture-listed", &["info"]);
    record.categories(&["network", "process"]);
    record.session(&line.session);
    if let Some(rule) = line.rules.first() {
        record.rule(rule);
        record.threat(&Attack::of(&line.rules));
    }
    if let Some(holder) = line.holders.first() {
        record.process(holder);
    }
    record.scope(line.scope.as_deref());
    let level = line.rules.first().map(|rule| rule.level);
    match line.verdict {
        Verdict::Unexpected => record.level(level.unwrap_or(Level::Medium)),
        Verdict::Expected | Verdict::Unknown => record.level(Level::Informational),
    }
    record.own.put_native("verdict", &line.verdict);
    record.own.put_some("expected_by", line.expected_by.as_deref());
    record.own.put_list("holders", line.holders.iter().skip(1).map(process_fields));
    record
}

fn of_heartbeat(heartbeat: &Heartbeat) -> Record {
    let mut record = Record::new("metric", "heartbeat", &["info"]);
    record.categories(&["host"]);
    record.version = Some(heartbeat.version);
    record.own.put_native("heartbeat", heartbeat);
    record
}

fn of_notice(notice: &Notice) -> Record {
    let mut record = Record::new("event", "notice", &["info"]);
    record.categories(&["host"]);
    record.event.put("code", notice.event.as_str());
    record.event.put("reason", notice.detail.as_str());
    record.level(notice.level);
    record
}

impl Record {
    fn short_process(&mut self, pid: Option<u32>, image: Option<&str>) {
        let mut process = Object::new();
        process.put_some("pid", pid);
        process.put_some("executable", image);
        process.put_some("name", image.map(file_name));
        self.rest.put_object("process", process);
    }

    fn short_rule(&mut self, title: &str) {
        let mut rule = Object::new();
        rule.put("name", title);
        self.rest.put_object("rule", rule);
    }
}

fn process_fields(process: &ProcessView) -> Object {
    let mut fields = Object::new();
    fields.put("pid", process.pid);
    let name = process.name.as_deref().or(process.image.as_deref().map(file_name));
    fields.put_some("name", name);
    fields.put_some("executable", process.image.as_deref());
    fields.put_some("command_line", process.command_line.as_deref());
    fields.put_some("working_directory", process.cwd.as_deref());
    let mut user = Object::new();
    user.put_some("name", process.user.as_deref());
    user.put_some("id", process.uid.map(|uid| uid.to_string()));
    fields.put_object("user", user);
    let mut parent = Object::new();
    parent.put_some("pid", process.ppid);
    if let Some(first) = process.ancestors.first() {
        parent.put("pid", first.pid);
        parent.put_some("name", first.image.as_deref().map(file_name));
        parent.put_some("executable", first.image.as_deref());
        parent.put_some("command_line", first.command_line.as_deref());
    }
    fields.put_object("parent", parent);
    if let Some(identity) = &process.identity {
        let mut signature = Object::new();
        signature.put_text("signing_id", identity.signing_id.as_ref());
        signature.put_text("team_id", identity.team_id.as_ref());
        if !signature.is_empty() {
            signature.put("exists", true);
        }
        fields.put_object("code_signature", signature);
        let mut hash = Object::new();
        hash.put_text("cdhash", identity.cdhash.as_ref());
        fields.put_object("hash", hash);
    }
    fields
}

/// ECS allows `linux`, `macos`, `unix`, `windows` and the mobile ones as `host.os.type`.
fn host(host: &Host) -> Object {
    let mut fields = Object::new();
    fields.put("name", host.name.as_str());
    fields.put("hostname", host.name.as_str());
    let mut os = Object::new();
    let family = match host.os {
        Os::Linux => Some("linux"),
        Os::Macos => Some("macos"),
        Os::Freebsd => Some("unix"),
        Os::Windows => Some("windows"),
        Os::Kubernetes | Os::Cisco | Os::Juniper => None,
    };
    os.put_some("type", family);
    os.put("platform", host.os.as_str());
    fields.put_object("os", os);
    fields
}
