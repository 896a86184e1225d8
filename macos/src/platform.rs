//! What the program asks of an operating system, answered for macOS as far as it can be today.

use bpfwatch_core::observation::{Observation, Origin, Os};
use bpfwatch_core::platform::{Check, CheckState, OpenHandle, Platform, SensorSettings, Technique};
use bpfwatch_core::sensor::{Sensor, SensorError};
use bpfwatch_core::sink::Sink;
use bpfwatch_core::text::Text;
use nix::sys::utsname::uname;

use crate::emulate;

/// macOS.
#[derive(Debug, Clone, Copy, Default)]
pub struct MacosPlatform;

/// Each signal and the source that would give it.
const SIGNALS: [(&str, &str); 7] = [
    ("opens of BPF devices", "Endpoint Security NOTIFY_OPEN and NOTIFY_CLOSE"),
    ("attached and promiscuous descriptors", "sysctl debug.bpf_stats"),
    ("holders of BPF descriptors", "libproc"),
    ("executions", "Endpoint Security NOTIFY_EXEC, NOTIFY_FORK and NOTIFY_EXIT"),
    ("access to capture devices", "Endpoint Security NOTIFY_SETMODE and NOTIFY_SETOWNER"),
    ("members of group access_bpf", "Endpoint Security NOTIFY_OD_GROUP_ADD, macOS 14 and later"),
    ("promiscuous interfaces", "a route socket"),
];

fn missing(what: &str) -> SensorError {
    SensorError {
        sensor: "macos",
        what: format!("{what} on macOS is not implemented yet"),
        mend: Some(
            "what works here today: `bpfwatch replay FILE` of recordings, also of what `eslogger exec \
             fork exit open close > FILE` wrote as root, and `bpfwatch rules`"
                .to_owned(),
        ),
    }
}

fn blind(name: &str, source: &str) -> Check {
    Check {
        name: name.to_owned(),
        state: CheckState::Blind,
        detail: format!("not implemented yet; would come from {source}"),
        mend: None,
    }
}

impl Platform for MacosPlatform {
    fn origin(&self) -> Origin {
        let system = uname().ok();
        let text = |value: &std::ffi::OsStr| Text::from_bytes(value.as_encoded_bytes());
        Origin {
            host: system.as_ref().map(|system| text(system.nodename())).unwrap_or_default(),
            os: Os::Macos,
            os_version: system.as_ref().map(|system| text(system.release())),
            boot_id: None,
        }
    }

    fn sensors(&self, _settings: &SensorSettings) -> Result<Vec<Box<dyn Sensor>>, SensorError> {
        Err(missing("watching live"))
    }

    fn snapshot(&self) -> Result<Vec<Observation>, SensorError> {
        Err(missing("listing who holds a capture handle"))
    }

    fn coverage(&self) -> Vec<Check> {
        let mut checks: Vec<_> = SIGNALS.iter().map(|(name, source)| blind(name, source)).collect();
        checks.push(Check {
            name: "capture without a BPF device".to_owned(),
            state: CheckState::Blind,
            detail:
                "PF_NDRV sockets and packet providers of NetworkExtension: nothing tells of them"
                    .to_owned(),
            mend: None,
        });
        checks
    }

    fn posture(&self) -> Vec<Check> {
        vec![blind("who could capture", "modes of /dev/bpf* and members of group access_bpf")]
    }

    fn techniques(&self) -> Vec<Technique> {
        emulate::techniques()
    }

    fn open_handle(&self, technique: &str, interface: &str) -> Result<OpenHandle, SensorError> {
        emulate::open(technique, interface)
    }

    fn native_sink(&self) -> Option<Box<dyn Sink>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_nothing_that_it_cannot_do() {
        let platform = MacosPlatform;
        assert!(platform.coverage().iter().all(|check| check.state == CheckState::Blind));
        let settings = SensorSettings::default();
        let errors = [platform.sensors(&settings).err(), platform.snapshot().err()];
        for error in errors {
            let text = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(text.contains("not implemented yet") && text.contains("replay"), "{text}");
        }
    }

    #[test]
    fn knows_its_host() {
        let origin = MacosPlatform.origin();
        assert_eq!(origin.os, Os::Macos);
        assert!(!origin.host.as_str().is_empty());
        assert!(origin.os_version.is_some_and(|version| !version.as_str().is_empty()));
    }
}
