//! Which processes have a descriptor of each BPF device, from opens, forks, closes and exits alone.
//!
//! Endpoint Security tells that a process closed a descriptor, not that the device was released. Where
//! the kernel's list (`debug.bpf_stats`) can be asked, that decides; a recording has only its events:
//! a fork copies the parent's descriptors, and the device is released when the last process that may
//! have one closed it or ended. A duplicate within one process cannot be told: its close counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use bpfwatch_core::decoder::Sequence;
use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::{Kind, Observation};

/// Devices followed; xnu's own limit (bsd/net/bpf.c `bpf_maxdevices`).
const MAX_DEVICES: usize = 256;
/// Holders kept of each.
const MAX_HOLDERS: usize = 64;

/// Who may have a descriptor of which BPF device.
#[derive(Debug, Default)]
pub struct Holders {
    devices: BTreeMap<u64, (Handle, Vec<u32>)>,
}

impl Holders {
    fn opened(&mut self, handle: &Handle, pid: u32) {
        if self.devices.len() < MAX_DEVICES || self.devices.contains_key(&handle.id) {
            // A device is exclusive: whoever opens it is the only one to have it.
            self.devices.insert(handle.id, (handle.clone(), vec![pid]));
        }
    }

    fn forked(&mut self, parent: u32, child: u32) {
        for (_, holders) in self.devices.values_mut() {
            if holders.contains(&parent) && holders.len() < MAX_HOLDERS {
                holders.push(child);
            }
        }
    }

    /// Whether nobody has it any more; also when nobody was known to.
    fn released(&mut self, id: u64, pid: u32) -> bool {
        let Some((_, holders)) = self.devices.get_mut(&id) else { return true };
        holders.retain(|holder| *holder != pid);
        let gone = holders.is_empty();
        if gone {
            self.devices.remove(&id);
        }
        gone
    }

    /// Devices that nobody has any more now that the process has ended.
    fn exited(&mut self, pid: u32) -> Vec<Handle> {
        let mut gone = Vec::new();
        self.devices.retain(|_, (handle, holders)| {
            let before = holders.len();
            holders.retain(|holder| *holder != pid);
            let last = holders.is_empty() && before > 0;
            if last {
                gone.push(handle.clone());
            }
            !last
        });
        gone
    }
}

impl Sequence for Holders {
    fn pass(&mut self, mut observation: Observation, out: &mut Vec<Observation>) {
        let Some(actor) = &observation.actor else { return out.push(observation) };
        let pid = actor.pid;
        match &observation.kind {
            Kind::HandleOpened { handle, .. } if handle.kind == HandleKind::Bpf => {
                self.opened(handle, pid);
            }
            Kind::Forked => {
                if let Some(parent) = actor.ppid {
                    self.forked(parent, pid);
                }
            }
            Kind::HandleReleased { handle } if handle.kind == HandleKind::Bpf => {
                let gone = self.released(handle.id, pid);
                if gone {
                    observation.kind = Kind::HandleClosed { handle: handle.clone() };
                }
            }
            Kind::Exited => {
                for handle in self.exited(pid) {
                    out.push(Observation {
                        actor: observation.actor.clone(),
                        sensor: Arc::clone(&observation.sensor),
                        kind: Kind::HandleClosed { handle },
                        ..observation
                    });
                }
            }
            _ => {}
        }
        out.push(observation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfwatch_core::process::Process;
    use bpfwatch_core::time::Timestamp;

    struct Bench(Holders);

    impl Bench {
        fn see(&mut self, pid: u32, ppid: u32, kind: Kind) -> Vec<&'static str> {
            let mut out = Vec::new();
            let process = Process { ppid: Some(ppid), ..Process::from_pid(pid) };
            let observation = Observation {
                at: Timestamp::from_secs(1),
                seq: 0,
                sensor: Arc::from("test"),
                actor: Some(Arc::new(process)),
                kind,
            };
            self.0.pass(observation, &mut out);
            out.iter().map(|observation| observation.kind.name()).collect()
        }
    }

    fn bpf(minor: u64) -> Handle {
        Handle::new(HandleKind::Bpf, minor)
    }

    #[test]
    fn the_opener_closes() {
        let mut bench = Bench(Holders::default());
        bench.see(7, 1, Kind::HandleOpened { handle: bpf(0), pre_existing: false });
        let closed = bench.see(7, 1, Kind::HandleReleased { handle: bpf(0) });
        assert_eq!(closed, ["handle_closed"]);
    }

    #[test]
    fn a_capture_that_goes_to_the_background_lives_on() {
        let mut bench = Bench(Holders::default());
        bench.see(7, 1, Kind::HandleOpened { handle: bpf(0), pre_existing: false });
        bench.see(8, 7, Kind::Forked);
        let parent = bench.see(7, 1, Kind::HandleReleased { handle: bpf(0) });
        assert_eq!(parent, ["handle_released"]);
        assert_eq!(bench.see(7, 1, Kind::Exited), ["exited"]);
        assert_eq!(bench.see(8, 1, Kind::Exited), ["handle_closed", "exited"]);
        assert!(bench.0.devices.is_empty());
    }

    #[test]
    fn a_handle_that_was_open_before_the_recording_closes() {
        let mut bench = Bench(Holders::default());
        let closed = bench.see(7, 1, Kind::HandleReleased { handle: bpf(4) });
        assert_eq!(closed, ["handle_closed"]);
    }

    #[test]
    fn stays_bounded() {
        let mut bench = Bench(Holders::default());
        for minor in 0..1000 {
            bench.see(7, 1, Kind::HandleOpened { handle: bpf(minor), pre_existing: false });
        }
        for child in 0..1000 {
            bench.see(100 + child, 7, Kind::Forked);
        }
        assert_eq!(bench.0.devices.len(), MAX_DEVICES);
        assert!(bench.0.devices.values().all(|(_, holders)| holders.len() == MAX_HOLDERS));
    }
}
