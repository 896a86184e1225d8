//! The program's only `cfg(target_os)`: which operating system this binary is for, and where things
//! are there.

use std::os::unix::net::UnixStream;

use bpfwatch_core::platform::Platform;

#[cfg(target_os = "freebsd")]
use bpfwatch_bsd::FreebsdPlatform as Current;
#[cfg(target_os = "linux")]
use bpfwatch_linux::LinuxPlatform as Current;
#[cfg(target_os = "macos")]
use bpfwatch_macos::MacosPlatform as Current;

/// A replay allocates in one thread and frees in another. glibc's allocator takes a lock for that and
/// musl's one for everything; FreeBSD and macOS have allocators that are made for it.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives back memory that only the start needed. To be called by the thread that started the program.
pub fn settle() {
    #[cfg(target_os = "linux")]
    bpfwatch_linux::settle();
}

/// The operating system that this binary was built for.
pub fn current() -> Box<dyn Platform> {
    Box::new(Current)
}

/// Effective user id of who connected to a local socket (unix(7): SO_PEERCRED).
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub fn peer(stream: &UnixStream) -> std::io::Result<u32> {
    let peer = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok(peer.uid())
}

/// Effective user id of who connected to a local socket (getpeereid(3)).
///
/// # Errors
/// What the system says.
#[cfg(not(target_os = "linux"))]
pub fn peer(stream: &UnixStream) -> std::io::Result<u32> {
    Ok(nix::unistd::getpeereid(stream)?.0.as_raw())
}

/// Where the configuration is. FreeBSD keeps what is not of the base system under /usr/local (hier(7)).
pub const CONFIG: &str = if cfg!(target_os = "freebsd") {
    "/usr/local/etc/bpfwatch.toml"
} else {
    "/etc/bpfwatch/bpfwatch.toml"
};

/// The folder of further configuration files beside it. FreeBSD's directory is shared by all software.
pub const CONFIG_FOLDER: &str = if cfg!(target_os = "freebsd") { "bpfwatch.d" } else { "conf.d" };

/// Where the service's own logs belong (FHS 3.0, 5.10; hier(7)): sinks may come to write there.
pub const LOG_DIR: &str = "/var/log/bpfwatch";

/// The socket that `status` asks (FHS 3.0, 3.15; hier(7)).
pub const STATUS_SOCKET: &str = if cfg!(target_os = "linux") {
    "/run/bpfwatch/status.sock"
} else {
    "/var/run/bpfwatch/status.sock"
};

/// Preferences that MDM manages for the machine: they win over the configuration file.
pub const MANAGED: Option<&str> =
    if cfg!(target_os = "macos") { Some(bpfwatch_macos::names::MANAGED) } else { None };

/// Where lines go unless a sink is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sinks {
    /// To standard output, which the service manager keeps.
    Stdout,
    /// To the local syslog daemon: FreeBSD's service manager keeps nothing.
    Syslog,
    /// To the system's own log and to this file beside it.
    LogAndFile(&'static str),
}

/// Those of this system.
pub const SINKS: Sinks = if cfg!(target_os = "macos") {
    Sinks::LogAndFile(bpfwatch_macos::names::LOG_FILE)
} else if cfg!(target_os = "freebsd") {
    Sinks::Syslog
} else {
    Sinks::Stdout
};

/// Where the daemon keeps what must survive a restart (FHS 3.0, 5.8; hier(7)).
pub const STATE_DIR: &str =
    if cfg!(target_os = "linux") { "/var/lib/bpfwatch" } else { "/var/db/bpfwatch" };

/// Where syslog listens (`_PATH_LOG` of each system's sys/syslog.h).
pub const SYSLOG: &str = if cfg!(target_os = "linux") {
    "/dev/log"
} else if cfg!(target_os = "freebsd") {
    "/var/run/log"
} else {
    "/var/run/syslog"
};

/// Whether sensors can read an audit pipe (auditpipe(4)).
pub const HAS_AUDIT_PIPE: bool = cfg!(target_os = "freebsd");

/// Name of the loopback interface.
pub const LOOPBACK: &str = if cfg!(target_os = "linux") { "lo" } else { "lo0" };
