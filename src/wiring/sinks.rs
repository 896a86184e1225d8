//! Each sink on a thread of its own, behind a bounded queue: a slow or dead one delays nobody, and
//! what it had to drop is counted and reported.

mod check;
mod open;
mod remote;

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Host, Line, Lost, SinkHealth};
use bpfwatch_core::sink::{Backlog, BacklogState, Sink};
use bpfwatch_core::time::Timestamp;

pub use self::check::check;
use self::open::open;
pub use self::remote::Place;
use crate::exit::{Code, Failure};
use crate::wiring::now;
use crate::{config, output};

/// Lines that wait for one sink. A line is some kilobytes, at most about 100.
const QUEUE: usize = 1024;
/// Losses of one sink are reported at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// A sink that fails again and again is named on standard error at most this often.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// How long sinks may take to write what waits when the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// The sinks of the daemon.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Running>,
}

struct Running {
    name: String,
    /// What it was opened from.
    wanted: Option<config::Sink>,
    queue: SyncSender<Arc<Line>>,
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

impl Sinks {
    /// Opens those of `wanted` that are not among `running`, and starts a thread for each.
    ///
    /// # Errors
    /// When one cannot be opened, or the system gives no thread.
    pub fn open(
        wanted: &[config::Sink],
        running: &[config::Sink],
        place: &Place,
    ) -> Result<Self, Failure> {
        remote::check_spools(wanted, place)?;
        let mut running = running.to_vec();
        let mut sinks = Vec::new();
        for sink in wanted {
            match running.iter().position(|known| known == sink) {
                Some(at) => {
                    running.swap_remove(at);
                }
                None => sinks.push((Some(sink.clone()), open(sink, place)?)),
            }
        }
        Self::start(sinks).map_err(|error| {
            Failure::new(Code::Software, format!("cannot start a thread: {error}"))
        })
    }

    /// Puts the sinks `wanted` in force: those that run already go on with their queues and accounts, the
    /// others are taken from `opened`. Gives back those that are not wanted any more, to be stopped.
    #[must_use]
    pub fn replace(&mut self, wanted: &[config::Sink], mut opened: Sinks) -> Sinks {
        let mut before = std::mem::take(&mut self.sinks);
        for sink in wanted {
            for from in [&mut before, &mut opened.sinks] {
                let known = |running: &Running| running.wanted.as_ref() == Some(sink);
                if let Some(at) = from.iter().position(known) {
                    self.sinks.push(from.remove(at));
                    break;
                }
            }
        }
        Sinks { sinks: before }
    }

    fn start(sinks: Vec<(Option<config::Sink>, Box<dyn Sink>)>) -> io::Result<Self> {
        let mut running = Vec::new();
        for (wanted, sink) in sinks {
            let name = sink.name().to_owned();
            let (queue, lines) = mpsc::sync_channel(QUEUE);
            let account = Arc::new(Account::default());
            let backlog = sink.backlog();
            let own = Arc::clone(&account);
            let thread = thread::Builder::new()
                .name("sink".to_owned())
                .spawn(move || serve(sink, &lines, &own))?;
            running.push(Running {
                name,
                wanted,
                queue,
                account,
                backlog,
                troubled: None,
                thread,
                reported: 0,
                reported_at: None,
            });
        }
        Ok(Self { sinks: running })
    }

