//! Reads recorded events from files and standard input: decoded on all cores, delivered in order.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::Arc;

use bpfwatch_core::decoder::{LineDecoder, Sequence};
use bpfwatch_core::observation::{Origin, Os};
use bpfwatch_core::pipeline::Batch;
use bpfwatch_core::text::Text;

use crate::chunk::{Item, Parsed};
use crate::detect;
use crate::error::{Problem, ReadError};
use crate::ordered::{self, End};
use crate::source::Cutter;
pub use crate::source::Source;

/// More threads than this do not make a replay faster: one thread delivers.
const MOST_WORKERS: usize = 16;

/// How to read.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Name of the format (`--input`); found by content where absent.
    pub input: Option<String>,
    /// Host for records that do not tell (`unknown` where absent).
    pub host: Option<Text>,
    /// Operating system for records that do not tell; absent: the format's own, or Linux.
    pub os: Option<Os>,
    /// Threads that decode; absent: one for each core at hand. With one, the calling thread does all.
    pub workers: Option<NonZero<usize>>,
}

/// What the reader delivers, in the order of the input.
#[derive(Debug)]
pub enum Delivery {
    /// Observations, at least one.
    Batch(Batch),
    /// A line that could not be used.
    Problem(Problem),
    /// How far reading has come.
    Progress(Progress),
}

/// How far reading has come, over all sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes delivered.
    pub read: u64,
    /// Bytes in all; `None` where a source is a pipe.
    pub total: Option<u64>,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes.
    pub bytes: u64,
    /// Lines, blank ones too.
    pub lines: u64,
    /// Observations delivered.
    pub observations: u64,
    /// Well-formed lines that bpfwatch has no use for.
    pub skipped: u64,
    /// Lines that could not be used.
    pub problems: u64,
    /// The receiver asked for no more.
    pub stopped: bool,
}

/// Reads all of `sources`, one after the other, and hands what it finds to `receive` on the calling
/// thread. `receive` ends the reading with [`ControlFlow::Break`]; a read that waits for a pipe is then
/// still waited for.
///
/// # Errors
/// When a source cannot be opened or read, or its format is not known. What came before is delivered.
pub fn read(
    sources: Vec<Source>,
    formats: &[&dyn LineDecoder],
    options: &Options,
    receive: &mut dyn FnMut(Delivery) -> ControlFlow<()>,
) -> Result<Summary, ReadError> {
    let chosen = match &options.input {
        Some(name) => Some(detect::by_name(name, formats)?),
        None => None,
    };
    let total = sources.iter().map(Source::size).sum();
    let mut summary = Summary::default();
    let mut next_seq = 0;
    for source in sources {
        let name = source.name();
        let opened = Cutter::open(source);
        let mut cutter =
            opened.map_err(|error| ReadError::Open { source_name: Arc::clone(&name), error })?;
        let failed =
            |bytes, error| ReadError::Read { source_name: Arc::clone(&name), bytes, error };
        let decoder = match chosen {
            Some(decoder) => decoder,
            None => {
                let head = cutter.head().map_err(|error| failed(0, error))?;
                match detect::detect(head, &name, formats)? {
                    Some(decoder) => decoder,
                    None => continue,
                }
            }
        };
        let mut file = OneSource {
            name: &name,
            origin: Arc::new(default_origin(options, decoder)),
            renumber: !decoder.keeps_seq(),
            sequence: decoder.sequence(),
            before: summary.bytes,
            lines: 0,
            total,
            next_seq: &mut next_seq,
            summary: &mut summary,
            receive,
        };
        let end =
            ordered::run(cutter, decoder, workers(options), &mut |parsed| file.deliver(parsed));
        match end {
            End::Complete => {}
            End::Stopped => {
                summary.stopped = true;
                break;
            }
            End::Failed(error) => return Err(failed(summary.bytes, error)),
            End::Worker => return Err(ReadError::Worker { source_name: name }),
        }
    }
    Ok(summary)
}

fn workers(options: &Options) -> usize {
    let wanted = options.workers.or_else(|| std::thread::available_parallelism().ok());
    wanted.map_or(1, NonZero::get).min(MOST_WORKERS)
}

fn default_origin(options: &Options, decoder: &dyn LineDecoder) -> Origin {
    Origin {
        host: options.host.clone().unwrap_or_else(|| Text::from("unknown")),
        os: options.os.or(decoder.os()).unwrap_or(Os::Linux),
        os_version: None,
        boot_id: None,
    }
}

/// The delivery of one source.
struct OneSource<'a> {
    name: &'a Arc<str>,
    origin: Arc<Origin>,
    renumber: bool,
    sequence: Option<Box<dyn Sequence>>,
    /// Bytes of the sources before this one.
    before: u64,
    /// Lines of this source delivered so far.
    lines: u64,
    total: Option<u64>,
    next_seq: &'a mut u64,
    summary: &'a mut Summary,
    receive: &'a mut dyn FnMut(Delivery) -> ControlFlow<()>,
}

impl OneSource<'_> {
    fn deliver(&mut self, parsed: Parsed) -> ControlFlow<()> {
        for item in parsed.items {
            match item {
                Item::Origin(origin) => self.origin = Arc::new(*origin),
                Item::Observations(mut observations) => {
                    if let Some(sequence) = &mut self.sequence {
                        let decoded = std::mem::take(&mut observations);
                        for observation in decoded {
                            sequence.pass(observation, &mut observations);
                        }
                        if observations.is_empty() {
                            continue;
                        }
                    }
                    if self.renumber {
                        for observation in &mut observations {
                            observation.seq = *self.next_seq;
                            *self.next_seq += 1;
                        }
                    }
                    self.summary.observations += observations.len() as u64;
                    let origin = Arc::clone(&self.origin);
                    (self.receive)(Delivery::Batch(Batch { origin, observations }))?;
                }
                Item::Problem { line, error } => {
                    self.summary.problems += 1;
                    let line = self.lines + line + 1;
                    let source = Arc::clone(self.name);
                    (self.receive)(Delivery::Problem(Problem { source, line, error }))?;
                }
            }
        }
        self.lines += parsed.lines;
        self.summary.lines += parsed.lines;
        self.summary.skipped += parsed.skipped;
        self.summary.bytes = self.before + parsed.read;
        let progress = Progress { read: self.summary.bytes, total: self.total };
        (self.receive)(Delivery::Progress(progress))
    }
}
