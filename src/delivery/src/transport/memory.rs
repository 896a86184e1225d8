//! A network sink without a spool: records wait in memory for their receiver, and do not survive the
//! end of the program.
//!
//! What waits is bounded in bytes; beyond that the oldest goes first, and is counted. One thread sends,
//! so that a receiver that is slow or away holds up nobody.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::Line;
use bpfwatch_core::sink::{Backlog, BacklogState, Sink};
use bpfwatch_core::time::Timestamp;

use super::spooled::identity;
use crate::backoff::{Backoff, Pace};
use crate::format::Format;
use crate::remote::{Record, Refused, Remote};
use crate::spool::now;

/// Bytes of records that wait at most, unless told.
pub const DEFAULT_BYTES: usize = 8 * 1024 * 1024;

/// How long a sink that ends still tries to send what waits.
const GRACE: Duration = Duration::from_secs(1);

/// Keeps lines in memory until the receiver has taken them.
pub struct MemorySink<F> {
    name: String,
    format: F,
    shared: Arc<Shared>,
    most: usize,
    record: Vec<u8>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Record>,
    bytes: usize,
    seq: u64,
    delivered: u64,
    dropped: u64,
    refused: u64,
    trouble: Option<String>,
    last_delivery: Option<Timestamp>,
    /// Not to work longer than this.
    stop_by: Option<Instant>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, queue: MutexGuard<'a, Queue>, time: Duration) -> MutexGuard<'a, Queue> {
        self.changed.wait_timeout(queue, time).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl<F: Format> MemorySink<F> {
    /// Starts the thread. At most `most` bytes of records wait. `seed` makes the jitter of retries.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        format: F,
        remote: Box<dyn Remote>,
        most: usize,
        pace: Pace,
        seed: u64,
    ) -> io::Result<Self> {
        let name = remote.name().to_owned();
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let backoff = Backoff::new(pace, seed);
        thread::Builder::new()
            .name("memory".to_owned())
            .spawn(move || serve(&own, remote, backoff))?;
        Ok(Self { name, format, shared, most, record: Vec::new() })
    }
}

impl<F: Format> Sink for MemorySink<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        super::render(&self.format, line, &mut self.record)?;
        let (id, time) = identity(line, &self.record);
        let mut queue = self.shared.lock();
        while queue.bytes + self.record.len() > self.most
            && let Some(oldest) = queue.records.pop_front()
        {
            queue.bytes -= oldest.bytes.len();
            queue.dropped += 1;
        }
        queue.seq += 1;
        queue.bytes += self.record.len();
        let (seq, bytes) = (queue.seq, self.record.clone());
        queue.records.push_back(Record { seq, id, time, bytes });
        drop(queue);
        self.shared.changed.notify_all();
        Ok(())
    }

    fn backlog(&self) -> Option<Arc<dyn Backlog>> {
        Some(Arc::new(Watched(Arc::clone(&self.shared))))
    }
}

impl<F> Drop for MemorySink<F> {
    fn drop(&mut self) {
        let deadline = Instant::now() + GRACE;
        let mut queue = self.shared.lock();
        queue.stop_by = Some(deadline);
        self.shared.changed.notify_all();
        while !queue.ended && Instant::now() < deadline {
            queue = self.shared.wait(queue, deadline.saturating_duration_since(Instant::now()));
        }
    }
}

struct Watched(Arc<Shared>);

impl Backlog for Watched {
    fn state(&self) -> BacklogState {
        let queue = self.0.lock();
        let why = [
            (queue.dropped, "dropped as the oldest in memory"),
            (queue.refused, "refused by the receiver for good"),
        ];
        let why: Vec<String> = why
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        BacklogState {
            waiting: queue.records.len() as u64,
            waiting_bytes: queue.bytes as u64,
            delivered: queue.delivered,
            lost: queue.dropped + queue.refused,
            why: why.join(", "),
            trouble: queue.trouble.clone(),
            last_delivery: queue.last_delivery,
            is_kept: false,
            fate: "they are lost, as this sink has no spool",
        }
    }
}

/// Sends until the sink has ended.
fn serve(shared: &Shared, mut remote: Box<dyn Remote>, mut backoff: Backoff) {
    let mut not_before: Option<Instant> = None;
    loop {
        let mut queue = shared.lock();
        loop {
            let now = Instant::now();
            if let Some(stop_by) = queue.stop_by {
                // Who failed just now would fail again.
                if queue.records.is_empty() || not_before.is_some() || now >= stop_by {
                    queue.ended = true;
                    shared.changed.notify_all();
                    return;
                }
            }
            let wait = match not_before {
                Some(at) if at > now => at - now,
                _ if queue.records.is_empty() => Duration::from_secs(3600),
                _ => break,
            };
            queue = shared.wait(queue, wait);
        }
        let batch = take(&mut queue, remote.limits().records, remote.limits().bytes);
        drop(queue);
        let count = batch.len() as u64;
        let result = remote.deliver(&batch);
        let mut queue = shared.lock();
        not_before = None;
        match result {
            Ok(()) => {
                queue.delivered += count;
                queue.last_delivery = Some(now());
                queue.trouble = None;
                backoff.succeeded();
            }
            Err(Refused::InPart { rejected, why }) => {
                queue.refused += rejected;
                queue.delivered += count.saturating_sub(rejected);
                queue.trouble = Some(why);
                backoff.succeeded();
            }
            Err(Refused::Later { taken, after, why }) => {
                queue.delivered += taken as u64;
                queue.trouble = Some(why);
                put_back(&mut queue, batch.into_iter().skip(taken));
                not_before = Some(Instant::now() + after.unwrap_or_else(|| backoff.failed()));
            }
            Err(Refused::Faulty { why }) => {
                queue.trouble = Some(why);
                put_back(&mut queue, batch.into_iter());
                not_before = Some(Instant::now() + backoff.failed());
            }
            // Found one by one: the next one may be good.
            Err(Refused::Poison { why } | Refused::TooLarge { why }) => {
                queue.refused += 1;
                queue.trouble = Some(why);
                put_back(&mut queue, batch.into_iter().skip(1));
            }
        }
    }
}

fn take(queue: &mut Queue, records: usize, bytes: usize) -> Vec<Record> {
    let mut batch = Vec::new();
    let mut size = 0;
    while batch.len() < records.max(1)
        && let Some(next) = queue.records.front()
        && (batch.is_empty() || size + next.bytes.len() <= bytes)
        && let Some(next) = queue.records.pop_front()
    {
        size += next.bytes.len();
        batch.push(next);
    }
    queue.bytes -= size;
    batch
}

fn put_back(queue: &mut Queue, rest: impl DoubleEndedIterator<Item = Record>) {
    for record in rest.rev() {
        queue.bytes += record.bytes.len();
        queue.records.push_front(record);
    }
}
