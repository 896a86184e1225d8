//! Files that are written, renamed, truncated and replaced while they are followed.
// Clippy knows the test functions as tests, their helpers not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bsm;
mod evtx;
mod lines;
mod support;
