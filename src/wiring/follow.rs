//! The daemon's `[[input]]`s: one thread that follows all of them, and remembers how far it came.
//!
//! A position is written down only when the engine has taken all that was read before it: after a crash
//! some records may come twice, and none is passed over.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_core::observation::{Kind, Observation, Origin};
use bpfwatch_core::pipeline::Batch;
use bpfwatch_core::sensor::{Outlet, Sensor, SensorError};
use bpfwatch_core::text::Text;
use bpfwatch_inputs::follow::{Follower, Position, Start, Turn};
use bpfwatch_inputs::reader::{Delivery, Options};

use super::inputs::formats;
use super::now;
use super::state::State;
use crate::config::Input;
use crate::exit::{Code, Failure};
use crate::output;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often positions are written down.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// How long a file that cannot be read is left alone.
const RETRY: Duration = Duration::from_secs(5);
/// Bad records of a file that are shown one by one; all are counted.
const SHOWN: u64 = 20;
/// The name in health and in losses.
const NAME: &str = "inputs";

/// The sensor that follows the inputs; `None` where there are none.
///
/// # Errors
/// When a format is unknown.
pub fn sensor(
    inputs: &[Input],
    state: &State,
    origin: &Origin,
) -> Result<Option<Box<dyn Sensor>>, Failure> {
    if inputs.is_empty() {
        return Ok(None);
    }
    check(inputs, origin)?;
    // Decided before the daemon says that it has started, not when the thread comes to look: a file that
    // appears in between is new, and read from its beginning.
    let starts = inputs.iter().map(|input| match std::fs::metadata(&input.path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Start::Beginning,
        _ => Start::End,
    });
    Ok(Some(Box::new(Inputs {
        inputs: inputs.iter().cloned().zip(starts).collect(),
        state: state.beside("inputs.json"),
        origin: origin.clone(),
        stop: Arc::default(),
    })))
}

/// Whether these files can be followed; opens none.
///
/// # Errors
/// When a format is not known.
pub fn check(inputs: &[Input], origin: &Origin) -> Result<(), Failure> {
    let formats = formats();
    let decoders: Vec<&dyn LineDecoder> = formats.iter().map(AsRef::as_ref).collect();
    for input in inputs {
        Follower::new(&input.path, &decoders, options(input, origin), Start::End).map_err(|e| {
            let what = format!("[[input]] {}: {e}", input.path.display());
            Failure::new(Code::Config, what).next("mend `format` in the configuration")
        })?;
    }
    Ok(())
}

fn options(input: &Input, origin: &Origin) -> Options {
    let host = input.host.as_deref().map_or_else(|| origin.host.clone(), Text::from);
    Options { input: input.format.clone(), host: Some(host), os: input.os, workers: None }
}

/// See the module.
struct Inputs {
    /// Each with where it is read from when its position is not known.
    inputs: Vec<(Input, Start)>,
    state: State,
    origin: Origin,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

/// One file and how it fares.
struct Followed<'a> {
    follower: Follower<'a>,
    problems: u64,
    error: Option<String>,
    retry_at: Option<Instant>,
}

impl Sensor for Inputs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let stop = Arc::clone(&self.stop);
        Box::new(move || {
            *stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            stop.1.notify_all();
        })
    }

    fn run(self: Box<Self>, outlet: &Outlet) -> Result<(), SensorError> {
        let formats = formats();
        let decoders: Vec<&dyn LineDecoder> = formats.iter().map(AsRef::as_ref).collect();
        let mut positions = self.positions();
        let mut files = Vec::new();
        for (input, start) in &self.inputs {
            let known = positions.remove(&input.path.display().to_string());
            let start = known.map_or_else(|| start.clone(), Start::At);
            let options = options(input, &self.origin);
            let follower = Follower::new(&input.path, &decoders, options, start);
            let follower = follower.map_err(|error| SensorError {
                sensor: NAME,
                what: error.to_string(),
                mend: None,
            })?;
            files.push(Followed { follower, problems: 0, error: None, retry_at: None });
        }
        let mut saved = Instant::now();
        while !self.is_stopped() {
            let mut busy = false;
            for file in &mut files {
                match file.turn(outlet) {
                    Turn::More => busy = true,
                    Turn::Idle => {}
                    Turn::Stopped => return Ok(()),
                }
            }
            if saved.elapsed() >= SAVE_EVERY && outlet.is_fed() {
                self.save(&files);
                saved = Instant::now();
            }
            if !busy {
                self.wait();
            }
        }
        for file in &mut files {
            file.follower.finish(&mut |delivery| give(outlet, delivery));
        }
        // What was fed last is taken before the program ends.
        self.save(&files);
        Ok(())
    }
}

impl Inputs {
    fn is_stopped(&self) -> bool {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        let stopped = self.stop.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.stop.1.wait_timeout_while(stopped, LOOK_EVERY, |stopped| !*stopped);
        drop(waited);
    }

    fn positions(&self) -> BTreeMap<String, Position> {
        let value = match self.state.load() {
            Ok(value) => value.unwrap_or_default(),
            Err(error) => {
                output::warn(&format!("where the inputs were left is not known: {error}"));
                return BTreeMap::new();
            }
        };
        serde_json::from_value(value).unwrap_or_default()
    }

    fn save(&self, files: &[Followed<'_>]) {
        let positions: BTreeMap<String, Position> = files
            .iter()
            .filter_map(|file| Some((file.follower.name().to_string(), file.follower.position()?)))
            .collect();
        let saved = serde_json::to_value(positions).map_err(|error| error.to_string());
        if let Err(error) = saved.and_then(|value| self.state.save(&value)) {
            output::warn(&error);
        }
    }
}

impl Followed<'_> {
    fn turn(&mut self, outlet: &Outlet) -> Turn {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return Turn::Idle;
        }
        let Self { follower, problems, .. } = self;
        let turn = follower.turn(now(), &mut |delivery| {
            if let Delivery::Problem(problem) = &delivery {
                *problems += 1;
                if *problems <= SHOWN {
                    output::warn(&problem.to_string());
                }
                if *problems == SHOWN {
                    output::warn(&format!(
                        "{}: more bad records are counted, but not shown",
                        problem.source
                    ));
                }
                outlet.lost(now(), &Arc::from(NAME), 1, &format!("{}: bad record", problem.source));
            }
            give(outlet, delivery)
        });
        match turn {
            Ok(turn) => {
                (self.error, self.retry_at) = (None, None);
                turn
            }
            Err(error) => {
                let error = error.to_string();
                self.retry_at = Some(Instant::now() + RETRY);
                // Said once, and then again only when it is another one.
                if self.error.as_ref() != Some(&error) {
                    output::warn(&error);
                    outlet.lost(now(), &Arc::from(NAME), 0, &error);
                    self.error = Some(error);
                }
                Turn::Idle
            }
        }
    }
}

/// Hands a batch to the engine; a loss goes where losses of this machine go.
fn give(outlet: &Outlet, delivery: Delivery) -> ControlFlow<()> {
    let Delivery::Batch(Batch { origin, observations }) = delivery else {
        return ControlFlow::Continue(());
    };
    let (lost, seen): (Vec<Observation>, Vec<Observation>) =
        observations.into_iter().partition(|seen| matches!(seen.kind, Kind::Lost { .. }));
    for Observation { at, sensor, actor, kind, .. } in lost {
        outlet.offer(at, &sensor, actor, kind);
    }
    if seen.is_empty() || outlet.feed(Batch { origin, observations: seen }) {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}
