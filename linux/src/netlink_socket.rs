//! Netlink sockets: dumps, and the multicast groups that wake us.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::netlink::{Message, Messages};
use crate::{ffi, netlink_proc, netlink_route, netlink_tc};

/// The kernel cuts a dump into pieces of at most 32 KiB (net/netlink/af_netlink.c: netlink_recvmsg).
pub const BUFFER: usize = 64 * 1024;
/// A dump is answered at once; longer than this is a kernel that does not answer.
const PATIENCE_MS: i64 = 1000;
/// Executions that may wait while /proc is read: 16 MiB are about 20,000.
const CONNECTOR_BUFFER: usize = 16 * 1024 * 1024;

/// A netlink socket.
pub struct NetlinkSocket {
    socket: OwnedFd,
    seq: u32,
}

/// How a dump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dumped {
    /// All rows were there.
    Whole,
    /// The table changed meanwhile, or the kernel ran out of memory: rows may be missing.
    Torn,
}

impl NetlinkSocket {
    /// For dumps of one netlink protocol, such as NETLINK_SOCK_DIAG.
    ///
    /// # Errors
    /// When the kernel has no such protocol.
    pub fn for_dumps(protocol: i32) -> io::Result<Self> {
        let socket = ffi::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(PATIENCE_MS))?;
        Ok(Self { socket, seq: 0 })
    }

    /// For the proc connector's events; the answer to the subscription is the first of them.
    ///
    /// # Errors
    /// When the connector is not built in, or without CAP_NET_ADMIN.
    pub fn for_processes() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK;
        let socket = ffi::socket(libc::AF_NETLINK, kind, libc::NETLINK_CONNECTOR)?;
        ffi::attach_filter(&socket, &netlink_proc::socket_filter())?;
        if setsockopt(&socket, sockopt::RcvBufForce, &CONNECTOR_BUFFER).is_err() {
            // Without CAP_NET_ADMIN over the host: as much as net.core.rmem_max allows.
            setsockopt(&socket, sockopt::RcvBuf, &CONNECTOR_BUFFER)?;
        }
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, netlink_proc::GROUP_PROC))?;
        send(socket.as_raw_fd(), &netlink_proc::listen_request(), MsgFlags::empty())?;
        Ok(Self { socket, seq: 0 })
    }

    /// For changes of interfaces and of traffic control, here and, where the kernel lets us, in namespaces that this one knows
    /// by a number (peers of its veth pairs).
    ///
    /// # Errors
    /// What the system says.
    pub fn for_links() -> io::Result<Self> {
        const NETLINK_LISTEN_ALL_NSID: i32 = 8;
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
        let socket = ffi::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE)?;
        // A wider view at no cost; needs CAP_NET_BROADCAST, and the steady scan sees the rest anyway.
        let _ = ffi::set_option(&socket, libc::SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1);
        let groups = netlink_route::GROUP_LINK | netlink_tc::GROUP_TC;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { socket, seq: 0 })
    }

    /// Receives one datagram; `None` when a socket that does not block has none.
    ///
    /// # Errors
    /// ENOBUFS when datagrams were lost, and what else the system says.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> nix::Result<Option<&'b [u8]>> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(Some(&buffer[..length.min(buffer.len())])),
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for a dump and hands each row to `row`.
    ///
    /// # Errors
    /// What the kernel answers: ENOENT or EINVAL where it has no such table.
    pub fn dump(
        &mut self,
        request: impl FnOnce(u32) -> Vec<u8>,
        buffer: &mut [u8],
        mut row: impl FnMut(&Message<'_>),
    ) -> nix::Result<Dumped> {
        self.seq = self.seq.wrapping_add(1);
        send(self.socket.as_raw_fd(), &request(self.seq), MsgFlags::empty())?;
        let mut end = Dumped::Whole;
        loop {
            let datagram = match self.receive(buffer) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return Err(nix::Error::ETIMEDOUT),
                // The rest still comes.
                Err(nix::Error::ENOBUFS) => {
                    end = Dumped::Torn;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut messages = Messages::new(datagram);
            for message in &mut messages {
                if message.seq != self.seq {
                    continue;
                }
                if message.is_interrupted() {
                    end = Dumped::Torn;
                }
                match message.error() {
                    Some(0) => return Ok(end),
                    Some(code) => return Err(nix::Error::from_raw(code)),
                    None => row(&message),
                }
            }
            if !messages.rest().is_empty() {
                end = Dumped::Torn;
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
