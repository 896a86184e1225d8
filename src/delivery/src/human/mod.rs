//! For people at a terminal: a block for each finding, one line for everything else.
//!
//! What is not known reads `unknown`; nothing is made up. Times are UTC. The exact record, with all of
//! its fields and unescaped names, is the JSON.

mod finding;
mod programs;
pub mod words;

use std::fmt::Write as _;
use std::time::Duration;

use bpfwatch_core::finding::{
    Closed, Heartbeat, Line, Lost, Notice, Repeats, SessionLine, SessionView, Verdict,
};

use crate::format::{Format, Shape};
use crate::style::{Paint, Style};
use crate::visible::{cut_end, cut_middle, escaped, name, width};

/// Columns of the first word after the time: `CRITICAL`.
const WORD: usize = 8;

/// For people at a terminal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Human {
    /// How it is to look.
    pub style: Style,
}

impl Human {
    /// In this style.
    pub fn new(style: Style) -> Self {
        Self { style }
    }
}

impl Format for Human {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        let style = &self.style;
        let mut text = String::with_capacity(1024);
        match line {
            Line::Finding(finding) => finding::push(style, &mut text, finding),
            Line::Closed(closed) => push_closed(style, &mut text, closed),
            Line::Repeats(repeats) => push_repeats(style, &mut text, repeats),
            Line::Lost(lost) => push_lost(style, &mut text, lost),
            Line::Session(session) => push_session(style, &mut text, session),
            Line::Heartbeat(heartbeat) => push_heartbeat(style, &mut text, heartbeat),
            Line::Notice(notice) => push_notice(style, &mut text, notice),
        }
        out.extend_from_slice(text.as_bytes());
    }

    fn shape(&self) -> Shape {
        Shape::Block
    }
}

/// Appends `TIME  WORD  text`, cut to the width, and a newline.
fn push_line(
    style: &Style,
    out: &mut String,
    time: &str,
    word: (Paint, &str),
    text: (Paint, &str),
) {
    style.push(out, Paint::Dim, time);
    out.push_str("  ");
    style.push(out, word.0, word.1);
    let used = width(word.1).max(WORD);
    out.extend(std::iter::repeat_n(' ', used - width(word.1) + 2));
    let left = style.width.map(|all| all.saturating_sub(width(time) + used + 4));
    match left {
        Some(left) => style.push(out, text.0, &cut_end(text.1, left)),
        None => style.push(out, text.0, text.1),
    }
    out.push('\n');
}

fn push_closed(style: &Style, out: &mut String, closed: &Closed) {
    let mut text = short_image(closed.image.as_deref());
    if let Some(pid) = closed.pid {
        let _ = write!(text, " (pid {pid})");
    }
    let _ = write!(
        text,
        ", after {}, {}, {}; was {}: {}",
        words::span(Duration::from_millis(closed.duration_ms)),
        packets(&closed.session),
        words::handle_short(&closed.session.handle),
        closed.level.as_str(),
        name(&closed.title)
    );
    let time = words::clock(closed.time);
    push_line(style, out, &time, (Paint::Green, "closed"), (Paint::Plain, &text));
}

fn push_repeats(style: &Style, out: &mut String, repeats: &Repeats) {
    let what = match (&repeats.image, &repeats.what) {
        (None, Some(what)) => cut_middle(&escaped(what), WHAT_COLUMNS).into_owned(),
        (image, _) => short_image(image.as_deref()),
    };
    let text = format!(
        "{what}, {} since {}; {}: {}",
        words::count(repeats.repeats, "time"),
        words::clock_beside(repeats.since, repeats.time),
        repeats.level.as_str(),
        name(&repeats.title)
    );
    let word = (Paint::of_level(repeats.level), "repeats");
    push_line(style, out, &words::clock(repeats.time), word, (Paint::Plain, &text));
}

fn push_lost(style: &Style, out: &mut String, lost: &Lost) {
    let mut text = match lost.count {
        0 => "unknown number of events".to_owned(),
        count => words::count(count, "event"),
    };
    text.push_str(" missed by ");
    text.push_str(&name(&lost.sensor));
    text.push_str(": ");
    text.push_str(&name(&lost.why));
    push_line(style, out, &words::clock(lost.time), (Paint::Red, "LOST"), (Paint::Yellow, &text));
}

fn push_session(style: &Style, out: &mut String, session: &SessionLine) {
    let mut text = match session.holders.first() {
        Some(holder) => words::process_short(holder),
        None => "unknown process".to_owned(),
    };
    if session.holders.len() > 1 {
        let _ = write!(text, " and {} more", session.holders.len() - 1);
    }
    text.push_str(", ");
    text.push_str(&words::handle(&session.session));
    text.push_str(", ");
    text.push_str(&packets(&session.session));
    let word = match session.verdict {
        Verdict::Expected => "expected",
        Verdict::Unexpected => "unexpected",
        Verdict::Unknown => "unknown",
    };
    let word = (Paint::of_verdict(session.verdict), word);
    push_line(style, out, &words::clock(session.time), word, (Paint::Plain, &text));
}

fn push_heartbeat(style: &Style, out: &mut String, heartbeat: &Heartbeat) {
    let running = heartbeat.sensors.iter().filter(|sensor| sensor.running).count();
    let dropped: u64 = heartbeat.sinks.iter().map(|sink| sink.dropped).sum();
    let mut text = format!(
        "up {}, {running} of {} run, {}, {} lost, {dropped} dropped, {}, {}",
        words::span(Duration::from_secs(heartbeat.uptime_s)),
        words::count(heartbeat.sensors.len() as u64, "sensor"),
        words::count(heartbeat.findings, "finding"),
        heartbeat.lost,
        words::count(heartbeat.observations, "observation"),
        words::count(heartbeat.rules_loaded, "rule"),
    );
    if heartbeat.rules_refused > 0 {
        let _ = write!(text, " and {} refused", heartbeat.rules_refused);
    }
    if !heartbeat.coverage.gaps.is_empty() {
        let _ = write!(text, "; not fully seen: {}", name(&heartbeat.coverage.gaps.join(", ")));
    }
    if heartbeat.reload.as_ref().is_some_and(|reload| !reload.taken) {
        text.push_str("; the last reload was refused");
    }
    for sensor in &heartbeat.sensors {
        if let Some(error) = &sensor.error {
            text.push_str("; ");
            text.push_str(&name(&sensor.name));
            text.push_str(": ");
            text.push_str(&name(error));
        }
    }
    let healthy = running == heartbeat.sensors.len()
        && dropped + heartbeat.lost + heartbeat.rules_refused == 0;
    let paint = if healthy { Paint::Dim } else { Paint::Yellow };
    push_line(style, out, &words::clock(heartbeat.time), (paint, "alive"), (Paint::Plain, &text));
}

fn push_notice(style: &Style, out: &mut String, notice: &Notice) {
    let word = (Paint::of_level(notice.level), "NOTICE");
    let text = escaped(&notice.detail);
    push_line(style, out, &words::clock(notice.time), word, (Paint::Plain, &text));
}

fn packets(session: &SessionView) -> String {
    match session.packets {
        Some(packets) => words::count(packets, "packet"),
        None => "packets unknown".to_owned(),
    }
}

/// Columns of what was done, in a line that has more to say.
const WHAT_COLUMNS: usize = 60;

/// A program in a line that has more to say.
fn short_image(image: Option<&str>) -> String {
    const COLUMNS: usize = 32;
    match image {
        Some(image) => cut_middle(&words::program(image), COLUMNS).into_owned(),
        None => "unknown process".to_owned(),
    }
}
