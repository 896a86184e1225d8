//! eBPF programs that can see packets: which are loaded, where they are attached, what they are pinned to.
//!
//! The kernel numbers programs, links and maps, each across all namespaces (kernel/bpf/syscall.c:
//! `bpf_obj_get_next_id`, which takes CAP_SYS_ADMIN). What it tells of a program never changes, so each
//! is asked about once. It does not tell where one is attached: links know of control groups and
//! netfilter hooks, each network namespace of XDP, tc and tcx, control groups of what has no link.
//! Nobody knows which socket a socket filter is attached to.

pub mod info;

#[cfg(target_os = "linux")]
pub mod cgroups;
#[cfg(target_os = "linux")]
pub mod ffi;
#[cfg(target_os = "linux")]
pub mod known;
#[cfg(target_os = "linux")]
pub mod pins;
