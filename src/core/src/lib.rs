//! The core of bpfwatch: vocabulary, session tracker, detection engine, alerts.
//!
//! No operating system, no clock, no randomness, no input or output: what goes in are
//! [`Observation`](observation::Observation)s and the passing of time, what comes out are
//! [`Line`](finding::Line)s. The same input gives the same output, byte for byte.
//!
//! | module | duty |
//! |---|---|
//! | [`time`], [`text`], [`arguments`] | values that come from outside, bounded and always valid |
//! | [`process`], [`scope`], [`handle`], [`protocols`], [`logged`], [`observation`], [`wire`] | what a sensor can say |
//! | [`session`] | a handle from open to close |
//! | [`rules`] | Sigma: loading, evaluation, expected filters, correlation |
//! | [`events`] | what rules see |
//! | [`pipeline`] | observations in, lines out |
//! | [`cases`] | a recording and what must come out of it |
//! | [`finding`], [`view`], [`redact`] | what bpfwatch says, without secrets |
//! | [`sensor`], [`platform`], [`sink`], [`decoder`] | what the edges implement |

pub mod alerts;
pub mod ancestors;
pub mod arguments;
pub mod cases;
pub mod decoder;
pub mod events;
pub mod finding;
pub mod handle;
pub mod ids;
pub mod lane;
pub mod lineage;
pub mod listing;
pub mod logged;
pub mod observation;
mod outlook;
pub mod pipeline;
pub mod platform;
pub mod process;
pub mod program;
pub mod protocols;
pub mod redact;
pub mod report;
pub mod rules;
pub mod scope;
pub mod sensor;
pub mod session;
pub mod sink;
pub mod text;
pub mod time;
pub mod tracker;
pub mod view;
pub mod wire;
