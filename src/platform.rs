//! The program's only `cfg(target_os)`: which operating system this binary is for, and where things
//! are there.

use bpfwatch_core::platform::Platform;

/// The operating system that this binary was built for.
#[cfg(target_os = "linux")]
pub fn current() -> Box<dyn Platform> {
    Box::new(bpfwatch_linux::LinuxPlatform)
}

/// The operating system that this binary was built for.
#[cfg(not(target_os = "linux"))]
pub fn current() -> Box<dyn Platform> {
    Box::new(none::NonePlatform)
}

#[cfg(not(target_os = "linux"))]
mod none;

/// Where the configuration is.
#[cfg(not(target_os = "freebsd"))]
pub const CONFIG: &str = "/etc/bpfwatch/bpfwatch.toml";
/// Where the configuration is: hier(7) keeps what is not of the base system under /usr/local.
#[cfg(target_os = "freebsd")]
pub const CONFIG: &str = "/usr/local/etc/bpfwatch.toml";

/// Where the daemon keeps what must survive a restart (FHS 3.0, 5.8).
#[cfg(target_os = "linux")]
pub const STATE_DIR: &str = "/var/lib/bpfwatch";
/// Where the daemon keeps what must survive a restart (hier(7)).
#[cfg(not(target_os = "linux"))]
pub const STATE_DIR: &str = "/var/db/bpfwatch";

/// Where syslog listens.
#[cfg(target_os = "linux")]
pub const SYSLOG: &str = "/dev/log";
/// Where syslog listens: the privileged socket of syslogd(8).
#[cfg(target_os = "freebsd")]
pub const SYSLOG: &str = "/var/run/logpriv";
/// Where syslog listens.
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
pub const SYSLOG: &str = "/var/run/syslog";

/// Name of the loopback interface.
#[cfg(target_os = "linux")]
pub const LOOPBACK: &str = "lo";
/// Name of the loopback interface.
#[cfg(not(target_os = "linux"))]
pub const LOOPBACK: &str = "lo0";
