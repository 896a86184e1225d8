//! Kubernetes audit: what was asked of the API server (audit.k8s.io/v1), one event a line or a list.
//!
//! A request is seen once: when it was answered, or, for one that stays open such as `kubectl exec`, when
//! it was taken up, which may be hours before it ends.

mod pod;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bpfwatch_core::decoder::{Decoded, LineDecoder, LineError, Sequence};
use bpfwatch_core::logged::{Log, Logged, Value as FieldValue};
use bpfwatch_core::observation::{Kind, Observation, Os};
use bpfwatch_core::text::Text;
use memchr::memmem;
use serde_json::Value;

use crate::text::shortened;
use crate::time;

/// Open requests whose end is still to come; over it the end of the oldest counts as a request.
const MAX_OPEN: usize = 4096;
/// Bytes of a message.
const MESSAGE: usize = 400;

/// The format `kubernetes-audit`.
#[derive(Debug, Clone)]
pub struct KubernetesAudit {
    sensor: Arc<str>,
}

impl Default for KubernetesAudit {
    fn default() -> Self {
        Self { sensor: Arc::from("kubernetes.audit") }
    }
}

impl LineDecoder for KubernetesAudit {
    fn name(&self) -> &'static str {
        "kubernetes-audit"
    }

    fn sniff(&self, line: &[u8]) -> bool {
        let has = |key: &[u8]| memmem::find(line, key).is_some();
        line.starts_with(b"{") && has(b"\"auditID\"") && has(b"\"verb\"")
    }

    fn os(&self) -> Option<Os> {
        Some(Os::Kubernetes)
    }

    fn sequence(&self) -> Option<Box<dyn Sequence>> {
        Some(Box::new(Once::default()))
    }

    fn decode(&self, line: &[u8], out: &mut Vec<Observation>) -> Result<Decoded, LineError> {
        let event: Value = serde_json::from_slice(line)?;
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        let (Some(verb), Some(_)) = (text("verb"), text("auditID")) else {
            return Err(LineError::new("no audit event: it has no auditID and verb"));
        };
        if text("stage") == Some("RequestReceived") {
            return Ok(Decoded::Skipped);
        }
        let at = ["stageTimestamp", "requestReceivedTimestamp", "timestamp"]
            .into_iter()
            .find_map(|name| event.get(name).and_then(time::of_json))
            .ok_or_else(|| LineError::new("no time that can be read"))?;
        let record = record(&event, verb);
        out.push(Observation {
            at,
            seq: 0,
            sensor: Arc::clone(&self.sensor),
            actor: None,
            kind: Kind::Logged { record: Arc::new(record) },
        });
        Ok(Decoded::Observed)
    }
}

/// Lets each request through once.
#[derive(Default)]
struct Once {
    open: HashSet<String>,
    order: VecDeque<String>,
}

impl Sequence for Once {
    fn pass(&mut self, observation: Observation, out: &mut Vec<Observation>) {
        let Kind::Logged { record } = &observation.kind else { return out.push(observation) };
        let text = |name| record.fields.get(name).and_then(FieldValue::as_text).map(Text::as_str);
        let (Some(id), Some(stage)) = (text("auditID"), text("stage")) else {
            return out.push(observation);
        };
        if stage == "ResponseStarted" {
            if self.open.len() >= MAX_OPEN
                && let Some(oldest) = self.order.pop_front()
            {
                self.open.remove(&oldest);
            }
            if self.open.insert(id.to_owned()) {
                self.order.push_back(id.to_owned());
            }
        } else if self.open.remove(id) {
            self.order.retain(|known| known != id);
            return;
        }
        out.push(observation);
    }
}

