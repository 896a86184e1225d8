//! Holders of BPF descriptors, followed by kqueue(2) where Endpoint Security tells of no processes: one that
//! ends, executes or forks is a reason to look at once.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

/// Events that are taken in one go.
const AT_ONCE: usize = 64;

/// The processes that are followed.
pub struct Followed {
    queue: Kqueue,
    pids: BTreeSet<u32>,
}

fn event(pid: u32, flags: EvFlags) -> KEvent {
    let what = FilterFlag::NOTE_EXIT | FilterFlag::NOTE_EXEC | FilterFlag::NOTE_FORK;
    KEvent::new(pid as usize, EventFilter::EVFILT_PROC, flags, what, 0, 0)
}

impl Followed {
    /// Follows nobody yet.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { queue: Kqueue::new()?, pids: BTreeSet::new() })
    }

    /// Follows these from now on, and nobody else.
    pub fn set(&mut self, wanted: &BTreeSet<u32>) {
        // One that has ended meanwhile cannot be followed (ESRCH) and need not be: the next look shows it.
        let change =
            |pid: u32, flags| self.queue.kevent(&[event(pid, flags)], &mut [], None).is_ok();
        for pid in self.pids.difference(wanted) {
            change(*pid, EvFlags::EV_DELETE);
        }
        let new = wanted.difference(&self.pids).copied();
        let new: Vec<u32> =
            new.filter(|pid| change(*pid, EvFlags::EV_ADD | EvFlags::EV_CLEAR)).collect();
        self.pids.retain(|pid| wanted.contains(pid));
        self.pids.extend(new);
    }

    /// Whether something happened to one of them.
    pub fn take(&mut self) -> bool {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let mut any = false;
        loop {
            let mut seen = [event(0, EvFlags::empty()); AT_ONCE];
            let count = self.queue.kevent(&[], &mut seen, Some(now)).unwrap_or(0);
            for event in seen.iter().take(count) {
                // The kernel forgets it with the process; the pid may come again.
                if event.fflags().contains(FilterFlag::NOTE_EXIT) {
                    self.pids.retain(|pid| *pid as usize != event.ident());
                }
            }
            any |= count > 0;
            if count < AT_ONCE {
                return any;
            }
        }
    }
}

impl AsFd for Followed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_end_of_a_process_is_told() {
        let mut followed = Followed::new().unwrap();
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let wanted = BTreeSet::from([child.id(), u32::MAX >> 1]);
        followed.set(&wanted);
        assert_eq!(followed.pids, BTreeSet::from([child.id()]), "the other one is not there");
        assert!(!followed.take());
        child.kill().unwrap();
        child.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !followed.take() {
            assert!(Instant::now() < deadline, "nothing was told");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(followed.pids.is_empty());
        followed.set(&BTreeSet::new());
    }
}
