//! BSM trails as a recorded format: `bpfwatch replay trail.bsm`.

use std::sync::Arc;

use bpfwatch_core::decoder::{Blocks, Decoded, LineDecoder, LineError, Record, Sequence};
use bpfwatch_core::observation::{Observation, Os};

use crate::bsm::descriptors::Descriptors;
use crate::bsm::frame::{self, Frame};
use crate::bsm::{observe, record, token};

/// Records that are looked at to tell one system's trail from another's.
const SNIFFED: usize = 1000;

/// Whose trails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Freebsd,
    Macos,
}

/// The formats `bsm`, of FreeBSD, and `bsm-macos`.
#[derive(Debug, Clone)]
pub struct Bsm {
    system: System,
    sensor: Arc<str>,
}

impl Bsm {
    /// Trails of FreeBSD, and what its audit pipe gives.
    pub fn freebsd() -> Self {
        Self { system: System::Freebsd, sensor: Arc::from("freebsd.bsm") }
    }

    /// Trails of macOS, before 14 written by default.
    pub fn macos() -> Self {
        Self { system: System::Macos, sensor: Arc::from("macos.bsm") }
    }

    /// One whole record.
    fn record(&self, bytes: &[u8]) -> Record {
        let mut observations = Vec::new();
        let decoded = match record::Record::read(bytes) {
            Err(error) => Err(LineError::new(error.to_string())),
            Ok(record) => {
                let is_macos = self.system == System::Macos;
                observations.extend(observe::observation(&record, &self.sensor, is_macos));
                Ok(if observations.is_empty() { Decoded::Skipped } else { Decoded::Observed })
            }
        };
        Record { number: None, observations, decoded }
    }
}

impl LineDecoder for Bsm {
    fn name(&self) -> &'static str {
        match self.system {
            System::Freebsd => "bsm",
            System::Macos => "bsm-macos",
        }
    }

    fn sniff(&self, head: &[u8]) -> bool {
        // A line is nothing here: what is shown may end within the first record.
        is_trail(head) && (self.system == System::Macos) == is_from_macos(head)
    }

    fn os(&self) -> Option<Os> {
        Some(match self.system {
            System::Freebsd => Os::Freebsd,
            System::Macos => Os::Macos,
        })
    }

    fn sequence(&self) -> Option<Box<dyn Sequence>> {
        Some(Box::new(Descriptors::default()))
    }

    fn blocks(&self) -> Option<Blocks> {
        Some(Blocks::Records(whole))
    }

    fn decode_block(&self, mut block: &[u8], receive: &mut dyn FnMut(Record)) {
        let bad = |what: String| Record {
            number: None,
            observations: Vec::new(),
            decoded: Err(LineError::new(what)),
        };
        while !block.is_empty() {
            let size = match frame::next(block) {
                Frame::Record(size) => {
                    receive(self.record(&block[..size]));
                    size
                }
                Frame::File(size) => size,
                Frame::Damaged(size) => {
                    receive(bad(format!("{size} bytes that are no record")));
                    size
                }
                Frame::More => {
                    let left = block.len();
                    receive(bad(format!(
                        "the trail ends within a record, after {left} bytes of it"
                    )));
                    left
                }
            };
            block = block.get(size..).unwrap_or_default();
        }
    }

    fn decode(&self, _: &[u8], _: &mut Vec<Observation>) -> Result<Decoded, LineError> {
        Err(LineError::new("a BSM trail has no lines"))
    }
}

/// Bytes of whole records at the start.
fn whole(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Frame::Record(size) | Frame::File(size) | Frame::Damaged(size) =
        frame::next(&bytes[end..])
    {
        end += size;
    }
    end
}

/// Whether the bytes begin as a trail does: with a file's name, or a record of a version that is known.
fn is_trail(head: &[u8]) -> bool {
    match frame::next(head) {
        Frame::Record(_) | Frame::File(_) => true,
        Frame::Damaged(_) => false,
        // The header is there even where the rest of the record is not shown.
        Frame::More => {
            let header = matches!(head.first(), Some(&(token::HEADER32 | token::HEADER32_EX)));
            // Versions 10 and 11 of OpenBSM; a size of less than 16 MiB begins with a zero.
            header && head.get(1) == Some(&0) && matches!(head.get(5), Some(10 | 11))
        }
    }
}

/// Whether a record is of macOS: of an event that only it has, or with the identity of a signed program.
fn is_from_macos(mut head: &[u8]) -> bool {
    for _ in 0..SNIFFED {
        let (Frame::Record(size) | Frame::File(size) | Frame::Damaged(size)) = frame::next(head)
        else {
            return event(head).is_some_and(is_macos_event);
        };
        let (record, rest) = head.split_at(size);
        let identity = |token: &Result<token::Token<'_>, _>| {
            matches!(token, Ok(token::Token::Other(token::IDENTITY)))
        };
        if event(record).is_some_and(is_macos_event)
            || record::Tokens::new(record).any(|token| identity(&token))
        {
            return true;
        }
        head = rest;
    }
    false
}

/// Number of the event of a record with a header of 32 bits.
fn event(record: &[u8]) -> Option<u16> {
    let is_header = matches!(record.first(), Some(&(token::HEADER32 | token::HEADER32_EX)));
    let bytes = record.get(6..8)?.try_into().ok()?;
    is_header.then(|| u16::from_be_bytes(bytes))
}

