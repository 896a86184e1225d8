//! The daemon: sensors through the pipeline into the sinks, and everything that makes it one to rely on.
//!
//! | module | duty |
//! |---|---|
//! | [`plan`] | configuration and rules, read and checked; what is to replace them |
//! | [`managed`] | settings of MDM, which change without a signal |
//! | [`telling`] | what it tells of itself, and to whom |
//! | [`status`] | how it fares, as one value |
//! | [`sources`] | what the sensors can see, looked at now and then |
//! | [`control`] | the socket that `bpfwatch status` asks |
//! | [`metrics`], [`exporter`] | the same for Prometheus |
//!
//! The order of the start matters. What needs privileges is opened first, by the main thread: state,
//! sockets, sensors. Then it gives up what is not needed any more, before there is another thread, so
//! that all of them begin without it. Sensors and sources start. Then the main thread confines itself
//! to the directories that are written, and what it starts from then on (sinks, sockets, reloads) is
//! confined with it.

mod control;
mod exporter;
mod managed;
mod metrics;
pub mod plan;
mod sources;
pub mod status;
mod telling;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Host, Level, Line, NoticeEvent, Reload};
use bpfwatch_core::platform::{Check, Platform, ServiceManager, ServiceState};
use bpfwatch_core::time::Timestamp;

use self::control::{Bound, Control};
use self::managed::Managed;
use self::plan::{Next, Plan, Source};
use self::sources::Sources;
use self::status::Board;
use crate::exit::{Code, Failure, Outcome, plain};
use crate::output;
use crate::signals::{Hangup, Signals};
use crate::wiring::follow;
use crate::wiring::live::{Live, Turn};
use crate::wiring::sensors;
use crate::wiring::sinks::{Place, Sinks};
use crate::wiring::state::State;
use crate::wiring::{host, now};

/// Nothing is waited for longer than this in one go: a status is as old at most.
const PATIENCE: Duration = Duration::from_millis(500);
/// The same while a new configuration is being read.
const RELOAD_PATIENCE: Duration = Duration::from_millis(50);
/// What was reported is saved at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// The status is put up at most this often.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// The service manager's status line changes at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The running daemon.
pub struct Daemon {
    source: Source,
    plan: Plan,
    live: Live,
    sinks: Sinks,
    state: State,
    host: Arc<Host>,
    manager: Option<Box<dyn ServiceManager>>,
    sources: Sources,
    hardening: Vec<Check>,
    board: Board,
    /// Takes the status socket away at the end.
    _control: Option<Bound>,
    started: Instant,
    started_at: Timestamp,
    saved: Instant,
    unsaved: bool,
    beat: Instant,
    published: Option<Instant>,
    told: Instant,
    alive: Instant,
    managed: Managed,
    reloading: Option<JoinHandle<Result<Next, Failure>>>,
    /// Another one was asked for meanwhile.
    reload_again: bool,
    reload: Option<Reload>,
    reloads: (u64, u64),
}

