//! Reads recorded events from files and standard input: decoded on all cores, delivered in order.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::Arc;

use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_core::observation::Os;
use bpfwatch_core::pipeline::Batch;
use bpfwatch_core::text::Text;

use crate::deliver::Deliverer;
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
    /// A record that could not be used.
    Problem(Problem),
    /// How far reading has come.
    Progress(Progress),
}

/// How far reading has come, over all sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes delivered.
    pub read: u64,
    /// Bytes in all; `None` where a source is a pipe or compressed.
    pub total: Option<u64>,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes, after decompression.
    pub bytes: u64,
    /// Lines, blank ones too; of a binary file its records.
    pub lines: u64,
    /// Observations delivered.
    pub observations: u64,
    /// Well-formed records that bpfwatch has no use for.
    pub skipped: u64,
    /// Records that could not be used.
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
        let counting = cutter.counting(decoder);
        let mut deliverer = Deliverer::new(&name, decoder, counting, options);
        deliverer.next_seq = next_seq;
        let before = summary.bytes;
        let mut end = ordered::run(cutter, decoder, workers(options), &mut |parsed| {
            deliverer.chunk(parsed, receive)?;
            receive(Delivery::Progress(Progress { read: before + deliverer.summary.bytes, total }))
        });
        if matches!(end, End::Complete) && deliverer.flush(receive).is_break() {
            end = End::Stopped;
        }
        next_seq = deliverer.next_seq;
        summary.add(&deliverer.summary);
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

impl Summary {
    fn add(&mut self, other: &Summary) {
        self.bytes += other.bytes;
        self.lines += other.lines;
        self.observations += other.observations;
        self.skipped += other.skipped;
        self.problems += other.problems;
    }
}

fn workers(options: &Options) -> usize {
    let wanted = options.workers.or_else(|| std::thread::available_parallelism().ok());
    wanted.map_or(1, NonZero::get).min(MOST_WORKERS)
}
