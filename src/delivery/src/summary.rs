//! What a line says in one sentence, with time, host and type: what every format begins with.

use std::fmt::Write as _;

use bpfwatch_core::finding::{
    Closed, Finding, Heartbeat, Host, Line, Lost, Repeats, SessionLine, Verdict,
};
use bpfwatch_core::time::Timestamp;

use crate::human::words;
use crate::visible::{cut_middle, escaped, name};

/// Time, host, type and sentence of a line.
pub struct Summary<'a> {
    /// When the thing happened.
    pub time: Timestamp,
    /// Where.
    pub host: &'a Host,
    /// The line's type, as in native JSON.
    pub kind: &'static str,
    /// One sentence. Free of controls; each name in it has a bounded width.
    pub message: String,
}

impl<'a> Summary<'a> {
    /// Of a line.
    pub fn of(line: &'a Line) -> Self {
        let (time, host, kind, message) = match line {
            Line::Finding(it) => (it.time, &it.host, "finding", finding(it)),
            Line::Closed(it) => (it.time, &it.host, "closed", closed(it)),
            Line::Repeats(it) => (it.time, &it.host, "repeats", repeats(it)),
            Line::Lost(it) => (it.time, &it.host, "lost", lost(it)),
            Line::Session(it) => (it.time, &it.host, "session", session(it)),
            Line::Heartbeat(it) => (it.time, &it.host, "heartbeat", heartbeat(it)),
            Line::Notice(it) => (it.time, &it.host, "notice", detail(&it.detail)),
        };
        Self { time, host, kind, message }
    }
}

/// Columns that what a log says may take in a sentence.
const MESSAGE_COLUMNS: usize = 160;

/// Columns of what a notice says.
const DETAIL_COLUMNS: usize = 512;

fn detail(text: &str) -> String {
    cut_middle(&escaped(text), DETAIL_COLUMNS).into_owned()
}

fn short(message: &str) -> String {
    cut_middle(&escaped(message), MESSAGE_COLUMNS).into_owned()
}

fn program(image: Option<&str>) -> String {
    image.map_or_else(|| "unknown process".to_owned(), words::program)
}

fn finding(finding: &Finding) -> String {
    let what = match (&finding.process, &finding.record) {
        (Some(process), _) => words::process_short(process),
        (None, Some(record)) => {
            let by = record.subject.as_ref().map(|subject| format!(", by {}", name(subject)));
            short(&record.message) + &by.unwrap_or_default()
        }
        (None, None) => "unknown process".to_owned(),
    };
    let mut out = format!("{}: {what}", name(&finding.rule.title));
    if let Some(session) = &finding.session {
        let _ = write!(out, ", {}", words::handle_short(&session.handle));
    }
    if let Some(scope) = finding.scope.as_deref() {
        let _ = write!(out, ", {}", words::scope(scope));
    }
    out
}

fn closed(closed: &Closed) -> String {
    let image = program(closed.image.as_deref());
    let handle = words::handle_short(&closed.session.handle);
    let title = name(&closed.title);
    format!("closed after {} ms: {image}, {handle}: {title}", closed.duration_ms)
}

fn repeats(repeats: &Repeats) -> String {
    let what = match (&repeats.image, &repeats.what) {
        (None, Some(what)) => short(what),
        (image, _) => program(image.as_deref()),
    };
    let times = words::count(repeats.repeats, "time");
    format!("{times} since {}: {what}: {}", repeats.since, name(&repeats.title))
}

fn lost(lost: &Lost) -> String {
    let events = match lost.count {
        0 => "unknown number of events".to_owned(),
        count => words::count(count, "event"),
    };
    format!("{events} missed by {}: {}", name(&lost.sensor), name(&lost.why))
}

/// As in native JSON.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Expected => "expected",
        Verdict::Unexpected => "unexpected",
        Verdict::Unknown => "unknown",
    }
}

fn session(line: &SessionLine) -> String {
    let holder = line.holders.first();
    format!(
        "{}: {}, {}",
        verdict(line.verdict),
        holder.map_or_else(|| "unknown process".to_owned(), words::process_short),
        words::handle_short(&line.session.handle)
    )
}

fn heartbeat(heartbeat: &Heartbeat) -> String {
    let running = heartbeat.sensors.iter().filter(|sensor| sensor.running).count();
    format!("alive, {running} of {} sensors run", heartbeat.sensors.len())
}
