//! Processes and records of logs as output shows them. This is the only way from a [`Process`] or a
//! [`Logged`] to a finding: it leads through the redactor.

use crate::arguments::Arguments;
use crate::finding::{AncestorView, ProcessView, RecordView};
use crate::logged::{Fields, Logged, Value};
use crate::process::{Ancestor, Process};
use crate::redact::Redactor;
use crate::text::{self, Text};

/// Builds views of processes.
#[derive(Debug, Clone, Copy)]
pub struct Viewer {
    redact: bool,
}

impl Viewer {
    /// With or without the redactor.
    pub fn new(redact: bool) -> Self {
        Self { redact }
    }

    /// A process in output; how many secrets the redactor took out is added to `redacted`.
    pub fn process(&self, process: &Process, redacted: &mut u32) -> ProcessView {
        let mut redactor = Redactor::new(self.redact);
        let view = view(process, &mut redactor);
        *redacted = redacted.saturating_add(redactor.count());
        view
    }

    /// A record of a log in output.
    pub fn record(&self, record: &Logged, redacted: &mut u32) -> RecordView {
        let mut redactor = Redactor::new(self.redact);
        let view = RecordView {
            log: record.log,
            subject: record.subject.as_ref().map(|subject| redactor.text(subject)),
            message: shortened(&redactor.text(&record.message)),
            fields: fields(&record.fields, &mut redactor),
        };
        *redacted = redacted.saturating_add(redactor.count());
        view
    }

    /// A text in output, such as an image.
    pub fn text(&self, text: &Text) -> String {
        Redactor::new(self.redact).text(text)
    }
}

fn view(process: &Process, redactor: &mut Redactor) -> ProcessView {
    let mut text = |text: &Option<Text>| text.as_ref().map(|text| redactor.text(text));
    ProcessView {
        pid: process.pid,
        ppid: process.ppid,
        user: text(&process.user),
        uid: process.uid,
        name: text(&process.name),
        image: text(&process.image),
        image_deleted: process.image_deleted,
        image_owner: process.image_owner,
        image_writable_dir: process.image_writable_dir,
        cwd: text(&process.cwd),
        tty: text(&process.tty),
        unit: text(&process.unit),
        command_line: line(&process.args, redactor),
        // Said only where it is so.
        command_line_truncated: process.args.as_ref().map(Arguments::is_cut).filter(|cut| *cut),
        identity: process.identity.clone(),
        details: process.details.as_ref().map(|d| fields(d, redactor)).unwrap_or_default(),
        responsible: process.responsible.as_ref().map(|known| Box::new(ancestor(known, redactor))),
        ancestors: process.ancestors.iter().map(|known| ancestor(known, redactor)).collect(),
    }
}

/// Bytes shown of one value of a record, and of all of them.
const VALUE_SHOWN: usize = 2 * 1024;
const VALUES_SHOWN: usize = 32 * 1024;

type Map = serde_json::Map<String, serde_json::Value>;

/// Fields in output, until there is enough of them.
fn fields(fields: &Fields, redactor: &mut Redactor) -> Map {
    let mut room = VALUES_SHOWN;
    let mut map = Map::new();
    let arguments = redacted_arguments(fields, redactor);
    for (name, value) in fields.iter() {
        let value = match arguments.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => shown_text(text, &mut room),
            None => shown(value, redactor, &mut room),
        };
        map.insert(name.to_owned(), value);
        if room == 0 {
            break;
        }
    }
    map
}

