//! systemd's side of a service: states go as datagrams to the socket that `$NOTIFY_SOCKET` names
//! (sd_notify(3)). The protocol is a few lines of text, so no library is needed for it.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use bpfwatch_core::platform::{ServiceManager, ServiceState};
use nix::time::{ClockId, clock_gettime};

/// A service manager that listens.
pub struct Systemd {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// The one that started us; `None` where none did, or where it does not want to be told.
    pub fn find() -> Option<Self> {
        let address = address(&std::env::var_os("NOTIFY_SOCKET")?)?;
        let socket = UnixDatagram::unbound().ok()?;
        // A manager that is stuck must not make us stuck.
        socket.set_nonblocking(true).ok()?;
        let variable = |name| std::env::var(name).ok();
        let watchdog =
            watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
        Some(Self { socket, address, watchdog })
    }
}

impl ServiceManager for Systemd {
    fn tell(&self, state: ServiceState<'_>) {
        // What it does not take, it does not take.
        let _ = self.socket.send_to_addr(message(state).as_bytes(), &self.address);
    }

    fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }
}

/// A path, or with `@` a name in the abstract namespace.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

/// The time within which systemd wants to hear, where it is us that it means (sd_watchdog_enabled(3)).
fn watchdog(micros: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let micros: u64 = micros?.parse().ok().filter(|micros| *micros > 0)?;
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    ours.then(|| Duration::from_micros(micros))
}

fn message(state: ServiceState<'_>) -> String {
    // A line end would begin another assignment.
    let line = |text: &str| text.replace('\n', " ");
    match state {
        ServiceState::Ready(text) => format!("READY=1\nSTATUS={}\n", line(text)),
        // The time is what Type=notify-reload wants with it.
        ServiceState::Reloading => {
            let now =
                clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
            format!("RELOADING=1\nMONOTONIC_USEC={}\n", now.as_micros())
        }
        ServiceState::Alive => "WATCHDOG=1\n".to_owned(),
        ServiceState::Status(text) => format!("STATUS={}\n", line(text)),
        ServiceState::Stopping => "STOPPING=1\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_watchdog_counts() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(watchdog(text("2000000"), None, 7), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(text("2000000"), text("7"), 7), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(text("2000000"), text("8"), 7), None);
        assert_eq!(watchdog(text("0"), None, 7), None);
        assert_eq!(watchdog(text("soon"), None, 7), None);
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(message(ServiceState::Status("a\nREADY=1")), "STATUS=a READY=1\n");
        assert!(message(ServiceState::Reloading).starts_with("RELOADING=1\nMONOTONIC_USEC="));
    }

    #[test]
    fn addresses() {
        assert!(
            address(OsStr::new("/run/x")).is_some_and(|address| address.as_pathname().is_some())
        );
        assert!(address(OsStr::new("@x")).is_some_and(|address| {
            address.as_abstract_name().is_some_and(|name| name == b"x")
        }));
        assert!(address(OsStr::new("x")).is_none() && address(OsStr::new("")).is_none());
    }
}
