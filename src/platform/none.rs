//! A system that bpfwatch has no sensor for: recordings can be replayed and rules checked, live
//! commands say why they cannot.

use bpfwatch_core::observation::{Observation, Origin, Os};
use bpfwatch_core::platform::{
    Check, CheckState, EmulateOptions, Emulated, Platform, SensorSettings, Technique,
};
use bpfwatch_core::sensor::{Sensor, SensorError};
use bpfwatch_core::sink::Sink;
use bpfwatch_core::text::Text;

/// No sensor.
pub struct NonePlatform;

fn refusal() -> SensorError {
    SensorError {
        sensor: "live",
        what: "there is no sensor for this operating system in this version".to_owned(),
        mend: Some("`bpfwatch replay` reads recordings everywhere".to_owned()),
    }
}

impl Platform for NonePlatform {
    fn origin(&self) -> Origin {
        let name = nix::sys::utsname::uname().ok();
        let text = |text: &std::ffi::OsStr| Text::from_bytes(text.as_encoded_bytes());
        Origin {
            host: name.as_ref().map(|name| text(name.nodename())).unwrap_or_default(),
            os: if std::env::consts::OS == "macos" { Os::Macos } else { Os::Freebsd },
            os_version: name.as_ref().map(|name| text(name.release())),
            boot_id: None,
        }
    }

    fn sensors(&self, _: &SensorSettings) -> Result<Vec<Box<dyn Sensor>>, SensorError> {
        Err(refusal())
    }

    fn snapshot(&self) -> Result<Vec<Observation>, SensorError> {
        Err(refusal())
    }

    fn coverage(&self) -> Vec<Check> {
        let SensorError { what, mend, .. } = refusal();
        vec![Check { name: "sensors".to_owned(), state: CheckState::Blind, detail: what, mend }]
    }

    fn posture(&self) -> Vec<Check> {
        Vec::new()
    }

    fn techniques(&self) -> Vec<Technique> {
        Vec::new()
    }

    fn emulate(&self, _: &str, _: &EmulateOptions) -> Result<Emulated, SensorError> {
        Err(refusal())
    }

    fn native_sink(&self) -> Option<Box<dyn Sink>> {
        None
    }
}
