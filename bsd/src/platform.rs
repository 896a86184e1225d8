//! What the program asks of an operating system, answered for FreeBSD.

use std::ffi::OsStr;
use std::io;

use bpfwatch_core::observation::{Observation, Origin, Os};
use bpfwatch_core::platform::{Check, OpenHandle, Platform, SensorSettings, Technique};
use bpfwatch_core::sensor::{Sensor, SensorError};
use bpfwatch_core::sink::Sink;
use bpfwatch_core::text::Text;
use nix::sys::utsname::uname;

use crate::{coverage, emulate, ffi, kernel, posture, sensor, snapshot};

/// FreeBSD.
#[derive(Debug, Clone, Copy, Default)]
pub struct FreebsdPlatform;

impl Platform for FreebsdPlatform {
    fn origin(&self) -> Origin {
        let system = uname().ok();
        let text = |value: &OsStr| Text::from_bytes(value.as_encoded_bytes());
        Origin {
            host: system.as_ref().map(|system| text(system.nodename())).unwrap_or_default(),
            os: Os::Freebsd,
            os_version: system.as_ref().map(|system| text(system.release())),
            boot_id: kernel::boot_time().map(|seconds| Text::from(seconds.to_string())),
        }
    }

    fn sensors(&self, settings: &SensorSettings) -> Result<Vec<Box<dyn Sensor>>, SensorError> {
        Ok(vec![Box::new(sensor::FreebsdSensor::new(settings)?)])
    }

    fn snapshot(&self) -> Result<Vec<Observation>, SensorError> {
        snapshot::take()
    }

    fn coverage(&self) -> Vec<Check> {
        coverage::checks()
    }

    fn posture(&self) -> Vec<Check> {
        posture::checks()
    }

    fn techniques(&self) -> Vec<Technique> {
        emulate::techniques()
    }

    fn open_handle(&self, technique: &str, interface: &str) -> Result<OpenHandle, SensorError> {
        emulate::open(technique, interface)
    }

    fn seal(&self) -> Option<fn() -> io::Result<()>> {
        Some(ffi::enter_capability_mode)
    }

    fn native_sink(&self) -> Option<Box<dyn Sink>> {
        None
    }
}
