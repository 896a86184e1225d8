//! Tries each source of the sensors once and leaves nothing behind.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use bpfwatch_core::platform::{Ebpf as Wanted, SensorSettings};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, send};

use super::beyond::Beyond;
use crate::capability::{Capabilities, Status};
use crate::ebpf::load::{self, Loaded};
use crate::netlink_socket::{BUFFER, NetlinkSocket};
use crate::netns::{self, Visitor};
use crate::proc::ProcDir;
use crate::proc_facts::Home;
use crate::{ffi, netlink, netlink_diag, netlink_proc, netlink_route, proc};

/// Inode of the initial pid namespace, the same on every machine (linux/proc_ns.h: PROC_PID_INIT_INO).
const INITIAL_PID: u64 = 0xEFFF_FFFC;
/// Inode of the initial user namespace (PROC_USER_INIT_INO).
const INITIAL_USER: u64 = 0xEFFF_FFFD;
/// Most network namespaces that are entered.
const MAX_NAMESPACES: usize = 1024;

/// Whether /proc hides other users' processes (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HidePid {
    /// It shows them.
    Off,
    /// It hides them, by this mount option.
    On(String),
}

/// A process and the inode of its network namespace.
type Place = (u32, Option<u64>);

/// What was found.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Release of the kernel.
    pub kernel: String,
    /// Capabilities in force.
    pub effective: Capabilities,
    /// We are in the initial pid namespace.
    pub initial_pid: bool,
    /// We are in the initial user namespace.
    pub initial_user: bool,
    /// We are in the host's network namespace; `None` where it is not known which that is.
    pub host_network: Option<bool>,
    /// Packet sockets that packet_diag lists.
    pub packet_diag: Result<usize, Errno>,
    /// /proc/self/net/packet can be read.
    pub packet_table: bool,
    /// Raw IPv4 sockets that inet_diag lists.
    pub raw_diag: Result<usize, Errno>,
    /// /proc/self/net/raw can be read.
    pub raw_table: bool,
    /// Interfaces that rtnetlink lists.
    pub links: Result<usize, Errno>,
    /// Whether the proc connector's group could be joined.
    pub connector: Result<(), Errno>,
    /// Captures that no packet socket shows.
    pub beyond: Beyond,
    /// How eBPF programs hook the kernel, and why not in a better way; or why not at all.
    pub ebpf: load::Outcome,
    /// hidepid of the mount at /proc.
    pub hide_pid: HidePid,
    /// Processes that are there.
    pub processes: usize,
    /// Those of them whose descriptors may not be read.
    pub hidden: Vec<u32>,
    /// Network namespaces that are known.
    pub namespaces: usize,
    /// Those of them that could be entered.
    pub namespaces_reached: usize,
    /// Processes whose network namespace may not be read.
    pub namespaces_unknown: usize,
}

impl Probe {
    /// Looks at this machine.
    pub fn take() -> Self {
        let me = ProcDir::open(std::process::id());
        let own = |kind| me.as_ref().and_then(|dir| dir.namespace(kind));
        let kernel = proc::read_line("/proc/sys/kernel/osrelease").unwrap_or_default();
        let status = proc::read("/proc/self/status").unwrap_or_default();
        let mounts = proc::read("/proc/self/mountinfo").unwrap_or_default();
        let (places, hidden) = processes();
        let known: HashSet<u64> = places.iter().filter_map(|(_, inode)| *inode).collect();
        let named = netns::named();
        let names = named.iter().map(|(inode, ..)| *inode);
        let namespaces = known.iter().copied().chain(names).collect::<HashSet<_>>().len();
        Self {
            kernel: String::from_utf8_lossy(&kernel).into_owned(),
            effective: Status::parse(&String::from_utf8_lossy(&status)).effective,
            initial_pid: own("pid") == Some(INITIAL_PID),
            initial_user: own("user") == Some(INITIAL_USER),
            host_network: Home::find().net.zip(own("net")).map(|(host, own)| host == own),
            packet_diag: rows(libc::NETLINK_SOCK_DIAG, netlink_diag::packet_request),
            packet_table: readable("/proc/self/net/packet"),
            raw_diag: rows(libc::NETLINK_SOCK_DIAG, |seq| netlink_diag::raw_request(seq, 4)),
            raw_table: readable("/proc/self/net/raw"),
            links: rows(libc::NETLINK_ROUTE, netlink_route::links_request),
            connector: join_connector(),
            beyond: Beyond::take(),
            ebpf: load::outcome().unwrap_or_else(try_ebpf),
            hide_pid: hide_pid(&String::from_utf8_lossy(&mounts)),
            processes: places.len(),
            hidden,
            namespaces,
            namespaces_reached: reached(&places, &named),
            namespaces_unknown: places.iter().filter(|(_, inode)| inode.is_none()).count(),
        }
    }
}

/// Attaches the programs for a moment.
fn try_ebpf() -> load::Outcome {
    Loaded::new(Wanted::Auto, SensorSettings::default().ebpf_ring_kib).map(|loaded| loaded.way())
}

fn readable(path: &str) -> bool {
    fs::File::open(path).is_ok()
}

