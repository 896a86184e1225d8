//! `doctor`: captures that no packet socket shows, source by source.

use std::io::ErrorKind;

use bpfwatch_core::platform::{Check, CheckState};
use nix::errno::Errno;

use super::probe::{errno, rows};
use super::{why, with_mend};
use crate::programs::ffi::{self, Object};
use crate::programs::{info, known};
use crate::{netlink_diag, netlink_tc, proc, proc_text};

/// How AF_XDP sockets are found that were there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xdp {
    /// xdp_diag lists so many in this network namespace.
    Listed(usize),
    /// Only counted; the names of sockets' protocols tell which.
    Counted(u64),
    /// The kernel has none.
    None,
    /// Nothing could be read.
    Unknown,
}

/// How USB monitors are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usb {
    /// The module is not there.
    None,
    /// debugfs tells how many there are.
    Counted,
    /// All descriptors are looked at.
    Walked,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Beyond {
    /// Programs that are loaded, and how many of them see packets.
    pub programs: Result<(usize, usize), Errno>,
    /// Queueing disciplines that rtnetlink lists.
    pub qdiscs: Result<usize, Errno>,
    /// The kernel tells programs that are attached by tcx; `None` without the right to ask.
    pub tcx: Option<bool>,
    /// Tables of NFLOG and NFQUEUE; `None` where the kernel has neither.
    pub readers: Result<Option<()>, ErrorKind>,
    /// AF_XDP sockets.
    pub xdp: Xdp,
    /// USB monitors.
    pub usb: Usb,
}

impl Beyond {
    /// Looks at this machine.
    pub fn take() -> Self {
        Self {
            programs: programs().map_err(|error| errno(&error)),
            qdiscs: rows(libc::NETLINK_ROUTE, netlink_tc::qdiscs_request),
            tcx: tcx(),
            readers: readers(),
            xdp: xdp(),
            usb: usb(),
        }
    }
}

fn programs() -> std::io::Result<(usize, usize)> {
    let ids = known::all(Object::Program)?;
    let sees_packets = |id: &&u32| {
        use std::os::fd::AsFd as _;
        let read = || {
            let program = ffi::open(Object::Program, **id).ok()?;
            let (bytes, _) = ffi::program(program.as_fd()).ok()?;
            info::packet_type(info::program(&bytes)?.program_type)
        };
        read().is_some()
    };
    Ok((ids.len(), ids.iter().filter(sees_packets).count()))
}

