//! What a syslog record says of each sort of line: names and values, most telling first.

use bpfwatch_core::finding::{
    Closed, Finding, Heartbeat, Line, Lost, Notice, ProcessView, Repeats, RuleRef, SessionLine,
    SessionView,
};
use bpfwatch_core::scope::Scope;

use crate::summary::verdict;
use crate::visible::escaped;

/// Names and values of a line; the values free of controls and not yet cut.
#[derive(Default)]
pub struct Flat {
    /// Most telling first.
    pub params: Vec<(&'static str, String)>,
}

impl Flat {
    /// Of a line.
    pub fn of(line: &Line) -> Self {
        let mut flat = Self { params: Vec::with_capacity(32) };
        match line {
            Line::Finding(finding) => flat.finding(finding),
            Line::Closed(closed) => flat.closed(closed),
            Line::Repeats(repeats) => flat.repeats(repeats),
            Line::Lost(lost) => flat.lost(lost),
            Line::Session(session) => flat.session(session),
            Line::Heartbeat(heartbeat) => flat.heartbeat(heartbeat),
            Line::Notice(notice) => flat.notice(notice),
        }
        flat
    }

    fn finding(&mut self, finding: &Finding) {
        self.add("id", &finding.id);
        self.add_rule(&finding.rule);
        if !finding.rules.is_empty() {
            let ids: Vec<&str> = finding.rules.iter().map(|rule| rule.id.as_str()).collect();
            self.add("other_rules", &ids.join(","));
        }
        self.add_some("update_of", finding.update_of.as_deref());
        if let Some(process) = &finding.process {
            self.add_process(process);
        }
        if let Some(record) = &finding.record {
            self.add("log", record.log.as_str());
            self.add_some("subject", record.subject.as_deref());
            self.add("what", &record.message);
        }
        if let Some(session) = &finding.session {
            self.add_session(session);
        }
        self.add_scope(finding.scope.as_deref());
        if finding.redacted > 0 {
            self.add_number("redacted", u64::from(finding.redacted));
        }
    }

    fn closed(&mut self, closed: &Closed) {
        self.add("id", &closed.id);
        self.add("finding", &closed.finding);
        self.add("title", &closed.title);
        self.add("level", closed.level.as_str());
        self.add_some("image", closed.image.as_deref());
        if let Some(pid) = closed.pid {
            self.add_number("pid", u64::from(pid));
        }
        self.add_session(&closed.session);
        self.add_number("duration_ms", closed.duration_ms);
    }

    fn repeats(&mut self, repeats: &Repeats) {
        self.add("id", &repeats.id);
        self.add("finding", &repeats.finding);
        self.add("title", &repeats.title);
        self.add("level", repeats.level.as_str());
        self.add_some("image", repeats.image.as_deref());
        self.add_some("what", repeats.what.as_deref());
        self.add_number("repeats", repeats.repeats);
        self.add("since", &repeats.since.to_string());
    }

    fn lost(&mut self, lost: &Lost) {
        self.add("sensor", &lost.sensor);
        self.add_number("count", lost.count);
        self.add("why", &lost.why);
    }

    fn session(&mut self, line: &SessionLine) {
        self.add("verdict", verdict(line.verdict));
        self.add_some("expected_by", line.expected_by.as_deref());
        if let Some(rule) = line.rules.first() {
            self.add_rule(rule);
        }
        if let Some(holder) = line.holders.first() {
            self.add_process(holder);
        }
        self.add_number("holders", line.holders.len() as u64);
        self.add_session(&line.session);
        self.add_scope(line.scope.as_deref());
    }

    fn heartbeat(&mut self, heartbeat: &Heartbeat) {
        let running = heartbeat.sensors.iter().filter(|sensor| sensor.running).count() as u64;
        self.add("version", heartbeat.version);
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
            self.add_number(key, number);
        }
    }

    fn notice(&mut self, notice: &Notice) {
        self.add("level", notice.level.as_str());
        self.add("event", notice.event.as_str());
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
        self.add_some("peer", handle.peer.as_ref().map(|text| text.as_str()));
        if let Some(program) = &handle.program {
            self.add_some("program", program.name.as_ref().map(|text| text.as_str()));
            self.add_some("program_tag", program.tag.as_ref().map(|text| text.as_str()));
        }
    }

    fn add_scope(&mut self, scope: Option<&Scope>) {
        let Some(scope) = scope else { return };
        self.add("scope", scope.kind());
        match scope {
            Scope::Host => {}
            Scope::Jail { jid, name, .. } => {
                if let Some(jid) = jid {
                    self.add_number("jid", u64::from(*jid));
                }
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
