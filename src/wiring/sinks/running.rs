//! One sink at work: its thread, its queue, and the account of what became of its lines.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Host, Line, Lost, SinkHealth};
use bpfwatch_core::sink::{Backlog, BacklogState, Sink};
use bpfwatch_core::time::Timestamp;

use crate::exit::plain;
use crate::wiring::now;
use crate::{config, output};

/// Lines that wait for one sink. A line is some kilobytes, at most about 100.
pub const QUEUE: usize = 1024;
/// Losses of one sink are reported at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// A sink that fails again and again is named on standard error at most this often.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub struct Running {
    name: String,
    /// What it was opened from.
    wanted: Option<config::Sink>,
    /// Nothing once it gets no more lines.
    queue: Option<SyncSender<Arc<Line>>>,
    account: Arc<Account>,
    /// What it has taken and not delivered yet, where it sends later.
    backlog: Option<Arc<dyn Backlog>>,
    /// When its trouble was last told of; nothing while it delivers.
    troubled: Option<Instant>,
    thread: JoinHandle<()>,
    reported: u64,
    reported_at: Option<Instant>,
}

/// What a sink did.
#[derive(Default)]
struct Account {
    written: AtomicU64,
    /// Lines that did not fit the queue.
    shed: AtomicU64,
    /// Lines that could not be written.
    failed: AtomicU64,
    /// Lines that wait in the queue.
    queued: AtomicU64,
    outcome: Mutex<Outcome>,
}

/// How it fared last.
#[derive(Default)]
struct Outcome {
    /// What went wrong last, and whether it wrote a line since.
    error: Option<String>,
    mended: bool,
    last_delivery: Option<Timestamp>,
}

impl Account {
    fn dropped(&self) -> u64 {
        self.shed.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed)
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn why(&self) -> String {
        self.outcome().error.clone().unwrap_or_else(|| "queue full".to_owned())
    }
}