fn tcx() -> Option<bool> {
    // The loopback interface is the first of every network namespace.
    match ffi::attached(1, info::TCX[0].0) {
        Ok(_) => Some(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => None,
        Err(_) => Some(false),
    }
}

fn readers() -> Result<Option<()>, ErrorKind> {
    for table in ["nfnetlink_log", "nfnetlink_queue"] {
        match std::fs::File::open(format!("/proc/self/net/netfilter/{table}")) {
            Ok(_) => return Ok(Some(())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.kind()),
        }
    }
    Ok(None)
}

fn xdp() -> Xdp {
    if let Ok(count) = rows(libc::NETLINK_SOCK_DIAG, netlink_diag::xdp_request) {
        return Xdp::Listed(count);
    }
    match proc::read("/proc/self/net/protocols") {
        Some(table) => proc_text::sockets_of(&table, b"XDP").map_or(Xdp::None, Xdp::Counted),
        None => Xdp::Unknown,
    }
}

fn usb() -> Usb {
    if !std::path::Path::new("/sys/class/usbmon").exists() {
        return Usb::None;
    }
    match std::fs::read_dir("/sys/kernel/debug/usb/usbmon") {
        Ok(_) => Usb::Counted,
        Err(_) => Usb::Walked,
    }
}

/// One check for each source.
pub fn checks(found: &Beyond) -> [Check; 5] {
    [
        programs_check(found),
        attachments(found),
        readers_check(found),
        xdp_check(found),
        usb_check(found),
    ]
}

fn programs_check(found: &Beyond) -> Check {
    let name = "eBPF programs";
    match found.programs {
        Ok((all, packet)) => {
            let detail = format!("{all} are loaded, {packet} of them of a type that sees packets");
            Check::new(name, CheckState::Ok, detail)
        }
        Err(Errno::ENOSYS) => {
            Check::new(name, CheckState::Ok, "the kernel has no bpf(2), so none".to_owned())
        }
        Err(Errno::EPERM) => {
            let detail = "the kernel lists them only with CAP_SYS_ADMIN".to_owned();
            with_mend(Check::new(name, CheckState::Blind, detail), "run as root of the host")
        }
        Err(error) => {
            let detail = format!("the kernel does not list them: {}", why(error));
            with_mend(Check::new(name, CheckState::Blind, detail), "Linux 4.13 or later")
        }
    }
}

fn attachments(found: &Beyond) -> Check {
    let name = "traffic control";
    let count = match found.qdiscs {
        Ok(count) => count,
        Err(error) => {
            let detail = format!("rtnetlink lists no queueing disciplines: {}", why(error));
            let mend = "a kernel with CONFIG_NET_SCHED; without it there is nothing to see";
            return with_mend(Check::new(name, CheckState::Info, detail), mend);
        }
    };
    let mut detail = format!(
        "filters, mirrors and programs of {count} queueing disciplines in this network namespace"
    );
    match found.tcx {
        Some(true) => detail += ", and programs attached by tcx",
        Some(false) => detail += "; the kernel has no tcx",
        None => {
            detail += "; programs attached by tcx are shown only with CAP_NET_ADMIN";
            return with_mend(Check::new(name, CheckState::Blind, detail), "run as root");
        }
    }
    Check::new(name, CheckState::Ok, detail)
}

fn readers_check(found: &Beyond) -> Check {
    let name = "NFLOG and NFQUEUE";
    match found.readers {
        Ok(Some(())) => Check::new(name, CheckState::Ok, "their readers are listed".to_owned()),
        Ok(None) => {
            Check::new(name, CheckState::Ok, "the kernel has neither, or not loaded yet".to_owned())
        }
        Err(error) => {
            let detail = format!("/proc/net/netfilter cannot be read: {error}");
            with_mend(Check::new(name, CheckState::Blind, detail), "run as root")
        }
    }
}

fn xdp_check(found: &Beyond) -> Check {
    let name = "AF_XDP sockets";
    match found.xdp {
        Xdp::Listed(count) => {
            let detail = format!("xdp_diag answers: {count} in this network namespace");
            Check::new(name, CheckState::Ok, detail)
        }
        Xdp::Counted(count) => {
            let detail = format!(
                "{count} in this network namespace, from their count and the protocols of \
                 descriptors; of those that were there before, the interface is not known \
                 without xdp_diag"
            );
            Check::new(name, CheckState::Ok, detail)
        }
        Xdp::None => Check::new(name, CheckState::Ok, "the kernel has none".to_owned()),
        Xdp::Unknown => {
            let detail = "neither xdp_diag nor /proc/net/protocols can be read".to_owned();
            with_mend(Check::new(name, CheckState::Blind, detail), "is /proc mounted?")
        }
    }
}

fn usb_check(found: &Beyond) -> Check {
    let name = "USB monitors";
    match found.usb {
        Usb::None => Check::new(name, CheckState::Ok, "usbmon is not there, so none".to_owned()),
        Usb::Counted => {
            Check::new(name, CheckState::Ok, "debugfs tells when one is opened".to_owned())
        }
        Usb::Walked => {
            let detail =
                "descriptors are looked at every 30 seconds: one that is open for less can \
                          be missed"
                    .to_owned();
            with_mend(
                Check::new(name, CheckState::Warning, detail),
                "mount debugfs at /sys/kernel/debug, or unload usbmon",
            )
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Root on an ordinary host.
    pub fn host() -> Beyond {
        Beyond {
            programs: Ok((40, 12)),
            qdiscs: Ok(4),
            tcx: Some(true),
            readers: Ok(Some(())),
            xdp: Xdp::Counted(0),
            usb: Usb::None,
        }
    }

    #[test]
    fn what_is_there_is_covered_and_what_is_denied_is_blind() {
        assert!(checks(&host()).iter().all(|check| check.state == CheckState::Ok));
        let denied = Beyond {
            programs: Err(Errno::EPERM),
            qdiscs: Ok(4),
            tcx: None,
            readers: Err(ErrorKind::PermissionDenied),
            xdp: Xdp::Unknown,
            usb: Usb::Walked,
        };
        let states = checks(&denied).map(|check| check.state);
        let blind = CheckState::Blind;
        assert_eq!(states, [blind, blind, blind, blind, CheckState::Warning]);
        assert!(checks(&denied).iter().all(|check| check.mend.is_some()));
    }

    #[test]
    fn what_a_kernel_lacks_is_no_blind_spot() {
        let old = Beyond {
            programs: Err(Errno::ENOSYS),
            qdiscs: Err(Errno::EOPNOTSUPP),
            tcx: Some(false),
            readers: Ok(None),
            xdp: Xdp::None,
            usb: Usb::None,
        };
        assert!(checks(&old).iter().all(|check| check.state <= CheckState::Info));
    }

    #[test]
    fn looks_at_this_machine() {
        eprintln!("{:?}", Beyond::take());
    }
}