impl Daemon {
    /// Opens all that is needed, gives up what is not, and starts to watch.
    ///
    /// # Errors
    /// When something of it cannot be opened.
    pub fn start(source: Source, plan: Plan, platform: &dyn Platform) -> Result<Self, Failure> {
        let managed = Managed::new(crate::platform::MANAGED.map(PathBuf::from));
        let state = State::open(&plan.config.state_dir)?;
        let mut pipeline = plan.pipeline();
        let restored = state.load().and_then(|value| match value {
            Some(value) => pipeline.restore(&value),
            None => Ok(()),
        });
        if let Err(error) = restored {
            output::warn(&format!("what was reported before is not known: {error}"));
        }
        let control = plan.config.status.socket.as_deref().and_then(|path| {
            let bound = Control::bind(path);
            let said = |error: &std::io::Error| {
                let error = plain(error);
                output::warn(&format!("no status socket at {}: {error}", path.display()));
            };
            bound.inspect_err(said).ok()
        });
        let listener = match plan.config.metrics.listen {
            Some(address) => Some(exporter::bind(address).map_err(|error| {
                let what = format!("cannot listen at {address}: {}", plain(&error));
                Failure::new(Code::Unavailable, what).next("choose another [metrics] listen")
            })?),
            None => None,
        };
        let origin = platform.origin();
        let host = host(&origin);
        let mut sensors = sensors::open(platform, &plan.config.sensors.settings())?;
        // Afterwards: it tells how they watch, and need not try what they have tried.
        let coverage = platform.coverage();
        sensors.extend(follow::sensor(&plan.config.inputs, &state, &origin)?);

        // What the sensors need is open, and there is no other thread yet.
        let settings = plan.hardening();
        let mut hardening =
            platform.reduce(&settings).map_err(|error| plan::refused_hardening(&error))?;
        let live = Live::with(sensors, origin, pipeline)?;
        let sources = Sources::watch(coverage).map_err(|error| no_thread(&error))?;
        hardening.extend(platform.confine(&settings));

        let place = Place { state_dir: plan.config.state_dir.clone(), host: Arc::clone(&host) };
        let sinks =
            Sinks::open(&plan.config.sinks, &[], &place).map_err(|failure| less(failure, &plan))?;
        let board = Board::default();
        let now_instant = Instant::now();
        let mut daemon = Self {
            source,
            plan,
            live,
            sinks,
            state,
            host,
            manager: platform.service_manager(),
            sources,
            hardening,
            board: board.clone(),
            _control: None,
            started: now_instant,
            started_at: now(),
            saved: now_instant,
            unsaved: false,
            beat: now_instant,
            published: None,
            told: now_instant,
            alive: now_instant,
            managed,
            reloading: None,
            reload_again: false,
            reload: None,
            reloads: (0, 0),
        };
        daemon.publish();
        if let Some(control) = control {
            let bound = control.serve(board.clone()).map_err(|error| no_thread(&error))?;
            daemon._control = Some(bound);
        }
        if let Some(listener) = listener {
            exporter::serve(listener, board.clone()).map_err(|error| no_thread(&error))?;
        }
        let metrics = &daemon.plan.config.metrics;
        if let Some(path) = &metrics.textfile {
            let interval = Duration::from_secs(metrics.interval_s);
            exporter::write_file(path.clone(), interval, board)
                .map_err(|error| Failure::file("write the metrics", path, &error))
                .map_err(|failure| less(failure, &daemon.plan))?;
        }
        Ok(daemon)
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When every sensor has ended.
    pub fn serve(mut self) -> Outcome {
        let outlet = self.live.outlet.clone();
        let signals = Signals::catch(Hangup::Reloads, move || outlet.close())
            .map_err(|error| Failure::new(Code::Software, format!("signals: {error}")))?;
        self.announce("started");
        self.heartbeat();
        self.tell(ServiceState::Ready(&self.in_short()));
        let mut failure = None;
        while !signals.stop() {
            let turn = self.turn();
            self.report_sensors();
            if turn == Turn::Over && !signals.stop() {
                failure = Some(self.live.failure().unwrap_or_else(|| {
                    Failure::new(Code::Unavailable, "every sensor has ended")
                        .next("`bpfwatch doctor` shows what can be seen here")
                }));
                break;
            }
            if self.sinks.are_gone() {
                output::warn("nobody reads the output any more: stopping");
                break;
            }
            self.sinks.report_losses(now(), &self.host);
            self.look_after();
            if signals.take_reload() || self.managed.has_changed() {
                self.begin_reload();
            }
            self.end_reload();
        }
        self.tell(ServiceState::Stopping);
        output::note("stopping");
        // Before the sensors end: how they fared until now.
        self.heartbeat();
        let (sinks, level) = (&self.sinks, self.plan.config.level);
        let stopped = self.live.stop(&mut |line| send(sinks, level, line));
        self.save();
        std::mem::take(&mut self.sinks).stop();
        output::note(&format!("stopped after {} s", self.started.elapsed().as_secs()));
        stopped?;
        failure.map_or(Ok(Code::Ok), Err)
    }

    fn turn(&mut self) -> Turn {
        let patience = if self.reloading.is_some() { RELOAD_PATIENCE } else { PATIENCE };
        // The service manager wants to hear of us twice in the time that it waits.
        let watchdog = self.manager.as_ref().and_then(|manager| manager.watchdog());
        let patience = watchdog.map_or(patience, |wait| patience.min(wait / 4));
        let (sinks, level) = (&self.sinks, self.plan.config.level);
        let unsaved = &mut self.unsaved;
        let turn = self.live.turn(patience, &mut |line| {
            *unsaved = true;
            send(sinks, level, line);
        });
        if watchdog.is_some_and(|wait| self.alive.elapsed() >= wait / 4) {
            self.alive = Instant::now();
            self.tell(ServiceState::Alive);
        }
        turn
    }

    /// What is due by the clock.
    fn look_after(&mut self) {
        let interval = Duration::from_secs(self.plan.config.heartbeat.interval_s);
        if !interval.is_zero() && self.beat.elapsed() >= interval {
            self.heartbeat();
        }
        if self.unsaved && self.saved.elapsed() >= SAVE_EVERY {
            self.save();
        }
        if self.published.is_none_or(|at| at.elapsed() >= STATUS_EVERY) {
            self.publish();
        }
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.tell(ServiceState::Status(&self.in_short()));
        }
    }

