//! What reads of an audit pipe give, to what the sensor wants to know of it. A read ends within a record where
//! the buffer does: the rest is carried over.

use std::sync::Arc;

use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;

use crate::bsm::event::Event;
use crate::bsm::frame::{self, Frame};
use crate::bsm::observe::{self, opened_parts};
use crate::bsm::record::Record;

/// What a record said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A program was executed.
    Executed(Timestamp, Process),
    /// A BPF device was opened.
    Opened(Opened),
    /// A record, or what should have been one, could not be read.
    Damaged,
}

/// An open of a BPF device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// When.
    pub at: Timestamp,
    /// By whom: pid, user and jail.
    pub process: Process,
    /// The descriptor that it gave.
    pub fd: u32,
    /// Path on the host, as it was opened.
    pub path: Option<Text>,
}

/// The bytes of one pipe.
#[derive(Debug)]
pub struct Stream {
    /// The lower half of the device's number, as a record of 32 bits has it.
    device: u32,
    /// Our own process, whose opens are not told.
    own: u32,
    rest: Vec<u8>,
    sensor: Arc<str>,
}

impl Stream {
    /// Looks for opens of the device with that number (st_rdev of /dev/bpf, the same in every mount) by others
    /// than process `own`.
    pub fn new(rdev: u64, own: u32) -> Self {
        Self { device: rdev as u32, own, rest: Vec::new(), sensor: Arc::from("freebsd.audit") }
    }

    /// Takes what one read gave. What is carried over is less than [`frame::RECORD_CAP`].
    pub fn take(&mut self, bytes: &[u8], seen: &mut Vec<Seen>) {
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match frame::next(&rest[at..]) {
                Frame::Record(size) => {
                    seen.extend(self.record(&rest[at..at + size]));
                    at += size;
                }
                Frame::File(size) => at += size,
                Frame::Damaged(size) => {
                    seen.push(Seen::Damaged);
                    at += size;
                }
                Frame::More => break,
            }
        }
        rest.drain(..at);
        self.rest = rest;
    }

    /// Forgets what was carried over: the pipe was flushed.
    pub fn flushed(&mut self) {
        self.rest.clear();
    }

    fn record(&self, bytes: &[u8]) -> Option<Seen> {
        let Ok(record) = Record::read(bytes) else { return Some(Seen::Damaged) };
        // Most records are opens of other files: nothing is made of them.
        let wanted = match Event::of(record.header?.event)? {
            Event::Execute => true,
            Event::Open => record.attributes?.rdev as u32 == self.device,
            _ => false,
        };
        let observation = wanted.then(|| observe::observation(&record, &self.sensor, false))??;
        let (at, process) = (observation.at, Arc::unwrap_or_clone(observation.actor?));
        match observation.kind {
            Kind::Executed => Some(Seen::Executed(at, process)),
            Kind::HandleOpened { handle, .. } if process.pid != self.own => {
                let (fd, path) = (opened_parts(handle.id).1, handle.device);
                Some(Seen::Opened(Opened { at, process, fd, path }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXECUTIONS: &[u8] = include_bytes!("../../tests/data/execve-jail.bsm");
    const HOST: &[u8] = include_bytes!("../../tests/data/open-host.bsm");
    const JAIL: &[u8] = include_bytes!("../../tests/data/open-jail.bsm");
    const REFUSED: &[u8] = include_bytes!("../../tests/data/open-eacces.bsm");
    /// st_rdev of /dev/bpf where they were recorded.
    const RDEV: u64 = 0x1a;

    fn read(bytes: &[u8], own: u32, pace: usize) -> Vec<Seen> {
        let mut stream = Stream::new(RDEV, own);
        let mut seen = Vec::new();
        for part in bytes.chunks(pace) {
            stream.take(part, &mut seen);
        }
        assert!(stream.rest.is_empty());
        seen
    }

    fn opens(seen: &[Seen]) -> Vec<(u32, u32, &str)> {
        let opened = seen.iter().filter_map(|seen| match seen {
            Seen::Opened(open) => Some(open),
            _ => None,
        });
        opened
            .map(|open| (open.process.pid, open.fd, open.path.as_ref().unwrap().as_str()))
            .collect()
    }

    #[test]
    fn records_are_the_same_however_reads_cut_them() {
        for bytes in [EXECUTIONS, HOST, JAIL, REFUSED] {
            let whole = read(bytes, 0, bytes.len());
            for pace in [1, 7, 100, 146, 4096] {
                assert_eq!(read(bytes, 0, pace), whole, "{pace}");
            }
        }
    }

    #[test]
    fn executions_have_arguments_and_jail() {
        let seen = read(EXECUTIONS, 0, 64);
        let Seen::Executed(at, process) = &seen[2] else { panic!("{seen:?}") };
        assert_eq!(process.image.as_ref().unwrap().as_str(), "/jails/vn/usr/sbin/tcpdump");
        assert!(process.args.as_ref().unwrap().command_line().starts_with("tcpdump "));
        assert!(process.scope.is_some() && at.nanos() > 0);
        assert_eq!(seen.len(), 4, "failed ones of a search along PATH are none");
    }

    #[test]
    fn opens_are_those_of_the_device_that_succeeded() {
        let seen = read(HOST, 0, 4096);
        let bpf = "/dev/bpf";
        assert_eq!(opens(&seen), [(131, 3, bpf), (132, 3, bpf), (130, 3, bpf)]);
        let jailed = read(JAIL, 0, 4096);
        let opened = opens(&jailed);
        assert_eq!(opened[0].2, "/jails/leg/dev/bpf");
        assert_eq!(opened[1].2, "/jails/leg/dev/bpf0", "by its number, not by its path");
        assert!(opens(&read(REFUSED, 0, 4096)).is_empty());
        let mut other = Stream::new(RDEV + 1, 0);
        let mut none = Vec::new();
        other.take(HOST, &mut none);
        assert!(opens(&none).is_empty());
    }

    #[test]
    fn our_own_opens_are_not_told() {
        assert_eq!(opens(&read(HOST, 131, 4096)).len(), 2);
    }

    #[test]
    fn damage_is_told_and_what_follows_is_read() {
        let mut bytes = EXECUTIONS.to_vec();
        bytes[146 + 1] = 0xff;
        let seen = read(&bytes, 0, 50);
        let executed = seen.iter().filter(|seen| matches!(seen, Seen::Executed(..))).count();
        assert_eq!(executed, 3, "all but the damaged one");
        assert!(seen.contains(&Seen::Damaged));
    }
}
