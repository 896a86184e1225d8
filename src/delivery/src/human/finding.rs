//! The block of a finding: a headline, then what is known of it as aligned lines of key and value.

use std::fmt::Write as _;

use bpfwatch_core::finding::{
    AncestorView, Evidence, Finding, ProcessView, RecordView, SessionView,
};
use bpfwatch_core::observation::Os;

use super::words;
use crate::style::{Paint, Style};
use crate::visible::{self, cut_middle, escaped, name, wrap};

/// Columns before the values: two of indent, ten of key, one between.
const MARGIN: usize = 13;

/// Lines that a command line may take unless all was asked for.
const COMMAND_LINES: usize = 2;

/// Columns of a command line where there is no width to wrap it to.
const COMMAND_COLUMNS: usize = 512;

/// Response steps and pieces of evidence that are shown unless all were asked for.
const RESPONSE_STEPS: usize = 3;
const EVIDENCE_HEAD: usize = 6;
const EVIDENCE_TAIL: usize = 2;

/// Appends the block and an empty line after it.
pub fn push(style: &Style, out: &mut String, finding: &Finding) {
    let word = (Paint::of_level(finding.rule.level), words::level(finding.rule.level));
    let title = escaped(&finding.rule.title);
    let time = if style.verbose { finding.time.to_string() } else { words::clock(finding.time) };
    super::push_line(style, out, &time, word, (Paint::Bold, &title));
    let mut block = Block { style, out };
    match &finding.record {
        Some(record) => {
            logged(&mut block, record);
            if finding.process.is_some() {
                process(&mut block, finding.process.as_ref());
            }
        }
        None => process(&mut block, finding.process.as_ref()),
    }
    for holder in &finding.holders {
        block.pair("held too", &process_line(holder));
    }
    if let Some(session) = &finding.session {
        block.pair("handle", &words::handle(session));
        block.pair("since", &since(session, finding));
    }
    let scope = finding.scope.as_deref().map(words::scope);
    match scope {
        Some(scope) => block.pair("scope", &scope),
        // A log of another machine tells nothing about scopes.
        None if finding.record.is_some() || finding.host.os == Os::Windows => {}
        None => block.pair("scope", "unknown"),
    }
    others(&mut block, finding);
    // One record is all there is to its evidence.
    let told = finding.record.is_some() && finding.evidence.len() == 1;
    if !finding.evidence.is_empty() && !told {
        block.pair("evidence", &timeline(&finding.evidence, style.verbose));
    }
    if finding.redacted > 0 {
        let secrets = words::count(u64::from(finding.redacted), "secret");
        block.pair("redacted", &format!("{secrets} taken out of the command line"));
    }
    response(&mut block, &finding.response);
    rule(&mut block, finding);
    block.pair(
        "id",
        &format!(
            "{} on {} ({})",
            name(&finding.id),
            name(&finding.host.name),
            finding.host.os.as_str()
        ),
    );
    out.push('\n');
}

/// Lines of key and value under a headline.
struct Block<'a> {
    style: &'a Style,
    out: &'a mut String,
}

impl Block<'_> {
    /// Columns for a value; at least 20, however narrow the terminal.
    fn room(&self) -> Option<usize> {
        self.style.width.map(|width| width.saturating_sub(MARGIN).max(20))
    }

    /// Appends a pair; a long value goes on below itself.
    fn pair(&mut self, key: &str, value: &str) {
        match self.room() {
            Some(room) => {
                for (index, piece) in wrap(value, room).into_iter().enumerate() {
                    self.line(if index == 0 { key } else { "" }, piece);
                }
            }
            None => self.line(key, value),
        }
    }

    fn line(&mut self, key: &str, value: &str) {
        self.out.push_str("  ");
        self.style.push(self.out, Paint::Dim, key);
        self.out.extend(std::iter::repeat_n(' ', MARGIN - 2 - key.len()));
        self.out.push_str(value);
        self.out.push('\n');
    }
}

