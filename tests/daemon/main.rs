//! The daemon as service managers, administrators and Prometheus see it: started, asked, told to read
//! its configuration again, stopped.
//!
//! Needs Linux, where there are live sensors; what also needs root prints a skip without it.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails; the exemption covers only test functions"
)]

mod harness;
mod inputs;
mod limit;
mod metrics;
mod network;
#[path = "../../src/delivery/tests/receiver/mod.rs"]
mod receiver;
mod reload;
mod service;
mod status;
