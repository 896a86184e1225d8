//! `watch`: findings on the terminal, as they happen.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Level, Line};
use bpfwatch_core::pipeline::{Pipeline, Settings};
use clap::Args;

use super::{FormatArgs, RuleArgs, VerboseArgs};
use crate::config::Config;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Printer};
use crate::platform;
use crate::signals::{Hangup, Signals};
use crate::wiring::live::{Live, Turn};
use crate::wiring::{rules, warn_unprivileged};

/// Nothing is waited for longer than this in one go.
const PATIENCE: Duration = Duration::from_secs(1);

/// Show findings as they happen
#[derive(Debug, Args)]
#[command(after_help = "\
Ends on Ctrl-C, or after the time given, with a summary on standard error.

Examples:
  bpfwatch watch
  bpfwatch watch --for 30s --format json > findings.jsonl
  bpfwatch watch --record night.jsonl      replay it later, with other rules
  bpfwatch watch --level high --rules ./site-rules")]
pub struct Watch {
    /// How long, such as 30s, 5m or 1h; until Ctrl-C where it is not given.
    #[arg(long = "for", value_name = "TIME", value_parser = super::span)]
    span: Option<Duration>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    verbose: VerboseArgs,
    /// Keep every observation in FILE, which must not exist yet.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Show findings of this level and above.
    #[arg(long, value_name = "LEVEL", value_parser = super::level)]
    level: Option<Level>,
    #[command(flatten)]
    rules: RuleArgs,
    /// Take level, rules and sensor settings from FILE.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Watch {
    /// Watches until told to stop.
    pub fn run(self) -> Outcome {
        let config = match &self.config {
            Some(file) => Config::load(Some(file))?.0,
            None => Config::default(),
        };
        let dirs = [config.rules.dirs.as_slice(), &self.rules.dirs].concat();
        let platform = platform::current();
        let loaded = rules::load_for(platform.origin().os, config.rules.shipped, &dirs)?;
        rules::warn(&loaded);
        let rule_count = loaded.set.rules().len();
        let pipeline = Pipeline::new(loaded.set, Settings { redact: config.redact });
        warn_unprivileged();
        let mut live = Live::start(&*platform, &config.sensors.settings(), pipeline)?;
        if let Some(file) = &self.record {
            live.record(file)?;
        }
        let outlet = live.outlet.clone();
        let signals = Signals::catch(Hangup::Stops, move || outlet.close())
            .map_err(|error| Failure::new(Code::Software, format!("signals: {error}")))?;
        let names = live.sensors.names();
        output::note(&format!("watching with {}, {rule_count} rules", names.join(", ")));

        let mut printer = Printer::new(
            self.format.format,
            self.level.unwrap_or(config.level),
            self.verbose.verbose,
        );
        let started = Instant::now();
        let mut result = Ok(());
        while !signals.stop() && result.is_ok() {
            let left = self.span.map_or(PATIENCE, |span| span.saturating_sub(started.elapsed()));
            if left.is_zero() {
                break;
            }
            let turn = live.turn(left.min(PATIENCE), &mut |line: Line| printer.line(&line));
            result = printer.flush();
            if turn == Turn::Over {
                break;
            }
        }
        let failure = if signals.stop() { None } else { live.failure() };
        let stopped = live.stop(&mut |line: Line| printer.line(&line));
        result?;
        printer.flush()?;
        summary(&live, started.elapsed());
        stopped?;
        failure.map_or(Ok(Code::Ok), Err)
    }
}

fn summary(live: &Live, time: Duration) {
    let counters = live.pipeline.counters();
    let lost = match counters.lost {
        0 => "nothing lost".to_owned(),
        lost => format!("{} lost", output::counted(lost, "event")),
    };
    output::note(&format!(
        "{:.1} s: {}, {}, {} withheld as expected, {lost}",
        time.as_secs_f64(),
        output::counted(counters.observations, "observation"),
        output::counted(counters.findings, "finding"),
        counters.withheld,
    ));
}
