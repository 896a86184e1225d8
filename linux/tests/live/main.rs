//! The Linux sensor against the real system: real tools, sockets, namespaces, containers.
//!
//! Runs as root where the tool is there; otherwise it prints what it skips.

// Helpers of tests may unwrap, as tests may.
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(target_os = "linux")]
mod sockets;
#[cfg(target_os = "linux")]
mod watcher;
