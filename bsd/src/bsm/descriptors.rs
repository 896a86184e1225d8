//! Which descriptor of which process is a BPF device, from records alone.
//!
//! An open says process, descriptor, path and device number; an ioctl or a close the descriptor only. So
//! they are joined by process and descriptor; a fork copies them, an exit closes them. What cannot be told:
//! a descriptor that was duplicated within a process or passed to another, and closes that were not
//! recorded (class `cl`).
//!
//! Opens are matched by the device's number, which is the same in every mount: `bpf0` and a symbolic link
//! elsewhere show their own names. The number is learnt from an open of the host's own `/dev/bpf`; that of a
//! jail counts for itself alone, because who rules a jail rules its names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bpfwatch_core::decoder::Sequence;
use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::process::Process;
use bpfwatch_core::scope::Scope;

use crate::bsm::observe::{is_bpf_path, opened_parts};

/// Descriptors that are followed.
const MAX_HELD: usize = 8192;
/// Device numbers that are known: one on FreeBSD, one for each device on macOS (bpf_maxdevices is 256).
const MAX_DEVICES: usize = 256;

/// Descriptors of BPF devices.
#[derive(Debug, Default)]
pub struct Descriptors {
    devices: BTreeSet<u32>,
    /// Handle of each process and descriptor.
    held: BTreeMap<(u32, u32), Handle>,
}

impl Descriptors {
    /// Where the device number is known: st_rdev of /dev/bpf on this machine.
    pub fn of_device(rdev: u32) -> Self {
        Self { devices: BTreeSet::from([rdev]), held: BTreeMap::new() }
    }

    /// The handle that an open made; `None` for another device.
    fn opened(&mut self, actor: &Process, seen: &Handle) -> Option<Handle> {
        let (rdev, fd) = opened_parts(seen.id);
        let path = seen.device.as_ref().map(|path| path.as_str()).unwrap_or_default();
        if !self.devices.contains(&rdev) {
            if !is_bpf_path(path.as_bytes()) {
                return None;
            }
            let on_host = matches!(actor.scope.as_deref(), None | Some(Scope::Host));
            if on_host && path.starts_with("/dev/bpf") && self.devices.len() < MAX_DEVICES {
                self.devices.insert(rdev);
            }
        }
        let id = u64::from(actor.pid) << 32 | u64::from(fd);
        let handle = Handle { device: seen.device.clone(), ..Handle::new(HandleKind::Bpf, id) };
        if self.held.len() < MAX_HELD {
            self.held.insert((actor.pid, fd), handle.clone());
        }
        Some(handle)
    }

    /// The handle that a descriptor is; one that nobody saw being opened is known by its ioctl.
    fn used(&mut self, pid: u32, fd: u32) -> Handle {
        let unseen = Handle::new(HandleKind::Bpf, u64::from(pid) << 32 | u64::from(fd));
        if self.held.len() >= MAX_HELD {
            return self.held.get(&(pid, fd)).cloned().unwrap_or(unseen);
        }
        self.held.entry((pid, fd)).or_insert(unseen).clone()
    }

    fn forked(&mut self, parent: u32, child: u32) {
        let copies: Vec<_> = self.of(parent).map(|(fd, handle)| (fd, handle.clone())).collect();
        for (fd, handle) in copies {
            if self.held.len() < MAX_HELD {
                self.held.insert((child, fd), handle);
            }
        }
    }

    fn of(&self, pid: u32) -> impl Iterator<Item = (u32, &Handle)> {
        self.held.range((pid, 0)..=(pid, u32::MAX)).map(|((_, fd), handle)| (*fd, handle))
    }

    /// What became of the handle when one descriptor went.
    fn closed(&mut self, pid: u32, fd: u32) -> Option<Kind> {
        let handle = self.held.remove(&(pid, fd))?;
        let has = |holder: u32| {
            move |((pid, _), held): (&(u32, u32), &Handle)| *pid == holder && held.id == handle.id
        };
        let mut others = self.held.iter();
        if others.clone().any(has(pid)) {
            return None;
        }
        let lives_on = others.any(|(_, held)| held.id == handle.id);
        Some(if lives_on { Kind::HandleReleased { handle } } else { Kind::HandleClosed { handle } })
    }

    fn change(&mut self, observation: &Observation, out: &mut Vec<Observation>) -> Option<Kind> {
        let actor: &Arc<Process> = observation.actor.as_ref()?;
        let pid = actor.pid;
        Some(match &observation.kind {
            Kind::HandleOpened { handle, pre_existing } => {
                let (_, fd) = opened_parts(handle.id);
                // The number was free: what had it before is closed, though nobody told.
                let before = self.closed(pid, fd);
                if let Some(kind) = before {
                    out.push(Observation { kind, ..observation.clone() });
                }
                let handle = self.opened(actor, handle)?;
                Kind::HandleOpened { handle, pre_existing: *pre_existing }
            }
            Kind::HandleAttached { handle } => {
                Kind::HandleAttached { handle: self.used(pid, opened_parts(handle.id).1) }
            }
            Kind::Promiscuous { handle, on } => {
                Kind::Promiscuous { handle: self.used(pid, opened_parts(handle.id).1), on: *on }
            }
            Kind::HandleReleased { handle } => self.closed(pid, opened_parts(handle.id).1)?,
            Kind::Forked => {
                if let Some(parent) = actor.ppid {
                    self.forked(parent, pid);
                }
                Kind::Forked
            }
            Kind::Exited => {
                let fds: Vec<u32> = self.of(pid).map(|(fd, _)| fd).collect();
                for fd in fds {
                    if let Some(kind) = self.closed(pid, fd) {
                        out.push(Observation { kind, ..observation.clone() });
                    }
                }
                Kind::Exited
            }
            other => other.clone(),
        })
    }
}

