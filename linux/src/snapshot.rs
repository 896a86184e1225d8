//! `scan`: who holds what now. It is the first look of a sensor that then ends.

use std::sync::Arc;

use bpfwatch_core::ancestors::with_ancestors;
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::sensor::SensorError;

use crate::clock;
use crate::proc_facts::Home;
use crate::sensor_state::{Look, State};
use crate::sensor_table::Shared;

/// `Running` for the holders and their ancestors, oldest first, then interfaces and handles.
///
/// # Errors
/// When nothing at all can be seen.
pub fn take() -> Result<Vec<Observation>, SensorError> {
    // A thread of its own: the look enters namespaces, and the caller's thread should not.
    let look = std::thread::Builder::new()
        .name("linux.snapshot".to_owned())
        .spawn(look)
        .map_err(|error| fail(&error))?;
    look.join().unwrap_or_else(|_| Err(fail(&"the thread ended")))
}

fn fail(error: &dyn std::fmt::Display) -> SensorError {
    SensorError {
        sensor: "linux",
        what: format!("cannot look: {error}"),
        mend: Some("is /proc mounted?".to_owned()),
    }
}

fn look() -> Result<Vec<Observation>, SensorError> {
    let mut state = State::new(Home::find(), Shared::default()).map_err(|error| fail(&error))?;
    let mut said = Vec::new();
    state.look(Look::First, &mut said).map_err(|error| fail(&error))?;
    let running = with_ancestors(state.holders(), |pid| Some(state.reader.read(pid).process));
    let at = clock::now();
    let processes: Arc<str> = Arc::from("linux.processes");
    let sockets: Arc<str> = Arc::from("linux.sockets");
    let links: Arc<str> = Arc::from("linux.links");
    let running = running.into_iter().map(|process| (Some(process), Kind::Running));
    let all = running.chain(said).enumerate().map(|(seq, (actor, kind))| {
        let sensor = match kind {
            Kind::Running => &processes,
            Kind::InterfacePromiscuous { .. } => &links,
            _ => &sockets,
        };
        Observation { at, seq: seq as u64, sensor: Arc::clone(sensor), actor, kind }
    });
    Ok(all.collect())
}
