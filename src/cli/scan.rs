//! `scan`: who holds a capture handle now.

use std::sync::Arc;

use bpfwatch_core::finding::{Level, Line, Verdict};
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use bpfwatch_delivery::render_table;
use clap::Args;

use super::{FormatArgs, RuleArgs};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Printer, Shape};
use crate::platform;
use crate::wiring::{now, rules, warn_unprivileged};

/// Show who holds a capture handle now, and whether they should
#[derive(Debug, Args)]
#[command(after_help = "\
The verdict is `expected` where a filter says so, `unexpected` where a rule above
informational matches, else `unknown`.

Examples:
  bpfwatch scan
  bpfwatch scan --format json | jq -r 'select(.verdict == \"unexpected\") | .holders[].image'
  bpfwatch scan --exit-code >/dev/null || echo somebody captures")]
pub struct Scan {
    #[command(flatten)]
    format: FormatArgs,
    /// Exit with 10 if a capture is unexpected.
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    rules: RuleArgs,
}

impl Scan {
    /// Looks once and prints the table.
    pub fn run(self) -> Outcome {
        let platform = platform::current();
        let rules = rules::load_for(platform.origin().os, true, &self.rules.dirs)?;
        rules::warn(&rules);
        warn_unprivileged();
        let observations = platform.snapshot().map_err(|error| Failure::sensor(&error))?;
        let mut pipeline = Pipeline::new(rules.set, Settings::default());
        let batch = Batch { origin: Arc::new(platform.origin()), observations };
        pipeline.feed(batch, &mut |_| {});
        // Where programs attach only to list interfaces, an attach waits for its verdict.
        pipeline.finish(&mut |_| {});
        let sessions = pipeline.sessions(now());
        let unexpected = sessions.iter().any(|session| session.verdict == Verdict::Unexpected);
        match self.format.format {
            Shape::Human => {
                let (style, mut text) = (output::style(), Vec::new());
                render_table(&sessions, style.width, style.color, &mut text);
                output::print(&String::from_utf8_lossy(&text))?;
            }
            Shape::Json => {
                let mut printer = Printer::new(Shape::Json, Level::Informational, false);
                for session in sessions {
                    printer.line(&Line::Session(Box::new(session)));
                }
                printer.flush()?;
            }
        }
        Ok(if self.exit_code && unexpected { Code::Unexpected } else { Code::Ok })
    }
}