fn record(event: &Value, verb: &str) -> Logged {
    let at = |path: &[&str]| path.iter().try_fold(event, |value, name| value.get(name));
    let text = |path: &[&str]| at(path).and_then(Value::as_str);
    let user = text(&["user", "username"]);
    let acts_as = text(&["impersonatedUser", "username"]);
    let subject = match (user, acts_as) {
        (Some(user), Some(other)) => Some(format!("{user} as {other}")),
        (user, _) => user.map(str::to_owned),
    };
    let mut record = Logged::new(
        Log::KubernetesAudit,
        subject.map(|subject| Text::from_bytes_limited(subject.as_bytes(), 512)),
        Text::from(""),
    );
    for path in [
        &["verb"][..],
        &["stage"],
        &["auditID"],
        &["level"],
        &["requestURI"],
        &["userAgent"],
        &["sourceIPs"],
        &["user", "username"],
        &["user", "groups"],
        &["user", "uid"],
        &["impersonatedUser", "username"],
        &["impersonatedUser", "groups"],
        &["objectRef", "resource"],
        &["objectRef", "subresource"],
        &["objectRef", "namespace"],
        &["objectRef", "name"],
        &["objectRef", "apiGroup"],
        &["objectRef", "apiVersion"],
        &["responseStatus", "code"],
        &["responseStatus", "reason"],
        &["responseStatus", "message"],
    ] {
        if let Some(value) = at(path).and_then(value) {
            record.fields.push(path.join("."), value);
        }
    }
    if let Some(group) = text(&["objectRef", "apiGroup"]) {
        record.fields.push("apiGroup", FieldValue::text(group));
    }
    if let Some(Value::Object(all)) = event.get("annotations") {
        for (name, note) in all.iter().take(16) {
            if let Some(note) = value(note) {
                record.fields.push(format!("annotations.{name}"), note);
            }
        }
    }
    let what = object(event);
    let command = text(&["requestURI"]).map(Command::of).unwrap_or_default();
    command.fields(&mut record);
    let found = pod::Found::in_request(event.get("requestObject"), &mut record);
    let mut line = match text(&["objectRef", "subresource"]) {
        Some("exec") => format!("exec into {what}{}", command.words()),
        Some("attach") => format!("attach to {what}{}", command.words()),
        Some("portforward") => format!("forward ports of {what}"),
        Some("ephemeralcontainers") => format!("debug container in {what}"),
        Some(other) => format!("{verb} {other} of {what}"),
        None => format!("{verb} {what}"),
    };
    line += &found.words();
    if let Some(code) = at(&["responseStatus", "code"]).and_then(Value::as_i64)
        && code >= 400
    {
        line += &format!(", refused ({code})");
    }
    record.message = Text::from(shortened(&line, MESSAGE));
    record
}

/// `pod prod/web-0`; of what a controller makes, the name that it makes others from.
fn object(event: &Value) -> String {
    let text = |name: &str| event.get("objectRef")?.get(name)?.as_str();
    let resource = text("resource").unwrap_or("something");
    let made_from = || {
        let metadata = event.get("requestObject")?.get("metadata")?;
        Some(format!("{}*", metadata.get("generateName")?.as_str()?))
    };
    let name = made_from().or_else(|| text("name").map(str::to_owned));
    let singular = match resource {
        "pods" | "deployments" | "daemonsets" | "jobs" | "cronjobs" | "statefulsets"
        | "replicasets" | "nodes" | "secrets" | "services" => &resource[..resource.len() - 1],
        other => other,
    };
    match (text("namespace"), name) {
        (Some(namespace), Some(name)) => format!("{singular} {namespace}/{name}"),
        (Some(namespace), None) => format!("{singular} in {namespace}"),
        (None, Some(name)) => format!("{singular} {name}"),
        (None, None) => resource.to_owned(),
    }
}

/// What a request to run something says in its address: `?command=tcpdump&command=-i&container=app&tty=true`.
#[derive(Default)]
struct Command {
    command: Vec<String>,
    container: Option<String>,
    flags: Vec<(&'static str, bool)>,
}

impl Command {
    fn of(uri: &str) -> Self {
        let mut found = Self::default();
        let Some((_, query)) = uri.split_once('?') else { return found };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            // The API server reads names as it reads values: `comm%61nd=` is a command too.
            match unescaped(name).as_str() {
                "command" if found.command.len() < 256 => found.command.push(unescaped(value)),
                "container" => found.container = Some(unescaped(value)),
                "stdin" => found.flags.push(("stdin", value == "true" || value == "1")),
                "tty" => found.flags.push(("tty", value == "true" || value == "1")),
                _ => {}
            }
        }
        found
    }

    fn fields(&self, record: &mut Logged) {
        if !self.command.is_empty() {
            record.fields.push("command", FieldValue::texts(&self.command));
        }
        if let Some(container) = &self.container {
            record.fields.push("container", FieldValue::text(container));
        }
        for (name, flag) in &self.flags {
            record.fields.push(*name, FieldValue::Bool(*flag));
        }
    }

    fn words(&self) -> String {
        let container = self.container.as_ref().map(|name| format!(", container {name}"));
        let command = (!self.command.is_empty()).then(|| format!(": {}", self.command.join(" ")));
        container.unwrap_or_default() + &command.unwrap_or_default()
    }
}

/// Percent-decoded (RFC 3986, and `+` for a blank); bytes that are no UTF-8 are replaced.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = bytes
            .get(at + 1..at + 3)
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (byte, escaped) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A field's value; an object has none.
fn value(value: &Value) -> Option<FieldValue> {
    Some(match value {
        Value::Bool(flag) => FieldValue::Bool(*flag),
        Value::Number(number) => FieldValue::Number(number.as_i64()?),
        Value::String(text) => FieldValue::text(text),
        Value::Array(list) => FieldValue::List(list.iter().filter_map(self::value).collect()),
        Value::Null | Value::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests;
