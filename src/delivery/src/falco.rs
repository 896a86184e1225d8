//! JSON as Falco writes it (`json_output: true`), for what is built around it: Falcosidekick and its
//! outputs, and rules that know Falco's field names.
//!
//! Falcosidekick (types/types.go, `FalcoPayload` and its `Check`) wants `output`, `priority`, `rule`,
//! a `time` and at least one of `output_fields`; `k8s.ns.name` and `k8s.pod.name` must be strings
//! (handlers.go, `newFalcoPayload`). Fields that Falco has go by its names (Falco's supported fields),
//! those of a capture by `bpfwatch.*`. A line that is no finding is one too here, of lower priority:
//! the format knows no other.

use bpfwatch_core::finding::{Line, ProcessView, RuleRef, SessionView};
use bpfwatch_core::scope::Scope;
use bpfwatch_core::time::Timestamp;
use serde_json::{Map, Value};

use crate::flat::Flat;
use crate::format::{Format, Shape};
use crate::json;
use crate::limit::Cut;
use crate::object::{Object, file_name};
use crate::rfc5424::severity;
use crate::summary::Summary;

/// Falco's JSON, one object a line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Falco;

impl Format for Falco {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        let summary = Summary::of(line);
        let priority = priority(line);
        let (rule, tags) = rule(line);
        let mut record = Object::new();
        record.put("hostname", summary.host.name.as_str());
        let clock = summary.time.to_string();
        let clock = clock.get(11..).unwrap_or(&clock).trim_end_matches('Z');
        record.put("output", format!("{clock}: {priority} {}", summary.message));
        record.put("output_fields", fields(line, &summary));
        record.put("priority", priority);
        record.put("rule", rule);
        record.put("source", "bpfwatch");
        record.put_list("tags", tags);
        record.put_time("time", summary.time);
        json::write(&Value::from(record), out);
    }

    fn shape(&self) -> Shape {
        Shape::Line
    }
}

impl Cut for Falco {
    fn mark(&self, record: &mut Map<String, Value>, _: usize) {
        if let Some(Value::Object(fields)) = record.get_mut("output_fields") {
            fields.insert("bpfwatch.cut".to_owned(), Value::Bool(true));
        }
    }
}

/// Falco's priorities are those of syslog by name.
fn priority(line: &Line) -> &'static str {
    match severity(line) {
        0..=2 => "Critical",
        3 => "Error",
        4 => "Warning",
        5 => "Notice",
        _ => "Informational",
    }
}

/// Title and tags. Falco tags a technique by its id and a tactic as `mitre_discovery`.
fn rule(line: &Line) -> (&str, Vec<String>) {
    let tags = |rule: &RuleRef| {
        let convert = |tag: &String| {
            let name = tag.strip_prefix("attack.")?;
            let is_technique = name.len() > 1 && name.as_bytes()[1].is_ascii_digit();
            Some(if is_technique {
                name.to_ascii_uppercase()
            } else {
                format!("mitre_{}", name.replace('-', "_"))
            })
        };
        rule.tags.iter().map(|tag| convert(tag).unwrap_or_else(|| tag.clone())).collect()
    };
    match line {
        Line::Finding(finding) => (title(&finding.rule.title), tags(&finding.rule)),
        Line::Closed(closed) => (title(&closed.title), Vec::new()),
        Line::Repeats(repeats) => (title(&repeats.title), Vec::new()),
        Line::Lost(_) => ("Events were missed", Vec::new()),
        Line::Session(session) => match session.rules.first() {
            Some(rule) => (title(&rule.title), tags(rule)),
            None => ("Capture handle", Vec::new()),
        },
        Line::Heartbeat(_) => ("bpfwatch is alive", Vec::new()),
        Line::Notice(_) => ("Notice of bpfwatch", Vec::new()),
    }
}

/// Falcosidekick refuses an empty name.
fn title(title: &str) -> &str {
    if title.is_empty() { "untitled" } else { title }
}