/// The number of a system's error.
pub fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// How many rows a table has.
pub fn rows(protocol: i32, request: impl FnOnce(u32) -> Vec<u8>) -> Result<usize, Errno> {
    let mut socket = NetlinkSocket::for_dumps(protocol).map_err(|error| errno(&error))?;
    let mut count = 0;
    socket.dump(request, &mut vec![0; BUFFER], |_| count += 1)?;
    Ok(count)
}

/// Joins the group of process events without a subscription, which older kernels would never take back
/// (before 6.6 only an explicit PROC_CN_MCAST_IGNORE did).
fn join_connector() -> Result<(), Errno> {
    let socket = ffi::socket(libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_CONNECTOR)
        .map_err(|error| errno(&error))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, netlink_proc::GROUP_PROC))?;
    // Joining works in any network namespace, but the kernel listens only in the initial one, and says
    // ECONNREFUSED elsewhere. A header with no message in it asks for nothing (drivers/connector/
    // connector.c: cn_rx_skb).
    send(socket.as_raw_fd(), &netlink::message(netlink::DONE, 0, 0, &[]), MsgFlags::empty())?;
    Ok(())
}

/// The option of the last mount at /proc: field 5 of a line is the mount point, and what follows ` - `
/// is type, source and options of the file system (proc_pid_mountinfo(5)).
fn hide_pid(mountinfo: &str) -> HidePid {
    let at_proc = |line: &&str| line.split(' ').nth(4) == Some("/proc");
    let options = mountinfo.lines().rfind(at_proc).and_then(|line| line.split_once(" - "));
    let options = options.and_then(|(_, rest)| rest.split(' ').nth(2)).unwrap_or_default();
    let option = options.split(',').find(|option| option.starts_with("hidepid="));
    match option {
        None | Some("hidepid=0" | "hidepid=off") => HidePid::Off,
        Some(option) => HidePid::On(option.to_owned()),
    }
}

/// Processes, each with its network namespace where that may be read, and those whose descriptors are
/// hidden.
fn processes() -> (Vec<Place>, Vec<u32>) {
    let (mut places, mut hidden) = (Vec::new(), Vec::new());
    for pid in proc::pids() {
        let place = ProcDir::open(pid).and_then(|dir| dir.namespace("net"));
        // What ended meanwhile, and a zombie, holds nothing and is nowhere.
        if place.is_none() && !proc::is_alive(pid) {
            continue;
        }
        places.push((pid, place));
        // A list that opens may still have links that may not be read (CAP_DAC_READ_SEARCH without
        // CAP_SYS_PTRACE).
        let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let unreadable = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Err(error) => denied(error),
            Ok(mut list) => list.next().is_some_and(|entry| {
                entry.is_ok_and(|entry| fs::read_link(entry.path()).is_err_and(denied))
            }),
        };
        if unreadable {
            hidden.push(pid);
        }
    }
    (places, hidden)
}

/// How many namespaces can be entered. In a thread of its own, which ends there if need be.
fn reached(
    places: &[Place],
    named: &[(u64, std::path::PathBuf, bpfwatch_core::text::Text)],
) -> usize {
    let enter = || {
        let Ok(visitor) = Visitor::at_home() else { return 0 };
        let Ok(home) = visitor.home_inode() else { return 0 };
        let pids = places.iter().filter_map(|(pid, inode)| Some((*pid, (*inode)?)));
        let mut reached = 0;
        for (inode, way) in netns::ways(home, pids, named).into_iter().take(MAX_NAMESPACES) {
            match visitor.visit(inode, &way, || ()) {
                Ok(Some(())) => reached += 1,
                Ok(None) => {}
                Err(_) => return reached + 1,
            }
        }
        reached
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_at_proc_tells_hidepid() {
        let line = |at: &str, options: &str| {
            format!("22 1 0:21 / {at} rw,nosuid shared:12 - proc proc {options}\n")
        };
        let table = [
            (line("/proc", "rw"), HidePid::Off),
            (line("/proc", "rw,hidepid=off"), HidePid::Off),
            (
                line("/proc", "rw,gid=4,hidepid=invisible"),
                HidePid::On("hidepid=invisible".to_owned()),
            ),
            (line("/proc", "rw,hidepid=2"), HidePid::On("hidepid=2".to_owned())),
            (line("/chroot/proc", "rw,hidepid=2"), HidePid::Off),
            (line("/proc", "rw,hidepid=2") + &line("/proc", "rw"), HidePid::Off),
            (String::new(), HidePid::Off),
        ];
        for (mountinfo, want) in table {
            assert_eq!(hide_pid(&mountinfo), want, "{mountinfo}");
        }
    }

    #[test]
    fn looks_at_this_machine() {
        let probe = Probe::take();
        eprintln!("{probe:?}");
        assert!(probe.processes > 0 && !probe.kernel.is_empty());
        assert!(probe.hidden.len() <= probe.processes);
        // One's own namespace is always known and never has to be entered.
        assert!((1..=probe.namespaces.max(1)).contains(&probe.namespaces_reached));
        assert!(!probe.hidden.contains(&std::process::id()));
    }
}
