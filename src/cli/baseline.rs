//! `baseline`: what captures here in the ordinary course of things, as filters to be reviewed.

use std::fs::OpenOptions;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_core::finding::Line;
use bpfwatch_core::pipeline::{Pipeline, Settings};
use bpfwatch_core::platform::SensorSettings;
use bpfwatch_core::rules::{RuleFile, RuleSet};
use bpfwatch_inputs::reader::{self, Delivery, Options};
use clap::Args;

use super::{RuleArgs, replay};
use crate::baseline::{self, Fate};
use crate::exit::{Code, Failure, Outcome};
use crate::output;
use crate::platform;
use crate::progress::Progress;
use crate::shipped;
use crate::signals::{Hangup, Signals};
use crate::wiring::live::{Live, Turn};
use crate::wiring::{inputs, now, rules, warn_unprivileged};

/// Nothing is waited for longer than this in one go.
const PATIENCE: Duration = Duration::from_secs(1);

/// Learn what captures here, and write expected filters for you to review
#[derive(Debug, Args)]
#[command(after_help = "\
Learns from what runs now and for the time given, or from recordings. Only what rules report is
learnt; what the shipped filters expect already is not. Nothing is put in force: read the file,
then name its directory in [rules] dirs. What a filter could not tell from an intruder's doing is
commented out or left out, with the reason.

Examples:
  bpfwatch baseline --for 1h --output site-expected.yml
  bpfwatch baseline monday.jsonl tuesday.jsonl > site-expected.yml
  bpfwatch rules check site-expected.yml
  bpfwatch replay monday.jsonl --rules site-expected.yml     what is still reported")]
pub struct Baseline {
    /// Recordings to learn from instead of this host.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How long to learn from this host, such as 30s, 10m or 24h; Ctrl-C ends it earlier.
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "10m",
        value_parser = super::span,
        conflicts_with = "files"
    )]
    span: Duration,
    /// Format of the files; found by their content where it is not given.
    #[arg(long, value_name = "NAME", requires = "files")]
    input: Option<String>,
    /// Write to FILE, which must not exist yet, instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    rules: RuleArgs,
}

impl Baseline {
    /// Learns, writes the file and says what was made of it.
    pub fn run(self) -> Outcome {
        let loaded = rules::load(true, &self.rules.dirs)?;
        rules::warn(&loaded);
        // Before anything is learnt: an hour of it must not end with "file exists".
        let file = self.output.as_deref().map(|path| create(path).map(|file| (path, file)));
        let file = file.transpose()?;
        let mut learnt = baseline::Baseline::default();
        if self.files.is_empty() {
            self.live(&loaded.set, &mut learnt)?;
        } else {
            self.replay(&loaded.set, &mut learnt)?;
        }
        let text = baseline::text(&learnt, now(), env!("CARGO_PKG_VERSION"));
        if learnt.entries().any(|(_, _, fate)| fate == Fate::Written) {
            prove(&text, &self.rules.dirs)?;
        }
        match file {
            Some((path, mut file)) => file
                .write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|error| Failure::file("write", path, &error))?,
            None => output::print(&text)?,
        }
        summary(&learnt, self.output.as_deref());
        Ok(Code::Ok)
    }

    fn live(&self, set: &Arc<RuleSet>, learnt: &mut baseline::Baseline) -> Result<(), Failure> {
        warn_unprivileged();
        let pipeline = Pipeline::new(Arc::clone(set), Settings::default());
        let platform = platform::current();
        let mut live = Live::start(&*platform, &SensorSettings::default(), pipeline)?;
        let outlet = live.outlet.clone();
        let signals = Signals::catch(Hangup::Stops, move || outlet.close())
            .map_err(|error| Failure::new(Code::Software, format!("signals: {error}")))?;
        output::note(&format!("learning for {} s; Ctrl-C ends it earlier", self.span.as_secs()));
        let started = Instant::now();
        while !signals.stop() {
            let left = self.span.saturating_sub(started.elapsed());
            if left.is_zero() {
                break;
            }
            let turn = live.turn(left.min(PATIENCE), &mut |line: Line| learnt.line(&line, set));
            if turn == Turn::Over {
                break;
            }
        }
        let failure = if signals.stop() { None } else { live.failure() };
        let open = live.pipeline.sessions(now());
        live.stop(&mut |line: Line| learnt.line(&line, set))?;
        for session in &open {
            learnt.session(session, set);
        }
        failure.map_or(Ok(()), Err)
    }

    fn replay(&self, set: &Arc<RuleSet>, learnt: &mut baseline::Baseline) -> Result<(), Failure> {
        let mut pipeline = Pipeline::new(Arc::clone(set), Settings::default());
        let sources = self.files.iter().map(|file| replay::source(file)).collect();
        let options = Options { input: self.input.clone(), ..Options::default() };
        let formats = inputs::formats();
        let formats: Vec<&dyn LineDecoder> = formats.iter().map(AsRef::as_ref).collect();
        let (mut progress, mut problems) = (Progress::default(), 0);
        let read = reader::read(sources, &formats, &options, &mut |delivery| {
            match delivery {
                Delivery::Batch(batch) => {
                    pipeline.feed(batch, &mut |line: Line| learnt.line(&line, set));
                }
                Delivery::Problem(problem) => {
                    problems += 1;
                    replay::tell(&mut progress, &problem, problems);
                }
                Delivery::Progress(so_far) => progress.at(so_far.read, so_far.total),
            }
            ControlFlow::Continue(())
        });
        progress.clear();
        read.map_err(|error| replay::failed(&error))?;
        let open = pipeline.sessions(now());
        pipeline.finish(&mut |line: Line| learnt.line(&line, set));
        for session in &open {
            learnt.session(session, set);
        }
        Ok(())
    }
}

fn create(path: &Path) -> Result<std::fs::File, Failure> {
    let mut options = OpenOptions::new();
    // It names what runs here, and the daemon takes rules from nobody's file but root's.
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map_err(|error| Failure::file("create", path, &error))
}

/// A file that would not load is a fault of ours, and must not be found out by the daemon.
fn prove(text: &str, dirs: &[PathBuf]) -> Result<(), Failure> {
    let path = "baseline".to_owned();
    let mut files = shipped::files();
    files.push(RuleFile { path: path.clone(), text: text.to_owned(), page: None });
    let loaded = rules::load_beside(files, dirs)?;
    match loaded.problems.iter().find(|problem| problem.refused && problem.path == path) {
        Some(problem) => {
            let what = format!("made a filter that does not load: {}", rules::line(problem));
            Err(Failure::new(Code::Software, what))
        }
        None => Ok(()),
    }
}

fn summary(learnt: &baseline::Baseline, path: Option<&Path>) {
    let count = |wanted: fn(Fate) -> bool| {
        learnt.entries().filter(|(_, _, fate)| wanted(*fate)).count() as u64
    };
    let written = count(|fate| fate == Fate::Written);
    let commented = count(|fate| matches!(fate, Fate::Commented(_)));
    let left = count(|fate| matches!(fate, Fate::Left(_)));
    output::note(&format!(
        "{}, {commented} commented out for you to decide, {left} left out",
        output::counted(written, "filter")
    ));
    if let Some(path) = path.filter(|_| written + commented > 0) {
        output::note(&format!("read {}; it is not in force yet", path.display()));
    }
}
