//! How an observation stands in a recording: one flat JSON object a line.
//!
//! Flat and without tagged enums, because serde buffers those: reading recordings is the hot path of
//! replay. Unknown fields are ignored, so that an older bpfwatch reads a newer recording as far as it
//! can; an unknown kind is an error, which the reader counts.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::handle::Handle;
use crate::logged::Logged;
use crate::observation::{Interface, Kind, Observation};
use crate::process::Process;
use crate::text::Text;
use crate::time::Timestamp;

/// The flat form of [`Observation`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wire<'a> {
    /// Always `observation`.
    #[serde(rename = "type", borrow, default = "observation")]
    pub line: Cow<'a, str>,
    at: Timestamp,
    #[serde(default)]
    seq: u64,
    sensor: Arc<str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "process")]
    process: Option<Arc<Process>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handle: Option<Handle>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interface: Option<Interface>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pre_existing: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packets: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<Arc<Logged>>,
}

/// Into the `Arc` without the detour through a `Box` that serde's own way takes: a process is large.
fn process<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Process>>, D::Error> {
    Ok(Option::<Process>::deserialize(deserializer)?.map(Arc::new))
}

fn observation() -> Cow<'static, str> {
    Cow::Borrowed("observation")
}

/// The line is no observation that this version knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Its `type` is another one.
    #[error("type is `{0}`, expected `observation`")]
    Type(String),
    /// Its `kind` is unknown.
    #[error("unknown kind `{0}`")]
    Kind(String),
    /// A field that this kind needs is missing.
    #[error("kind `{kind}` needs the field `{field}`")]
    Missing {
        /// The kind.
        kind: &'static str,
        /// The field.
        field: &'static str,
    },
}

impl TryFrom<Wire<'_>> for Observation {
    type Error = WireError;

    fn try_from(mut wire: Wire<'_>) -> Result<Self, WireError> {
        if wire.line != "observation" {
            return Err(WireError::Type(wire.line.into_owned()));
        }
        let mut given = wire.handle.take();
        let mut handle = |kind| given.take().ok_or(WireError::Missing { kind, field: "handle" });
        let kind = match &*wire.kind {
            "running" => Kind::Running,
            "forked" => Kind::Forked,
            "executed" => Kind::Executed,
            "exited" => Kind::Exited,
            "handle_opened" => Kind::HandleOpened {
                handle: handle("handle_opened")?,
                pre_existing: wire.pre_existing.unwrap_or(false),
            },
            "handle_attached" => Kind::HandleAttached { handle: handle("handle_attached")? },
            "promiscuous" => {
                Kind::Promiscuous { handle: handle("promiscuous")?, on: wire.on.unwrap_or(true) }
            }
            "handle_active" => Kind::HandleActive {
                handle: handle("handle_active")?,
                packets: wire
                    .packets
                    .ok_or(WireError::Missing { kind: "handle_active", field: "packets" })?,
            },
            "handle_released" => Kind::HandleReleased { handle: handle("handle_released")? },
            "handle_closed" => Kind::HandleClosed { handle: handle("handle_closed")? },
            "interface_promiscuous" => Kind::InterfacePromiscuous {
                interface: wire.interface.ok_or(WireError::Missing {
                    kind: "interface_promiscuous",
                    field: "interface",
                })?,
                on: wire.on.unwrap_or(true),
            },
            "access_loosened" => Kind::AccessLoosened {
                path: wire
                    .path
                    .ok_or(WireError::Missing { kind: "access_loosened", field: "path" })?,
                mode: wire.mode,
                uid: wire.uid,
                gid: wire.gid,
                member: wire.member,
            },
            "logged" => Kind::Logged {
                record: wire
                    .record
                    .ok_or(WireError::Missing { kind: "logged", field: "record" })?,
            },
            "lost" => Kind::Lost {
                count: wire.count.unwrap_or(0),
                why: wire.why.ok_or(WireError::Missing { kind: "lost", field: "why" })?,
            },
            other => return Err(WireError::Kind(other.to_owned())),
        };
        Ok(Self { at: wire.at, seq: wire.seq, sensor: wire.sensor, actor: wire.process, kind })
    }
}

impl From<Observation> for Wire<'static> {
    fn from(observation: Observation) -> Self {
        let Observation { at, seq, sensor, actor, kind } = observation;
        let mut wire = Wire {
            line: self::observation(),
            at,
            seq,
            sensor,
            kind: Cow::Borrowed(kind.name()),
            process: actor,
            handle: None,
            interface: None,
            pre_existing: None,
            on: None,
            packets: None,
            count: None,
            why: None,
            path: None,
            mode: None,
            uid: None,
            gid: None,
            member: None,
            record: None,
        };
        match kind {
            Kind::Running | Kind::Forked | Kind::Executed | Kind::Exited => {}
            Kind::HandleOpened { handle, pre_existing } => {
                wire.handle = Some(handle);
                wire.pre_existing = pre_existing.then_some(true);
            }
            Kind::HandleAttached { handle }
            | Kind::HandleReleased { handle }
            | Kind::HandleClosed { handle } => wire.handle = Some(handle),
            Kind::Promiscuous { handle, on } => {
                wire.handle = Some(handle);
                wire.on = Some(on);
            }
            Kind::HandleActive { handle, packets } => {
                wire.handle = Some(handle);
                wire.packets = Some(packets);
            }
            Kind::InterfacePromiscuous { interface, on } => {
                wire.interface = Some(interface);
                wire.on = Some(on);
            }
            Kind::AccessLoosened { path, mode, uid, gid, member } => {
                wire.path = Some(path);
                (wire.mode, wire.uid, wire.gid, wire.member) = (mode, uid, gid, member);
            }
            Kind::Logged { record } => wire.record = Some(record),
            Kind::Lost { count, why } => {
                wire.count = Some(count);
                wire.why = Some(why);
            }
        }
        wire
    }
}
