//! Takes what waits in a spool to its receiver: batches, retries with backoff, and what to do with what
//! is refused. One thread for each network sink; it never holds up whoever appends.
//!
//! A record that comes after a quiet time goes at once. While many come they are gathered, until a
//! batch is full or the transport's linger is over.
//!
//! One record that the receiver will never take must not stop the others, nor take a whole batch with
//! it: a refused batch is tried in halves, and what is refused alone is set aside. A receiver that
//! refuses everything is recognised by that: then whole batches are set aside, slowly.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::time::Timestamp;

use crate::backoff::{Backoff, Pace};
use crate::remote::{Limits, Refused, Remote};
use crate::spool::{Batch, Done, Spool, Sync, now, poison, steady};

/// Single records refused one after another, beyond which the receiver is taken to refuse everything.
const ALL_REFUSED: u32 = 16;
/// How often a receiver may fail over the same single record before it is set aside. With the delays
/// between them that is some minutes: a receiver in trouble does not cost records at once.
const FAULTS: u32 = 8;
/// The longest wait that a receiver can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// The longest sleep, so that what is too old is dropped in time.
const LOOK_UP: Duration = Duration::from_secs(60);

/// A courier at work.
pub struct Courier {
    spool: Spool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    status: Mutex<Status>,
    ended: Condvar,
}

#[derive(Default)]
struct Status {
    /// Not to work longer than this.
    stop_by: Option<Instant>,
    ended: bool,
    /// Why the last try failed; nothing while all is well.
    trouble: Option<String>,
    last_delivery: Option<Timestamp>,
}

/// Tells why a courier cannot deliver, from any thread.
#[derive(Clone)]
pub struct Trouble(Arc<Shared>);

impl Trouble {
    /// Why the last try failed; `None` while all is well.
    pub fn now(&self) -> Option<String> {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    /// When the receiver last took something.
    pub fn last_delivery(&self) -> Option<Timestamp> {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner).last_delivery
    }
}

impl Courier {
    /// Starts the thread. `seed` makes the jitter of its retries.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(spool: Spool, remote: Box<dyn Remote>, pace: Pace, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let limits = remote.limits();
        let route = Route {
            spool: spool.clone(),
            limits,
            window: limits.records.max(1),
            remote,
            shared: Arc::clone(&shared),
            backoff: Backoff::new(pace, seed),
            not_before: None,
            sent_at: None,
            synced_at: Instant::now(),
            refused: 0,
            faults: (0, 0),
        };
        thread::Builder::new().name("courier".to_owned()).spawn(move || route.run())?;
        Ok(Self { spool, shared })
    }

    /// What tells of its trouble.
    pub fn trouble(&self) -> Trouble {
        Trouble(Arc::clone(&self.shared))
    }

    /// Ends it. What waits is tried once more, for as long as `grace`; the rest stays on disk. False
    /// when it still waits for an answer of its receiver: it then ends by itself.
    pub fn stop(&self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.stop_by = Some(deadline);
        drop(status);
        self.spool.wake();
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        while !status.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.ended.wait_timeout(status, left);
            status = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        status.ended
    }
}

/// The thread's own state.
struct Route {
    spool: Spool,
    remote: Box<dyn Remote>,
    limits: Limits,
    shared: Arc<Shared>,
    backoff: Backoff,
    /// Records a batch at most, for now.
    window: usize,
    not_before: Option<Instant>,
    sent_at: Option<Instant>,
    synced_at: Instant,
    /// Single records that were refused since one was taken.
    refused: u32,
    /// A single record's number, and how often the receiver failed over it.
    faults: (u64, u32),
}

impl Route {
    fn run(mut self) {
        while self.wait_for_work() {
            self.deliver();
        }
        // The next one to open it starts where this one ended, also after a power failure.
        let _ = self.spool.lock().rest();
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.ended = true;
        self.shared.ended.notify_all();
    }

    /// Waits until there is a batch to send; false when it is to end.
    fn wait_for_work(&mut self) -> bool {
        let spool = self.spool.clone();
        loop {
            self.sync_if_due();
            let mut store = spool.lock();
            let clock = steady();
            store.expire(clock);
            let (waiting, bytes) = (store.waiting(), store.waiting_bytes());
            if let Some(stop_by) = self.stop_by() {
                // Who failed just now would fail again.
                return waiting > 0 && self.not_before.is_none() && Instant::now() < stop_by;
            }
            let mut sleep = store.expires_in(clock).unwrap_or(LOOK_UP).min(LOOK_UP);
            if waiting > 0 {
                let full =
                    waiting >= self.limits.records as u64 || bytes >= self.limits.bytes as u64;
                let linger = if full { Duration::ZERO } else { self.remote.linger() };
                let after = |since: Instant, wait| Duration::saturating_sub(wait, since.elapsed());
                let due = match (self.not_before, self.sent_at) {
                    (Some(at), _) => at.saturating_duration_since(Instant::now()),
                    (None, Some(sent)) => after(sent, linger),
                    (None, None) => Duration::ZERO,
                };
                if due.is_zero() {
                    return true;
                }
                sleep = sleep.min(due);
            }
            if let (Sync::Interval(interval), true) =
                (store.sync_policy(), store.unsynced().is_some())
            {
                sleep = sleep.min(interval.saturating_sub(self.synced_at.elapsed()));
            }
            drop(spool.wait(store, sleep.max(Duration::from_millis(1))));
        }
    }

