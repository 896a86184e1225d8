//! `replay`: recorded events through the same pipeline as live ones.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_core::finding::{Level, Line};
use bpfwatch_core::observation::{Origin, Os};
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use bpfwatch_core::rules::fields::SYSTEMS;
use bpfwatch_inputs::error::{Problem, ReadError, RecordError};
use bpfwatch_inputs::reader::{self, Delivery, Options, Source, Summary};
use bpfwatch_inputs::recording::RecordingWriter;
use clap::Args;

use super::{FormatArgs, RuleArgs, VerboseArgs};
use crate::exit::{Code, Failure, Outcome, plain};
use crate::output::{self, Printer};
use crate::platform;
use crate::progress::Progress;
use crate::wiring::{inputs, rules};

/// Bad lines that are shown one by one; of a file of another kind every line is bad.
const SHOWN_PROBLEMS: u64 = 20;

/// Run recorded events through the rules
#[derive(Debug, Args)]
#[command(after_help = "\
A line that cannot be read is named on standard error and counted; the rest goes on.
From a pipe findings come while it is open.

Examples:
  bpfwatch replay night.jsonl
  bpfwatch replay night.jsonl --rules ./site-rules --level informational
  zcat *.jsonl.gz | bpfwatch replay - --format json
  bpfwatch replay Security.evtx audit.log.1.gz k8s-audit.json
  bpfwatch replay night.jsonl --observations | jq -r .kind | sort | uniq -c")]
pub struct Replay {
    /// Recordings and logs, one after the other; `-` is standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Format of the files; found by their content where it is not given.
    #[arg(long, value_name = "NAME")]
    input: Option<String>,
    /// Print what was decoded, as a recording, instead of findings.
    #[arg(long, conflicts_with_all = ["format", "level", "dirs"])]
    observations: bool,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    verbose: VerboseArgs,
    /// Exit with 65 if a line could not be read or a rule was refused.
    #[arg(long)]
    strict: bool,
    /// Show findings of this level and above.
    #[arg(long, value_name = "LEVEL", default_value = "low", value_parser = super::level)]
    level: Level,
    #[command(flatten)]
    rules: RuleArgs,
    /// System that the records are of, where they do not tell: linux, macos, freebsd, windows,
    /// kubernetes, cisco, juniper.
    #[arg(long, value_name = "NAME", value_parser = os)]
    os: Option<Os>,
}

/// What observations go through.
enum Target {
    Rules { pipeline: Box<Pipeline>, printer: Printer },
    Decoded { out: Decoded },
}