/// What the syslog formats say by name, under `bpfwatch.`, and Falco's own fields beside it.
fn fields(line: &Line, summary: &Summary) -> Object {
    let mut fields = Object::new();
    fields.put("bpfwatch.type", summary.kind);
    match line {
        Line::Finding(finding) => {
            fields.put("bpfwatch.id", finding.id.as_str());
            put_rule(&mut fields, &finding.rule);
            fields.put_list(
                "bpfwatch.other_rules",
                finding.rules.iter().map(|rule| rule.id.as_str()),
            );
            fields.put_some("bpfwatch.update_of", finding.update_of.as_deref());
            if finding.redacted > 0 {
                fields.put("bpfwatch.redacted", finding.redacted);
            }
            fields.put_list("bpfwatch.response", finding.response.iter().map(String::as_str));
            if let Some(session) = &finding.session {
                put_session(&mut fields, session);
            }
            if let Some(process) = &finding.process {
                put_process(&mut fields, process, summary.time);
            }
            put_scope(&mut fields, finding.scope.as_deref());
            if let Some(record) = &finding.record {
                fields.put("bpfwatch.log", record.log.as_str());
                fields.put("bpfwatch.what", record.message.as_str());
                fields.put_some("user.name", record.subject.as_deref());
            }
        }
        Line::Session(session) => {
            if let Some(rule) = session.rules.first() {
                put_rule(&mut fields, rule);
            }
            fields.put_native("bpfwatch.verdict", &session.verdict);
            fields.put_some("bpfwatch.expected_by", session.expected_by.as_deref());
            put_session(&mut fields, &session.session);
            if let Some(holder) = session.holders.first() {
                put_process(&mut fields, holder, summary.time);
            }
            put_scope(&mut fields, session.scope.as_deref());
        }
        Line::Closed(closed) => {
            fields.put("bpfwatch.id", closed.id.as_str());
            fields.put("bpfwatch.finding", closed.finding.as_str());
            fields.put("bpfwatch.level", closed.level.as_str());
            fields.put("bpfwatch.duration_ms", closed.duration_ms);
            put_session(&mut fields, &closed.session);
            fields.put_some("proc.exepath", closed.image.as_deref());
            fields.put_some("proc.pid", closed.pid);
        }
        Line::Repeats(repeats) => {
            fields.put("bpfwatch.id", repeats.id.as_str());
            fields.put("bpfwatch.finding", repeats.finding.as_str());
            fields.put("bpfwatch.level", repeats.level.as_str());
            fields.put("bpfwatch.repeats", repeats.repeats);
            fields.put_time("bpfwatch.since", repeats.since);
            fields.put_some("proc.exepath", repeats.image.as_deref());
        }
        Line::Lost(_) | Line::Heartbeat(_) | Line::Notice(_) => {
            for (key, value) in Flat::of(line).params {
                fields.put(&format!("bpfwatch.{key}"), value.as_str());
            }
        }
    }
    fields
}

fn put_rule(fields: &mut Object, rule: &RuleRef) {
    fields.put("bpfwatch.rule", rule.id.as_str());
    fields.put("bpfwatch.level", rule.level.as_str());
    fields.put_some("bpfwatch.author", rule.author.as_deref());
    fields.put_some("bpfwatch.license", rule.license.as_deref());
}

