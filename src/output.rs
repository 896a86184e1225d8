//! What the user sees: lines on standard output, messages on standard error, colours only where they
//! are wanted.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use bpfwatch_core::finding::{Level, Line};
use bpfwatch_delivery::style::{Paint, Style};
use bpfwatch_delivery::{Format, Human, Json, visible};
use clap::ValueEnum;

use crate::exit::Failure;

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How lines are to look on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Readable blocks and tables.
    Human,
    /// One JSON object a line.
    Json,
}

/// `--color`, for messages from anywhere in the program.
static COLOR: AtomicU8 = AtomicU8::new(Color::Auto as u8);

/// Sets `--color` for the rest of the run.
pub fn set_color(color: Color) {
    COLOR.store(color as u8, Ordering::Relaxed);
}

fn colored(is_terminal: bool) -> bool {
    let color = COLOR.load(Ordering::Relaxed);
    if color == Color::Always as u8 {
        return true;
    }
    // NO_COLOR counts when it is set and not empty (no-color.org).
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    color == Color::Auto as u8 && is_terminal && !unwanted
}

/// How text on standard output is to look.
pub fn style() -> Style {
    let is_terminal = io::stdout().is_terminal();
    Style { color: colored(is_terminal), width: is_terminal.then(width).flatten(), verbose: false }
}

/// Columns of the terminal.
fn width() -> Option<usize> {
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
}

/// `error: …` on standard error.
pub fn error(failure: &Failure) {
    message(Paint::Red, "error", &failure.to_string());
}

/// `warning: …` on standard error: something is wrong, and the program goes on.
pub fn warn(text: &str) {
    message(Paint::Yellow, "warning", text);
}

/// A message on standard error that is no warning.
pub fn note(text: &str) {
    message(Paint::Dim, "bpfwatch", text);
}

fn message(paint: Paint, word: &str, text: &str) {
    let is_terminal = io::stderr().is_terminal();
    let style = Style { color: colored(is_terminal), ..Style::default() };
    let mut out = String::new();
    style.push(&mut out, paint, word);
    out.push_str(": ");
    for (index, line) in text.lines().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        out.push_str(&visible::escaped(line));
    }
    out.push('\n');
    // Where standard error is gone there is nobody to tell.
    let _ = io::stderr().write_all(out.as_bytes());
}

/// Writes lines to standard output.
pub struct Printer {
    format: Box<dyn Format>,
    level: Level,
    out: BufWriter<io::Stdout>,
    record: Vec<u8>,
    error: Option<io::Error>,
}

impl Printer {
    /// Lines of `level` and above, in the given shape; `verbose` shows all of a finding to people.
    pub fn new(shape: Shape, level: Level, verbose: bool) -> Self {
        let format: Box<dyn Format> = match shape {
            Shape::Human => Box::new(Human::new(Style { verbose, ..style() })),
            Shape::Json => Box::new(Json),
        };
        Self { format, level, out: BufWriter::new(io::stdout()), record: Vec::new(), error: None }
    }

    /// Writes a line. An error is kept for [`Printer::flush`].
    pub fn line(&mut self, line: &Line) {
        if self.error.is_some() || !is_wanted(line, self.level) {
            return;
        }
        self.record.clear();
        self.format.render(line, &mut self.record);
        self.error = self.out.write_all(&self.record).err();
    }

    /// Whether lines wait to be written out.
    pub fn is_pending(&self) -> bool {
        !self.out.buffer().is_empty()
    }

    /// Writes out what waits.
    ///
    /// # Errors
    /// When standard output could not be written, now or before.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let result = match self.error.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        };
        result.map_err(|error| Failure::output(&error))
    }
}

/// Whether a line is of the level or above; what has no level always is.
pub fn is_wanted(line: &Line, least: Level) -> bool {
    match line {
        Line::Finding(finding) => finding.rule.level >= least,
        Line::Closed(closed) => closed.level >= least,
        Line::Repeats(repeats) => repeats.level >= least,
        Line::Lost(_) | Line::Session(_) | Line::Heartbeat(_) | Line::Notice(_) => true,
    }
}

/// Writes text to standard output at once.
///
/// # Errors
/// When it could not be written; a closed pipe ends the program quietly.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

/// A number with its noun: `1 line`, `2 lines`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
