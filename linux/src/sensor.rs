//! The live sensor.

use std::os::fd::AsFd;
use std::sync::Arc;

use bpfwatch_core::platform::SensorSettings;
use bpfwatch_core::sensor::{Outlet, Sensor, SensorError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Watches sockets, interfaces and processes.
pub struct LinuxSensor {
    stop: Arc<EventFd>,
}

impl LinuxSensor {
    /// Prepares to watch.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(_settings: &SensorSettings) -> Result<Self, SensorError> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| fail("eventfd", error))?;
        Ok(Self { stop: Arc::new(stop) })
    }
}

fn fail(what: &str, error: nix::Error) -> SensorError {
    SensorError { sensor: "linux", what: format!("{what}: {error}"), mend: None }
}

impl Sensor for LinuxSensor {
    fn name(&self) -> &'static str {
        "linux"
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let stop = Arc::clone(&self.stop);
        Box::new(move || {
            // It can only fail when the counter is full: then it wakes already.
            let _ = stop.write(1);
        })
    }

    fn run(self: Box<Self>, _outlet: &Outlet) -> Result<(), SensorError> {
        let mut wait = [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut wait, PollTimeout::NONE) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(fail("poll", error)),
            }
        }
    }
}