fn put_process(fields: &mut Object, process: &ProcessView, at: Timestamp) {
    fields.put("evt.time", at.nanos());
    fields.put("proc.pid", process.pid);
    let name = process.name.as_deref().or(process.image.as_deref().map(file_name));
    fields.put_some("proc.name", name);
    fields.put_some("proc.exepath", process.image.as_deref());
    fields.put_some("proc.cmdline", process.command_line.as_deref());
    fields.put_some("proc.cwd", process.cwd.as_deref());
    fields.put_some("proc.ppid", process.ppid);
    if let Some(parent) = process.ancestors.first() {
        fields.put_some("proc.pname", parent.image.as_deref().map(file_name));
        fields.put_some("proc.pexepath", parent.image.as_deref());
        fields.put_some("proc.pcmdline", parent.command_line.as_deref());
    }
    fields.put_some("user.name", process.user.as_deref());
    fields.put_some("user.uid", process.uid);
    fields.put_some("bpfwatch.unit", process.unit.as_deref());
    fields.put_some("bpfwatch.tty", process.tty.as_deref());
    fields.put_some("bpfwatch.image_deleted", process.image_deleted);
    fields.put_some("bpfwatch.command_line_truncated", process.command_line_truncated);
}

fn put_session(fields: &mut Object, session: &SessionView) {
    let handle = &session.handle;
    fields.put("bpfwatch.session", session.id.as_str());
    fields.put("bpfwatch.stage", session.stage.as_str());
    fields.put("bpfwatch.promiscuous", session.promiscuous);
    fields.put("bpfwatch.handle", handle.kind.as_str());
    fields.put_text("bpfwatch.device", handle.device.as_ref());
    fields.put_text("bpfwatch.interface", handle.interface.as_ref());
    fields.put_text("bpfwatch.protocol", handle.protocol.as_ref());
    fields.put_some("bpfwatch.filter", handle.filter);
    fields.put_text("bpfwatch.peer", handle.peer.as_ref());
    if let Some(program) = &handle.program {
        fields.put_text("bpfwatch.program", program.name.as_ref());
        fields.put_text("bpfwatch.program_tag", program.tag.as_ref());
    }
    fields.put_some("bpfwatch.packets", session.packets);
    fields.put_time("bpfwatch.opened_at", session.opened_at);
    fields.put_some("bpfwatch.closed_at", session.closed_at.map(|at| at.to_string()));
}

/// Falco calls the host a container named `host`.
fn put_scope(fields: &mut Object, scope: Option<&Scope>) {
    let Some(scope) = scope else { return };
    fields.put("bpfwatch.scope", scope.kind());
    match scope {
        Scope::Host => fields.put("container.id", "host"),
        Scope::Jail { jid, name, .. } => {
            fields.put_some("bpfwatch.jid", *jid);
            fields.put("bpfwatch.jail", name.as_str());
        }
        Scope::Container { id, runtime, image, pod, .. } => {
            fields.put("container.id", id.as_str());
            fields.put_text("container.type", runtime.as_ref());
            fields.put_text("container.image", image.as_ref());
            if let Some(image) = image {
                let (repository, tag) = image_parts(image.as_str());
                fields.put("container.image.repository", repository);
                fields.put_some("container.image.tag", tag);
            }
            match pod.as_ref().map(|pod| (pod.as_str().split_once('/'), pod.as_str())) {
                Some((Some((namespace, pod)), _)) => {
                    fields.put("k8s.ns.name", namespace);
                    fields.put("k8s.pod.name", pod);
                }
                Some((None, uid)) => fields.put("k8s.pod.uid", uid),
                None => {}
            }
        }
        Scope::Namespace { netns, name } => {
            fields.put("bpfwatch.netns", *netns);
            fields.put_text("bpfwatch.netns_name", name.as_ref());
        }
    }
}

/// `registry:5000/nginx:1.27` as repository and tag: a colon before a slash belongs to a port.
fn image_parts(image: &str) -> (&str, Option<&str>) {
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (image, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_its_tag_behind_the_last_colon() {
        for (image, expected) in [
            ("nginx:1.27", ("nginx", Some("1.27"))),
            ("registry:5000/nginx", ("registry:5000/nginx", None)),
            ("registry:5000/nginx:1", ("registry:5000/nginx", Some("1"))),
            ("nginx", ("nginx", None)),
        ] {
            assert_eq!(image_parts(image), expected);
        }
    }
}
