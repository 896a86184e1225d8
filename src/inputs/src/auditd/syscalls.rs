//! System calls that say something about executions and capture sockets: their numbers on the
//! architectures that audit names, and what their arguments mean.

/// A system call, whatever its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Execve,
    Socket,
    Bind,
    Setsockopt,
    Close,
    /// All of 32-bit x86's socket calls in one; the arguments are in a record of their own.
    Socketcall,
    /// A thread or the whole process ended.
    Exit,
}

/// `audit_arch` (include/uapi/linux/audit.h): machine, and flags for 64 bits and little endian.
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const RISCV64: u32 = 0xc000_00f3;
const ARM: u32 = 0x4000_0028;
/// The flag for little endian.
const LITTLE_ENDIAN: u32 = 0x4000_0000;

/// What a number means. (arch/x86/entry/syscalls/syscall_{64,32}.tbl, include/uapi/asm-generic/unistd.h,
/// arch/arm/tools/syscall.tbl)
pub(super) fn of_number(arch: u32, number: i64) -> Option<Call> {
    let table: &[(i64, Call)] = match arch {
        X86_64 => &[
            (3, Call::Close),
            (41, Call::Socket),
            (49, Call::Bind),
            (54, Call::Setsockopt),
            (59, Call::Execve),
            (231, Call::Exit),
            (322, Call::Execve),
        ],
        I386 => &[
            (6, Call::Close),
            (11, Call::Execve),
            (102, Call::Socketcall),
            (252, Call::Exit),
            (358, Call::Execve),
            (359, Call::Socket),
            (361, Call::Bind),
            (366, Call::Setsockopt),
        ],
        AARCH64 | RISCV64 => &[
            (57, Call::Close),
            (94, Call::Exit),
            (198, Call::Socket),
            (200, Call::Bind),
            (208, Call::Setsockopt),
            (221, Call::Execve),
            (281, Call::Execve),
        ],
        ARM => &[
            (6, Call::Close),
            (11, Call::Execve),
            (248, Call::Exit),
            (281, Call::Socket),
            (282, Call::Bind),
            (294, Call::Setsockopt),
            (387, Call::Execve),
        ],
        _ => return None,
    };
    table.iter().find(|(known, _)| *known == number).map(|(_, call)| *call)
}

/// What an enriched record calls it.
pub(super) fn of_name(name: &str) -> Option<Call> {
    Some(match name {
        "execve" | "execveat" => Call::Execve,
        "socket" => Call::Socket,
        "bind" => Call::Bind,
        "setsockopt" => Call::Setsockopt,
        "close" => Call::Close,
        "socketcall" => Call::Socketcall,
        "exit_group" => Call::Exit,
        _ => return None,
    })
}

/// Its name, for `SYSCALL` where the record has none.
pub(super) fn name(call: Call) -> &'static str {
    match call {
        Call::Execve => "execve",
        Call::Socket => "socket",
        Call::Bind => "bind",
        Call::Setsockopt => "setsockopt",
        Call::Close => "close",
        Call::Socketcall => "socketcall",
        Call::Exit => "exit_group",
    }
}

/// The call within `socketcall`. (include/uapi/linux/net.h, SYS_SOCKET and others)
pub(super) fn of_socketcall(number: u64) -> Option<Call> {
    match number {
        1 => Some(Call::Socket),
        2 => Some(Call::Bind),
        14 => Some(Call::Setsockopt),
        _ => None,
    }
}

/// The protocol of a packet socket, which a program gives in network byte order: `htons(ETH_P_ALL)`.
pub(super) fn from_network(arch: u32, protocol: u64) -> u16 {
    #[allow(clippy::cast_possible_truncation, reason = "the kernel takes the low 16 bits too")]
    let protocol = protocol as u16;
    if arch & LITTLE_ENDIAN != 0 { protocol.swap_bytes() } else { protocol }
}
