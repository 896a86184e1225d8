//! What bpfwatch says: the lines of its output, independent of their format.
//!
//! Field names are a contract with whoever reads the JSON: they change only with a line in the
//! changelog. All text in here has gone through the redactor.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::logged::Log;
use crate::observation::Os;
use crate::process::CodeIdentity;
use crate::scope::Scope;
use crate::time::Timestamp;

/// How serious a rule's match is; Sigma's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For the record.
    Informational,
    /// Seldom worth a look by itself.
    Low,
    /// Worth a look.
    Medium,
    /// Look today.
    High,
    /// Look now.
    Critical,
}

impl Level {
    /// As in Sigma and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Informational => "informational",
            Level::Low => "low",
            Level::Medium => "medium",
            Level::High => "high",
            Level::Critical => "critical",
        }
    }
}

impl std::str::FromStr for Level {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| {
                format!("no level `{text}`: use informational, low, medium, high or critical")
            })
    }
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// A capture session, or the lineage that leads to one, matched a rule.
    Finding(Box<Finding>),
    /// The session of an earlier finding ended.
    Closed(Box<Closed>),
    /// The same thing as in an earlier finding went on happening.
    Repeats(Box<Repeats>),
    /// Something was missed.
    Lost(Box<Lost>),
    /// A capture handle as `scan` shows it.
    Session(Box<SessionLine>),
    /// The daemon is alive, and how it fares.
    Heartbeat(Box<Heartbeat>),
    /// Something about the monitor itself that its administrators should know.
    Notice(Box<Notice>),
}

/// Which machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Operating system.
    pub os: Os,
}

/// A match that somebody should read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// UUID version 8, derived: the same recording gives the same id.
    pub id: String,
    /// When the thing happened that made it a finding.
    pub time: Timestamp,
    /// Where.
    pub host: Arc<Host>,
    /// The leading rule: the one of the highest level.
    pub rule: Arc<RuleRef>,
    /// Other rules that matched, highest level first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Arc<RuleRef>>,
    /// The capture session, once there is a handle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionView>,
    /// The process that captures, or was executed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessView>,
    /// The record of a log that matched, where the finding is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<RecordView>>,
    /// Other processes that hold the same handle.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<ProcessView>,
    /// Host, jail, container or namespace; absent where unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Arc<Scope>>,
    /// What was seen, in order.
    pub evidence: Vec<Evidence>,
    /// Id of the finding that this one raises the level of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_of: Option<String>,
    /// How many secrets the redactor took out.
    #[serde(skip_serializing_if = "is_zero")]
    pub redacted: u32,
    /// What to do about it, from the rule's ADS page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What a finding tells of a rule. SigmaHQ's licence asks that author and licence are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// UUID of the rule.
    pub id: String,
    /// Title.
    pub title: String,
    /// Level.
    pub level: Level,
    /// Tags, such as `attack.t1040`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Author, as the rule names him.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Licence of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

/// A capture session in output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionView {
    /// UUID version 8, derived.
    pub id: String,
    /// Highest stage reached.
    pub stage: Stage,
    /// Promiscuous mode is on, or was.
    pub promiscuous: bool,
    /// When it was opened, or first seen.
    pub opened_at: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    /// It was there before bpfwatch started.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pre_existing: bool,
    /// Packets that it received, where the OS tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// The handle.
    pub handle: crate::handle::Handle,
}

/// How far a capture session has come. See the crate's documentation for what each means on each OS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// There is a handle; it cannot receive yet.
    Opened,
    /// It can receive packets.
    Attached,
    /// Packets were read.
    Reading,
}

impl Stage {
    /// As in JSON and in the rule field `Stage`.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Opened => "opened",
            Stage::Attached => "attached",
            Stage::Reading => "reading",
        }
    }
}

/// A process in output: redacted, with its command line as one string.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessView {
    /// Process id.
    pub pid: u32,
    /// Parent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    /// User name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Effective user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The kernel's short name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The executable was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_deleted: Option<bool>,
    /// User id that owns the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_owner: Option<u32>,
    /// Users other than root may write the executable's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_writable_dir: Option<bool>,
    /// Arguments joined by a space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// The command line is not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line_truncated: Option<bool>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// Service manager's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Code signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Box<CodeIdentity>>,
    /// What a log says of it beyond all this, under Sigma's names (`OriginalFileName`, `Hashes` ...).
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub details: serde_json::Map<String, serde_json::Value>,
    /// The process that the system holds responsible for it, where that is another one (macOS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub responsible: Option<Box<AncestorView>>,
    /// Parent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<AncestorView>,
}

/// A record of a log in output: redacted, its values shortened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordView {
    /// Which log.
    pub log: Log,
    /// Who did it, as the log names him.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was done, in one line.
    pub message: String,
    /// The log's fields, under Sigma's names.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// An ancestor in output, or who is responsible for a process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AncestorView {
    /// Process id.
    pub pid: u32,
    /// Executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Arguments joined by a space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
}

