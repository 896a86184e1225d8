//! Opens of bpf nodes: the host's own watch by kqueue, what the guard's watches tell, and opens of nobody.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::Instant;

use bpfwatch_core::observation::Kind;
use bpfwatch_core::text::Text;

use super::{State, ask};
use crate::decode::BPF_DEVICE;
use crate::ffi::Event;
use crate::guard::{Access, Guard, Told};
use crate::kernel::now;

/// Of /dev/bpf: NOTE_DELETE, NOTE_ATTRIB, NOTE_REVOKE, NOTE_OPEN, NOTE_CLOSE, NOTE_CLOSE_WRITE.
const NODE: u32 = 0x1 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200;

impl State<'_> {
    /// Watches the host's node. Opened for its path alone, no BPF descriptor is made of it.
    pub(super) fn watch_node(&mut self) {
        self.node_tried = Instant::now();
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(BPF_DEVICE);
        let watched = opened.and_then(|node| {
            let facts = node.metadata()?;
            self.source.kqueue.change(ask(node.as_raw_fd() as usize, libc::EVFILT_VNODE, NODE))?;
            let access = Access { mode: facts.mode() & 0o7777, uid: facts.uid(), gid: facts.gid() };
            Ok((node, access))
        });
        match watched {
            Ok(node) => {
                self.node = Some(node);
                self.blind("opens of /dev/bpf", None);
            }
            Err(error) => self.blind("opens of /dev/bpf", Some(&error)),
        }
    }

    /// What the watches of nodes say.
    pub(super) fn told(&mut self) {
        let Some(told) = self.guard.as_ref().map(Guard::take) else { return };
        let at = self.millis();
        for told in told {
            match told {
                Told::Opened(node) => {
                    self.opens.opened(node, at);
                    self.schedule.event(at);
                }
                Told::Closed => self.schedule.event(at),
                Told::Loosened(node, before, after) => {
                    let path = Text::from_bytes_limited(&node.path, 1024);
                    self.loosened(path, before, after);
                }
                Told::Jails => {
                    self.source.kernel.forget_jails();
                    self.schedule.event(at);
                }
                Told::Overflow => {
                    let why = "more opens of /dev/bpf than the kernel queues";
                    self.outlet.lost(now(), &self.names.handles, 0, why);
                }
                Told::Blind(error) => self.blind("opens of /dev/bpf", Some(&error)),
            }
        }
    }

    /// Opens that were told and that no look found anybody for.
    pub(super) fn say_unnamed(&mut self, at: u64) {
        for unnamed in self.opens.take(at) {
            let scope = self.source.kernel.scope(unnamed.node.jid);
            let (records, more) = unnamed.records(&scope);
            let said = records.map(|record| (None, Kind::Logged { record: Arc::new(record) }));
            self.offer(said.collect(), |names| &names.handles);
            if more > 0 {
                let why = "opens of a bpf node by nobody that could be found, counted and not said";
                self.outlet.lost(now(), &self.names.handles, more, why);
            }
        }
    }

    pub(super) fn node_event(&mut self, event: &Event) {
        const DELETE: u32 = 0x1;
        const ATTRIB: u32 = 0x8;
        const REVOKE: u32 = 0x40;
        let at = self.millis();
        self.schedule.event(at);
        if event.fflags & ATTRIB != 0 {
            self.access_changed();
        }
        if event.fflags & (DELETE | REVOKE) != 0 || event.flags & libc::EV_EOF != 0 {
            // Whoever calls revoke(2) on one mount's node ends the watches of all.
            self.node = None;
            self.watch_node();
        }
    }

    /// Mode, owner or group of the node were set, or its times only.
    fn access_changed(&mut self) {
        let Some((node, before)) = &mut self.node else { return };
        let Ok(facts) = node.metadata() else { return };
        let after = Access { mode: facts.mode() & 0o7777, uid: facts.uid(), gid: facts.gid() };
        let before = std::mem::replace(before, after);
        self.loosened(Text::from(BPF_DEVICE), before, after);
    }

    fn loosened(&self, path: Text, before: Access, after: Access) {
        let mode = (after.mode & !before.mode & 0o066 != 0).then_some(after.mode);
        let uid = (after.uid != before.uid && after.uid != 0).then_some(after.uid);
        let gid = (after.gid != before.gid && after.gid != 0).then_some(after.gid);
        if (mode, uid, gid) != (None, None, None) {
            let kind = Kind::AccessLoosened { path, mode, uid, gid, member: None };
            self.outlet.offer(now(), &self.names.handles, None, kind);
        }
    }
}
