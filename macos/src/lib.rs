//! macOS for bpfwatch.
//!
//! | module | duty |
//! |---|---|
//! | [`raw`] | an Endpoint Security message, owned |
//! | [`decode`] | messages to observations |
//! | [`holders`] | when a BPF device is released, from events alone |
//! | [`eslogger`] | recorded messages, as eslogger(1) prints them |

pub mod decode;
pub mod eslogger;
pub mod holders;
pub mod raw;
