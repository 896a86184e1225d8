//! What the program asks of an operating system, answered for FreeBSD as far as it can be today.

use bpfwatch_core::observation::{Observation, Origin, Os};
use bpfwatch_core::platform::{
    Check, CheckState, EmulateOptions, Emulated, Platform, SensorSettings, Technique,
};
use bpfwatch_core::sensor::{Sensor, SensorError};
use bpfwatch_core::sink::Sink;
use bpfwatch_core::text::Text;
use nix::sys::utsname::uname;

/// FreeBSD.
#[derive(Debug, Clone, Copy, Default)]
pub struct FreebsdPlatform;

/// Each signal and the source that would give it.
const SIGNALS: [(&str, &str); 9] = [
    ("opens of /dev/bpf", "inotify on 15.0 and later, an O_PATH kqueue before"),
    ("holders of BPF descriptors", "sysctl kern.file"),
    ("attached and promiscuous descriptors", "sysctl net.bpf.stats"),
    ("executions", "kqueue EVFILT_PROC with NOTE_TRACK"),
    ("jails", "jail_get, and EVFILT_JAIL on 15.0 and later"),
    ("promiscuous interfaces", "a route socket"),
    ("short-lived opens", "the audit pipe, class fr,fw"),
    ("access to capture devices", "modes of each devfs mount's /dev/bpf"),
    ("capture without /dev/bpf", "netgraph, netmap, divert and raw sockets"),
];

fn missing(what: &str) -> SensorError {
    SensorError {
        sensor: "freebsd",
        what: format!("{what} on FreeBSD is not implemented yet"),
        mend: Some(
            "what works here today: `bpfwatch replay FILE` of recordings, and `bpfwatch rules`"
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

impl Platform for FreebsdPlatform {
    fn origin(&self) -> Origin {
        let system = uname().ok();
        let text = |value: &std::ffi::OsStr| Text::from_bytes(value.as_encoded_bytes());
        Origin {
            host: system.as_ref().map(|system| text(system.nodename())).unwrap_or_default(),
            os: Os::Freebsd,
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
        SIGNALS.iter().map(|(name, source)| blind(name, source)).collect()
    }

    fn posture(&self) -> Vec<Check> {
        vec![blind("who could capture", "devfs modes and rules of the host and of each jail")]
    }

    fn techniques(&self) -> Vec<Technique> {
        Vec::new()
    }

    fn emulate(&self, _technique: &str, _: &EmulateOptions) -> Result<Emulated, SensorError> {
        Err(missing("opening a capture handle for validation"))
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
        let platform = FreebsdPlatform;
        assert!(platform.coverage().iter().all(|check| check.state == CheckState::Blind));
        assert!(platform.techniques().is_empty());
        let settings = SensorSettings::default();
        let errors = [platform.sensors(&settings).err(), platform.snapshot().err()];
        for error in errors {
            let text = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(text.contains("not implemented yet") && text.contains("replay"), "{text}");
        }
    }

    #[test]
    fn knows_its_host() {
        let origin = FreebsdPlatform.origin();
        assert_eq!(origin.os, Os::Freebsd);
        assert!(!origin.host.as_str().is_empty());
        assert!(origin.os_version.is_some_and(|version| !version.as_str().is_empty()));
    }
}
