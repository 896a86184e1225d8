//! What the program asks of an operating system, answered for Linux.

use bpfwatch_core::observation::{Observation, Origin, Os};
use bpfwatch_core::platform::{
    Check, HardeningSettings, OpenHandle, Platform, SensorSettings, ServiceManager, Technique,
};
use bpfwatch_core::sensor::{Sensor, SensorError};
use bpfwatch_core::sink::Sink;
use bpfwatch_core::text::Text;

use crate::{coverage, emulate, hardening, posture, proc, sensor, service, snapshot};

/// Linux.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinuxPlatform;

impl Platform for LinuxPlatform {
    fn origin(&self) -> Origin {
        let line = |path| proc::read_line(path).map(|bytes| Text::from_bytes(&bytes));
        Origin {
            host: line("/proc/sys/kernel/hostname").unwrap_or_default(),
            os: Os::Linux,
            os_version: line("/proc/sys/kernel/osrelease"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }

    fn sensors(&self, settings: &SensorSettings) -> Result<Vec<Box<dyn Sensor>>, SensorError> {
        Ok(vec![Box::new(sensor::LinuxSensor::new(settings)?)])
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

    fn check_hardening(&self, settings: &HardeningSettings) -> Result<(), String> {
        hardening::check(settings)
    }

    fn reduce(&self, settings: &HardeningSettings) -> Result<Vec<Check>, String> {
        hardening::reduce(settings)
    }

    fn confine(&self, settings: &HardeningSettings) -> Vec<Check> {
        hardening::confine(settings)
    }

    fn hardening(&self) -> Vec<Check> {
        hardening::offered()
    }

    fn service_manager(&self) -> Option<Box<dyn ServiceManager>> {
        service::Systemd::find().map(|systemd| Box::new(systemd) as Box<dyn ServiceManager>)
    }

    fn native_sink(&self) -> Option<Box<dyn Sink>> {
        None
    }
}
