//! Messages of a route socket (route(4)): an interface came, went or changed its flags.
//!
//! They wake, and are no truth about who captures: only the first promiscuous reader and the last one
//! change a flag, and a host's socket hears nothing of other vnets.

use core::mem::offset_of;

use crate::bytes::{byte, half, name, word};
use crate::layout::{IfAnnouncemsghdr, IfMsghdr};
use crate::raw::RouteMessage;

/// RTM_IFINFO of net/route.h.
pub const RTM_IFINFO: u8 = 0x0e;
/// RTM_IFANNOUNCE of net/route.h.
pub const RTM_IFANNOUNCE: u8 = 0x11;
/// RTM_VERSION of net/route.h.
pub const RTM_VERSION: u8 = 5;
/// IFF_PROMISC of net/if.h.
pub const IFF_PROMISC: u32 = 0x100;
/// IFF_PPROMISC of net/if.h: an administrator asked for it.
pub const IFF_PPROMISC: u32 = 0x20000;
/// Bytes of length, version and type.
const COMMON: usize = 4;

/// The messages of one read, in order. What follows a message that lies about its length is not read.
pub fn messages(mut bytes: &[u8]) -> Vec<RouteMessage> {
    let mut out = Vec::new();
    while let Some((message, rest)) = split(bytes) {
        out.extend(self::message(message));
        bytes = rest;
    }
    out
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(half(bytes, 0)?);
    (length >= COMMON).then(|| bytes.split_at_checked(length)).flatten()
}

/// `None` for another version, whose types mean something else.
fn message(message: &[u8]) -> Option<RouteMessage> {
    if byte(message, 2)? != RTM_VERSION {
        return None;
    }
    let kind = byte(message, 3)?;
    let known = match kind {
        RTM_IFINFO => interface(message),
        RTM_IFANNOUNCE => announcement(message),
        _ => None,
    };
    Some(known.unwrap_or(RouteMessage::Other(kind)))
}

fn interface(message: &[u8]) -> Option<RouteMessage> {
    Some(RouteMessage::Interface {
        index: half(message, offset_of!(IfMsghdr, index))?,
        flags: word(message, offset_of!(IfMsghdr, flags))?,
    })
}

fn announcement(message: &[u8]) -> Option<RouteMessage> {
    Some(RouteMessage::Announce {
        index: half(message, offset_of!(IfAnnouncemsghdr, index))?,
        name: name(message, offset_of!(IfAnnouncemsghdr, name), 16)?.to_vec(),
        // IFAN_ARRIVAL is 0 (net/if.h).
        arrived: half(message, offset_of!(IfAnnouncemsghdr, what))? == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &[u8] = include_bytes!("../tests/data/route.bin");

    #[test]
    fn reads_what_a_route_socket_gave() {
        let messages = messages(ROUTE);
        let promiscuous: Vec<_> = messages
            .iter()
            .filter_map(|message| match message {
                RouteMessage::Interface { index, flags } => {
                    Some((*index, flags & IFF_PROMISC != 0))
                }
                _ => None,
            })
            .collect();
        assert_eq!(
            promiscuous,
            [
                (1, true),
                (1, false),
                (2, true),
                (2, false),
                (8, true),
                (10, false),
                (10, false),
                (10, true),
                (10, false)
            ]
        );
        let announced = messages.iter().find_map(|message| match message {
            RouteMessage::Announce { index, name, arrived } => {
                Some((*index, name.clone(), *arrived))
            }
            _ => None,
        });
        assert_eq!(announced, Some((10, b"bridge0".to_vec(), true)));
        assert_eq!(messages.len(), 10);
    }

    #[test]
    fn a_message_that_lies_about_its_length_ends_the_read() {
        for length in [0u16, 3, 2000] {
            let mut bytes = ROUTE.to_vec();
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&bytes), [], "{length}");
        }
        let mut other = ROUTE[..168].to_vec();
        other[2] = 4;
        assert_eq!(messages(&other), []);
        assert_eq!(messages(&[8, 0, 5, 0x0e, 0, 0, 0, 0]), [RouteMessage::Other(0x0e)]);
    }
}
