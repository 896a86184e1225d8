//! `run`: the daemon.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Coverage, Heartbeat, Host, Level, Line};
use bpfwatch_core::pipeline::{Counters, Pipeline, Settings};
use bpfwatch_core::platform::Platform;
use bpfwatch_core::sensor::Outlet;
use clap::Args;

use crate::config::Config;
use crate::exit::{Code, Failure, Outcome};
use crate::output;
use crate::platform;
use crate::signals::{Hangup, Signals};
use crate::wiring::live::{Live, Turn};
use crate::wiring::rules::{self, Loaded};
use crate::wiring::sinks::{self, Sinks};
use crate::wiring::state::State;
use crate::wiring::{host, now, warn_unprivileged};

/// Nothing is waited for longer than this in one go: a reload waits as long at most.
const PATIENCE: Duration = Duration::from_millis(500);
/// What was reported is saved at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Run as a daemon: findings go to the sinks of the configuration
#[derive(Debug, Args)]
#[command(after_help = "\
It stays in the foreground, as service managers want it. SIGHUP makes it read the
configuration and the rules again and open its files anew; if something is wrong with
them it says so and goes on with the old ones. SIGTERM and SIGINT end it.
Configuration and rules are taken only from files that nobody but root and the user it
runs as can write.

Examples:
  bpfwatch run
  bpfwatch run --config /etc/bpfwatch/bpfwatch.toml --strict-rules
  kill -HUP $(pidof bpfwatch)")]
pub struct Run {
    /// The configuration, instead of the system's own.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not start, with exit code 65, if a rule is refused.
    #[arg(long)]
    strict_rules: bool,
}

/// What a configuration asks for, read and checked, but not yet in force.
struct Plan {
    config: Config,
    rules: Loaded,
}

/// The running daemon.
struct Daemon {
    command: Run,
    platform: Box<dyn Platform>,
    plan: Plan,
    live: Live,
    sinks: Sinks,
    state: State,
    host: Arc<Host>,
    started: Instant,
    /// Counted before the last reload.
    before: Counters,
    saved: Instant,
    unsaved: bool,
    beat: Instant,
    /// The channel that a signal closes: a reload opens a new one.
    channel: Arc<Mutex<Outlet>>,
}

impl Run {
    /// Runs until told to stop.
    pub fn run(self) -> Outcome {
        let plan = self.plan()?;
        warn_unprivileged();
        let platform = platform::current();
        let state = State::open(&plan.config.state_dir)?;
        let mut pipeline = plan.pipeline();
        match state.load() {
            Ok(Some(value)) => {
                if let Err(error) = pipeline.restore(&value) {
                    output::warn(&format!("what was reported before is not known: {error}"));
                }
            }
            Ok(None) => {}
            Err(error) => output::warn(&format!("what was reported before is not known: {error}")),
        }
        let sinks = plan.sinks()?;
        let live = Live::start(&*platform, &plan.config.sensors.settings(), pipeline)?;
        let host = host(live.origin());
        let now = Instant::now();
        let channel = Arc::new(Mutex::new(live.outlet.clone()));
        let mut daemon = Daemon {
            command: self,
            platform,
            plan,
            live,
            sinks,
            state,
            host,
            started: now,
            before: Counters::default(),
            saved: now,
            unsaved: false,
            beat: now,
            channel,
        };
        daemon.serve()
    }

    /// Reads configuration and rules, and checks that they may be believed.
    fn plan(&self) -> Result<Plan, Failure> {
        let (config, _) = Config::load_trusted(self.config.as_deref())?;
        let rules = rules::load_trusted(&config.rules)?;
        if self.strict_rules {
            rules::warn(&rules);
            rules::strict(&rules)?;
        }
        Ok(Plan { config, rules })
    }
}

impl Plan {
    fn pipeline(&self) -> Pipeline {
        let settings = Settings { redact: self.config.redact };
        Pipeline::new(Arc::clone(&self.rules.set), settings)
    }

    fn sinks(&self) -> Result<Sinks, Failure> {
        let sinks = self.config.sinks.iter().map(sinks::open).collect::<Result<_, _>>()?;
        Sinks::start(sinks).map_err(|error| {
            Failure::new(Code::Software, format!("cannot start a thread: {error}"))
        })
    }
}

