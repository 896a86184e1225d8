//! What a record says of each sort of line: its parameters, most telling first, and its sentence.

use std::fmt::Write as _;

use bpfwatch_core::finding::{
    Closed, Finding, Heartbeat, Line, Lost, Notice, ProcessView, Repeats, RuleRef, SessionLine,
    SessionView, Verdict,
};
use bpfwatch_core::scope::Scope;
use bpfwatch_core::time::Timestamp;

use crate::human::words;
use crate::visible::{escaped, name};

/// What a record says, before it is cut to its limit.
pub(super) struct Record<'a> {
    pub time: Timestamp,
    pub host: &'a str,
    /// MSGID: the line's type.
    pub kind: &'static str,
    /// Names and values; the values free of controls, not yet escaped for the element.
    pub params: Vec<(&'static str, String)>,
    pub message: String,
}

impl<'a> Record<'a> {
    pub fn of(line: &'a Line) -> Self {
        match line {
            Line::Finding(finding) => Self::finding(finding),
            Line::Closed(closed) => Self::closed(closed),
            Line::Repeats(repeats) => Self::repeats(repeats),
            Line::Lost(lost) => Self::lost(lost),
            Line::Session(session) => Self::session(session),
            Line::Heartbeat(heartbeat) => Self::heartbeat(heartbeat),
            Line::Notice(notice) => Self::notice(notice),
        }
    }

    fn new(time: Timestamp, host: &'a str, kind: &'static str) -> Self {
        Self { time, host, kind, params: Vec::with_capacity(32), message: String::new() }
    }

    fn finding(finding: &'a Finding) -> Self {
        let mut record = Self::new(finding.time, &finding.host.name, "finding");
        record.add("id", &finding.id);
        record.add_rule(&finding.rule);
        if !finding.rules.is_empty() {
            let ids: Vec<&str> = finding.rules.iter().map(|rule| rule.id.as_str()).collect();
            record.add("other_rules", &ids.join(","));
        }
        record.add_some("update_of", finding.update_of.as_deref());
        if let Some(process) = &finding.process {
            record.add_process(process);
        }
        if let Some(session) = &finding.session {
            record.add_session(session);
        }
        record.add_scope(finding.scope.as_deref());
        if finding.redacted > 0 {
            record.add_number("redacted", u64::from(finding.redacted));
        }
        let process = finding.process.as_ref();
        record.message = format!(
            "{}: {}",
            name(&finding.rule.title),
            process.map_or_else(|| "unknown process".to_owned(), words::process_short)
        );
        if let Some(session) = &finding.session {
            let _ = write!(record.message, ", {}", words::handle_short(&session.handle));
        }
        if let Some(scope) = finding.scope.as_deref() {
            let _ = write!(record.message, ", {}", words::scope(scope));
        }
        record
    }

    fn closed(closed: &'a Closed) -> Self {
        let mut record = Self::new(closed.time, &closed.host.name, "closed");
        record.add("id", &closed.id);
        record.add("finding", &closed.finding);
        record.add("title", &closed.title);
        record.add("level", closed.level.as_str());
        record.add_some("image", closed.image.as_deref());
        if let Some(pid) = closed.pid {
            record.add_number("pid", u64::from(pid));
        }
        record.add_session(&closed.session);
        record.add_number("duration_ms", closed.duration_ms);
        let image =
            closed.image.as_deref().map_or_else(|| "unknown process".to_owned(), words::program);
        let handle = words::handle_short(&closed.session.handle);
        record.message = format!(
            "closed after {} ms: {image}, {handle}: {}",
            closed.duration_ms,
            name(&closed.title)
        );
        record
    }

    fn repeats(repeats: &'a Repeats) -> Self {
        let mut record = Self::new(repeats.time, &repeats.host.name, "repeats");
        record.add("id", &repeats.id);
        record.add("finding", &repeats.finding);
        record.add("title", &repeats.title);
        record.add("level", repeats.level.as_str());
        record.add_some("image", repeats.image.as_deref());
        record.add_number("repeats", repeats.repeats);
        record.add("since", &repeats.since.to_string());
        let image =
            repeats.image.as_deref().map_or_else(|| "unknown process".to_owned(), words::program);
        let times = words::count(repeats.repeats, "time");
        record.message =
            format!("{times} since {}: {image}: {}", repeats.since, name(&repeats.title));
        record
    }

    fn lost(lost: &'a Lost) -> Self {
        let mut record = Self::new(lost.time, &lost.host.name, "lost");
        record.add("sensor", &lost.sensor);
        record.add_number("count", lost.count);
        record.add("why", &lost.why);
        let events = match lost.count {
            0 => "unknown number of events".to_owned(),
            count => words::count(count, "event"),
        };
        record.message = format!("{events} missed by {}: {}", name(&lost.sensor), name(&lost.why));
        record
    }

    fn session(line: &'a SessionLine) -> Self {
        let mut record = Self::new(line.time, &line.host.name, "session");
        let verdict = match line.verdict {
            Verdict::Expected => "expected",
            Verdict::Unexpected => "unexpected",
            Verdict::Unknown => "unknown",
        };
        record.add("verdict", verdict);
        record.add_some("expected_by", line.expected_by.as_deref());
        if let Some(rule) = line.rules.first() {
            record.add_rule(rule);
        }
        if let Some(holder) = line.holders.first() {
            record.add_process(holder);
        }
        record.add_number("holders", line.holders.len() as u64);
        record.add_session(&line.session);
        record.add_scope(line.scope.as_deref());
        let holder = line.holders.first();
        record.message = format!(
            "{verdict}: {}, {}",
            holder.map_or_else(|| "unknown process".to_owned(), words::process_short),
            words::handle_short(&line.session.handle)
        );
        record
    }

