//! Processes as output shows them.

use crate::arguments::Arguments;
use crate::finding::{AncestorView, ProcessView};
use crate::process::Process;
use crate::text::Text;

/// Builds views of processes.
#[derive(Debug, Clone, Copy)]
pub struct Viewer {
    _redact: bool,
}

impl Viewer {
    /// With or without the redactor.
    pub fn new(redact: bool) -> Self {
        Self { _redact: redact }
    }

    /// A process in output; what the redactor took out is added to `redacted`.
    pub fn process(&self, process: &Process, _redacted: &mut u32) -> ProcessView {
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.to_string());
        let line = |args: &Option<Arguments>| args.as_ref().map(Arguments::command_line);
        ProcessView {
            pid: process.pid,
            ppid: process.ppid,
            user: text(&process.user),
            uid: process.uid,
            name: text(&process.name),
            image: text(&process.image),
            image_deleted: process.image_deleted,
            command_line: line(&process.args),
            command_line_truncated: process.args.as_ref().map(Arguments::is_cut).filter(|cut| *cut),
            cwd: text(&process.cwd),
            tty: text(&process.tty),
            unit: text(&process.unit),
            identity: process.identity.clone(),
            ancestors: process
                .ancestors
                .iter()
                .map(|ancestor| AncestorView {
                    pid: ancestor.pid,
                    image: text(&ancestor.image),
                    command_line: line(&ancestor.args),
                })
                .collect(),
        }
    }
}
