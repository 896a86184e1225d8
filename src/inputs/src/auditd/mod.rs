//! Linux audit: the log of auditd, what its dispatcher sends on, and the kernel's own lines.
//!
//! The kernel says one thing in several records, one a line, that share a serial number and may stand
//! between those of other things. Lines are read on several threads (`record`), then put together in
//! order (`events`), and what an event says becomes observations (`meaning`); system calls have their
//! numbers and arguments in `syscalls`.

mod events;
mod meaning;
mod record;
mod syscalls;
#[cfg(test)]
mod tests;

pub use record::Auditd;
