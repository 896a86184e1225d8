//! Each sink on a thread of its own, behind a bounded queue: a slow or dead one delays nobody, and
//! what it had to drop is counted and reported.

mod check;
mod open;
mod remote;
mod running;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Host, Line, SinkHealth};
use bpfwatch_core::time::Timestamp;

pub use self::check::check;
use self::open::{Ready, open};
pub use self::remote::Place;
use self::running::Running;
use crate::exit::{Code, Failure};
use crate::{config, output};

/// How long sinks may take to write what waits when the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// The sinks of the daemon.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Running>,
    /// Taken away by a reload, and still writing what they had.
    retired: Vec<Running>,
}

impl Sinks {
    /// Opens those of `wanted` that are not among `running`, and starts a thread for each. Nothing starts
    /// before all of them are open: where one cannot be, nothing was sent and nothing has changed.
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
    /// others are taken from `opened`. Those that are not wanted any more write what they have and end.
    pub fn replace(&mut self, wanted: &[config::Sink], mut opened: Sinks) {
        let mut before = std::mem::take(&mut self.sinks);
        for sink in wanted {
            for from in [&mut before, &mut opened.sinks] {
                if let Some(at) = from.iter().position(|running| running.is_of(sink)) {
                    self.sinks.push(from.remove(at));
                    break;
                }
            }
        }
        before.iter_mut().for_each(Running::retire);
        self.retired.append(&mut before);
    }

    fn start(sinks: Vec<(Option<config::Sink>, Ready)>) -> io::Result<Self> {
        let start = |(wanted, ready): (_, Ready)| Running::start(wanted, ready()?);
        let sinks = sinks.into_iter().map(start).collect::<io::Result<_>>()?;
        Ok(Self { sinks, retired: Vec::new() })
    }

    /// Hands a line to every sink; never waits.
    pub fn send(&self, line: Line) {
        let line = Arc::new(line);
        self.sinks.iter().for_each(|sink| sink.send(&line));
    }

    /// Reports to every sink what some of them, and those that were taken away, had to drop since the
    /// last report.
    pub fn report_losses(&mut self, now: Timestamp, host: &Arc<Host>) {
        let mut lines = Vec::new();
        self.retired.retain_mut(|sink| {
            let is_over = sink.is_over();
            lines.extend(sink.loss(now, host));
            !is_over
        });
        lines.extend(self.sinks.iter_mut().filter_map(|sink| sink.loss(now, host)));
        for line in lines {
            self.send(line);
        }
    }

    /// How each fares.
    pub fn health(&self) -> Vec<SinkHealth> {
        self.sinks.iter().map(Running::health).collect()
    }

    /// Whether none is left that could write: each has lost its reader for good.
    pub fn are_gone(&self) -> bool {
        !self.sinks.is_empty() && self.sinks.iter().all(Running::is_over)
    }

    /// Lets them write what waits, and ends them. Names those that did not manage.
    pub fn stop(mut self) {
        self.sinks.append(&mut self.retired);
        self.sinks.iter_mut().for_each(Running::retire);
        let deadline = Instant::now() + DRAIN;
        while !self.sinks.iter().all(Running::is_over) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        for sink in self.sinks.iter().filter(|sink| !sink.is_over()) {
            output::warn(&format!("sink {} did not take all of its lines in time", sink.name()));
        }
        for (sink, state) in self.sinks.iter().filter_map(|sink| Some((sink, sink.backlog()?))) {
            let s = if state.waiting == 1 { "" } else { "s" };
            if state.waiting > 0 {
                output::note(&format!(
                    "sink {}: {} line{s} not delivered: {}",
                    sink.name(),
                    state.waiting,
                    state.fate
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, mpsc};

    use super::running::QUEUE;
    use super::*;
    use crate::config::Transport;
    use bpfwatch_core::finding::Lost;
    use bpfwatch_core::observation::Os;
    use bpfwatch_core::sink::Sink;

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
        let ready = |gate, got| -> Ready { Box::new(move || Ok(Box::new(Fake { gate, got }))) };
        let fakes = vec![
            (None, ready(stuck_wait, Arc::clone(&stuck))),
            (None, ready(free_wait, Arc::clone(&free))),
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

    /// Fails over every line but those that tell of losses, which it keeps.
    struct Sour(mpsc::Receiver<()>, Arc<Mutex<Vec<(u64, String)>>>);

    impl Sink for Sour {
        fn name(&self) -> &str {
            "sour"
        }
        fn write(&mut self, line: &Line) -> io::Result<()> {
            if let Line::Lost(lost) = line
                && lost.sensor.starts_with("sink ")
            {
                self.1.lock().unwrap().push((lost.count, lost.why.clone()));
                return Ok(());
            }
            let _ = self.0.recv();
            Err(io::Error::other("sour"))
        }
    }

    #[test]
    fn losses_of_a_sink_that_was_taken_away_are_told_to_those_that_stay() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (gate, wait) = mpsc::channel();
        let (shut, open) = mpsc::channel();
        drop(shut);
        let stays = config::Sink { format: config::Format::Json, transport: Transport::Stdout };
        let sour = |gate| -> Ready {
            let told = Arc::clone(&told);
            Box::new(move || Ok(Box::new(Sour(gate, told))))
        };
        let fakes = vec![(None, sour(wait)), (Some(stays.clone()), sour(open))];
        let mut sinks = Sinks::start(fakes).unwrap();
        for _ in 0..3 {
            sinks.send(line());
        }
        while sinks.sinks[1].health().dropped < 3 {
            thread::sleep(Duration::from_millis(1));
        }
        sinks.replace(std::slice::from_ref(&stays), Sinks::default());
        assert_eq!((sinks.sinks.len(), sinks.retired.len()), (1, 1));
        let host = Arc::new(Host { name: "h".to_owned(), os: Os::Linux });
        sinks.report_losses(Timestamp::default(), &host);
        assert_eq!(sinks.retired.len(), 1, "it still has lines");
        drop(gate);
        while !sinks.retired.is_empty() {
            sinks.report_losses(Timestamp::default(), &host);
            thread::sleep(Duration::from_millis(1));
        }
        sinks.stop();
        let counts: Vec<u64> = told.lock().unwrap().iter().map(|(count, _)| *count).collect();
        assert_eq!(counts.iter().sum::<u64>(), 6, "three of each: {counts:?}");
    }
}
