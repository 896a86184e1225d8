//! `scan`: who holds what now. Two looks, because only the second can tell a descriptor in flight from one
//! that came between two tables.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bpfwatch_core::ancestors::with_ancestors;
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::sensor::SensorError;

use super::kernel::{Kernel, now};
use super::sensor::{HANDLES, PROCESSES};
use crate::poll::{FLIGHT_AFTER, Said, Table};

fn fail(error: &io::Error) -> SensorError {
    SensorError {
        sensor: "macos",
        what: format!("cannot read debug.bpf_stats: {error}"),
        mend: Some("`bpfwatch doctor` tells what can be seen here".to_owned()),
    }
}

/// `Running` for the holders and their ancestors, oldest first, then the handles.
///
/// # Errors
/// When descriptors cannot be listed.
pub fn take() -> Result<Vec<Observation>, SensorError> {
    let mut kernel = Kernel::new();
    let mut table = Table::default();
    let mut said: Vec<Said> = Vec::new();
    let first = kernel.look().map_err(|error| fail(&error))?;
    table.update(&first, 0, &mut kernel, &mut said);
    let unclaimed = first.rows.iter().any(|row| !first.holders.contains_key(&row.minor));
    if first.is_complete && unclaimed {
        std::thread::sleep(Duration::from_millis(FLIGHT_AFTER));
        let second = kernel.look().map_err(|error| fail(&error))?;
        table.update(&second, FLIGHT_AFTER, &mut kernel, &mut said);
    }
    let at = now();
    let (processes, handles): (Arc<str>, Arc<str>) = (Arc::from(PROCESSES), Arc::from(HANDLES));
    let running = with_ancestors(table.holders(), |pid| kernel.read(pid));
    let running = running.into_iter().map(|process| (Some(process), Kind::Running));
    let all = running.chain(said).enumerate().map(|(seq, (actor, kind))| {
        let sensor = if kind == Kind::Running { &processes } else { &handles };
        Observation { at, seq: seq as u64, sensor: Arc::clone(sensor), actor, kind }
    });
    Ok(all.collect())
}