/// What a log says: in a line, who, and with `--verbose` the fields.
fn logged(block: &mut Block, record: &RecordView) {
    let message = escaped(&record.message);
    let most = block.room().map_or(COMMAND_COLUMNS, |room| room * COMMAND_LINES);
    let whole = block.style.verbose;
    block.pair("what", &if whole { message } else { cut_middle(&message, most) });
    if let Some(subject) = &record.subject {
        block.pair("by", &name(subject));
    }
    block.pair("log", words::log(record.log));
    if whole {
        for (index, (field, value)) in record.fields.iter().enumerate() {
            let value = match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let value = cut_middle(&escaped(&value), most).into_owned();
            block
                .pair(if index == 0 { "fields" } else { "" }, &format!("{}: {value}", name(field)));
        }
    }
}

fn process(block: &mut Block, process: Option<&ProcessView>) {
    let Some(process) = process else {
        block.pair("process", "unknown");
        return;
    };
    block.pair("process", &process_line(process));
    if let Some(identity) = &process.identity {
        let mut parts = Vec::new();
        let named = [("", &identity.signing_id), ("team ", &identity.team_id)];
        for (key, value) in named {
            if let Some(value) = value {
                parts.push(format!("{key}{}", name(value.as_str())));
            }
        }
        match identity.platform_binary {
            Some(true) => parts.push("part of the operating system".to_owned()),
            Some(false) => parts.push("not part of the operating system".to_owned()),
            None => {}
        }
        if block.style.verbose
            && let Some(cdhash) = &identity.cdhash
        {
            parts.push(format!("cdhash {}", name(cdhash.as_str())));
        }
        if !parts.is_empty() {
            block.pair("signature", &parts.join(", "));
        }
    }
    match &process.command_line {
        Some(command_line) => command(block, command_line),
        None => block.pair("command", "unknown"),
    }
    if process.command_line_truncated == Some(true) {
        block.pair("", "[not whole: it was too long to keep]");
    }
    parents(block, process);
}

fn command(block: &mut Block, command_line: &str) {
    let command_line = escaped(command_line);
    if block.style.verbose {
        block.pair("command", &command_line);
        return;
    }
    let most = block.room().map_or(COMMAND_COLUMNS, |room| room * COMMAND_LINES);
    block.pair("command", &cut_middle(&command_line, most));
}

/// `/tmp/.x, pid 4242, user root (uid 0), in /tmp, on pts/0, unit ssh.service`.
fn process_line(process: &ProcessView) -> String {
    let mut out = match &process.image {
        Some(image) => name(image).into_owned(),
        None => "unknown program".to_owned(),
    };
    if process.image_deleted == Some(true) {
        out.push_str(" (deleted)");
    }
    if let Some(called) = &process.name
        && process.image.as_ref().is_none_or(|image| !is_name_of(called, image))
    {
        out.push_str(", called ");
        out.push_str(&name(called));
    }
    let _ = write!(out, ", pid {}, user {}", process.pid, words::user(process));
    for (key, value) in [("in", &process.cwd), ("on", &process.tty), ("unit", &process.unit)] {
        if let Some(value) = value {
            let _ = write!(out, ", {key} {}", name(value));
        }
    }
    out
}

/// Whether the kernel's name of a process, which it cuts to 15 bytes on Linux and 19 on FreeBSD, is
/// the beginning of the program's.
fn is_name_of(called: &str, image: &str) -> bool {
    let file = image.rsplit('/').next().unwrap_or(image);
    file == called || (called.len() >= 15 && file.starts_with(called))
}

