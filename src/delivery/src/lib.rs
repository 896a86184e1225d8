//! How lines leave bpfwatch: formats and transports, independent of each other.
//!
//! A [`Format`] turns one [`Line`](bpfwatch_core::finding::Line) into the bytes of one record; a
//! transport takes any format and puts its records somewhere. To add one of either is one file.
//!
//! | module | duty |
//! |---|---|
//! | [`format`] | what a format is |
//! | [`json`] | native JSON, one object a line |
//! | [`ecs`], [`ocsf`], [`falco`] | the same for receivers that know other schemas |
//! | [`limit`] | JSON records of a bounded size |
//! | [`rfc5424`], [`rfc3164`] | syslog records |
//! | [`envelope`] | a syslog header before JSON |
//! | [`human`] | blocks to be read on a terminal |
//! | [`handles`] | the table of `scan` |
//! | [`table`], [`style`], [`visible`] | columns, colours, and text that cannot steer a terminal |
//! | [`transport`] | standard output, a file, the local syslog socket |
//! | [`remote`] | what a network transport is |
//! | [`spool`] | where records wait for it on disk |
//! | [`courier`], [`backoff`] | from the spool to the receiver: batches and retries |
//! | [`http`], [`otlp`], [`webhook`] | network transports over HTTP |
//! | [`tls`] | what every transport over TLS shares |
//!
//! Names in a line were chosen by whoever is watched. No format lets one of them start a second
//! record, move a cursor or turn the reading direction.

mod attack;
pub mod backoff;
pub mod courier;
pub mod ecs;
pub mod envelope;
pub mod falco;
mod flat;
pub mod format;
pub mod handles;
pub mod http;
pub mod human;
pub mod json;
pub mod limit;
mod object;
pub mod ocsf;
pub mod otlp;
mod parts;
pub mod remote;
pub mod rfc3164;
pub mod rfc5424;
pub mod spool;
pub mod style;
mod summary;
pub mod table;
pub mod tls;
pub mod transport;
pub mod visible;
pub mod webhook;

pub use ecs::Ecs;
pub use envelope::Envelope;
pub use falco::Falco;
pub use format::{Format, Shape};
pub use handles::render_table;
pub use human::Human;
pub use json::Json;
pub use limit::Limited;
pub use ocsf::Ocsf;
pub use otlp::{Otlp, OtlpRecord};
pub use remote::{Limits, Record, Refused, Remote};
pub use rfc3164::Rfc3164;
pub use rfc5424::Rfc5424;
pub use style::Style;
pub use webhook::Webhook;
