//! What /proc says, as bytes into rows. Everything in it was chosen by somebody else, so nothing here
//! panics on it.
//!
//! Formats from proc(5) and fs/proc/array.c, net/packet/af_packet.c, net/ipv4/raw.c, net/ipv6/raw.c.

use std::collections::HashMap;

use bpfwatch_core::text::Text;

use crate::raw::{PacketRow, RawIpRow};

/// What is needed of `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Short name.
    pub name: Vec<u8>,
    /// Parent.
    pub ppid: u32,
    /// Session.
    pub sid: u32,
    /// Device number of the controlling terminal; 0 for none.
    pub tty: u32,
    /// Start in clock ticks since boot.
    pub start: u64,
}

/// Reads `/proc/PID/stat`. The name stands in parentheses and may hold any byte, a parenthesis too, so
/// the last one ends it.
pub fn stat(line: &[u8]) -> Option<Stat> {
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let name = line.get(open + 1..close)?.to_vec();
    let mut fields = words(line.get(close + 1..)?);
    // Fields count from 1: state is 3, ppid 4, pgrp 5, session 6, tty_nr 7, start time 22.
    let ppid = number(fields.nth(1)?)?;
    let sid = number(fields.nth(1)?)?;
    let tty: i64 = number(fields.next()?)?;
    let start = number(fields.nth(14)?)?;
    Some(Stat { name, ppid, sid, tty: u32::try_from(tty & 0xFFFF_FFFF).ok()?, start })
}

/// Name of a terminal from its device number (Documentation/admin-guide/devices.txt); `None` for none.
pub fn tty_name(device: u32) -> Option<Text> {
    // fs/proc/array.c prints new_encode_dev().
    let major = (device >> 8) & 0xFFF;
    let minor = (device & 0xFF) | ((device >> 12) & 0xF_FF00);
    let name = match (major, minor) {
        (0, 0) => return None,
        (4, 0..=63) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        (5, 1) => "console".to_owned(),
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        (204, 64..=79) => format!("ttyAMA{}", minor - 64),
        (229, _) => format!("hvc{minor}"),
        _ => format!("{major}:{minor}"),
    };
    Some(Text::from(name))
}

/// Inode in a link such as `socket:[123]` or `net:[4026531840]`.
pub fn link_inode(link: &[u8], kind: &str) -> Option<u64> {
    number(link.strip_prefix(kind.as_bytes())?.strip_prefix(b":[")?.strip_suffix(b"]")?)
}

/// An executable's path and whether it is gone, from the link `/proc/PID/exe`.
pub fn image(link: &[u8]) -> (&[u8], bool) {
    match link.strip_suffix(b" (deleted)") {
        Some(path) => (path, true),
        None => (link, link.starts_with(b"/memfd:")),
    }
}

/// Users by id, from an /etc/passwd. The first entry of an id counts, as for getpwuid(3).
pub fn users(passwd: &[u8]) -> HashMap<u32, Text> {
    let mut users = HashMap::new();
    for line in lines(passwd) {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(number)) else {
            continue;
        };
        users.entry(uid).or_insert_with(|| Text::from_bytes_limited(name, 256));
    }
    users
}

/// How many sockets of a protocol the namespace of `/proc/PID/net/protocols` has (net/core/sock.c:
/// `proto_seq_printf`); `None` where the kernel has no such protocol.
pub fn sockets_of(table: &[u8], protocol: &[u8]) -> Option<u64> {
    // protocol size sockets ...
    let row = |line| {
        let mut fields = words(line);
        (fields.next()? == protocol).then(|| number(fields.nth(1)?)).flatten()
    };
    lines(table).find_map(row)
}

/// Rows of `/proc/PID/net/packet`. It tells nothing of promiscuous mode, filter and ring.
pub fn packet_table(table: &[u8]) -> Vec<PacketRow> {
    // sk RefCnt Type Proto Iface R Rmem User Inode
    let row = |line| {
        let mut fields = words(line);
        Some(PacketRow {
            socket_type: number(fields.nth(2)?)?,
            protocol: hex(fields.next()?).and_then(|number| u16::try_from(number).ok())?,
            ifindex: number(fields.next()?)?,
            uid: Some(number(fields.nth(2)?)?),
            inode: number(fields.next()?)?,
            promiscuous: None,
            filter: None,
            ring: None,
        })
    };
    lines(table).skip(1).filter_map(row).collect()
}

