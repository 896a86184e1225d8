//! Network sinks from line to receiver: spool, courier and transports against a receiver that fails,
//! hangs, refuses, comes and goes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

#[path = "../fixtures/mod.rs"]
mod fixtures;
mod flow;
mod harness;
mod otlp;
#[path = "../receiver/mod.rs"]
mod receiver;
mod refusals;
mod secrets;
