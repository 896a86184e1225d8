//! Which interfaces become promiscuous: messages of a netlink socket on 14.0 and later, of a route socket
//! before and where the kernel has no netlink. They wake the sensor, and prove a promiscuous capture that was
//! too short to be found; they are no truth about who captures.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use bpfwatch_core::observation::Interface;
use bpfwatch_core::text::Text;
use nix::net::if_::if_indextoname;

use crate::ffi::{self, Event, Kqueue};
use crate::link;
use crate::raw::RouteMessage;
use crate::route::{self, IFF_PROMISC};

/// A socket that the kernel tells of interfaces, and which interfaces are promiscuous.
pub struct Interfaces {
    socket: File,
    netlink: bool,
    promiscuous: BTreeMap<u32, Text>,
}

/// What was told.
#[derive(Debug)]
pub enum Change {
    /// An interface became promiscuous, or stopped to be.
    Promiscuous(Interface, bool),
    /// Messages were lost.
    Lost,
    /// There will be no more.
    Ended(io::Error),
}

/// What the messages come through.
///
/// # Errors
/// As socket(2) has them.
pub fn open() -> io::Result<(OwnedFd, bool)> {
    match ffi::link_messages() {
        Ok(socket) => Ok((socket, true)),
        Err(_) => Ok((ffi::socket(libc::PF_ROUTE, libc::SOCK_RAW, 0)?, false)),
    }
}

impl Interfaces {
    /// Opens it and has `kqueue` wake when there are messages.
    ///
    /// # Errors
    /// As socket(2) and kevent(2) have them.
    pub fn watch(kqueue: &Kqueue) -> io::Result<Self> {
        let (socket, netlink) = open()?;
        let socket = File::from(socket);
        let ident = usize::try_from(socket.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (filter, flags) = (libc::EVFILT_READ, libc::EV_ADD | libc::EV_CLEAR);
        kqueue.change(Event { ident, filter, flags, fflags: 0, data: 0 })?;
        Ok(Self { socket, netlink, promiscuous: BTreeMap::new() })
    }

    /// Reads what is there.
    pub fn read(&mut self) -> Vec<Change> {
        let mut buffer = [0; 16 * 1024];
        let mut out = Vec::new();
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => out.push(Change::Ended(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) if self.netlink => {
                    for link in link::links(&buffer[..length]) {
                        out.extend(self.flags(link.index, link.flags, link.name));
                    }
                    continue;
                }
                Ok(length) => {
                    for message in route::messages(&buffer[..length]) {
                        if let RouteMessage::Interface { index, flags } = message {
                            out.extend(self.flags(u32::from(index), flags, None));
                        }
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    out.push(Change::Lost);
                    continue;
                }
                Err(error) => out.push(Change::Ended(error)),
            }
            return out;
        }
    }

    fn flags(&mut self, index: u32, flags: u32, name: Option<Vec<u8>>) -> Option<Change> {
        let on = flags & IFF_PROMISC != 0;
        if on == self.promiscuous.contains_key(&index) {
            return None;
        }
        let name = if on {
            let named = name.or_else(|| Some(if_indextoname(index).ok()?.into_bytes()));
            let name = Text::from_bytes(named.as_deref().unwrap_or(b"?"));
            self.promiscuous.insert(index, name.clone());
            name
        } else {
            self.promiscuous.remove(&index).unwrap_or_default()
        };
        let interface = Interface { name, netns: None, count: None, role: None };
        Some(Change::Promiscuous(interface, on))
    }
}