    fn stop_by(&self) -> Option<Instant> {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).stop_by
    }

    /// Under `Sync::Interval`: brings what was appended to the disk.
    fn sync_if_due(&mut self) {
        let Sync::Interval(interval) = self.spool.lock().sync_policy() else { return };
        if self.synced_at.elapsed() >= interval {
            self.sync();
        }
    }

    /// Not under the lock: a slow disk must not hold up whoever appends.
    fn sync(&mut self) {
        self.synced_at = Instant::now();
        let (file, last) = {
            let store = self.spool.lock();
            (store.unsynced(), store.last())
        };
        match file.map(|file| file.and_then(|file| file.sync_data())) {
            None => {}
            Some(Ok(())) => self.spool.lock().note_synced(last),
            Some(Err(error)) => self.trouble(Some(format!("the spool cannot be synced: {error}"))),
        }
    }

    fn deliver(&mut self) {
        let policy = self.spool.lock().sync_policy();
        if policy != Sync::Never {
            // A number that a receiver has seen must not come back for another record.
            self.sync();
        }
        let limits = Limits { records: self.window, bytes: self.limits.bytes };
        let peeked = self.spool.lock().peek(limits);
        let batch = match peeked {
            Ok(batch) => batch,
            Err(error) => {
                return self.failed(&format!("the spool cannot be read: {error}"), None);
            }
        };
        if batch.records.is_empty() {
            return;
        }
        let all = batch.records.len();
        match self.remote.deliver(&batch.records) {
            Ok(()) => {
                self.spool.lock().ack(&batch, all, Done::Delivered);
                self.succeeded(None);
            }
            Err(Refused::InPart { rejected, why }) => {
                self.spool.lock().ack(&batch, all, Done::AllBut(rejected));
                self.succeeded(Some(format!("{rejected} of {all} records refused: {why}")));
            }
            Err(Refused::Later { taken, after, why }) => {
                self.spool.lock().ack(&batch, taken, Done::Delivered);
                self.failed(&why, after);
            }
            Err(Refused::Poison { why }) if all == 1 || self.refused >= ALL_REFUSED => {
                self.set_aside(&batch, &why);
            }
            Err(Refused::TooLarge { why }) if all == 1 => self.set_aside(&batch, &why),
            Err(Refused::Faulty { why }) if all == 1 => self.fault(&batch, &why),
            Err(Refused::Faulty { why }) => {
                self.window = all / 2;
                self.failed(&why, None);
            }
            Err(Refused::Poison { .. } | Refused::TooLarge { .. }) => {
                self.window = (all / 2).max(1);
            }
        }
    }

    fn succeeded(&mut self, remark: Option<String>) {
        self.backoff.succeeded();
        self.not_before = None;
        self.sent_at = Some(Instant::now());
        self.refused = 0;
        self.window = self.window.saturating_mul(2).min(self.limits.records.max(1));
        self.trouble(remark);
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.last_delivery = Some(now());
    }

    fn failed(&mut self, why: &str, after: Option<Duration>) {
        let asked = after.unwrap_or_default().min(MAX_RETRY_AFTER);
        self.not_before = Some(Instant::now() + self.backoff.failed().max(asked));
        self.trouble(Some(why.to_owned()));
    }

    /// The receiver failed over a single record.
    fn fault(&mut self, batch: &Batch, why: &str) {
        let seq = batch.records.first().map_or(0, |record| record.seq);
        let times = if self.faults.0 == seq { self.faults.1 + 1 } else { 1 };
        self.faults = (seq, times);
        if times >= FAULTS {
            self.set_aside(batch, why);
        }
        self.failed(why, None);
    }

    fn set_aside(&mut self, batch: &Batch, why: &str) {
        let dir = self.spool.lock().dir().to_owned();
        let kept = poison::set_aside(&dir, &batch.records, why);
        self.spool.lock().ack(batch, batch.records.len(), Done::Poisoned);
        self.refused = self.refused.saturating_add(1);
        if self.refused >= ALL_REFUSED {
            self.window = self.limits.records.max(1);
            self.failed(why, None);
        }
        let mut what = format!("{} refused for good, set aside: {why}", batch.records.len());
        if let Err(error) = kept {
            what.push_str(&format!("; it could not be kept: {error}"));
        }
        self.trouble(Some(what));
    }

    fn trouble(&self, what: Option<String>) {
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.trouble = what;
    }
}
