//! Span ports of bridges (if_bridge(4)): each gets a copy of every frame that its bridge receives. No process
//! has one; it stays until it is taken away. Pure.

use core::mem::offset_of;
use std::collections::BTreeMap;

use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::text::Text;

use crate::bytes::{byte, name, word};
use crate::layout::{Ifbreq, Ifmibdata};
use crate::poll::Said;

/// IFT_BRIDGE of net/if_types.h.
pub const IFT_BRIDGE: u8 = 0xd1;
/// IFBIF_SPAN of net/if_bridgevar.h.
pub const IFBIF_SPAN: u32 = 0x8;
/// BRDGGIFS of net/if_bridgevar.h: lists the members of a bridge.
pub const BRDGGIFS: u64 = 6;
/// SIOCGDRVSPEC of sys/sockio.h.
pub const SIOCGDRVSPEC: u64 = 0xc028_697b;

/// The name of the interface that a row of `net.link.generic.ifdata` is of, where that is a bridge.
pub fn bridge(row: &[u8]) -> Option<Vec<u8>> {
    let kind = byte(row, offset_of!(Ifmibdata, kind))?;
    let name = name(row, offset_of!(Ifmibdata, name), 16)?;
    (kind == IFT_BRIDGE && !name.is_empty()).then(|| name.to_vec())
}

/// The span ports among the members that BRDGGIFS gives. What is left after the last whole one is not read.
pub fn ports(members: &[u8]) -> Vec<Vec<u8>> {
    let span = |member: &[u8]| {
        let flags = word(member, offset_of!(Ifbreq, flags))?;
        let name = name(member, offset_of!(Ifbreq, name), 16)?;
        (flags & IFBIF_SPAN != 0 && !name.is_empty()).then(|| name.to_vec())
    };
    members.chunks_exact(size_of::<Ifbreq>()).filter_map(span).collect()
}

/// The span ports that are known, by bridge and port.
#[derive(Debug, Default)]
pub struct Spans {
    known: BTreeMap<(Vec<u8>, Vec<u8>), Handle>,
    next: u64,
    looked: bool,
}

impl Spans {
    /// Compares with what there is now: says what came and went.
    pub fn update(&mut self, there: &[(Vec<u8>, Vec<u8>)], said: &mut Vec<Said>) {
        self.known.retain(|port, handle| {
            let stays = there.contains(port);
            if !stays {
                said.push((None, Kind::HandleClosed { handle: handle.clone() }));
            }
            stays
        });
        let text = |name: &[u8]| Some(Text::from_bytes_limited(name, 16));
        for (bridge, port) in there {
            let key = (bridge.clone(), port.clone());
            if self.known.contains_key(&key) {
                continue;
            }
            self.next += 1;
            let handle = Handle {
                interface: text(bridge),
                peer: text(port),
                ..Handle::new(HandleKind::BridgeSpan, self.next)
            };
            let opened = handle.clone();
            said.push((None, Kind::HandleOpened { handle: opened, pre_existing: !self.looked }));
            said.push((None, Kind::HandleAttached { handle: handle.clone() }));
            self.known.insert(key, handle);
        }
        self.looked = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &[u8], flags: u32) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Ifbreq>()];
        bytes[..name.len()].copy_from_slice(name);
        bytes[16..20].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    #[test]
    fn ports_that_are_spans() {
        let members =
            [member(b"em0", 0x3), member(b"em1", IFBIF_SPAN), member(b"", IFBIF_SPAN)].concat();
        assert_eq!(ports(&members), [b"em1".to_vec()]);
        assert_eq!(ports(&members[..100]), [] as [Vec<u8>; 0]);
    }

    #[test]
    fn interfaces_that_are_bridges() {
        let mut row = vec![0; size_of::<Ifmibdata>()];
        row[..4].copy_from_slice(b"lan0");
        assert_eq!(bridge(&row), None);
        row[56] = IFT_BRIDGE;
        assert_eq!(bridge(&row), Some(b"lan0".to_vec()));
        assert_eq!((bridge(&row[..56]), bridge(&[])), (None, None));
    }

    #[test]
    fn said_when_they_come_and_go() {
        let port = |name: &str| (b"bridge0".to_vec(), name.as_bytes().to_vec());
        let mut spans = Spans::default();
        let mut update = |there: &[(Vec<u8>, Vec<u8>)]| {
            let mut said = Vec::new();
            spans.update(there, &mut said);
            let short = |(_, kind): &Said| match kind {
                Kind::HandleOpened { handle, pre_existing } => {
                    format!("opened {} {pre_existing}", handle.id)
                }
                Kind::HandleAttached { handle } => {
                    format!("attached {}", handle.peer.clone().unwrap_or_default().as_str())
                }
                other => other.name().to_owned(),
            };
            said.iter().map(short).collect::<Vec<_>>()
        };
        assert_eq!(update(&[port("em1")]), ["opened 1 true", "attached em1"]);
        assert!(update(&[port("em1")]).is_empty());
        assert_eq!(update(&[port("em2")]), ["handle_closed", "opened 2 false", "attached em2"]);
        assert_eq!(update(&[]), ["handle_closed"]);
    }
}
