//! A capture session: one handle from open to close, with everyone who held it.

use std::sync::Arc;

use crate::finding::Stage;
use crate::handle::Handle;
use crate::observation::Os;
use crate::process::{Process, ProcessKey};
use crate::time::Timestamp;

/// One handle from open to close.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptureSession {
    /// UUID version 8, derived from origin, handle and opening.
    pub id: Arc<str>,
    /// System that it is on.
    pub os: Os,
    /// The handle as last seen.
    pub handle: Handle,
    /// Who holds it now, its owner (the first one seen with it) first. After the close: who held it
    /// last. Never cleared, so that a finding about a gone process still names it.
    pub holders: Vec<Arc<Process>>,
    /// When each stage was reached: opened, attached, reading.
    pub reached: [Option<Timestamp>; 3],
    /// When promiscuous mode was first seen on.
    pub promiscuous_at: Option<Timestamp>,
    /// Whether it is on now.
    pub promiscuous: bool,
    /// Packets received, where the OS tells.
    pub packets: Option<u64>,
    /// When it ended.
    pub closed_at: Option<Timestamp>,
    /// It was there before the sensor started.
    pub pre_existing: bool,
    /// It can receive, but no process holds it: its descriptor is in a message between two.
    pub in_flight: bool,
    /// It belongs to a listing of interfaces (`tcpdump -D`), not to a capture.
    pub enumeration: bool,
    /// The nearest process that leads a terminal session, container or jail; else the owner.
    pub lineage: Option<ProcessKey>,
}

impl CaptureSession {
    /// Highest stage reached.
    pub fn stage(&self) -> Stage {
        match self.reached {
            [_, _, Some(_)] => Stage::Reading,
            [_, Some(_), None] => Stage::Attached,
            _ => Stage::Opened,
        }
    }

    /// The process that findings name: the first one seen with the handle.
    pub fn owner(&self) -> Option<&Arc<Process>> {
        self.holders.first()
    }

    /// When it was opened, or first seen.
    pub fn opened_at(&self) -> Timestamp {
        self.reached.iter().flatten().min().copied().unwrap_or_default()
    }
}

/// What is new about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// First seen.
    Opened,
    /// It can receive.
    Attached,
    /// It received.
    Reading,
    /// Promiscuous mode went on.
    Promiscuous,
    /// One more process holds it.
    Holder,
    /// It was recognised as a listing of interfaces.
    Enumeration,
    /// It ended.
    Closed,
}

impl Change {
    /// The value of the rule field `Change`.
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Opened => "opened",
            Change::Attached => "attached",
            Change::Reading => "reading",
            Change::Promiscuous => "promiscuous",
            Change::Holder => "holder",
            Change::Enumeration => "enumeration",
            Change::Closed => "closed",
        }
    }
}

/// The event that `packet_capture` rules see: emitted once for each new stage, promiscuous mark,
/// holder or close, with the whole state of the session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionChanged {
    /// When.
    pub at: Timestamp,
    /// `seq` of the observation that caused it.
    pub seq: u64,
    /// What is new.
    pub change: Change,
    /// The session after the change.
    pub session: Arc<CaptureSession>,
}
