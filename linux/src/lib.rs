//! Linux: what the system can show about packet capture, and how bpfwatch looks.
//!
//! | question | source | what it cannot see |
//! |---|---|---|
//! | who opens a handle, and who executes what, at once | eBPF programs on BPF LSM, fentry or raw tracepoints, see [`ebpf`] | kernels without BTF or without the privilege |
//! | who holds a packet socket | `packet_diag` in each network namespace, `/proc/PID/net/packet` where the kernel lacks it | a socket that lives between two looks |
//! | who holds a raw IP socket | `inet_diag` of raw sockets, else `/proc/PID/net/raw` and `raw6` | the same |
//! | which eBPF programs see packets, and where | bpf(2): programs and links by number, `BPF_PROG_QUERY` for tcx, netkit and control groups; rtnetlink for XDP, filters and actions; pins below `/sys/fs/bpf` | programs of other types; which socket a socket filter is on |
//! | who has AF_XDP sockets | `xdp_diag`; without it their count in `/proc/PID/net/protocols`, and the protocol that the kernel names for a descriptor | the interface, without `xdp_diag` |
//! | what copies packets to another interface | `mirred` actions of filters, by rtnetlink | who set it up; mirrors of software and hardware switches |
//! | who reads NFLOG and NFQUEUE | `/proc/PID/net/netfilter`, and `/proc/PID/net/netlink` for the inode | readers of metadata alone |
//! | who reads a TAP device on a bridge, who monitors USB | rtnetlink; `/proc/PID/fdinfo`; debugfs for the number of monitors | monitors of less than 30 seconds without debugfs |
//! | who holds that inode, program or device | links in `/proc/PID/fd` | a descriptor in a message between two processes, or registered with io_uring alone, has no holder |
//! | which namespaces there are | `/proc/PID/ns/net`, `/run/netns` | one that only a thread or a socket is left in |
//! | who executes what, without eBPF | the proc connector, then `/proc/PID` | arguments of a process that ended first |
//! | which interface is promiscuous | rtnetlink `IFLA_PROMISCUITY` | who wants it so |
//!
//! Looks happen each second everywhere (at traffic control each five seconds), at once when an interface changes, and, where there are no
//! events, seven times within half a second after an execution in the namespace of the executed process.
//! Events and looks change one table: a look mends what events lost. Nothing in a foreign namespace is
//! held longer than one look.
//!
//! What decodes bytes builds and is tested on every system; what makes system calls is Linux only.

#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
mod capability;
pub mod decode;
pub mod ebpf;
pub mod grip;
pub mod netlink;
pub mod netlink_diag;
pub mod netlink_proc;
pub mod netlink_route;
pub mod netlink_tc;
pub mod proc_text;
pub mod programs;
pub mod promisc;
pub mod raw;
pub mod readers;
pub mod scope;

#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
mod coverage;
#[cfg(target_os = "linux")]
mod emulate;
#[cfg(target_os = "linux")]
mod ffi;
#[cfg(target_os = "linux")]
mod hardening;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod netlink_socket;
#[cfg(target_os = "linux")]
mod netns;
#[cfg(target_os = "linux")]
mod platform;
#[cfg(target_os = "linux")]
mod posture;
#[cfg(target_os = "linux")]
mod proc;
#[cfg(target_os = "linux")]
mod proc_facts;
#[cfg(target_os = "linux")]
mod sensor;
#[cfg(target_os = "linux")]
mod sensor_beyond;
#[cfg(target_os = "linux")]
mod sensor_events;
#[cfg(target_os = "linux")]
mod sensor_holders;
#[cfg(target_os = "linux")]
mod sensor_scan;
#[cfg(target_os = "linux")]
mod sensor_setters;
#[cfg(target_os = "linux")]
mod sensor_state;
#[cfg(target_os = "linux")]
mod sensor_table;
#[cfg(target_os = "linux")]
mod sensor_traffic;
#[cfg(target_os = "linux")]
mod sensor_worker;
#[cfg(target_os = "linux")]
mod service;
#[cfg(target_os = "linux")]
mod snapshot;
#[cfg(target_os = "linux")]
mod users;

#[cfg(target_os = "linux")]
pub use memory::settle;
#[cfg(target_os = "linux")]
pub use platform::LinuxPlatform;
