//! How text for people is to look: the caller decides, from the terminal, `NO_COLOR` and flags.

use bpfwatch_core::finding::{Level, Verdict};

/// How text for people is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Use ANSI colours.
    pub color: bool,
    /// Columns of the terminal, 40 or more; `None` where there is none: nothing is wrapped then.
    pub width: Option<usize>,
    /// Show all of it: whole command lines, all response steps.
    pub verbose: bool,
}

/// A colour or weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As it comes.
    Plain,
    /// Of less weight: keys, ids.
    Dim,
    /// A headline.
    Bold,
    /// Good.
    Green,
    /// Worth knowing.
    Cyan,
    /// Worth a look.
    Yellow,
    /// Bad.
    Red,
    /// Look now.
    Alarm,
}

impl Paint {
    /// The colour of a level.
    pub fn of_level(level: Level) -> Self {
        match level {
            Level::Informational => Paint::Dim,
            Level::Low => Paint::Cyan,
            Level::Medium => Paint::Yellow,
            Level::High => Paint::Red,
            Level::Critical => Paint::Alarm,
        }
    }

    /// The colour of a verdict.
    pub fn of_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Expected => Paint::Green,
            Verdict::Unexpected => Paint::Red,
            Verdict::Unknown => Paint::Yellow,
        }
    }

    /// SGR parameters (ECMA-48, 8.3.117).
    fn sgr(self) -> Option<&'static str> {
        match self {
            Paint::Plain => None,
            Paint::Dim => Some("2"),
            Paint::Bold => Some("1"),
            Paint::Green => Some("32"),
            Paint::Cyan => Some("36"),
            Paint::Yellow => Some("33"),
            Paint::Red => Some("1;31"),
            Paint::Alarm => Some("1;97;41"),
        }
    }
}

impl Style {
    /// Appends `text`, painted. `text` must be free of controls already.
    pub fn push(&self, out: &mut String, paint: Paint, text: &str) {
        match paint.sgr() {
            Some(sgr) if self.color && !text.is_empty() => {
                out.push_str("\x1b[");
                out.push_str(sgr);
                out.push('m');
                out.push_str(text);
                out.push_str("\x1b[0m");
            }
            _ => out.push_str(text),
        }
    }
}