    /// Hands a line to every sink; never waits.
    pub fn send(&self, line: Line) {
        let line = Arc::new(line);
        for sink in &self.sinks {
            // Counted before it can be taken out again.
            sink.account.queued.fetch_add(1, Ordering::Relaxed);
            if sink.queue.try_send(Arc::clone(&line)).is_err() {
                sink.account.queued.fetch_sub(1, Ordering::Relaxed);
                sink.account.shed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Reports to every sink what some of them had to drop since the last report.
    pub fn report_losses(&mut self, now: Timestamp, host: &Arc<Host>) {
        let mut lines = Vec::new();
        for sink in &mut self.sinks {
            let backlog = sink.backlog();
            sink.tell_trouble(backlog.as_ref());
            let later = backlog.as_ref().map_or(0, |backlog| backlog.lost);
            let dropped = sink.account.dropped() + later;
            let early = sink.reported_at.is_some_and(|at| at.elapsed() < REPORT_EVERY);
            if dropped > sink.reported && !early {
                lines.push(Line::Lost(Box::new(Lost {
                    time: now,
                    host: Arc::clone(host),
                    sensor: format!("sink {}", sink.name),
                    count: dropped - sink.reported,
                    why: sink.why(backlog.as_ref()),
                })));
                sink.reported = dropped;
                sink.reported_at = Some(Instant::now());
            }
        }
        for line in lines {
            self.send(line);
        }
    }

    /// How each fares.
    pub fn health(&self) -> Vec<SinkHealth> {
        let health = |sink: &Running| {
            let outcome = sink.account.outcome();
            let failed = outcome.error.clone().filter(|_| !outcome.mended);
            let mut health = SinkHealth {
                name: sink.name.clone(),
                written: sink.account.written.load(Ordering::Relaxed),
                dropped: sink.account.dropped(),
                queued: sink.account.queued.load(Ordering::Relaxed),
                spooled: None,
                spooled_bytes: None,
                last_delivery: outcome.last_delivery,
                error: failed,
            };
            if let Some(backlog) = sink.backlog() {
                health.written = backlog.delivered;
                health.dropped += backlog.lost;
                health.spooled = Some(backlog.waiting);
                health.spooled_bytes = Some(backlog.waiting_bytes);
                health.last_delivery = backlog.last_delivery;
                health.error = health.error.or(backlog.trouble);
            }
            health
        };
        self.sinks.iter().map(health).collect()
    }

    /// Whether none is left that could write: each has lost its reader for good.
    pub fn are_gone(&self) -> bool {
        !self.sinks.is_empty() && self.sinks.iter().all(|sink| sink.thread.is_finished())
    }

    /// Lets them write what waits, and ends them. Names those that did not manage.
    pub fn stop(self) {
        let mut threads = Vec::new();
        let mut backlogs = Vec::new();
        for Running { name, queue, thread, backlog, .. } in self.sinks {
            drop(queue);
            backlogs.extend(backlog.map(|backlog| (name.clone(), backlog)));
            threads.push((name, thread));
        }
        let deadline = Instant::now() + DRAIN;
        while threads.iter().any(|(_, thread)| !thread.is_finished()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        for (name, thread) in threads {
            if !thread.is_finished() {
                output::warn(&format!("sink {name} did not take all of its lines in time"));
            }
        }
        for (name, backlog) in backlogs {
            let state = backlog.state();
            let s = if state.waiting == 1 { "" } else { "s" };
            if state.waiting > 0 {
                output::note(&format!(
                    "sink {name}: {} line{s} not delivered: {}",
                    state.waiting, state.fate
                ));
            }
        }
    }
}

impl Running {
    fn backlog(&self) -> Option<BacklogState> {
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
                    output::warn(&format!("sink {}: {error}", sink.name()));
                }
                return;
            }
        };
        let Err(error) = result else { continue };
        account.failed.fetch_add(1, Ordering::Relaxed);
        {
            let mut outcome = account.outcome();
            outcome.error = Some(error.to_string());
            outcome.mended = false;
        }
        if error.kind() == ErrorKind::BrokenPipe {
            return;
        }
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            warned = Some(Instant::now());
            output::warn(&format!("sink {}: {error}", sink.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfwatch_core::observation::Os;

    struct Fake {
        gate: mpsc::Receiver<()>,
        got: Arc<AtomicU64>,
    }

    impl Sink for Fake {
        fn name(&self) -> &str {
            "fake"
        }
        fn write(&mut self, _: &Line) -> io::Result<()> {
            // Blocks until the test lets go.
            let _ = self.gate.recv();
            self.got.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn line() -> Line {
        let host = Arc::new(Host { name: "h".to_owned(), os: Os::Linux });
        Line::Lost(Box::new(Lost {
            time: Timestamp::default(),
            host,
            sensor: "s".to_owned(),
            count: 1,
            why: "w".to_owned(),
        }))
    }

    #[test]
    fn a_stuck_sink_delays_no_other_and_its_losses_are_counted() {
        let (stuck_gate, stuck_wait) = mpsc::channel();
        let (free_gate, free_wait) = mpsc::channel::<()>();
        drop(free_gate);
        let (stuck, free) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let fakes: Vec<(_, Box<dyn Sink>)> = vec![
            (None, Box::new(Fake { gate: stuck_wait, got: Arc::clone(&stuck) })),
            (None, Box::new(Fake { gate: free_wait, got: Arc::clone(&free) })),
        ];
        let mut sinks = Sinks::start(fakes).unwrap();
        let sent = QUEUE as u64 + 500;
        for index in 0..sent {
            sinks.send(line());
            while free.load(Ordering::Relaxed) <= index {
                thread::sleep(Duration::from_micros(50));
            }
        }
        let health = sinks.health();
        // One is in the stuck sink's hands, a queueful waits, the rest is dropped.
        assert_eq!(health[0].dropped, sent - QUEUE as u64 - 1);
        assert_eq!((health[1].dropped, health[1].written), (0, sent));
        let host = Arc::new(Host { name: "h".to_owned(), os: Os::Linux });
        sinks.report_losses(Timestamp::default(), &host);
        while free.load(Ordering::Relaxed) == sent {
            thread::sleep(Duration::from_micros(50));
        }
        drop(stuck_gate);
        sinks.stop();
        assert_eq!(stuck.load(Ordering::Relaxed), QUEUE as u64 + 1);
    }
}