    /// A sensor that ended is said where findings go: what it would have seen is not seen.
    fn report_sensors(&mut self) {
        for error in self.live.take_errors() {
            self.notice(Level::High, NoticeEvent::SensorStopped, error.to_string());
        }
    }

    /// Reads the configuration again, beside the watching.
    fn begin_reload(&mut self) {
        if self.reloading.is_some() {
            self.reload_again = true;
            return;
        }
        self.tell(ServiceState::Reloading);
        let (source, running) = (self.source.clone(), self.plan.config.clone());
        let place = Place { state_dir: running.state_dir.clone(), host: Arc::clone(&self.host) };
        let prepare = move || Next::prepare(&source, &running, &place);
        match thread::Builder::new().name("reload".to_owned()).spawn(prepare) {
            Ok(thread) => self.reloading = Some(thread),
            Err(error) => self.refuse(&no_thread(&error)),
        }
    }

    /// Puts a new configuration in force once it is ready, all of it or nothing.
    fn end_reload(&mut self) {
        let Some(thread) = self.reloading.take_if(|thread| thread.is_finished()) else { return };
        match thread.join() {
            Ok(Ok(next)) => self.take(next),
            Ok(Err(failure)) => self.refuse(&failure),
            Err(_) => self.refuse(&Failure::new(Code::Software, "reading it panicked")),
        }
        if std::mem::take(&mut self.reload_again) {
            self.begin_reload();
        }
    }

    /// Sensors, sessions and what was reported stay; rules, sinks and levels change.
    fn take(&mut self, Next { plan, opened }: Next) {
        let redact = plan.config.redact != self.plan.config.redact;
        if redact || plan.rules.digest != self.plan.rules.digest {
            self.live.set_rules(&plan.rules.set, plan.settings());
        }
        self.sinks.replace(&plan.config.sinks, opened);
        self.plan = plan;
        self.reloads.0 += 1;
        self.reload = Some(Reload { time: now(), taken: true, error: None });
        self.unsaved = true;
        self.announce("read the configuration again");
        self.after_reload();
    }

    fn refuse(&mut self, failure: &Failure) {
        let what = format!("the new configuration is not taken, the old one goes on: {failure}");
        output::warn(&what);
        self.reloads.1 += 1;
        let error = Some(failure.to_string().replace("\n  next: ", "; "));
        self.reload = Some(Reload { time: now(), taken: false, error });
        self.notice(Level::Medium, NoticeEvent::ReloadRefused, what.replace("\n  next: ", "; "));
        self.after_reload();
    }

    fn after_reload(&mut self) {
        self.heartbeat();
        self.publish();
        self.tell(ServiceState::Ready(&self.in_short()));
    }

    fn save(&mut self) {
        self.saved = Instant::now();
        match self.state.save(&self.live.pipeline.state()) {
            Ok(()) => self.unsaved = false,
            Err(error) => output::warn(&error),
        }
    }
}

/// What root could do before it gave that up needs a hint.
fn less(failure: Failure, plan: &Plan) -> Failure {
    if failure.code != Code::NoPermission || !plan.config.hardening.enabled {
        return failure;
    }
    failure.next(
        "give its directory to root, or set keep_capabilities = [\"CAP_DAC_OVERRIDE\"] in [hardening]",
    )
}

fn no_thread(error: &std::io::Error) -> Failure {
    Failure::new(Code::Software, format!("cannot start a thread: {error}"))
}

fn send(sinks: &Sinks, level: Level, line: Line) {
    if output::is_wanted(&line, level) {
        sinks.send(line);
    }
}
