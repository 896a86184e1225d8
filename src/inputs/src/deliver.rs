//! From decoded chunks to what the receiver gets: origins, order, numbers, counts.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bpfwatch_core::decoder::{Blocks, LineDecoder, LineError, Sequence};
use bpfwatch_core::observation::{Observation, Origin, Os};
use bpfwatch_core::pipeline::Batch;
use bpfwatch_core::text::Text;

use crate::chunk::{Item, Parsed};
use crate::error::{Place, Problem};
use crate::reader::{Delivery, Options, Summary};

/// Hosts of one source that are kept apart; over it the oldest is ended.
const MAX_HOSTS: usize = 1024;

/// How the problems of a source say where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// By line.
    Lines,
    /// By record: there are no lines, or not the file's own.
    Records,
    /// By the number that a record has, else by block.
    Blocks,
}

impl Counting {
    /// Of a file that is cut so.
    pub(crate) fn of(blocks: Option<Blocks>) -> Self {
        match blocks {
            Some(Blocks::Fixed { .. }) => Self::Blocks,
            Some(Blocks::Records(_)) => Self::Records,
            None => Self::Lines,
        }
    }
}

/// One place that observations of a source come from.
struct Host {
    origin: Arc<Origin>,
    sequence: Option<Box<dyn Sequence>>,
    age: u64,
}

/// The delivery of one source.
pub(crate) struct Deliverer<'a> {
    name: Arc<str>,
    decoder: &'a dyn LineDecoder,
    counting: Counting,
    /// Where what comes now comes from.
    origin: Arc<Origin>,
    hosts: HashMap<Arc<Origin>, Host>,
    ages: u64,
    /// Lines or records, and chunks, delivered so far.
    lines: u64,
    pub(crate) chunks: u64,
    /// The number of the next observation that has none of its own.
    pub(crate) next_seq: u64,
    /// What was delivered so far.
    pub(crate) summary: Summary,
}

/// Who takes what is delivered.
pub(crate) type Receive<'a> = dyn FnMut(Delivery) -> ControlFlow<()> + 'a;

/// Where observations come from that do not say so.
pub(crate) fn default_origin(options: &Options, os: Option<Os>) -> Origin {
    Origin {
        host: options.host.clone().unwrap_or_else(|| Text::from("unknown")),
        os: options.os.or(os).unwrap_or(Os::Linux),
        os_version: None,
        boot_id: None,
    }
}

impl<'a> Deliverer<'a> {
    /// For a source of this name.
    pub(crate) fn new(
        name: &Arc<str>,
        decoder: &'a dyn LineDecoder,
        counting: Counting,
        options: &Options,
    ) -> Self {
        let origin = default_origin(options, decoder.os());
        Self {
            name: Arc::clone(name),
            decoder,
            counting,
            origin: Arc::new(origin),
            hosts: HashMap::new(),
            ages: 0,
            lines: 0,
            chunks: 0,
            next_seq: 0,
            summary: Summary::default(),
        }
    }

    /// Where observations come from that do not say so.
    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Delivers what a chunk held.
    pub(crate) fn chunk(&mut self, parsed: Parsed, receive: &mut Receive<'_>) -> ControlFlow<()> {
        self.chunks += 1;
        for item in parsed.items {
            match item {
                Item::Origin(origin) => self.from(*origin, receive)?,
                Item::Observations(observations) => self.observations(observations, receive)?,
                Item::Problem { line, error } => {
                    let number = self.lines + line + 1;
                    let place = match self.counting {
                        Counting::Lines => Place::Line(number),
                        Counting::Records | Counting::Blocks => Place::Record(number),
                    };
                    self.problem(place, error, receive)?;
                }
                Item::BadRecord { record, number, error } => {
                    let unnumbered = match self.counting {
                        Counting::Blocks => Place::Block(self.chunks),
                        Counting::Lines | Counting::Records => {
                            Place::Record(self.lines + record + 1)
                        }
                    };
                    let place = number.map_or(unnumbered, Place::Record);
                    self.problem(place, error, receive)?;
                }
            }
        }
        self.lines += parsed.lines;
        self.summary.lines += parsed.lines;
        self.summary.skipped += parsed.skipped;
        self.summary.bytes = parsed.read;
        ControlFlow::Continue(())
    }

    /// What waits for more of itself comes out as it is.
    pub(crate) fn flush(&mut self, receive: &mut Receive<'_>) -> ControlFlow<()> {
        let mut hosts: Vec<(u64, Arc<Origin>)> =
            self.hosts.values().map(|host| (host.age, Arc::clone(&host.origin))).collect();
        hosts.sort_unstable_by_key(|(age, _)| *age);
        for (_, origin) in hosts {
            let mut out = Vec::new();
            let host = self.hosts.get_mut(&origin);
            if let Some(sequence) = host.and_then(|host| host.sequence.as_mut()) {
                sequence.flush(&mut out);
            }
            self.give(&origin, out, receive)?;
        }
        ControlFlow::Continue(())
    }

    fn problem(
        &mut self,
        place: Place,
        error: LineError,
        receive: &mut Receive<'_>,
    ) -> ControlFlow<()> {
        self.summary.problems += 1;
        let source = Arc::clone(&self.name);
        receive(Delivery::Problem(Problem { source, place, error }))
    }

    /// What follows comes from there.
    fn from(&mut self, origin: Origin, receive: &mut Receive<'_>) -> ControlFlow<()> {
        if *self.origin == origin {
            return ControlFlow::Continue(());
        }
        self.origin = match self.hosts.get(&origin) {
            Some(host) => Arc::clone(&host.origin),
            None => Arc::new(origin),
        };
        if self.hosts.len() < MAX_HOSTS || self.hosts.contains_key(&self.origin) {
            return ControlFlow::Continue(());
        }
        let oldest = self.hosts.values().min_by_key(|host| host.age);
        let Some(oldest) = oldest.map(|host| Arc::clone(&host.origin)) else {
            return ControlFlow::Continue(());
        };
        let mut out = Vec::new();
        if let Some(Host { sequence: Some(mut sequence), .. }) = self.hosts.remove(&oldest) {
            sequence.flush(&mut out);
        }
        self.give(&oldest, out, receive)
    }

    fn observations(
        &mut self,
        mut observations: Vec<Observation>,
        receive: &mut Receive<'_>,
    ) -> ControlFlow<()> {
        let origin = Arc::clone(&self.origin);
        let (decoder, ages) = (self.decoder, &mut self.ages);
        let host = self.hosts.entry(Arc::clone(&origin)).or_insert_with(|| {
            *ages += 1;
            Host { origin: Arc::clone(&origin), sequence: decoder.sequence(), age: *ages }
        });
        if let Some(sequence) = &mut host.sequence {
            let decoded = std::mem::take(&mut observations);
            for observation in decoded {
                sequence.pass(observation, &mut observations);
            }
        }
        self.give(&origin, observations, receive)
    }

    fn give(
        &mut self,
        origin: &Arc<Origin>,
        mut observations: Vec<Observation>,
        receive: &mut Receive<'_>,
    ) -> ControlFlow<()> {
        if observations.is_empty() {
            return ControlFlow::Continue(());
        }
        if !self.decoder.keeps_seq() {
            for observation in &mut observations {
                observation.seq = self.next_seq;
                self.next_seq += 1;
            }
        }
        self.summary.observations += observations.len() as u64;
        receive(Delivery::Batch(Batch { origin: Arc::clone(origin), observations }))
    }
}
