//! Processes as output shows them. This is the only way from a [`Process`] to a finding: it leads
//! through the redactor.

use crate::arguments::Arguments;
use crate::finding::{AncestorView, ProcessView};
use crate::process::{Ancestor, Process};
use crate::redact::Redactor;
use crate::text::Text;

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
        cwd: text(&process.cwd),
        tty: text(&process.tty),
        unit: text(&process.unit),
        command_line: line(&process.args, redactor),
        // Said only where it is so.
        command_line_truncated: process.args.as_ref().map(Arguments::is_cut).filter(|cut| *cut),
        identity: process.identity.clone(),
        ancestors: process.ancestors.iter().map(|known| ancestor(known, redactor)).collect(),
    }
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
        let process = Process {
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
        assert_eq!(redacted, 3);
        assert!(shown.contains(r#""command_line":"curl https://[redacted]@h/""#), "{shown}");
        assert!(!shown.contains("truncated"), "{shown}");
        let view = Viewer::new(false).process(&process, &mut redacted);
        assert_eq!(serde_json::to_string(&view).unwrap().matches("hunter2").count(), 2);
        assert_eq!(redacted, 3);
    }

    #[test]
    fn a_cut_command_line_says_so() {
        let args = Arguments::from_list(["x".repeat(100_000)]);
        let process = Process { args: Some(args), ..Process::from_pid(7) };
        let view = Viewer::new(true).process(&process, &mut 0);
        assert_eq!(view.command_line_truncated, Some(true));
    }
}
