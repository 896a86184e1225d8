//! FreeBSD: what the system can show about packet capture, and how bpfwatch looks.
//!
//! | question | source | since | what it cannot see |
//! |---|---|---|---|
//! | was /dev/bpf opened | inotify(2) on the node | 15.0 | who: no pid; a watch in a jail's devfs keeps its mount busy, so it must go at NOTE_JAIL_REMOVE |
//! | the same | kqueue EVFILT_VNODE on an O_PATH descriptor | 13.1 | the same; events waiting in the queue merge |
//! | who holds a descriptor, attached or not | sysctl `kern.file` | all | a descriptor in a message between two processes |
//! | what is attached, promiscuous, how many packets | sysctl `net.bpf.stats` | all | its pid is who touched it last, not the opener; from 16 one vnet: a child reads it in each VNET jail that has a descriptor |
//! | who executes what | kqueue EVFILT_PROC with NOTE_TRACK | all | arguments of a process that ended first; an exec at the moment of the exit |
//! | which jail | `jail_get`, EVFILT_JAIL | all, 15.0 | jails of jails, unless each is watched |
//! | which interface is promiscuous | netlink, RTM_NEWLINK; before 14.0 route socket, RTM_IFINFO | all | other vnets; a second reader changes no flag |
//! | every execution, every open with pid and jail | audit pipe, classes `ex` and `fr,fw` | all | nothing while it drops none; every open on the machine costs 15 to 30 times as much |
//! | who may open it | modes and devfs rules of each devfs mount | all | a raw socket in a jail (allow.raw_sockets) is another way |
//! | raw IP and divert sockets | sysctls `net.inet.raw.pcblist`, `net.inet.divert.pcblist` joined with `kern.file` | all | other vnets |
//! | netgraph sockets, and sockets in VNET jails | `kern.proc.filedesc` of processes with sockets not known | all | a graph without a socket (ng_ksocket) |
//! | netmap | /dev/netmap in `kern.file` | all | which interface |
//! | span ports | BRDGGIFS of each bridge | all | who set it; bridges in VNET jails |
//!
//! | module | duty |
//! |---|---|
//! | [`layout`] | the kernel's structs, and what the test compares with FreeBSD's headers |
//! | [`raw`] | rows, owned |
//! | [`stats`], [`files`], [`filedesc`], [`pcbs`], [`procs`], [`jails`] | bytes of sysctls and of `jail_get` to rows |
//! | [`route`], [`link`] | messages of route and netlink sockets |
//! | [`decode`] | rows to processes, handles and scopes |
//! | [`bsm`] | audit records, of trails and of the audit pipe |
//! | [`audit`], `auditpipe` | the audit pipe as a live source, told once with the rest (the latter FreeBSD only) |
//! | [`matching`], [`poll`], [`schedule`] | looks, and what is new in them |
//! | [`beyond`], [`spans`] | what captures without /dev/bpf |
//! | [`processes`] | events and lists of processes |
//! | [`mounts`] | what a bpf node in a mount of devfs means |
//! | `ffi`, `kernel` | system calls, and the tables read and decoded (FreeBSD only, as what follows) |
//! | [`inotify`], [`watches`], [`opens`] | opens of nodes: events, which nodes, and opens of nobody |
//! | `guard` | holds the watches, and lets go of a jail's (FreeBSD only) |
//! | `captures`, `interfaces` | tables of what captures without /dev/bpf, messages of interfaces (FreeBSD only) |
//! | `sensor`, `snapshot` | the loop, and one look for `scan` |
//! | `coverage`, `posture`, `emulate` | `doctor` and `emulate` |
//! | `FreebsdPlatform` | what the program asks of an operating system |
//!
//! What decodes bytes and decides builds and is tested on every system. What makes system calls is checked
//! and linked for FreeBSD; bsd/README.md says what was seen of it there.

pub mod audit;
pub mod beyond;
pub mod bsm;
mod bytes;
mod constants;
pub mod decode;
pub mod filedesc;
pub mod files;
pub mod inotify;
pub mod jails;
pub mod layout;
pub mod link;
pub mod matching;
pub mod mounts;
pub mod opens;
pub mod pcbs;
pub mod poll;
pub mod processes;
pub mod procs;
pub mod raw;
pub mod route;
pub mod schedule;
pub mod spans;
pub mod stats;
#[cfg_attr(not(target_os = "freebsd"), allow(dead_code))]
mod users;
pub mod watches;

pub use constants::constants;

#[cfg(target_os = "freebsd")]
mod auditpipe;
#[cfg(target_os = "freebsd")]
mod captures;
#[cfg(target_os = "freebsd")]
mod coverage;
#[cfg(target_os = "freebsd")]
mod emulate;
#[cfg(target_os = "freebsd")]
mod ffi;
#[cfg(target_os = "freebsd")]
mod guard;
#[cfg(target_os = "freebsd")]
mod interfaces;
#[cfg(target_os = "freebsd")]
mod kernel;
#[cfg(target_os = "freebsd")]
mod platform;
#[cfg(target_os = "freebsd")]
mod posture;
#[cfg(target_os = "freebsd")]
mod sensor;
#[cfg(target_os = "freebsd")]
mod snapshot;

#[cfg(target_os = "freebsd")]
pub use platform::FreebsdPlatform;
