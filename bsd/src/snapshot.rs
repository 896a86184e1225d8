//! `scan`: who holds what now. Two looks, because only the second can tell a descriptor in flight from one
//! that came between two tables.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bpfwatch_core::ancestors::with_ancestors;
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::sensor::SensorError;

use crate::captures::Captures;
use crate::decode::BPF_DEVICE;
use crate::kernel::{Kernel, now};
use crate::poll::{FLIGHT_AFTER, Said, Table};

fn fail(what: &str, error: &io::Error) -> SensorError {
    let mend = match error.kind() {
        io::ErrorKind::PermissionDenied => Some("run it as root on the host".to_owned()),
        _ => None,
    };
    SensorError { sensor: "freebsd", what: format!("cannot read {what}: {error}"), mend }
}

/// `Running` for the holders and their ancestors, oldest first, then the handles.
///
/// # Errors
/// When descriptors cannot be listed.
pub fn take() -> Result<Vec<Observation>, SensorError> {
    let mut kernel = Kernel::new().map_err(|error| fail("net.bpf.stats", &error))?;
    // Opening it would make a finding of a daemon that runs beside.
    let device = kernel.device(BPF_DEVICE).map_err(|error| fail(BPF_DEVICE, &error))?;
    let mut captures = Captures::new(false);
    let mut table = Table::default();
    let mut said: Vec<Said> = Vec::new();
    for at in [0, FLIGHT_AFTER] {
        if at > 0 {
            std::thread::sleep(Duration::from_millis(FLIGHT_AFTER));
        }
        let (look, error) =
            kernel.look(device, &mut captures).map_err(|error| fail("kern.file", &error))?;
        if let Some(error) = error {
            return Err(fail("net.bpf.stats", &error));
        }
        table.update(&look, at, &mut kernel, &mut said);
    }
    captures.spans(&mut said).map_err(|error| fail("span ports", &error))?;
    let at = now();
    let processes: Arc<str> = Arc::from("freebsd.processes");
    let handles: Arc<str> = Arc::from("freebsd.bpf");
    let running = with_ancestors(table.holders(), |pid| Some(kernel.read(pid)));
    let running = running.into_iter().map(|process| (Some(process), Kind::Running));
    let all = running.chain(said).enumerate().map(|(seq, (actor, kind))| {
        let sensor = if kind == Kind::Running { &processes } else { &handles };
        Observation { at, seq: seq as u64, sensor: Arc::clone(sensor), actor, kind }
    });
    Ok(all.collect())
}
