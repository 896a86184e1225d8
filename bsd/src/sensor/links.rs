//! Promiscuous interfaces, as the kernel tells of them.

use bpfwatch_core::observation::Kind;

use super::State;
use crate::interfaces::{Change, Interfaces};
use crate::kernel::now;

impl State<'_> {
    pub(super) fn watch_links(&mut self) {
        match Interfaces::watch(self.source.kqueue) {
            Ok(interfaces) => self.interfaces = Some(interfaces),
            Err(error) => self.blind("messages of interfaces", Some(&error)),
        }
    }

    pub(super) fn link_event(&mut self) {
        let changes = self.interfaces.as_mut().map(Interfaces::read).unwrap_or_default();
        for change in changes {
            match change {
                Change::Promiscuous(interface, on) => {
                    let kind = Kind::InterfacePromiscuous { interface, on };
                    self.outlet.offer(now(), &self.names.links, None, kind);
                }
                Change::Lost => {
                    self.outlet.lost(now(), &self.names.links, 0, "messages of interfaces");
                }
                Change::Ended(error) => {
                    self.interfaces = None;
                    self.blind("messages of interfaces", Some(&error));
                }
            }
        }
        self.captures.forget_bridges();
        let at = self.millis();
        self.schedule.event(at);
    }
}
