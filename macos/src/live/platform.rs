//! What the program asks of an operating system, answered for macOS.

use bpfwatch_core::observation::{Observation, Origin, Os};
use bpfwatch_core::platform::{Check, OpenHandle, Platform, SensorSettings, Technique};
use bpfwatch_core::sensor::{Sensor, SensorError};
use bpfwatch_core::sink::Sink;
use bpfwatch_core::text::Text;
use nix::sys::utsname::uname;

use super::{coverage, kernel, oslog, sensor, snapshot};
use crate::emulate;

/// macOS.
#[derive(Debug, Clone, Copy, Default)]
pub struct MacosPlatform;

impl Platform for MacosPlatform {
    fn origin(&self) -> Origin {
        let system = uname().ok();
        let text = |value: &std::ffi::OsStr| Text::from_bytes(value.as_encoded_bytes());
        Origin {
            host: system.as_ref().map(|system| text(system.nodename())).unwrap_or_default(),
            os: Os::Macos,
            os_version: system.as_ref().map(|system| text(system.release())),
            boot_id: kernel::text(c"kern.bootsessionuuid"),
        }
    }

    fn sensors(&self, settings: &SensorSettings) -> Result<Vec<Box<dyn Sensor>>, SensorError> {
        Ok(vec![Box::new(sensor::MacosSensor::new(settings)?)])
    }

    fn snapshot(&self) -> Result<Vec<Observation>, SensorError> {
        snapshot::take()
    }

    fn coverage(&self) -> Vec<Check> {
        coverage::checks()
    }

    fn posture(&self) -> Vec<Check> {
        coverage::posture()
    }

    fn techniques(&self) -> Vec<Technique> {
        emulate::techniques()
    }

    fn open_handle(&self, technique: &str, interface: &str) -> Result<OpenHandle, SensorError> {
        emulate::open(technique, interface)
    }

    fn native_sink(&self) -> Option<Box<dyn Sink>> {
        Some(Box::new(oslog::UnifiedLog::open()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_host() {
        let origin = MacosPlatform.origin();
        assert_eq!(origin.os, Os::Macos);
        assert!(!origin.host.as_str().is_empty());
        assert!(origin.os_version.is_some_and(|version| !version.as_str().is_empty()));
    }
}
