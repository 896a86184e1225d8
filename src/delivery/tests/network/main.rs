//! Network sinks from line to receiver: spool, courier and transports against a receiver that fails,
//! hangs, refuses, comes and goes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod certificates;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod flow;
mod harness;
mod otlp;
#[path = "../support/pki.rs"]
mod pki;
mod proxies;
#[path = "../receiver/mod.rs"]
mod receiver;
mod refusals;
mod secrets;
