//! `doctor`: what can be seen on this machine, what cannot, why, and who could capture here.

use bpfwatch_core::platform::{Check, CheckState};
use bpfwatch_delivery::style::{Paint, Style};
use bpfwatch_delivery::visible;
use clap::Args;
use serde::Serialize;

use super::FormatArgs;
use crate::exit::{Code, Outcome};
use crate::output::{self, Shape};
use crate::platform;

/// Show what can be seen on this machine, what cannot, and why
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 69 if something cannot be seen that could be, else with 0: open device modes
and the like are shown, but they are the machine's business.

Examples:
  bpfwatch doctor
  bpfwatch doctor --format json | jq 'select(.state == \"blind\")'")]
pub struct Doctor {
    #[command(flatten)]
    format: FormatArgs,
}

/// One check as a line of JSON.
#[derive(Serialize)]
struct CheckLine<'a> {
    #[serde(rename = "type")]
    line: &'static str,
    part: &'static str,
    #[serde(flatten)]
    check: &'a Check,
}

impl Doctor {
    /// Looks and prints.
    pub fn run(&self) -> Outcome {
        let platform = platform::current();
        let parts = [
            ("coverage", "What bpfwatch sees here", platform.coverage()),
            ("posture", "Who could capture here", platform.posture()),
            ("hardening", "What the daemon can give up here", platform.hardening()),
        ];
        let mut text = String::new();
        let style = output::style();
        for (part, title, checks) in &parts {
            match self.format.format {
                Shape::Human => human(&mut text, &style, title, checks),
                Shape::Json => {
                    for check in checks {
                        let line = CheckLine { line: "check", part, check };
                        text += &serde_json::to_string(&line).unwrap_or_default();
                        text.push('\n');
                    }
                }
            }
        }
        output::print(&text)?;
        let blind = parts[0].2.iter().any(|check| check.state == CheckState::Blind);
        Ok(if blind { Code::Unavailable } else { Code::Ok })
    }
}

/// Column where the details begin.
const INDENT: usize = 8;

fn human(out: &mut String, style: &Style, title: &str, checks: &[Check]) {
    if checks.is_empty() {
        return;
    }
    if !out.is_empty() {
        out.push('\n');
    }
    style.push(out, Paint::Bold, title);
    out.push('\n');
    let width = style.width.unwrap_or(usize::MAX).saturating_sub(INDENT).max(40);
    for check in checks {
        let (paint, word) = match check.state {
            CheckState::Ok => (Paint::Green, "ok"),
            CheckState::Info => (Paint::Cyan, "info"),
            CheckState::Warning => (Paint::Yellow, "warn"),
            CheckState::Blind => (Paint::Red, "BLIND"),
        };
        out.push_str("  ");
        style.push(out, paint, word);
        out.extend(std::iter::repeat_n(' ', INDENT - 2 - word.len()));
        style.push(out, Paint::Bold, &visible::escaped(&check.name));
        out.push('\n');
        block(out, style, Paint::Plain, "", &check.detail, width);
        if let Some(mend) = &check.mend {
            block(out, style, Paint::Cyan, "mend: ", mend, width);
        }
    }
}

fn block(out: &mut String, style: &Style, paint: Paint, lead: &str, text: &str, width: usize) {
    let text = visible::escaped(text);
    for (index, piece) in visible::wrap(&text, width - lead.len()).into_iter().enumerate() {
        out.extend(std::iter::repeat_n(' ', INDENT));
        style.push(out, paint, if index == 0 { lead } else { &"      "[..lead.len()] });
        out.push_str(piece);
        out.push('\n');
    }
}
