//! `emulate`: real capture handles, opened in chosen ways, so that detection can be tried from end to
//! end. Nothing is ever read from them.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use bpfwatch_core::platform::{OpenHandle, Technique, reported};
use bpfwatch_core::sensor::SensorError;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};

use crate::ffi;

/// Interface where none is told.
const LOOPBACK: &str = "lo";
/// Every protocol (linux/if_ether.h).
const ETH_P_ALL: u16 = libc::ETH_P_ALL as u16;
/// The obsolete socket type (linux/net.h), which libc has as deprecated.
const SOCK_PACKET: c_int = 10;

struct Entry {
    technique: Technique,
    /// Opens the handle on the interface.
    open: fn(&str) -> io::Result<OwnedFd>,
    /// What is held then; `{}` in it is the interface.
    held: &'static str,
}

const ENTRIES: [Entry; 7] = [
    Entry {
        technique: Technique {
            name: "open",
            what: "opens an AF_PACKET socket with protocol 0, which receives nothing",
            rules: &[],
        },
        open: open_only,
        held: "an AF_PACKET socket with protocol 0",
    },
    Entry {
        technique: Technique {
            name: "attach",
            what: "attaches an AF_PACKET socket to one interface for every protocol, not promiscuous",
            rules: &[reported::UNEXPECTED],
        },
        open: attach,
        held: "an AF_PACKET socket on {}, ETH_P_ALL, not promiscuous",
    },
    Entry {
        technique: Technique {
            name: "promiscuous",
            what: "attaches an AF_PACKET socket and asks for promiscuous mode (PACKET_MR_PROMISC)",
            rules: &[reported::UNEXPECTED, reported::PROMISCUOUS],
        },
        open: promiscuous,
        held: "an AF_PACKET socket on {}, ETH_P_ALL, promiscuous",
    },
    Entry {
        technique: Technique {
            name: "raw-ip",
            what: "opens an AF_INET socket of type SOCK_RAW for TCP, which gets a copy of all TCP",
            rules: &[reported::RAW_IP],
        },
        open: raw_ip,
        held: "a raw IPv4 socket for TCP on {}",
    },
    Entry {
        technique: Technique {
            name: "raw-ip6",
            what: "opens an AF_INET6 socket of type SOCK_RAW for TCP",
            rules: &[reported::RAW_IP],
        },
        open: raw_ip6,
        held: "a raw IPv6 socket for TCP on {}",
    },
    Entry {
        technique: Technique {
            name: "sock-packet",
            what: "opens an AF_INET socket of type SOCK_PACKET, obsolete since Linux 2.2",
            rules: &[reported::UNEXPECTED, reported::SOCK_PACKET],
        },
        open: sock_packet,
        held: "a SOCK_PACKET socket on {}",
    },
    Entry {
        technique: Technique {
            name: "dgram",
            what: "opens a cooked AF_PACKET socket (SOCK_DGRAM) on all interfaces, as `tcpdump -i any` \
                   does; the interface option does not apply",
            rules: &[reported::UNEXPECTED],
        },
        open: dgram,
        held: "a cooked AF_PACKET socket on all interfaces",
    },
];

/// What can be shown here.
pub fn techniques() -> Vec<Technique> {
    ENTRIES.iter().map(|entry| entry.technique.clone()).collect()
}

/// Opens a handle in the given way.
///
/// # Errors
/// When the technique is unknown here, or the system refuses the handle.
pub fn open(technique: &str, interface: &str) -> Result<OpenHandle, SensorError> {
    let entry = find(technique)?;
    let interface = if interface.is_empty() { LOOPBACK } else { interface };
    let handle = (entry.open)(interface).map_err(|cause| refused(technique, interface, &cause))?;
    Ok(OpenHandle { handle, held: entry.held.replace("{}", interface) })
}

fn find(technique: &str) -> Result<&'static Entry, SensorError> {
    ENTRIES.iter().find(|entry| entry.technique.name == technique).ok_or_else(|| {
        let names: Vec<_> = ENTRIES.iter().map(|entry| entry.technique.name).collect();
        error(
            format!("unknown technique `{technique}`"),
            format!("choose one of: {}", names.join(", ")),
        )
    })
}

fn error(what: String, mend: String) -> SensorError {
    SensorError { sensor: "emulate", what, mend: Some(mend) }
}

fn refused(technique: &str, interface: &str, cause: &io::Error) -> SensorError {
    let mend = match cause.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => "run it as root, or with CAP_NET_RAW: that a user \
                                               without it is refused is as it should be"
            .to_owned(),
        Some(Errno::ENODEV | Errno::ENXIO) => {
            format!("there is no interface `{interface}` here; `ip link` lists them")
        }
        Some(Errno::ENETDOWN) => format!("set it up first: `ip link set {interface} up`"),
        Some(Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) => {
            "this kernel lacks that kind of socket; choose another technique".to_owned()
        }
        _ => "choose another technique or interface".to_owned(),
    };
    error(format!("{technique} on {interface}: {cause}"), mend)
}