/// `bash (4200) ← sshd (1234) ← systemd (1)`: each the parent of the one before; then on whose behalf.
fn parents(block: &mut Block, process: &ProcessView) {
    let program = |image: &Option<String>| match image {
        Some(image) => words::program(image),
        None => "unknown".to_owned(),
    };
    let short = |known: &AncestorView| format!("{} ({})", program(&known.image), known.pid);
    if process.ancestors.is_empty() {
        let parent = match process.ppid {
            Some(ppid) => format!("unknown (pid {ppid})"),
            None => "unknown".to_owned(),
        };
        block.pair("parents", &parent);
    } else if block.style.verbose {
        for (index, ancestor) in process.ancestors.iter().enumerate() {
            let command = ancestor.command_line.as_deref().map(escaped);
            let command = command.map(|command| format!(": {command}")).unwrap_or_default();
            let parent = format!("{} (pid {}){command}", program(&ancestor.image), ancestor.pid);
            block.pair(if index == 0 { "parents" } else { "" }, &parent);
        }
    } else {
        let parents: Vec<String> = process.ancestors.iter().map(short).collect();
        block.pair("parents", &parents.join(" ← "));
    }
    if let Some(responsible) = &process.responsible {
        block.pair("for", &short(responsible));
    }
}

/// `02:45:17Z, now attached, packets unknown`.
fn since(session: &SessionView, finding: &Finding) -> String {
    let opened = words::clock_beside(session.opened_at, finding.time);
    let mut out = if session.pre_existing {
        format!("before {opened}: it was there when bpfwatch first looked")
    } else {
        opened
    };
    let _ = write!(out, ", {}, {}", session.stage.as_str(), super::packets(session));
    if let Some(closed) = session.closed_at {
        let _ = write!(out, ", closed {}", words::clock_beside(closed, finding.time));
    }
    out
}

fn others(block: &mut Block, finding: &Finding) {
    let titles: Vec<String> = finding
        .rules
        .iter()
        .map(|rule| format!("{} ({})", name(&rule.title), rule.level.as_str()))
        .collect();
    if !titles.is_empty() {
        block.pair("also", &titles.join("; "));
    }
    if let Some(earlier) = &finding.update_of {
        block.pair("raises", &format!("finding {}", name(earlier)));
    }
}

/// `+0 ms executed, +12 ms opened`: offsets from the first.
fn timeline(evidence: &[Evidence], verbose: bool) -> String {
    let start = evidence.first().map(|first| first.time).unwrap_or_default();
    let mut out = String::new();
    let whole = verbose || evidence.len() <= EVIDENCE_HEAD + EVIDENCE_TAIL + 1;
    let hidden = if whole { 0 } else { evidence.len() - EVIDENCE_HEAD - EVIDENCE_TAIL };
    for (index, piece) in evidence.iter().enumerate() {
        if hidden > 0 && (EVIDENCE_HEAD..EVIDENCE_HEAD + hidden).contains(&index) {
            if index == EVIDENCE_HEAD {
                let _ = write!(out, ", {} {hidden} more", visible::ELLIPSIS);
            }
            continue;
        }
        if index > 0 {
            out.push_str(", ");
        }
        let offset = words::span(piece.time.since(start));
        let _ = write!(out, "+{offset} {}", words::evidence(piece.kind));
        if let Some(pid) = piece.pid {
            let _ = write!(out, " by pid {pid}");
        }
        if let Some(detail) = &piece.detail {
            let _ = write!(out, " ({})", name(detail));
        }
    }
    out
}

fn response(block: &mut Block, steps: &[String]) {
    let shown = if block.style.verbose { steps.len() } else { RESPONSE_STEPS };
    for (index, step) in steps.iter().take(shown).enumerate() {
        let key = if index == 0 { "response" } else { "" };
        block.pair(key, &format!("{}. {}", index + 1, escaped(step)));
    }
    if steps.len() > shown {
        let left = words::count((steps.len() - shown) as u64, "more step");
        block.pair("", &format!("{left} with --verbose"));
    }
}

/// Whose rule it is: SigmaHQ's licence asks that every match names the author.
fn rule(block: &mut Block, finding: &Finding) {
    let rule = &finding.rule;
    let mut out = name(&rule.id).into_owned();
    if let Some(author) = &rule.author {
        let _ = write!(out, ", by {}", name(author));
    }
    if let Some(license) = &rule.license {
        let _ = write!(out, ", {}", name(license));
    }
    if block.style.verbose && !rule.tags.is_empty() {
        let _ = write!(out, ", {}", escaped(&rule.tags.join(" ")));
    }
    block.pair("rule", &out);
}
