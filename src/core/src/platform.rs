//! What the program asks of an operating system. One implementation in each platform package.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observation::{Observation, Origin};
use crate::sensor::{Sensor, SensorError};
use crate::sink::Sink;

/// Everything about one operating system that the commands need.
pub trait Platform {
    /// Host name, OS, version and boot id for everything seen here.
    fn origin(&self) -> Origin;

    /// The sensors that can run with the privileges at hand.
    ///
    /// # Errors
    /// When none can.
    fn sensors(&self, settings: &SensorSettings) -> Result<Vec<Box<dyn Sensor>>, SensorError>;

    /// Who holds what now, as the observations that a sensor would begin with: `Running` for the
    /// holders, then handles with `pre_existing`.
    ///
    /// # Errors
    /// When nothing at all can be seen; a part that cannot stands in `coverage`.
    fn snapshot(&self) -> Result<Vec<Observation>, SensorError>;

    /// What is seen here and what is blind, and why.
    fn coverage(&self) -> Vec<Check>;

    /// Who could capture here: device modes, capabilities, rule sets.
    fn posture(&self) -> Vec<Check>;

    /// What `emulate` can do here.
    fn techniques(&self) -> Vec<Technique>;

    /// Opens a real capture handle in the given way. Nothing is read from it, and it closes when what is
    /// returned is dropped.
    ///
    /// # Errors
    /// When the technique is unknown here or the system refuses it.
    fn open_handle(&self, technique: &str, interface: &str) -> Result<OpenHandle, SensorError>;

    /// Whether [`Platform::reduce`] would take these settings; changes nothing.
    ///
    /// # Errors
    /// As for `reduce`.
    fn check_hardening(&self, settings: &HardeningSettings) -> Result<(), String> {
        let _ = settings;
        Ok(())
    }

    /// Gives up what neither sensors nor sinks need any more, for the calling thread and those that it
    /// starts from then on. To be called once, when the sensors are made (and so have opened what needs
    /// the privileges of the start) and before any thread is started. Tells what it did, part by part.
    ///
    /// # Errors
    /// When a capability that is to be kept does not exist.
    fn reduce(&self, settings: &HardeningSettings) -> Result<Vec<Check>, String> {
        let _ = settings;
        Ok(Vec::new())
    }

    /// Lets the calling thread, and those that it starts from then on, write nowhere but in the directories
    /// that the settings name. To be called when the sensors' threads run: these read other processes, which a
    /// confined thread may not.
    fn confine(&self, settings: &HardeningSettings) -> Vec<Check> {
        let _ = settings;
        Vec::new()
    }

    /// What takes from this process, for good, that it opens anything: for a command that reads what others wrote
    /// and has it open already. `None` where the system has nothing for a whole process.
    fn seal(&self) -> Option<fn() -> std::io::Result<()>> {
        None
    }

    /// What this system lets the daemon give up, for `doctor`.
    fn hardening(&self) -> Vec<Check> {
        Vec::new()
    }

    /// Tells the service manager that started the daemon how it fares; `None` where none listens.
    fn service_manager(&self) -> Option<Box<dyn ServiceManager>> {
        None
    }

    /// The log that the platform's administrators look at first; `None` where there is none yet.
    fn native_sink(&self) -> Option<Box<dyn Sink>>;
}

/// What the daemon is to give up once it watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HardeningSettings {
    /// Whether it is to give up anything.
    pub enabled: bool,
    /// Capabilities to keep, by name, beside those that the sensors need.
    pub keep_capabilities: Vec<String>,
    /// Directories that are written later: state, sinks, sockets.
    pub writable: Vec<PathBuf>,
}

/// Who started the daemon and watches over it, such as systemd (sd_notify(3)).
pub trait ServiceManager: Send {
    /// Tells it a new state. What it does not take is not worth stopping for.
    fn tell(&self, state: ServiceState<'_>);

    /// How long it waits for a [`ServiceState::Alive`] before it takes the daemon for stuck; `None` where
    /// it does not.
    fn watchdog(&self) -> Option<Duration>;
}

/// What a [`ServiceManager`] is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState<'a> {
    /// It watches; in words how.
    Ready(&'a str),
    /// It reads its configuration again.
    Reloading,
    /// It works.
    Alive,
    /// How it fares, in words.
    Status(&'a str),
    /// It ends.
    Stopping,
}

/// Settings of live sensors, from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensorSettings {
    /// Time between steady scans, in milliseconds.
    pub scan_interval_ms: u64,
    /// Whether events come from eBPF programs where the kernel allows it.
    pub ebpf: Ebpf,
    /// Size of the ring in which eBPF programs hand over process events, in KiB; the kernel wants a power
    /// of two.
    pub ebpf_ring_kib: u32,
    /// What is read of an audit pipe (FreeBSD).
    pub audit: Audit,
}

/// What is read of an audit pipe (FreeBSD).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audit {
    /// Nothing.
    #[default]
    Off,
    /// Executions.
    Exec,
    /// Executions and opens.
    #[serde(rename = "exec+open")]
    ExecOpen,
}

/// How eBPF programs hook the kernel (Linux).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ebpf {
    /// The best that the kernel allows.
    #[default]
    Auto,
    /// BPF LSM hooks.
    Lsm,
    /// fentry and fexit.
    Fentry,
    /// Raw tracepoints.
    Tracepoints,
    /// Not at all.
    Off,
}

impl Default for SensorSettings {
    fn default() -> Self {
        Self { scan_interval_ms: 1000, ebpf: Ebpf::Auto, ebpf_ring_kib: 1024, audit: Audit::Off }
    }
}

/// One line of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, such as `packet sockets`.
    pub name: String,
    /// How it stands.
    pub state: CheckState,
    /// What was found.
    pub detail: String,
    /// What the user can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Check {
    /// One that the user need do nothing about, or cannot.
    pub fn new(name: &str, state: CheckState, detail: String) -> Self {
        Self { name: name.to_owned(), state, detail, mend: None }
    }
}

/// How a [`Check`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// Seen, or as it should be.
    Ok,
    /// Worth knowing.
    Info,
    /// Seen in part, or open wider than it need be.
    Warning,
    /// Not seen.
    Blind,
}

/// One way of capturing that `emulate` can show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Technique {
    /// Name on the command line, such as `promiscuous`.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub what: &'static str,
    /// Ids of the shipped rules that must all report it; none where it captures nothing, so that keeping
    /// quiet about it is right.
    pub rules: &'static [&'static str],
}

/// A capture handle that `emulate` holds.
#[derive(Debug)]
pub struct OpenHandle {
    /// The handle: a socket or a BPF device.
    pub handle: OwnedFd,
    /// What it is, in words.
    pub held: String,
}

/// Ids of shipped rules that report what `emulate` does.
pub mod reported {
    /// Packet capture by an unexpected process.
    pub const UNEXPECTED: &str = "8ad31f45-fb09-46f6-91fe-4967ed233b2d";
    /// Capture handle in promiscuous mode.
    pub const PROMISCUOUS: &str = "65078689-657a-4625-bb21-cc73ef688bf2";
    /// Capture through a raw IP socket.
    pub const RAW_IP: &str = "5a37347f-bf89-49af-82c9-54c9b2fb862f";
    /// Capture through an obsolete SOCK_PACKET socket.
    pub const SOCK_PACKET: &str = "f4fa5a97-87e2-4d7b-9f9d-92bda4d0fcd3";
}
