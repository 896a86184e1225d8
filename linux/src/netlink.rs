//! Netlink as bytes: messages, attributes, requests. Never panics, whatever the bytes are.
//!
//! Layout from include/uapi/linux/netlink.h: a message is `{ u32 len, u16 type, u16 flags, u32 seq,
//! u32 pid }` and a body, an attribute `{ u16 len, u16 type }` and a payload; both start at multiples
//! of four. Numbers are in the machine's byte order.

/// Bytes of a message's header.
pub const HEADER_LEN: usize = 16;
/// NLMSG_ERROR: the body begins with a negative errno, or 0 for an acknowledgement.
pub const ERROR: u16 = 2;
/// NLMSG_DONE: the end of a dump, and the type of every connector message.
pub const DONE: u16 = 3;
/// NLM_F_REQUEST.
const FLAG_REQUEST: u16 = 0x1;
/// NLM_F_ROOT and NLM_F_MATCH: all rows.
const FLAG_DUMP: u16 = 0x300;
/// NLM_F_DUMP_INTR: the table changed while it was dumped; rows may be missing.
const FLAG_INTERRUPTED: u16 = 0x10;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its type.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// Sequence number of the request that it answers.
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

impl Message<'_> {
    /// The errno of an NLMSG_ERROR or of an NLMSG_DONE that ends a failed dump; 0 for success, `None`
    /// for other messages.
    pub fn error(&self) -> Option<i32> {
        match self.kind {
            ERROR => Some(int(self.body, 0).map_or(0, i32::wrapping_neg)),
            DONE => Some(int(self.body, 0).map_or(0, |code| code.min(0).wrapping_neg())),
            _ => None,
        }
    }

    /// The table changed while it was dumped.
    pub fn is_interrupted(&self) -> bool {
        self.flags & FLAG_INTERRUPTED != 0
    }
}

/// The messages in one datagram.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Of a received datagram.
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }

    /// What could not be read as a message; empty for a whole datagram.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.rest, 0)?).ok()?;
        let body = self.rest.get(HEADER_LEN..length)?;
        let message = Message {
            kind: u16_at(self.rest, 4)?,
            flags: u16_at(self.rest, 6)?,
            seq: u32_at(self.rest, 8)?,
            body,
        };
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes in `bytes`: type without its two flag bits, and payload.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Of a message's body behind its fixed part, or of a nested attribute's payload.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Of `body` behind a fixed part of `fixed` bytes.
    pub fn behind(body: &'a [u8], fixed: usize) -> Self {
        Self::new(body.get(aligned(fixed)..).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16_at(self.rest, 0)?);
        let payload = self.rest.get(4..length)?;
        // NLA_F_NESTED and NLA_F_NET_BYTEORDER are no part of the type.
        let kind = u16_at(self.rest, 2)? & 0x3FFF;
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// A request for all rows.
pub fn dump_request(kind: u16, seq: u32, body: &[u8]) -> Vec<u8> {
    message(kind, FLAG_REQUEST | FLAG_DUMP, seq, body)
}

/// A message as bytes.
pub fn message(kind: u16, flags: u16, seq: u32, body: &[u8]) -> Vec<u8> {
    let length = HEADER_LEN + body.len();
    let mut bytes = Vec::with_capacity(aligned(length));
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(aligned(length), 0);
    bytes
}

/// An attribute as bytes.
pub fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = 4 + payload.len();
    let mut bytes = Vec::with_capacity(aligned(length));
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(aligned(length), 0);
    bytes
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// The `N` bytes at `at`.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A number of 16 bits in the machine's order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

/// A number of 32 bits in the machine's order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

/// A number of 64 bits in the machine's order.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_ne_bytes)
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    array_at(bytes, at).map(i32::from_ne_bytes)
}

/// Text without the NUL that ends it.
pub(crate) fn c_text(payload: &[u8]) -> &[u8] {
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    &payload[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut datagram = message(20, 2, 7, b"abcde");
        datagram.extend(message(DONE, 2 | FLAG_INTERRUPTED, 7, &(-4i32).to_ne_bytes()));
        let mut messages = Messages::new(&datagram);
        let first = messages.next().unwrap();
        assert_eq!(
            (first.kind, first.flags, first.seq, first.body),
            (20, 2, 7, b"abcde".as_slice())
        );
        assert_eq!(first.error(), None);
        let last = messages.next().unwrap();
        assert_eq!(last.error(), Some(4));
        assert!(last.is_interrupted() && !first.is_interrupted());
        assert!(messages.next().is_none() && messages.rest().is_empty());
    }

    #[test]
    fn attributes_lose_their_flags_and_padding() {
        let mut bytes = attribute(0x8003, b"eth0\0");
        bytes.extend(attribute(30, &1u32.to_ne_bytes()));
        let all: Vec<_> = Attributes::new(&bytes).collect();
        assert_eq!(all, [(3, b"eth0\0".as_slice()), (30, &1u32.to_ne_bytes())]);
        assert_eq!(c_text(all[0].1), b"eth0");
    }

    #[test]
    fn a_length_that_lies_ends_the_reading() {
        for length in [0u32, 3, 15, 17, 4000, u32::MAX] {
            let mut bytes = message(1, 0, 0, &[]);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let mut messages = Messages::new(&bytes);
            assert!(messages.next().is_none(), "{length}");
            assert_eq!(messages.rest().len(), 16);
        }
        for length in [0u16, 1, 3, 9, u16::MAX] {
            let mut bytes = attribute(1, b"abcd");
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Attributes::new(&bytes).next(), None, "{length}");
        }
    }
}
