//! Live tests: real captures, seen by the real program on this machine.
//!
//! They need Linux, root and the tools that they start; what cannot run says so on standard error with
//! the word `skipped`. They run one after the other, because each looks at the whole machine.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test is a failed test")]

mod beyond;
#[path = "../bundle/mod.rs"]
mod bundle;
mod captures;
mod container;
mod emulate;
mod exact;
mod hardened;
mod harness;
mod load;
mod quiet;
