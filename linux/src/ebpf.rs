//! Events from eBPF programs: handles and processes, each at the moment that it happens.
//!
//! `linux/ebpf/bpfwatch.bpf.c` is the source of the programs, `linux/ebpf/bpfwatch.bpf.o` what clang made
//! of it; a test proves that the one gives the other. Offsets of kernel structs are those of the running
//! kernel (CO-RE). Three ways to hook, of which the first that the kernel takes is used:
//!
//! | hook | needs | what it does not see |
//! |---|---|---|
//! | BPF LSM | Linux 5.8, `bpf` among the active LSMs | whether a bind succeeds: the next look does |
//! | fentry and fexit | Linux 5.8; on arm64 6.0 | the same |
//! | raw tracepoints | Linux 5.8, x86_64 | the close of a handle; descriptors received by `recvmmsg` beyond the fourth message or through io_uring |
//!
//! All of them see system calls of 64-bit and 32-bit programs, `int 0x80` and io_uring alike. Kprobes are
//! not used: a kernel that lets functions be hooked has fentry, and raw tracepoints serve the others.
//!
//! What these programs tell of a handle and what the looks at the kernel's tables find goes into one
//! table, keyed by the inode of the socket: the look is what mends a loss.

pub mod layout;

#[cfg(target_os = "linux")]
pub mod load;
#[cfg(target_os = "linux")]
pub mod watch;