/// Rows of `/proc/PID/net/raw` (`ip_version` 4) or `raw6` (6).
pub fn raw_table(table: &[u8], ip_version: u8) -> Vec<RawIpRow> {
    // sl local remote st tx:rx tr:when retrnsmt uid timeout inode ref pointer drops; the local port is
    // the protocol.
    let row = |line| {
        let mut fields = words(line);
        let local: &[u8] = fields.nth(1)?;
        let port = local.get(local.iter().rposition(|byte| *byte == b':')? + 1..)?;
        Some(RawIpRow {
            ip_version,
            protocol: hex(port).and_then(|number| u8::try_from(number).ok())?,
            uid: Some(number(fields.nth(5)?)?),
            inode: number(fields.nth(1)?)?,
            ifindex: None,
        })
    };
    lines(table).skip(1).filter_map(row).collect()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn hex(word: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_stat() {
        let line =
            b"42 (a) R 1 (b)) S 7 42 41 34816 42 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3\n";
        let want =
            Stat { name: b"a) R 1 (b)".to_vec(), ppid: 7, sid: 41, tty: 34816, start: 98765 };
        assert_eq!(stat(line), Some(want));
        assert_eq!(stat(b"42 (x S 7"), None);
        assert_eq!(stat(b")("), None);
    }

    #[test]
    fn terminals() {
        let name = |device| tty_name(device).map(|name| name.to_string());
        assert_eq!(name(34816).as_deref(), Some("pts/0"));
        assert_eq!(name((137 << 8) | 4).as_deref(), Some("pts/260"));
        assert_eq!(name((4 << 8) | 1).as_deref(), Some("tty1"));
        assert_eq!(name((4 << 8) | 64).as_deref(), Some("ttyS0"));
        assert_eq!(name((7 << 8) | 1).as_deref(), Some("7:1"));
        assert_eq!(name(0), None);
    }

    #[test]
    fn deleted_and_memory_only_images() {
        assert_eq!(image(b"/usr/bin/x"), (b"/usr/bin/x".as_slice(), false));
        assert_eq!(image(b"/tmp/x (deleted)"), (b"/tmp/x".as_slice(), true));
        assert_eq!(image(b"/memfd:a (deleted)"), (b"/memfd:a".as_slice(), true));
        assert_eq!(link_inode(b"socket:[77]", "socket"), Some(77));
        assert_eq!(link_inode(b"socket:[]", "socket"), None);
        assert_eq!(link_inode(b"/tmp/socket:[1]", "socket"), None);
    }

    #[test]
    fn users_by_id() {
        let known = users(b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:\n#\nbad\nwww:x:33:33::/:\n");
        assert_eq!(known.len(), 2);
        assert_eq!(known[&0].as_str(), "root");
    }

    #[test]
    fn socket_tables() {
        let packet = b"sk       RefCnt Type Proto  Iface R Rmem   User   Inode
000000007c8d6b3f 3      3    0003   2     1 0      1000   5123
0000000000000000 3      10   88cc   0     1 0      0      7
junk
";
        let rows = packet_table(packet);
        assert_eq!(rows.len(), 2);
        let first = (rows[0].inode, rows[0].socket_type, rows[0].protocol, rows[0].ifindex);
        assert_eq!(first, (5123, 3, 3, 2));
        assert_eq!((rows[0].uid, rows[1].protocol), (Some(1000), 0x88cc));
        let raw = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  6: 00000000:0006 00000000:0000 07 00000000:00000000 00:00000000 00000000     5        0 10423 2 0000000000000000 0
";
        let want =
            RawIpRow { inode: 10423, ip_version: 4, protocol: 6, ifindex: None, uid: Some(5) };
        assert_eq!(raw_table(raw, 4), [want]);
        let raw6 = b"head
  58: 00000000000000000000000000000000:003A 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 99 2 0000000000000000 0
";
        assert_eq!(raw_table(raw6, 6)[0].protocol, 58);
    }
}