impl Sequence for Descriptors {
    fn pass(&mut self, mut observation: Observation, out: &mut Vec<Observation>) {
        if let Some(kind) = self.change(&observation, out) {
            observation.kind = kind;
            out.push(observation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfwatch_core::text::Text;
    use bpfwatch_core::time::Timestamp;

    use crate::bsm::observe::opened_id;

    struct Bench(Descriptors);

    impl Bench {
        fn see(&mut self, process: Process, kind: Kind) -> Vec<(&'static str, Option<u64>)> {
            let mut out = Vec::new();
            let observation = Observation {
                at: Timestamp::from_secs(1),
                seq: 0,
                sensor: Arc::from("test"),
                actor: Some(Arc::new(process)),
                kind,
            };
            self.0.pass(observation, &mut out);
            let short = |o: &Observation| (o.kind.name(), o.kind.handle().map(|h| h.id));
            out.iter().map(short).collect()
        }

        fn open(&mut self, process: Process, path: &str, rdev: u32) -> usize {
            let handle = Handle {
                device: Some(Text::from(path)),
                ..Handle::new(HandleKind::Bpf, opened_id(rdev, 3))
            };
            self.see(process, Kind::HandleOpened { handle, pre_existing: false }).len()
        }
    }

    fn host(pid: u32) -> Process {
        Process { scope: Some(Arc::new(Scope::Host)), ..Process::from_pid(pid) }
    }

    fn jailed(pid: u32) -> Process {
        let scope = Scope::Jail {
            jid: None,
            name: Text::from("leg"),
            vnet: None,
            path: None,
            hostname: None,
        };
        Process { scope: Some(Arc::new(scope)), ..Process::from_pid(pid) }
    }

    fn fd(number: u32) -> Handle {
        Handle::new(HandleKind::Bpf, opened_id(0, number))
    }

    #[test]
    fn opens_are_matched_by_device_once_it_is_known() {
        let mut bench = Bench(Descriptors::default());
        assert_eq!(bench.open(host(5), "/tmp/innocent", 0x1a), 0, "nothing is known yet");
        assert_eq!(bench.open(host(5), "/dev/null", 0x0d), 0);
        assert_eq!(bench.open(host(5), "/dev/bpf", 0x1a), 1);
        assert_eq!(bench.open(host(6), "/tmp/innocent", 0x1a), 1);
        assert_eq!(bench.open(jailed(7), "/jails/leg/dev/bpf0", 0x1a), 1);
        assert_eq!(bench.open(host(8), "/dev/null", 0x0d), 0);
    }

    #[test]
    fn who_rules_a_jail_teaches_no_device() {
        let mut bench = Bench(Descriptors::default());
        assert_eq!(bench.open(jailed(7), "/jails/leg/tmp/dev/bpf", 0x0d), 1);
        assert_eq!(bench.open(host(8), "/dev/null", 0x0d), 0);
        let mut bench = Bench(Descriptors::of_device(0x1a));
        assert_eq!(bench.open(host(8), "/tmp/innocent", 0x1a), 1);
    }

    #[test]
    fn a_capture_from_open_to_close() {
        let mut bench = Bench(Descriptors::default());
        bench.open(host(5), "/dev/bpf", 0x1a);
        let id = Some(5u64 << 32 | 3);
        assert_eq!(
            bench.see(host(5), Kind::HandleAttached { handle: fd(3) }),
            [("handle_attached", id)]
        );
        let promiscuous = Kind::Promiscuous { handle: fd(3), on: true };
        assert_eq!(bench.see(host(5), promiscuous), [("promiscuous", id)]);
        assert_eq!(bench.see(Process { ppid: Some(5), ..host(9) }, Kind::Forked).len(), 1);
        assert_eq!(bench.see(host(5), Kind::Exited), [("handle_released", id), ("exited", None)]);
        assert_eq!(bench.see(host(9), Kind::HandleReleased { handle: fd(4) }), []);
        assert_eq!(
            bench.see(host(9), Kind::HandleReleased { handle: fd(3) }),
            [("handle_closed", id)]
        );
        assert!(bench.0.held.is_empty());
    }

    #[test]
    fn a_number_that_is_used_again_closes_what_had_it() {
        let mut bench = Bench(Descriptors::default());
        assert_eq!(bench.open(host(5), "/dev/bpf", 0x1a), 1);
        assert_eq!(bench.open(host(5), "/dev/bpf", 0x1a), 2, "closed, and opened");
        assert_eq!(bench.open(host(5), "/dev/null", 0x0d), 1, "closed");
    }

    #[test]
    fn an_ioctl_alone_tells_of_a_handle_and_memory_stays_bounded() {
        let mut bench = Bench(Descriptors::default());
        for pid in 0..10_000 {
            let seen = bench.see(host(pid), Kind::HandleAttached { handle: fd(3) });
            assert_eq!(seen.len(), 1);
        }
        assert_eq!(bench.0.held.len(), MAX_HELD);
    }
}