impl Running {
    /// Starts its thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(wanted: Option<config::Sink>, sink: Box<dyn Sink>) -> io::Result<Self> {
        let name = sink.name().to_owned();
        let (queue, lines) = mpsc::sync_channel(QUEUE);
        let account = Arc::new(Account::default());
        let backlog = sink.backlog();
        let own = Arc::clone(&account);
        let thread = thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || serve(sink, &lines, &own))?;
        Ok(Self {
            name,
            wanted,
            queue: Some(queue),
            account,
            backlog,
            troubled: None,
            thread,
            reported: 0,
            reported_at: None,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was opened from this.
    pub fn is_of(&self, wanted: &config::Sink) -> bool {
        self.wanted.as_ref() == Some(wanted)
    }

    /// Hands it a line; never waits.
    pub fn send(&self, line: &Arc<Line>) {
        let Some(queue) = &self.queue else { return };
        // Counted before it can be taken out again.
        self.account.queued.fetch_add(1, Ordering::Relaxed);
        if queue.try_send(Arc::clone(line)).is_err() {
            self.account.queued.fetch_sub(1, Ordering::Relaxed);
            self.account.shed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It gets no more lines, writes what waits, and ends by itself.
    pub fn retire(&mut self) {
        self.queue = None;
    }

    /// Whether its thread has ended: after [`Running::retire`], or because its reader is gone for good.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// What it had to drop since the last report, as a line; nothing while the last report is fresh.
    pub fn loss(&mut self, now: Timestamp, host: &Arc<Host>) -> Option<Line> {
        // Asked first: what is counted after that comes with the next report.
        let is_last = self.queue.is_none() && self.is_over();
        let backlog = self.backlog();
        if self.queue.is_some() {
            self.tell_trouble(backlog.as_ref());
        }
        let left = backlog.as_ref().filter(|backlog| is_last && !backlog.is_kept);
        let left = left.map_or(0, |backlog| backlog.waiting);
        let later = backlog.as_ref().map_or(0, |backlog| backlog.lost);
        let dropped = self.account.dropped() + later + left;
        let early = self.reported_at.is_some_and(|at| at.elapsed() < REPORT_EVERY);
        if dropped <= self.reported || (early && !is_last) {
            return None;
        }
        let count = dropped - self.reported;
        let why = match left {
            0 => self.why(backlog.as_ref()),
            _ => format!("{left} not delivered when it was taken away"),
        };
        self.reported = dropped;
        self.reported_at = Some(Instant::now());
        let (host, sensor) = (Arc::clone(host), format!("sink {}", self.name));
        Some(Line::Lost(Box::new(Lost { time: now, host, sensor, count, why })))
    }

    /// How it fares.
    pub fn health(&self) -> SinkHealth {
        let outcome = self.account.outcome();
        let failed = outcome.error.clone().filter(|_| !outcome.mended);
        let mut health = SinkHealth {
            name: self.name.clone(),
            written: self.account.written.load(Ordering::Relaxed),
            dropped: self.account.dropped(),
            queued: self.account.queued.load(Ordering::Relaxed),
            spooled: None,
            spooled_bytes: None,
            last_delivery: outcome.last_delivery,
            error: failed,
        };
        if let Some(backlog) = self.backlog() {
            health.written = backlog.delivered;
            health.dropped += backlog.lost;
            health.spooled = Some(backlog.waiting);
            health.spooled_bytes = Some(backlog.waiting_bytes);
            health.last_delivery = backlog.last_delivery;
            health.error = health.error.or(backlog.trouble);
        }
        health
    }

    /// What it has taken and not delivered yet, where it sends later.
    pub fn backlog(&self) -> Option<BacklogState> {
        self.backlog.as_ref().map(|backlog| backlog.state())
    }

    fn why(&self, backlog: Option<&BacklogState>) -> String {
        let later = backlog.filter(|backlog| backlog.lost > 0).map(|backlog| &backlog.why);
        match later {
            Some(why) if self.account.dropped() == 0 => why.clone(),
            Some(why) => format!("{}; {why}", self.account.why()),
            None => self.account.why(),
        }
    }

    /// Says on standard error that a receiver does not take what it is sent, and when it does again.
    fn tell_trouble(&mut self, backlog: Option<&BacklogState>) {
        let Some(backlog) = backlog else { return };
        let name = &self.name;
        match (&backlog.trouble, self.troubled) {
            (Some(why), told) if told.is_none_or(|at| at.elapsed() >= WARN_EVERY) => {
                let waiting = match backlog.waiting {
                    0 => String::new(),
                    1 => "; 1 line waits".to_owned(),
                    waiting => format!("; {waiting} lines wait"),
                };
                output::warn(&format!("sink {name}: {why}{waiting}"));
                self.troubled = Some(Instant::now());
            }
            (None, Some(_)) => {
                output::note(&format!("sink {name} delivers again"));
                self.troubled = None;
            }
            _ => {}
        }
    }
}

/// Writes until the queue is closed or the reader has gone away.
fn serve(mut sink: Box<dyn Sink>, lines: &Receiver<Arc<Line>>, account: &Account) {
    let mut warned: Option<Instant> = None;
    let mut unflushed = false;
    loop {
        // Flushed as soon as nothing waits: a finding is not to sit in a buffer.
        let wait = if unflushed { Duration::ZERO } else { Duration::from_secs(3600) };
        let result = match lines.recv_timeout(wait) {
            Ok(line) => {
                unflushed = true;
                account.queued.fetch_sub(1, Ordering::Relaxed);
                sink.write(&line).map(|()| {
                    account.written.fetch_add(1, Ordering::Relaxed);
                    let mut outcome = account.outcome();
                    outcome.last_delivery = Some(now());
                    outcome.mended = true;
                })
            }
            Err(RecvTimeoutError::Timeout) if !unflushed => continue,
            Err(RecvTimeoutError::Timeout) => {
                unflushed = false;
                sink.flush()
            }
            Err(RecvTimeoutError::Disconnected) => {
                let last = sink.flush();
                if let Err(error) = last {
                    output::warn(&format!("sink {}: {}", sink.name(), plain(&error)));
                }
                return;
            }
        };
        let Err(error) = result else { continue };
        account.failed.fetch_add(1, Ordering::Relaxed);
        {
            let mut outcome = account.outcome();
            outcome.error = Some(plain(&error));
            outcome.mended = false;
        }
        if error.kind() == ErrorKind::BrokenPipe {
            return;
        }
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            warned = Some(Instant::now());
            output::warn(&format!("sink {}: {}", sink.name(), plain(&error)));
        }
    }
}
