//! Which interfaces are promiscuous, by a route socket.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use bpfwatch_core::observation::{Interface, Kind};
use bpfwatch_core::text::Text;
use nix::net::if_::if_indextoname;

use super::{State, ask};
use crate::kernel::now;
use crate::raw::RouteMessage;
use crate::route::{self, IFF_PROMISC};

impl State<'_> {
    pub(super) fn watch_route(&mut self, socket: OwnedFd) {
        let socket = File::from(socket);
        let asked = ask(socket.as_raw_fd() as usize, libc::EVFILT_READ, 0);
        match self.source.kqueue.change(asked) {
            Ok(()) => self.route = Some(socket),
            Err(error) => self.blind("route socket", Some(&error)),
        }
    }

    pub(super) fn route_event(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            let Some(route) = &mut self.route else { return };
            match route.read(&mut buffer) {
                Ok(0) => self.route = None,
                Ok(length) => {
                    for message in route::messages(&buffer[..length]) {
                        self.route_message(&message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.outlet.lost(now(), &self.names.links, 0, "route socket ENOBUFS");
                }
                Err(error) => {
                    self.route = None;
                    self.blind("route socket", Some(&error));
                }
            }
        }
    }

    fn route_message(&mut self, message: &RouteMessage) {
        let RouteMessage::Interface { index, flags } = message else { return };
        let on = flags & IFF_PROMISC != 0;
        if on == self.promiscuous.contains_key(index) {
            return;
        }
        let name = if on {
            let name = if_indextoname(u32::from(*index)).ok();
            let name = Text::from_bytes(name.as_deref().map_or(b"?", |name| name.to_bytes()));
            self.promiscuous.insert(*index, name.clone());
            name
        } else {
            self.promiscuous.remove(index).unwrap_or_default()
        };
        let interface = Interface { name, netns: None, count: None, role: None };
        let kind = Kind::InterfacePromiscuous { interface, on };
        self.outlet.offer(now(), &self.names.links, None, kind);
        let at = self.millis();
        self.schedule.event(at);
    }
}