/// `a0`, `a1` ... of a record of Linux audit, redacted together: a secret is told by what stands before it.
fn redacted_arguments<'a>(fields: &'a Fields, redactor: &mut Redactor) -> Vec<(&'a str, String)> {
    let is_argument = |name: &str| {
        let number = name.strip_prefix('a');
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let texts = fields.iter().filter(|(name, _)| is_argument(name));
    let (names, texts): (Vec<&str>, Vec<&str>) =
        texts.filter_map(|(name, value)| Some((name, value.as_text()?.as_str()))).unzip();
    let redacted = redactor.arguments(&Arguments::from_list(&texts));
    let redacted: Vec<String> = redacted.head().map(str::to_owned).collect();
    // Of a list that is too long to keep whole each one stands for itself.
    if redacted.len() != names.len() {
        return Vec::new();
    }
    std::iter::zip(names, redacted).collect()
}

fn shown_text(text: &str, room: &mut usize) -> serde_json::Value {
    let text = shortened(text);
    *room = room.saturating_sub(text.len());
    text.into()
}

fn shown(value: &Value, redactor: &mut Redactor, room: &mut usize) -> serde_json::Value {
    match value {
        Value::Text(text) => {
            let text = redactor.text(text);
            shown_text(&text, room)
        }
        Value::Number(number) => (*number).into(),
        Value::Bool(flag) => (*flag).into(),
        Value::List(list) => {
            let mut shown_values = Vec::new();
            // A list is what a container is started with, as a rule: redacted like any arguments.
            let texts: Option<Vec<&str>> =
                list.iter().map(|value| value.as_text().map(Text::as_str)).collect();
            let redacted = texts.map(|texts| redactor.arguments(&Arguments::from_list(texts)));
            if let Some(redacted) = redacted.filter(|redacted| !redacted.is_cut()) {
                return redacted.head().map(|text| shown_text(text, room)).collect();
            }
            for value in list {
                if *room == 0 {
                    break;
                }
                shown_values.push(shown(value, redactor, room));
            }
            shown_values.into()
        }
    }
}

fn shortened(text: &str) -> String {
    let kept = text::cut(text.as_bytes(), VALUE_SHOWN);
    let kept = text.get(..kept.len()).unwrap_or_default();
    if kept.len() == text.len() { text.to_owned() } else { format!("{kept}…") }
}

fn ancestor(ancestor: &Ancestor, redactor: &mut Redactor) -> AncestorView {
    AncestorView {
        pid: ancestor.pid,
        image: ancestor.image.as_ref().map(|image| redactor.text(image)),
        command_line: line(&ancestor.args, redactor),
    }
}

fn line(args: &Option<Arguments>, redactor: &mut Redactor) -> Option<String> {
    args.as_ref().map(|args| redactor.arguments(args).command_line())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn secrets_of_a_process_and_its_ancestors_stay_inside() {
        let secret = Arguments::from_list(["x", "--password=hunter2"]);
        let responsible = Ancestor { pid: 2, start: None, image: None, args: Some(secret) };
        let process = Process {
            responsible: Some(Arc::new(responsible)),
            image: Some("/usr/bin/curl".into()),
            args: Some(Arguments::from_list(["curl", "https://u:hunter2@h/"])),
            ancestors: vec![Arc::new(Ancestor {
                pid: 1,
                start: None,
                image: Some("/bin/sh".into()),
                args: Some(Arguments::from_list(["sh", "-c", "TOKEN=hunter2 curl"])),
            })],
            ..Process::from_pid(7)
        };
        let mut redacted = 1;
        let view = Viewer::new(true).process(&process, &mut redacted);
        let shown = serde_json::to_string(&view).unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(redacted, 4);
        assert!(shown.contains(r#""command_line":"curl https://[redacted]@h/""#), "{shown}");
        assert!(!shown.contains("truncated"), "{shown}");
        let view = Viewer::new(false).process(&process, &mut redacted);
        assert_eq!(serde_json::to_string(&view).unwrap().matches("hunter2").count(), 3);
        assert_eq!(redacted, 4);
    }

    #[test]
    fn a_cut_command_line_says_so() {
        let args = Arguments::from_list(["x".repeat(100_000)]);
        let process = Process { args: Some(args), ..Process::from_pid(7) };
        let view = Viewer::new(true).process(&process, &mut 0);
        assert_eq!(view.command_line_truncated, Some(true));
    }
}