impl Replay {
    /// Reads all files.
    pub fn run(self) -> Outcome {
        let mut strict = Ok(());
        let mut target = if self.observations {
            Target::Decoded { out: Decoded::default() }
        } else {
            let loaded = rules::load(true, &self.rules.dirs)?;
            rules::warn(&loaded);
            strict = rules::strict(&loaded);
            Target::Rules {
                pipeline: Box::new(Pipeline::new(loaded.set, Settings::default())),
                printer: Printer::new(self.format.format, self.level, self.verbose.verbose),
            }
        };
        let sources = sealed(self.files.iter().map(|file| source(file)).collect());
        let options = Options { input: self.input.clone(), os: self.os, ..Options::default() };
        let mut progress = Progress::default();
        let mut problems = 0;
        let mut failure = None;
        let formats = inputs::formats();
        let formats: Vec<&dyn LineDecoder> = formats.iter().map(AsRef::as_ref).collect();
        let read = reader::read(sources, &formats, &options, &mut |delivery| {
            let done = match delivery {
                Delivery::Batch(batch) => target.feed(batch),
                Delivery::Problem(problem) => {
                    problems += 1;
                    tell(&mut progress, &problem, problems);
                    Ok(())
                }
                Delivery::Progress(so_far) => {
                    let done = if target.is_pending() {
                        progress.clear();
                        target.flush()
                    } else {
                        Ok(())
                    };
                    progress.at(so_far.read, so_far.total);
                    done
                }
            };
            match done {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        progress.clear();
        if let Some(failure) = failure {
            return Err(failure);
        }
        target.finish()?;
        let summary = read.map_err(|error| failed(&error))?;
        target.summary(&summary);
        if self.strict {
            strict?;
            if summary.problems > 0 {
                return Ok(Code::Data);
            }
        }
        Ok(Code::Ok)
    }
}

impl Target {
    fn feed(&mut self, batch: Batch) -> Result<(), Failure> {
        match self {
            Target::Rules { pipeline, printer } => {
                pipeline.feed(batch, &mut |line: Line| printer.line(&line));
                Ok(())
            }
            Target::Decoded { out } => out.write(&batch),
        }
    }

    fn is_pending(&self) -> bool {
        match self {
            Target::Rules { printer, .. } => printer.is_pending(),
            Target::Decoded { out } => out.writer.is_some(),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Target::Rules { printer, .. } => printer.flush(),
            Target::Decoded { out } => out.flush(),
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if let Target::Rules { pipeline, printer } = self {
            pipeline.finish(&mut |line: Line| printer.line(&line));
        }
        self.flush()
    }

    fn summary(&self, read: &Summary) {
        let mut text = format!(
            "{}, {}",
            output::counted(read.lines, "line"),
            output::counted(read.observations, "observation")
        );
        if let Target::Rules { pipeline, .. } = self {
            let counters = pipeline.counters();
            text += &format!(
                ", {}, {} withheld as expected",
                output::counted(counters.findings, "finding"),
                counters.withheld
            );
        }
        if read.skipped > 0 {
            text += &format!(", {} of no interest", output::counted(read.skipped, "record"));
        }
        if read.problems > 0 {
            let bad = output::counted(read.problems, "bad record");
            text += &format!(", {bad}");
        }
        output::note(&text);
    }
}

/// Writes a recording to standard output.
#[derive(Default)]
struct Decoded {
    writer: Option<RecordingWriter<BufWriter<io::Stdout>>>,
    origin: Option<Arc<Origin>>,
}

impl Decoded {
    fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let version = env!("CARGO_PKG_VERSION");
        let writer = match &mut self.writer {
            Some(writer) => {
                if self.origin.as_deref() != Some(&*batch.origin) {
                    writer.origin(&batch.origin, version).map_err(|error| recording(&error))?;
                }
                writer
            }
            None => {
                let out = BufWriter::new(io::stdout());
                let writer = RecordingWriter::new(out, "standard output", &batch.origin, version)
                    .map_err(|error| recording(&error))?;
                self.writer.insert(writer)
            }
        };
        self.origin = Some(Arc::clone(&batch.origin));
        let mut seen = batch.observations.iter();
        seen.try_for_each(|seen| writer.write(seen)).map_err(|error| recording(&error))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        match &mut self.writer {
            Some(writer) => writer.flush().map_err(|error| recording(&error)),
            None => io::stdout().flush().map_err(|error| Failure::output(&error)),
        }
    }
}

fn recording(error: &RecordError) -> Failure {
    match error {
        RecordError::Write { error, .. } => Failure::output(error),
        other => Failure::new(Code::Io, other.to_string()),
    }
}

pub(super) fn source(path: &Path) -> Source {
    if path.as_os_str() == "-" { Source::Stdin } else { Source::Path(path.to_owned()) }
}

/// Opens the files, and from then on this process opens nothing more, where the system has that: what is
/// decoded was written by others. A named pipe cannot be opened before its turn: then nothing changes.
fn sealed(sources: Vec<Source>) -> Vec<Source> {
    let Some(seal) = platform::current().seal() else { return sources };
    if sources.iter().any(Source::may_wait) {
        return sources;
    }
    let opened = sources.into_iter().map(Source::opened).collect();
    if let Err(error) = seal() {
        output::warn(&format!("decoding with all that this user may do: {}", plain(&error)));
    }
    opened
}

pub(super) fn tell(progress: &mut Progress, problem: &Problem, count: u64) {
    progress.clear();
    if count <= SHOWN_PROBLEMS {
        output::warn(&problem.to_string());
    }
    if count == SHOWN_PROBLEMS {
        output::warn("more bad records are counted, but not shown");
    }
}

pub(super) fn failed(error: &ReadError) -> Failure {
    match error {
        ReadError::Open { source_name, error } => {
            Failure::file("open", Path::new(&**source_name), error)
        }
        ReadError::Read { source_name, bytes, error } => Failure::new(
            Code::Io,
            format!("{source_name}: reading failed after {bytes} bytes: {}", plain(error)),
        ),
        ReadError::UnknownFormat { .. } => Failure::new(Code::Data, error.to_string()),
        ReadError::UnknownInput { .. } | ReadError::NotFollowed { .. } => {
            Failure::new(Code::Usage, error.to_string())
        }
        ReadError::Worker { .. } => Failure::new(Code::Software, error.to_string()),
    }
}

fn os(text: &str) -> Result<Os, String> {
    SYSTEMS
        .into_iter()
        .find(|os| os.as_str() == text)
        .ok_or_else(|| format!("use one of {}", SYSTEMS.map(Os::as_str).join(", ")))
}