fn index(interface: &str) -> io::Result<c_int> {
    let index = if_nametoindex(interface)?;
    c_int::try_from(index).map_err(|_| io::Error::from(Errno::ENODEV))
}

fn open_only(_interface: &str) -> io::Result<OwnedFd> {
    ffi::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)
}

/// Protocol 0 until it is bound, so that no packet of another interface slips in (packet(7)).
fn attach(interface: &str) -> io::Result<OwnedFd> {
    let index = index(interface)?;
    let socket = ffi::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    ffi::bind_packet(socket.as_fd(), index, ETH_P_ALL)?;
    Ok(socket)
}

fn promiscuous(interface: &str) -> io::Result<OwnedFd> {
    let socket = attach(interface)?;
    ffi::join_promiscuous(socket.as_fd(), index(interface)?)?;
    Ok(socket)
}

fn raw_ip(interface: &str) -> io::Result<OwnedFd> {
    raw(libc::AF_INET, interface)
}

fn raw_ip6(interface: &str) -> io::Result<OwnedFd> {
    raw(libc::AF_INET6, interface)
}

fn raw(family: c_int, interface: &str) -> io::Result<OwnedFd> {
    index(interface)?;
    let socket = ffi::socket(family, libc::SOCK_RAW, libc::IPPROTO_TCP)?;
    setsockopt(&socket, sockopt::BindToDevice, &interface.into())?;
    Ok(socket)
}

fn sock_packet(interface: &str) -> io::Result<OwnedFd> {
    index(interface)?;
    let protocol = c_int::from(ETH_P_ALL.to_be());
    let socket = ffi::socket(libc::AF_INET, SOCK_PACKET, protocol)?;
    ffi::bind_sock_packet(socket.as_fd(), interface)?;
    Ok(socket)
}

fn dgram(_interface: &str) -> io::Result<OwnedFd> {
    ffi::socket(libc::AF_PACKET, libc::SOCK_DGRAM, c_int::from(ETH_P_ALL.to_be()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    /// The columns of `/proc/net/NAME` in which this socket stands; none once it is closed.
    fn row(file: &str, inode: &str) -> Option<Vec<String>> {
        let text = std::fs::read_to_string(format!("/proc/net/{file}")).unwrap();
        let rows = text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
        rows.into_iter().find(|row: &Vec<String>| row.iter().any(|column| column == inode))
    }

    fn inode(socket: &OwnedFd) -> String {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let link = link.to_str().unwrap();
        link.trim_start_matches("socket:[").trim_end_matches(']').to_owned()
    }

    #[test]
    fn each_technique_opens_what_it_says_and_closes_it() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: opening capture handles needs root");
            return;
        }
        let loopback = index("lo").unwrap().to_string();
        // Type, protocol and interface index of /proc/net/packet (net/packet/af_packet.c:
        // packet_seq_show), or protocol of /proc/net/raw.
        let packet = |kind: &str, protocol: &str, index: &str| {
            Some([kind, protocol, index].map(str::to_owned).to_vec())
        };
        let table = [
            ("open", packet("3", "0000", "0")),
            ("attach", packet("3", "0003", &loopback)),
            ("promiscuous", packet("3", "0003", &loopback)),
            ("sock-packet", packet("10", "0003", &loopback)),
            ("dgram", packet("2", "0003", "0")),
            ("raw-ip", None),
            ("raw-ip6", None),
        ];
        assert_eq!(table.len(), ENTRIES.len());
        for (name, want) in table {
            let file = match name {
                "raw-ip" => "raw",
                "raw-ip6" => "raw6",
                _ => "packet",
            };
            let handle = match (find(name).unwrap().open)("lo") {
                Err(cause) if cause.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    eprintln!("skipped {name}: {cause}");
                    continue;
                }
                handle => handle.unwrap(),
            };
            let inode = inode(&handle);
            let seen = row(file, &inode).unwrap_or_else(|| panic!("{name} is not in {file}"));
            match want {
                Some(want) => assert_eq!(seen[2..5], want, "{name}"),
                None => assert!(seen[1].ends_with(":0006"), "{name}: {seen:?}"),
            }
            drop(handle);
            assert_eq!(row(file, &inode), None, "{name} is still open");
        }
    }

    #[test]
    fn says_what_to_do_when_refused() {
        let unknown = open("magic", "lo").unwrap_err();
        assert!(unknown.mend.is_some_and(|mend| mend.contains("raw-ip6")));
        let missing = open("attach", "nosuch0").unwrap_err();
        assert!(missing.to_string().contains("ip link"), "{missing}");
        let denied = refused("attach", "lo", &io::Error::from(Errno::EPERM));
        assert!(denied.to_string().contains("CAP_NET_RAW"), "{denied}");
    }
}