impl Daemon {
    fn serve(&mut self) -> Outcome {
        let channel = Arc::clone(&self.channel);
        let wake = move || channel.lock().unwrap_or_else(PoisonError::into_inner).close();
        let signals = Signals::catch(Hangup::Reloads, wake)
            .map_err(|error| Failure::new(Code::Software, format!("signals: {error}")))?;
        self.announce("started");
        self.heartbeat();
        let mut failure = None;
        while !signals.stop() {
            let turn = self.turn();
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
            let interval = Duration::from_secs(self.plan.config.heartbeat.interval_s);
            if !interval.is_zero() && self.beat.elapsed() >= interval {
                self.heartbeat();
            }
            if self.unsaved && self.saved.elapsed() >= SAVE_EVERY {
                self.save();
            }
            if signals.take_reload() {
                match self.reload() {
                    Ok(()) => self.announce("read the configuration again"),
                    Err(failure) => output::warn(&format!(
                        "the new configuration is not taken, the old one goes on: {failure}"
                    )),
                }
            }
        }
        // Before the sensors end: how they fared until now.
        self.heartbeat();
        let (sinks, level) = (&self.sinks, self.plan.config.level);
        let stopped = self.live.stop(&mut |line| send(sinks, level, line));
        self.save();
        std::mem::take(&mut self.sinks).stop();
        output::note("stopped");
        stopped?;
        failure.map_or(Ok(Code::Ok), Err)
    }

    fn turn(&mut self) -> Turn {
        let (sinks, level) = (&self.sinks, self.plan.config.level);
        let unsaved = &mut self.unsaved;
        self.live.turn(PATIENCE, &mut |line| {
            *unsaved = true;
            send(sinks, level, line);
        })
    }

    /// Puts a new configuration in force, all of it or nothing. Sensors start anew: what was reported
    /// is handed on, so that nothing is reported twice.
    fn reload(&mut self) -> Result<(), Failure> {
        let plan = self.command.plan()?;
        if plan.config.state_dir != self.plan.config.state_dir {
            let failure = Failure::new(Code::Config, "state_dir cannot change while running");
            return Err(failure.next("restart the daemon for that"));
        }
        let sinks = plan.sinks()?;
        let settings = plan.config.sensors.settings();
        let live = Live::start(&*self.platform, &settings, plan.pipeline())?;
        // Nothing can fail from here on.
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = live.outlet.clone();
        let mut old = std::mem::replace(&mut self.live, live);
        let old_sinks = std::mem::replace(&mut self.sinks, sinks);
        let level = self.plan.config.level;
        if let Err(failure) = old.stop(&mut |line| send(&old_sinks, level, line)) {
            output::warn(&failure.to_string());
        }
        old_sinks.stop();
        self.before = sum(self.before, old.pipeline.counters());
        if let Err(error) = self.live.pipeline.restore(&old.pipeline.state()) {
            output::warn(&format!("what was reported before is not known: {error}"));
        }
        self.plan = plan;
        self.unsaved = true;
        self.heartbeat();
        Ok(())
    }

    fn announce(&self, what: &str) {
        rules::warn(&self.plan.rules);
        let sensors = self.live.sensors.names();
        let sinks: Vec<String> = self.sinks.health().into_iter().map(|sink| sink.name).collect();
        output::note(&format!(
            "{what}: sensors {}; {} rules, {} refused; sinks {}",
            sensors.join(", "),
            self.plan.rules.set.rules().len(),
            self.plan.rules.refused(),
            sinks.join(", ")
        ));
    }

    fn save(&mut self) {
        self.saved = Instant::now();
        match self.state.save(&self.live.pipeline.state()) {
            Ok(()) => self.unsaved = false,
            Err(error) => output::warn(&error),
        }
    }

    fn heartbeat(&mut self) {
        self.beat = Instant::now();
        let counters = sum(self.before, self.live.pipeline.counters());
        let rules = &self.plan.rules;
        self.sinks.send(Line::Heartbeat(Box::new(Heartbeat {
            time: now(),
            host: Arc::clone(&self.host),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.started.elapsed().as_secs(),
            sensors: self.live.sensors.health(),
            rules_loaded: rules.set.rules().len() as u64,
            rules_refused: rules.refused() as u64,
            observations: counters.observations,
            findings: counters.findings,
            withheld: counters.withheld,
            folded: counters.folded,
            forgotten: counters.forgotten,
            lost: counters.lost,
            backlog_bytes: self.live.outlet.backlog() as u64,
            lag_ms: u64::try_from(self.live.lag().as_millis()).unwrap_or(u64::MAX),
            coverage: Coverage::default(),
            reload: None,
            sinks: self.sinks.health(),
        })));
    }
}

fn send(sinks: &Sinks, level: Level, line: Line) {
    if output::is_wanted(&line, level) {
        sinks.send(line);
    }
}

fn sum(a: Counters, b: Counters) -> Counters {
    Counters {
        observations: a.observations + b.observations,
        findings: a.findings + b.findings,
        withheld: a.withheld + b.withheld,
        folded: a.folded + b.folded,
        forgotten: a.forgotten + b.forgotten,
        lost: a.lost + b.lost,
    }
}
