//! Recorded events to observations: what `bpfwatch replay` reads and `--record` writes.
//!
//! | module | duty |
//! |---|---|
//! | [`recording`] | bpfwatch's own format: reading a line, writing a file |
//! | [`detect`] | which format a file is in, by its content |
//! | [`reader`] | files and standard input, decoded on all cores, delivered in order |
//! | [`error`] | what can go wrong, with file and line |
//!
//! Formats that an operating system writes are decoded in that system's package and come here as a
//! [`LineDecoder`](bpfwatch_core::decoder::LineDecoder).

pub mod auditd;
mod chunk;
mod compressed;
mod deliver;
pub mod detect;
pub mod error;
pub mod follow;
mod json;
pub mod kubernetes;
pub mod network;
mod ordered;
mod peek;
pub mod reader;
pub mod recording;
mod source;
#[cfg(test)]
mod testing;
mod text;
mod time;
pub mod windows;
