//! Records that belong together, in the order in which their events began.
//!
//! An event is over with its EOE record, which auditd may leave out of its file, with PROCTITLE, which is
//! the last one otherwise, or two seconds of the log later (as libauparse has it). Records of user space
//! stand each for themselves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bpfwatch_core::decoder::Sequence;
use bpfwatch_core::logged::{Log, Logged, Value};
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;

use super::meaning::Meaning;

/// How long an event waits for its records, in the log's time.
const PATIENCE: Duration = Duration::from_secs(2);
/// Events that wait at once; over it the oldest comes out as it is.
const MAX_EVENTS: usize = 256;
/// Records kept of one event; an execution has one for each 8 KiB of its arguments.
const MAX_RECORDS: usize = 512;
/// Bytes kept of one event.
const MAX_BYTES: usize = 1024 * 1024;

/// Records that share time and serial number.
pub(super) struct Event {
    pub(super) at: Timestamp,
    serial: i64,
    pub(super) sensor: Arc<str>,
    pub(super) records: Vec<Arc<Logged>>,
    bytes: usize,
}

/// Puts events together. One for each host.
#[derive(Default)]
pub(super) struct Events {
    waiting: VecDeque<Event>,
    meaning: Meaning,
}

impl Sequence for Events {
    fn pass(&mut self, observation: Observation, out: &mut Vec<Observation>) {
        let Observation { at, sensor, kind, .. } = observation;
        let Kind::Logged { record } = kind else { return };
        if record.log != Log::Auditd {
            return;
        }
        let serial = match record.fields.get("serial") {
            Some(Value::Number(serial)) => *serial,
            _ => 0,
        };
        while self.waiting.front().is_some_and(|event| at.since(event.at) > PATIENCE)
            || self.waiting.len() > MAX_EVENTS
        {
            let Some(event) = self.waiting.pop_front() else { break };
            self.meaning.of(event, out);
        }
        let kind = kind_of(&record);
        if is_alone(kind) {
            let event = Event { at, serial, sensor, records: vec![record], bytes: 0 };
            return self.meaning.of(event, out);
        }
        // Newest first: nearly always it is the last one.
        let place = self.waiting.iter().rposition(|event| event.serial == serial && event.at == at);
        let ends = matches!(kind, "EOE" | "PROCTITLE");
        match place {
            Some(place) => {
                let Some(event) = self.waiting.get_mut(place) else { return };
                if kind != "EOE" {
                    event.add(record);
                }
                if ends && let Some(event) = self.waiting.remove(place) {
                    self.meaning.of(event, out);
                }
            }
            // The end of an event that PROCTITLE has ended.
            None if kind == "EOE" => {}
            None => {
                let mut event = Event { at, serial, sensor, records: Vec::new(), bytes: 0 };
                event.add(record);
                if ends {
                    return self.meaning.of(event, out);
                }
                self.waiting.push_back(event);
            }
        }
    }

    fn flush(&mut self, out: &mut Vec<Observation>) {
        while let Some(event) = self.waiting.pop_front() {
            self.meaning.of(event, out);
        }
    }
}

impl Event {
    /// What tells it from others of one boot.
    pub(super) fn id(&self) -> u64 {
        u64::try_from(self.serial).unwrap_or(0)
    }

    fn add(&mut self, record: Arc<Logged>) {
        self.bytes += record.weight();
        if self.records.len() < MAX_RECORDS && self.bytes < MAX_BYTES {
            self.records.push(record);
        }
    }
}

/// The record's type.
pub(super) fn kind_of(record: &Logged) -> &str {
    record.fields.get("type").and_then(Value::as_text).map_or("", Text::as_str)
}

/// Whether such a record is a whole event: user space's (1100 to 1299, 2100 and above in
/// include/uapi/linux/audit.h), and the daemon's own.
fn is_alone(kind: &str) -> bool {
    const PREFIXES: [&str; 12] = [
        "USER_",
        "CRED_",
        "SERVICE_",
        "DAEMON_",
        "CRYPTO_",
        "VIRT_",
        "ADD_",
        "DEL_",
        "GRP_",
        "SYSTEM_",
        "RESP_",
        "SOFTWARE_",
    ];
    matches!(kind, "KERNEL" | "TRUSTED_APP" | "USER")
        || PREFIXES.iter().any(|prefix| kind.starts_with(prefix))
}