/// One thing that was seen on the way to a finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// When.
    pub time: Timestamp,
    /// Kind of observation, such as `handle_opened`.
    pub kind: &'static str,
    /// Which process, where it is another one than the finding's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its image or another short word on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The end of a session that was reported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Closed {
    /// UUID version 8, derived.
    pub id: String,
    /// When it ended.
    pub time: Timestamp,
    /// Where.
    pub host: Arc<Host>,
    /// The finding whose session it was.
    pub finding: String,
    /// Title of its leading rule.
    pub title: String,
    /// Level of its leading rule.
    pub level: Level,
    /// The session as it ended.
    pub session: SessionView,
    /// Image of its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Its process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// From open to close, in milliseconds.
    pub duration_ms: u64,
}

/// How often a finding's like was seen within its window of ten minutes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Repeats {
    /// UUID version 8, derived.
    pub id: String,
    /// When the last one was seen.
    pub time: Timestamp,
    /// Where.
    pub host: Arc<Host>,
    /// The first finding.
    pub finding: String,
    /// Title of its leading rule.
    pub title: String,
    /// Level of its leading rule.
    pub level: Level,
    /// Image that they share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What was done each time, where that is a record of a log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// How many sessions so far, the first one included.
    pub repeats: u64,
    /// Since when.
    pub since: Timestamp,
}

/// A loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lost {
    /// When it was noticed.
    pub time: Timestamp,
    /// Where.
    pub host: Arc<Host>,
    /// Which sensor.
    pub sensor: String,
    /// How many events; 0 where only the fact is known.
    pub count: u64,
    /// Why.
    pub why: String,
}

/// A capture handle as `scan` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionLine {
    /// When it was looked at.
    pub time: Timestamp,
    /// Where.
    pub host: Arc<Host>,
    /// The session.
    pub session: SessionView,
    /// Who holds it; empty where nobody could be found.
    pub holders: Vec<ProcessView>,
    /// Host, jail, container or namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Arc<Scope>>,
    /// Should it be there?
    pub verdict: Verdict,
    /// The filter that expects it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_by: Option<String>,
    /// Rules that match it, highest level first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Arc<RuleRef>>,
}

/// Should it be there?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A filter says so.
    Expected,
    /// A rule above informational matches.
    Unexpected,
    /// Neither.
    Unknown,
}

/// How the daemon fares: written at a steady interval, so that silence means something is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Heartbeat {
    /// When.
    pub time: Timestamp,
    /// Where.
    pub host: Arc<Host>,
    /// Version of bpfwatch.
    pub version: &'static str,
    /// Time since the daemon started, in seconds.
    pub uptime_s: u64,
    /// Each sensor that was started.
    pub sensors: Vec<SensorHealth>,
    /// Rules in force.
    pub rules_loaded: u64,
    /// Rules that were left out because something is wrong with them.
    pub rules_refused: u64,
    /// Observations since the start.
    pub observations: u64,
    /// Findings since the start.
    pub findings: u64,
    /// Findings that an expected filter withheld.
    pub withheld: u64,
    /// Findings that were folded into an earlier one like them.
    pub folded: u64,
    /// How often correlations let go of state before its time, because there was too much of it.
    pub forgotten: u64,
    /// Events that sensors reported as lost.
    pub lost: u64,
    /// Bytes of observations that wait for the engine now.
    pub backlog_bytes: u64,
    /// How old the oldest observation was that the engine took last, in milliseconds.
    pub lag_ms: u64,
    /// What the sensors can see here.
    pub coverage: Coverage,
    /// The last time that the configuration was read again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload: Option<Reload>,
    /// Each sink.
    pub sinks: Vec<SinkHealth>,
}

/// What the sensors can see, in short: the checks of `doctor`, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Sources that are seen.
    pub ok: u64,
    /// Sources that are seen in part.
    pub partial: u64,
    /// Sources that are not seen and could be.
    pub blind: u64,
    /// Names of those seen in part or not at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
}

/// How reading the configuration again went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reload {
    /// When.
    pub time: Timestamp,
    /// The new one is in force; else the old one still is.
    pub taken: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Something about the monitor itself: it goes where findings go, because whoever reads them relies on
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// When.
    pub time: Timestamp,
    /// Where.
    pub host: Arc<Host>,
    /// How serious it is.
    pub level: Level,
    /// What happened.
    pub event: NoticeEvent,
    /// In words.
    pub detail: String,
}

/// What a [`Notice`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeEvent {
    /// A new configuration was not taken; the old one goes on.
    ReloadRefused,
    /// Rules were left out because something is wrong with them.
    RulesRefused,
    /// A sensor ended while the daemon runs.
    SensorStopped,
}

impl NoticeEvent {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            NoticeEvent::ReloadRefused => "reload_refused",
            NoticeEvent::RulesRefused => "rules_refused",
            NoticeEvent::SensorStopped => "sensor_stopped",
        }
    }
}

/// One sensor in a [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SensorHealth {
    /// Its name.
    pub name: String,
    /// It watches.
    pub running: bool,
    /// How, where it has more than one way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One sink in a [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SinkHealth {
    /// Its name.
    pub name: String,
    /// Lines written since the start.
    pub written: u64,
    /// Lines that could not be written, or did not fit its queue.
    pub dropped: u64,
    /// Lines that wait in its queue.
    pub queued: u64,
    /// Lines that it took and that wait for their receiver, where it sends over the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spooled: Option<u64>,
    /// Bytes that they take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spooled_bytes: Option<u64>,
    /// When it last wrote a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_delivery: Option<Timestamp>,
    /// What went wrong last, unless it wrote a line since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
