//! A network sink: lines go through a format into a spool on disk, and a courier takes them to the
//! receiver.
//!
//! [`Sink::write`] returns once the record is in the spool. From then on it survives the end of the
//! program, and goes out at least once; so a receiver that is away for a while costs nothing, as long
//! as the spool's limits are not reached.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bpfwatch_core::finding::Line;
use bpfwatch_core::ids;
use bpfwatch_core::sink::{Backlog, BacklogState, Sink};
use bpfwatch_core::time::Timestamp;

use crate::backoff::Pace;
use crate::courier::{Courier, Trouble};
use crate::format::Format;
use crate::remote::Remote;
use crate::spool::{Settings, Spool};

/// How long a sink that ends still tries to send what waits.
const GRACE: Duration = Duration::from_secs(1);

/// Puts lines into a spool that a courier empties.
pub struct SpooledSink<F> {
    name: String,
    format: F,
    spool: Spool,
    courier: Courier,
    record: Vec<u8>,
}

impl<F: Format> SpooledSink<F> {
    /// Opens the spool in `dir` and starts the courier. `seed` makes the jitter of retries and the id
    /// of a new stream; each machine and start needs another one.
    ///
    /// # Errors
    /// When the spool cannot be opened, or there is no thread.
    pub fn open(
        dir: &Path,
        settings: Settings,
        format: F,
        remote: Box<dyn Remote>,
        pace: Pace,
        seed: u64,
    ) -> io::Result<Self> {
        let spool = Spool::open(dir, settings, seed)?;
        spool.set(settings);
        Self::with(spool, format, remote, pace, seed)
    }

    /// As [`SpooledSink::open`], into a spool that is open: for a transport that tells the receiver
    /// the stream's id.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn with(
        spool: Spool,
        format: F,
        remote: Box<dyn Remote>,
        pace: Pace,
        seed: u64,
    ) -> io::Result<Self> {
        let name = remote.name().to_owned();
        let courier = Courier::start(spool.clone(), remote, pace, seed)?;
        Ok(Self { name, format, spool, courier, record: Vec::new() })
    }
}

impl<F: Format> Sink for SpooledSink<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        super::render(&self.format, line, &mut self.record)?;
        let (id, time) = identity(line, &self.record);
        self.spool
            .append(&id, time, &self.record)
            .map(|_| ())
            .map_err(|error| io::Error::new(error.kind(), format!("the spool: {error}")))
    }

    fn backlog(&self) -> Option<Arc<dyn Backlog>> {
        Some(Arc::new(Watched { spool: self.spool.clone(), trouble: self.courier.trouble() }))
    }
}

impl<F> Drop for SpooledSink<F> {
    fn drop(&mut self) {
        self.courier.stop(GRACE);
    }
}

/// Id and time of a line. One without an id has one that is derived from its record as it is: two that
/// are alike in all are the same one.
pub(super) fn identity(line: &Line, record: &[u8]) -> (String, Timestamp) {
    let (id, time) = match line {
        Line::Finding(line) => (Some(&line.id), line.time),
        Line::Closed(line) => (Some(&line.id), line.time),
        Line::Repeats(line) => (Some(&line.id), line.time),
        Line::Lost(line) => (None, line.time),
        Line::Session(line) => (None, line.time),
        Line::Heartbeat(line) => (None, line.time),
        Line::Notice(line) => (None, line.time),
    };
    (id.map_or_else(|| ids::derive(&[b"line", record]), Clone::clone), time)
}

struct Watched {
    spool: Spool,
    trouble: Trouble,
}

impl Backlog for Watched {
    fn state(&self) -> BacklogState {
        let state = self.spool.state();
        let counts = state.counts;
        let mut why = Vec::new();
        for (count, what) in [
            (counts.oversize, "dropped as the oldest of a full spool"),
            (counts.expired, "waited too long"),
            (counts.damaged, "damaged on disk"),
            (counts.poisoned + counts.rejected, "refused by the receiver for good"),
        ] {
            if count > 0 {
                why.push(format!("{count} {what}"));
            }
        }
        BacklogState {
            waiting: state.waiting,
            waiting_bytes: state.waiting_bytes,
            delivered: counts.delivered,
            // What `write` refused was an error of `write`, and is counted there.
            lost: counts.lost() - counts.refused,
            why: why.join(", "),
            trouble: self.trouble.now(),
            last_delivery: self.trouble.last_delivery(),
            is_kept: true,
            fate: "they stay in the spool and are sent after the next start",
        }
    }
}
