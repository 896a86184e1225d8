//! macOS: what the system can show about packet capture. The live part has not run on a Mac yet: what decides
//! is pure, and tested elsewhere.
//!
//! | question | source | needs | what it cannot see |
//! |---|---|---|---|
//! | was a BPF device opened or closed, by whom | Endpoint Security NOTIFY_OPEN, NOTIFY_CLOSE | the entitlement, root, Full Disk Access | what happened before the client began; ioctls |
//! | who executes what, signed by whom | NOTIFY_EXEC, FORK, EXIT | the same | |
//! | who lets users capture | NOTIFY_SETMODE, SETOWNER, OD_GROUP_ADD (macOS 14) | the same | |
//! | what is attached, promiscuous, how many packets | sysctl `debug.bpf_stats` | nothing | its pid is the opener's for ever, also after the descriptor was passed on |
//! | who holds a descriptor | libproc, PROC_PIDFDVNODEPATHINFO | root for other users | |
//! | whether a holder ended, executed or forked | Endpoint Security, else kqueue EVFILT_PROC | nothing | |
//! | which interface is promiscuous | route socket, RTM_IFINFO | nothing | bridge members and awdl0 are so for good reason |
//!
//! Blind for good: PF_NDRV sockets and packet providers of NetworkExtension open no BPF device.
//! Not used: the kernel logs opens where root sets the sysctl `debug.bpf_debug`; nothing here changes a sysctl.
//!
//! | module | duty |
//! |---|---|
//! | [`raw`] | an Endpoint Security message, owned |
//! | [`decode`] | messages to observations |
//! | [`holders`] | when a BPF device is released, from events alone |
//! | [`eslogger`] | recorded messages, as eslogger(1) prints them |
//! | [`intake`], [`sequence`] | what is made of the messages of a running system; those that were lost |
//! | [`grade`] | how much can be seen, and why not more |
//! | [`stats`], [`libproc`], [`poll`] | the kernel's tables, taken apart and compared look by look |
//! | [`links`], [`schedule`] | interfaces that are promiscuous without a descriptor; when to look |
//! | [`unified`] | lines of output as records of the unified log |
//! | `live` | all that asks a running macOS |
//! | [`names`], [`profile`] | what deployment goes by, and a configuration profile for MDM |
//! | `emulate` | real capture handles, to try detection from end to end |
//! | `MacosPlatform` | what the program asks of an operating system |

mod bytes;
pub mod decode;
#[cfg_attr(not(target_os = "macos"), allow(dead_code))]
mod emulate;
pub mod eslogger;
#[cfg_attr(not(target_os = "macos"), allow(dead_code))]
mod ffi;
pub mod grade;
pub mod holders;
pub mod intake;
pub mod libproc;
pub mod links;
#[cfg(target_os = "macos")]
mod live;
pub mod names;
pub mod poll;
pub mod profile;
pub mod raw;
pub mod schedule;
pub mod sequence;
pub mod stats;
pub mod unified;

#[cfg(target_os = "macos")]
pub use live::MacosPlatform;