/// Apple's sessions (44901 to 44904) and its authorisation (45023 to 45030), from bsm/audit_uevents.h of
/// OpenBSM; posix_spawn (43190), exec and open calls that FreeBSD has not.
fn is_macos_event(event: u16) -> bool {
    matches!(event, 44901..=44904 | 45023..=45030 | 43190 | 43169..=43181)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfwatch_core::observation::Kind;
    use bpfwatch_core::scope::Scope;

    fn replay(bytes: &[u8]) -> (Vec<Observation>, Vec<String>) {
        let format = Bsm::freebsd();
        let mut sequence = format.sequence().unwrap();
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        format.decode_block(bytes, &mut |record| match record.decoded {
            Err(error) => problems.push(error.to_string()),
            Ok(_) => {
                for observation in record.observations {
                    sequence.pass(observation, &mut out);
                }
            }
        });
        (out, problems)
    }

    fn jail(observation: &Observation) -> Option<String> {
        match observation.actor.as_ref()?.scope.as_deref()? {
            Scope::Jail { name, jid: None, .. } => Some(name.to_string()),
            _ => None,
        }
    }

    #[test]
    fn executions_of_a_recording() {
        let (host, problems) = replay(include_bytes!("../../tests/data/execve-host.bsm"));
        assert_eq!(problems, Vec::<String>::new());
        assert!(host.iter().all(|o| o.kind == Kind::Executed && jail(o).is_none()));
        let tcpdump = host[1].actor.as_ref().unwrap();
        assert_eq!((tcpdump.pid, tcpdump.uid), (97, Some(0)));
        assert_eq!(tcpdump.image.as_ref().unwrap().as_str(), "/usr/sbin/tcpdump");
        let line = tcpdump.args.as_ref().unwrap().command_line();
        assert_eq!(line, "tcpdump -p -n -i lo0 -c 1 -w /dev/null");
        assert_eq!(host[1].at.to_string(), "2026-11-24T03:01:04.092000Z");
        // A search along PATH leaves failed ones, which are none.
        let (jailed, _) = replay(include_bytes!("../../tests/data/execve-jail.bsm"));
        let images: Vec<_> = jailed
            .iter()
            .map(|o| (o.actor.as_ref().unwrap().image.as_ref().unwrap().as_str(), jail(o)))
            .collect();
        let vn = Some("vn".to_owned());
        assert_eq!(
            images,
            [
                ("/bin/sh", None),
                ("/usr/sbin/jexec", None),
                ("/jails/vn/usr/sbin/tcpdump", vn),
                ("/bin/sleep", None)
            ]
        );
    }

    #[test]
    fn opens_of_a_recording() {
        let (host, _) = replay(include_bytes!("../../tests/data/open-host.bsm"));
        let opened = |observations: &[Observation]| -> Vec<_> {
            let short = |o: &Observation| {
                let handle = o.kind.handle().unwrap();
                let device = handle.device.as_ref().unwrap().to_string();
                (o.actor.as_ref().unwrap().pid, device, jail(o))
            };
            observations.iter().map(short).collect()
        };
        let bpf = || "/dev/bpf".to_owned();
        assert_eq!(opened(&host), [(131, bpf(), None), (132, bpf(), None), (130, bpf(), None)]);
        let (jailed, _) = replay(include_bytes!("../../tests/data/open-jail.bsm"));
        let leg = || Some("leg".to_owned());
        assert_eq!(
            opened(&jailed),
            [
                (147, "/jails/leg/dev/bpf".to_owned(), leg()),
                (146, "/jails/leg/dev/bpf0".to_owned(), leg())
            ]
        );
        let (refused, _) = replay(include_bytes!("../../tests/data/open-eacces.bsm"));
        assert_eq!(refused, []);
    }

    #[test]
    fn ioctls_of_a_recording() {
        for (bytes, pid, zone) in [
            (include_bytes!("../../tests/data/ioctl-host.bsm").as_slice(), 161, None),
            (
                include_bytes!("../../tests/data/ioctl-jail.bsm").as_slice(),
                175,
                Some("vn".to_owned()),
            ),
        ] {
            let (seen, _) = replay(bytes);
            let short: Vec<_> = seen
                .iter()
                .map(|o| (o.kind.name(), o.kind.handle().unwrap().id, jail(o)))
                .collect();
            let id = (pid << 32) | 3;
            assert_eq!(short, [("handle_attached", id, zone.clone()), ("promiscuous", id, zone)]);
        }
    }

    #[test]
    fn recognises_trails_and_tells_the_systems_apart() {
        let trail = include_bytes!("../../tests/data/execve-host.bsm");
        let (freebsd, macos) = (Bsm::freebsd(), Bsm::macos());
        for head in [&trail[..], &trail[..40], &trail[..8]] {
            assert!(freebsd.sniff(head) && !macos.sniff(head));
        }
        let mut apple = trail.to_vec();
        apple[6..8].copy_from_slice(&45025u16.to_be_bytes());
        for head in [&apple[..], &apple[..40]] {
            assert!(!freebsd.sniff(head) && macos.sniff(head));
        }
        for other in
            [b"".as_slice(), b"{\"type\":\"meta\"}", b"ElfFile\0", &[0x14, 0xff, 0, 0, 0, 11, 0, 0]]
        {
            assert!(!freebsd.sniff(other) && !macos.sniff(other), "{other:?}");
        }
    }

    #[test]
    fn damage_and_a_cut_end_are_said() {
        let mut trail = include_bytes!("../../tests/data/execve-host.bsm").to_vec();
        trail[196] = 0xff;
        let (seen, problems) = replay(&trail[..trail.len() - 5]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[1].contains("ends within a record"), "{problems:?}");
        assert_eq!(seen.len(), 3);
    }
}
