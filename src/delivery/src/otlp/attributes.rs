//! Attributes of a log record: the fields of native JSON, flattened, under the names of OpenTelemetry's
//! semantic conventions where those have one, and under `bpfwatch.` with their own path elsewhere.
//!
//! So a field that native JSON gains is there too, without a line here.

use serde_json::{Map, Value};

use super::proto::{AnyValue, KeyValue};

/// Native paths and their names in the semantic conventions (registry 1.37: process, container, os,
/// security rule).
pub const NAMES: [(&str, &str); 13] = [
    ("process.command_line", "process.command_line"),
    ("process.cwd", "process.working_directory"),
    ("process.image", "process.executable.path"),
    ("process.pid", "process.pid"),
    ("process.ppid", "process.parent_pid"),
    ("process.uid", "process.user.id"),
    ("process.user", "process.user.name"),
    ("rule.id", "security_rule.uuid"),
    ("rule.license", "security_rule.license"),
    ("rule.title", "security_rule.name"),
    ("scope.id", "container.id"),
    ("scope.image", "container.image.name"),
    ("scope.runtime", "container.runtime.name"),
];

/// Fields that stand elsewhere in a log record: its time, its uid, its resource.
const ELSEWHERE: [&str; 3] = ["id", "time", "host"];

/// Attributes of a line, sorted by path.
pub fn of(line: Map<String, Value>) -> Vec<KeyValue> {
    let mut out = Vec::with_capacity(48);
    for (key, value) in line {
        if !ELSEWHERE.contains(&key.as_str()) {
            flatten(key, value, &mut out);
        }
    }
    out
}

fn flatten(path: String, value: Value, out: &mut Vec<KeyValue>) {
    match plain(value) {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(format!("{path}.{key}"), value, out);
            }
        }
        value => {
            let name = NAMES.iter().find(|(native, _)| *native == path);
            let name =
                name.map_or_else(|| format!("bpfwatch.{path}"), |(_, name)| (*name).to_owned());
            out.push(KeyValue { key: name, value: Some(AnyValue::from(lists(value))) });
        }
    }
}

/// A list of objects becomes a list of JSON texts: backends show lists of texts, and few of them lists
/// of anything else.
fn lists(value: Value) -> Value {
    match value {
        Value::Array(values) => Value::Array(
            values
                .into_iter()
                .map(|value| match plain(value) {
                    value @ (Value::Object(_) | Value::Array(_)) => Value::from(value.to_string()),
                    value => value,
                })
                .collect(),
        ),
        value => value,
    }
}

/// A text that is not whole or had bad bytes is an object in native JSON; here its text is enough.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(mut fields)
            if fields.len() == 3
                && ["text", "length", "escaped"].iter().all(|key| fields.contains_key(*key)) =>
        {
            fields.remove("text").unwrap_or_default()
        }
        value => value,
    }
}