    fn heartbeat(heartbeat: &'a Heartbeat) -> Self {
        let mut record = Self::new(heartbeat.time, &heartbeat.host.name, "heartbeat");
        let running = heartbeat.sensors.iter().filter(|sensor| sensor.running).count() as u64;
        record.add("version", heartbeat.version);
        for (key, number) in [
            ("uptime_s", heartbeat.uptime_s),
            ("sensors", heartbeat.sensors.len() as u64),
            ("sensors_running", running),
            ("rules_loaded", heartbeat.rules_loaded),
            ("rules_refused", heartbeat.rules_refused),
            ("observations", heartbeat.observations),
            ("findings", heartbeat.findings),
            ("withheld", heartbeat.withheld),
            ("folded", heartbeat.folded),
            ("forgotten", heartbeat.forgotten),
            ("lost", heartbeat.lost),
            ("backlog_bytes", heartbeat.backlog_bytes),
            ("lag_ms", heartbeat.lag_ms),
            ("coverage_partial", heartbeat.coverage.partial),
            ("coverage_blind", heartbeat.coverage.blind),
            ("dropped", heartbeat.sinks.iter().map(|sink| sink.dropped).sum()),
            ("queued", heartbeat.sinks.iter().map(|sink| sink.queued).sum()),
        ] {
            record.add_number(key, number);
        }
        record.message = format!("alive, {running} of {} sensors run", heartbeat.sensors.len());
        record
    }

    fn notice(notice: &'a Notice) -> Self {
        let mut record = Self::new(notice.time, &notice.host.name, "notice");
        record.add("level", notice.level.as_str());
        record.add("event", notice.event.as_str());
        record.message = escaped(&notice.detail).into_owned();
        record
    }

    fn add(&mut self, key: &'static str, value: &str) {
        self.params.push((key, escaped(value).into_owned()));
    }

    fn add_some(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn add_number(&mut self, key: &'static str, value: u64) {
        self.params.push((key, value.to_string()));
    }

    fn add_flag(&mut self, key: &'static str, value: Option<bool>) {
        if let Some(value) = value {
            self.params.push((key, value.to_string()));
        }
    }

    fn add_rule(&mut self, rule: &RuleRef) {
        self.add("rule", &rule.id);
        self.add("title", &rule.title);
        self.add("level", rule.level.as_str());
        if !rule.tags.is_empty() {
            self.add("tags", &rule.tags.join(","));
        }
        self.add_some("author", rule.author.as_deref());
        self.add_some("license", rule.license.as_deref());
    }

    fn add_process(&mut self, process: &ProcessView) {
        self.add_number("pid", u64::from(process.pid));
        if let Some(ppid) = process.ppid {
            self.add_number("ppid", u64::from(ppid));
        }
        self.add_some("user", process.user.as_deref());
        if let Some(uid) = process.uid {
            self.add_number("uid", u64::from(uid));
        }
        self.add_some("image", process.image.as_deref());
        self.add_flag("image_deleted", process.image_deleted);
        self.add_some("name", process.name.as_deref());
        self.add_some("command_line", process.command_line.as_deref());
        self.add_flag("command_line_truncated", process.command_line_truncated);
        self.add_some("cwd", process.cwd.as_deref());
        self.add_some("tty", process.tty.as_deref());
        self.add_some("unit", process.unit.as_deref());
        if let Some(identity) = &process.identity {
            self.add_some("signing_id", identity.signing_id.as_ref().map(|text| text.as_str()));
            self.add_some("team_id", identity.team_id.as_ref().map(|text| text.as_str()));
        }
        if let Some(parent) = process.ancestors.first() {
            self.add_some("parent_image", parent.image.as_deref());
        }
    }

    fn add_session(&mut self, session: &SessionView) {
        let handle = &session.handle;
        self.add("session", &session.id);
        self.add("stage", session.stage.as_str());
        self.add_flag("promiscuous", Some(session.promiscuous));
        self.add("opened_at", &session.opened_at.to_string());
        self.add_flag("pre_existing", session.pre_existing.then_some(true));
        if let Some(packets) = session.packets {
            self.add_number("packets", packets);
        }
        self.add("handle", handle.kind.as_str());
        self.add_some("device", handle.device.as_ref().map(|text| text.as_str()));
        self.add_some("interface", handle.interface.as_ref().map(|text| text.as_str()));
        self.add_some("protocol", handle.protocol.as_ref().map(|text| text.as_str()));
        self.add_flag("filter", handle.filter);
    }

    fn add_scope(&mut self, scope: Option<&Scope>) {
        let Some(scope) = scope else { return };
        self.add("scope", scope.kind());
        match scope {
            Scope::Host => {}
            Scope::Jail { jid, name, .. } => {
                self.add_number("jid", u64::from(*jid));
                self.add("jail", name.as_str());
            }
            Scope::Container { id, runtime, image, pod, .. } => {
                self.add("container", id.as_str());
                self.add_some("runtime", runtime.as_ref().map(|text| text.as_str()));
                self.add_some("container_image", image.as_ref().map(|text| text.as_str()));
                self.add_some("pod", pod.as_ref().map(|text| text.as_str()));
            }
            Scope::Namespace { netns, .. } => self.add_number("netns", *netns),
        }
    }
}
