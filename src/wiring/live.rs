//! The live loop: what sensors offer goes through the pipeline, and the clock moves what is pending.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::Line;
use bpfwatch_core::observation::{Observation, Origin};
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use bpfwatch_core::platform::{Platform, SensorSettings};
use bpfwatch_core::rules::RuleSet;
use bpfwatch_core::sensor::{self, CHANNEL_BYTES, Inlet, Outlet, Received, Sensor, SensorError};
use bpfwatch_inputs::recording::RecordingWriter;

use crate::exit::{Code, Failure};
use crate::output;
use crate::platform;
use crate::wiring::now;
use crate::wiring::sensors::{self, Sensors};

/// How often engine time follows the clock while something is pending.
const TICK: Duration = Duration::from_millis(250);

/// How long after the start, or after new rules, what only they needed is given back. By then the sensors have
/// taken their first look at everything.
const START: Duration = Duration::from_secs(5);

/// Sensors, channel and pipeline of one live command.
pub struct Live {
    /// The pipeline; a reload puts another one in its place.
    pub pipeline: Pipeline,
    /// The sensors.
    pub sensors: Sensors,
    /// The sensors' end of the channel.
    pub outlet: Outlet,
    origin: Arc<Origin>,
    inlet: Inlet,
    recorder: Option<RecordingWriter>,
    advanced: Instant,
    /// When the start will be over, while it is not.
    starting: Option<Instant>,
    lag: Duration,
    failure: Option<Failure>,
    errors: Vec<SensorError>,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Yes.
    Going,
    /// No: every sensor has ended, or the channel was closed to stop.
    Over,
}

impl Live {
    /// Starts the platform's sensors.
    ///
    /// # Errors
    /// When none can start.
    pub fn start(
        platform: &dyn Platform,
        settings: &SensorSettings,
        pipeline: Pipeline,
    ) -> Result<Self, Failure> {
        Self::with(sensors::open(platform, settings)?, platform.origin(), pipeline)
    }

    /// Starts sensors that are open.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn with(
        sensors: Vec<Box<dyn Sensor>>,
        origin: Origin,
        pipeline: Pipeline,
    ) -> Result<Self, Failure> {
        let (outlet, inlet) = sensor::channel(CHANNEL_BYTES);
        let sensors = Sensors::start(sensors, &outlet).map_err(|error| {
            Failure::new(Code::Software, format!("cannot start a thread: {error}"))
        })?;
        Ok(Self {
            pipeline,
            sensors,
            outlet,
            origin: Arc::new(origin),
            inlet,
            recorder: None,
            advanced: Instant::now(),
            starting: Some(Instant::now() + START),
            lag: Duration::ZERO,
            failure: None,
            errors: Vec::new(),
        })
    }

    /// Keeps every observation in a file, in the order of processing.
    ///
    /// # Errors
    /// When the file exists or cannot be made.
    pub fn record(&mut self, path: &Path) -> Result<(), Failure> {
        let writer = RecordingWriter::create(path, &self.origin, env!("CARGO_PKG_VERSION"))
            .map_err(|error| Failure::new(Code::Io, error.to_string()))?;
        self.recorder = Some(writer);
        Ok(())
    }

    /// See [`Pipeline::set_rules`].
    pub fn set_rules(&mut self, rules: &Arc<RuleSet>, settings: Settings) {
        self.pipeline.set_rules(rules, settings);
        self.starting = Some(Instant::now() + START);
    }

    /// How old the oldest observation was that was taken last.
    pub fn lag(&self) -> Duration {
        self.lag
    }

    /// Waits at most `patience`, processes what came and lets time pass.
    pub fn turn(&mut self, patience: Duration, out: &mut dyn FnMut(Line)) -> Turn {
        let due = self.pipeline.next_due().is_some();
        let received = self.inlet.receive(if due { patience.min(TICK) } else { patience });
        let turn = match received {
            Received::Batch(observations) => {
                self.feed(observations, out);
                Turn::Going
            }
            // Of another place than this machine's sensors, and kept by its file: not recorded.
            Received::From(batch) => {
                self.pipeline.feed(batch, out);
                Turn::Going
            }
            Received::Timeout => Turn::Going,
            Received::Closed => Turn::Over,
        };
        if self.pipeline.next_due().is_some() && self.advanced.elapsed() >= TICK {
            self.pipeline.advance(now(), out);
            self.advanced = Instant::now();
        }
        if self.starting.is_some_and(|over| Instant::now() >= over) {
            self.starting = None;
            platform::settle();
        }
        for error in self.sensors.take_errors() {
            output::warn(&error.to_string());
            self.failure = Some(Failure::sensor(&error));
            self.errors.push(error);
        }
        turn
    }

    fn feed(&mut self, observations: Vec<Observation>, out: &mut dyn FnMut(Line)) {
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = observations.iter().try_for_each(|seen| recorder.write(seen))
        {
            // Watching is worth more than recording: say so and go on.
            output::warn(&error.to_string());
            self.recorder = None;
        }
        // What was there before the start may carry its own, older time: offered it was just now.
        let oldest = observations.iter().map(|seen| seen.at).min();
        self.lag = oldest.map_or(Duration::ZERO, |at| now().since(at));
        let batch = Batch { origin: Arc::clone(&self.origin), observations };
        self.pipeline.feed(batch, out);
    }

    /// Ends the sensors, processes what they still gave and brings out what is pending.
    ///
    /// # Errors
    /// When the recording could not be written to its end.
    pub fn stop(&mut self, out: &mut dyn FnMut(Line)) -> Result<(), Failure> {
        self.sensors.stop();
        loop {
            match self.inlet.receive(Duration::ZERO) {
                Received::Batch(observations) => self.feed(observations, out),
                Received::From(batch) => self.pipeline.feed(batch, out),
                Received::Timeout | Received::Closed => break,
            }
        }
        self.pipeline.finish(out);
        match self.recorder.take().map(|mut recorder| recorder.flush()) {
            Some(Err(error)) => Err(Failure::new(Code::Io, error.to_string())),
            _ => Ok(()),
        }
    }

    /// Sensors that ended since the last call, and why.
    pub fn take_errors(&mut self) -> Vec<SensorError> {
        std::mem::take(&mut self.errors)
    }

    /// Why the last sensor ended, for when none is left.
    pub fn failure(&mut self) -> Option<Failure> {
        let alive = self.sensors.health().iter().any(|sensor| sensor.running);
        if alive { None } else { self.failure.take() }
    }
}
