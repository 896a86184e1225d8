//! Decoders meet bytes that no kernel would send: cut, changed and random ones. None may panic, and
//! none may make more of its input than is there.

use bpfwatch_linux::programs::info;
use bpfwatch_linux::{
    grip, netlink, netlink_diag, netlink_proc, netlink_route, netlink_tc, proc_text, readers,
};

/// A small generator, so that a failure comes again with the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Runs every decoder of datagrams; the number of rows that they found.
fn decode(datagram: &[u8]) -> usize {
    let mut rows = 0;
    let mut total = 0;
    for message in netlink::Messages::new(datagram) {
        total += message.body.len();
        let _ = (message.error(), message.is_interrupted());
        rows += usize::from(netlink_diag::packet_row(&message).is_some());
        rows += usize::from(netlink_diag::raw_row(&message).is_some());
        rows += usize::from(netlink_diag::xdp_row(&message).is_some());
        rows += usize::from(netlink_route::link(&message).is_some());
        rows += usize::from(!netlink_tc::hooks(&message).is_empty());
        rows += usize::from(!netlink_tc::effects(&message).is_empty());
        rows += usize::from(netlink_proc::event(&message).is_some());
        let payload: usize =
            netlink::Attributes::new(message.body).map(|(_, payload)| payload.len()).sum();
        assert!(payload <= message.body.len());
    }
    assert!(total <= datagram.len());
    rows
}

fn samples() -> Vec<Vec<u8>> {
    let attributes = |list: &[(u16, &[u8])]| -> Vec<u8> {
        list.iter().flat_map(|(kind, payload)| netlink::attribute(*kind, payload)).collect()
    };
    let mut packet = vec![17, 3, 3, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let shown: [(u16, &[u8]); 5] =
        [(0, &[0; 24]), (1, &[0; 88]), (2, &[0; 28]), (5, &[0; 4]), (7, &[6; 8])];
    packet.extend(attributes(&shown));
    let mut raw = vec![0; 72];
    raw[0] = 2;
    let mut link = vec![0; 16];
    let info = attributes(&[(1, b"veth\0"), (4, b"bridge\0")]);
    link.extend(attributes(&[(3, b"eth0\0"), (10, &[1; 4]), (18, &info), (30, &[1; 4])]));
    let mut xdp = vec![44, 3, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xdp.extend(attributes(&[(1, &[3; 8]), (3, &[0; 4])]));
    let xdp_program = attributes(&[(2, &[2]), (4, &[9; 4])]);
    let mut port = vec![0; 16];
    port.extend(attributes(&[(3, b"eth0\0"), (43, &xdp_program)]));
    let mut qdisc = vec![0; 20];
    qdisc.extend(attributes(&[(1, b"clsact\0")]));
    let mirror = attributes(&[(1, b"mirred\0"), (2, &attributes(&[(2, &[2, 0, 0, 0].repeat(7))]))]);
    let actions = attributes(&[(7, &attributes(&[(1, &mirror)]))]);
    let mut filter = vec![0; 20];
    filter.extend(attributes(&[(1, b"u32\0"), (2, &actions)]));
    let mut event = Vec::new();
    for number in [1u32, 1, 0, 0, 40, 1, 0, 0, 0, 7, 7, 8, 8, 0, 0] {
        event.extend(number.to_ne_bytes());
    }
    vec![
        netlink::message(netlink_diag::BY_FAMILY, 2, 1, &packet),
        netlink::message(netlink_diag::BY_FAMILY, 2, 1, &raw),
        netlink::message(netlink_route::NEW_LINK, 2, 1, &link),
        netlink::message(netlink_diag::BY_FAMILY, 2, 1, &xdp),
        netlink::message(netlink_route::NEW_LINK, 2, 1, &port),
        netlink::message(36, 2, 1, &qdisc),
        netlink::message(44, 2, 1, &filter),
        netlink::message(netlink::DONE, 0, 1, &event),
    ]
}

#[test]
fn whole_samples_are_read() {
    for sample in samples() {
        assert_eq!(decode(&sample), 1, "{sample:?}");
    }
}

#[test]
fn cut_samples_do_no_harm() {
    for sample in samples() {
        for end in 0..sample.len() {
            decode(&sample[..end]);
            // The same with a length that is right again.
            let mut shorter = sample[..end].to_vec();
            if end >= 4 {
                shorter[..4].copy_from_slice(&(end as u32).to_ne_bytes());
                decode(&shorter);
            }
        }
    }
}

#[test]
fn changed_and_random_bytes_do_no_harm() {
    let mut random = Random(0x5EED);
    let samples = samples();
    for _ in 0..50_000 {
        let mut bytes = samples[random.below(samples.len())].clone();
        for _ in 0..=random.below(6) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        decode(&bytes);
        let length = random.below(200);
        let mut bytes = random.bytes(length);
        decode(&bytes);
        if bytes.len() >= 16 {
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[4..6].copy_from_slice(&[20u16, 16, 3, 2][random.below(4)].to_ne_bytes());
            decode(&bytes);
        }
    }
}

#[test]
fn texts_of_any_bytes_do_no_harm() {
    let mut random = Random(0xF00D);
    let alphabet = b"0123456789abcdefx:()[]/ \n\t-\xffUid:SR";
    for _ in 0..50_000 {
        let length = random.below(120);
        let text: Vec<u8> = (0..length).map(|_| alphabet[random.below(alphabet.len())]).collect();
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        let _ = (proc_text::stat(&text), proc_text::image(&text));
        let _ = proc_text::link_inode(&text, "socket");
        assert!(proc_text::users(&text).len() <= lines + 1);
        assert!(proc_text::packet_table(&text).len() <= lines);
        assert!(proc_text::raw_table(&text, 4).len() <= lines);
        let _ = (proc_text::sockets_of(&text, b"XDP"), info::fdinfo_program(&text));
        let _ = (info::program(&text), info::link(&text), grip::link(&text));
        let rows = readers::rows(Some(&text), Some(&text), || Some(text.clone()));
        assert!(rows.is_none_or(|rows| rows.len() <= 2 * (lines + 1)));
    }
    for device in (0..u32::MAX).step_by(65_521) {
        let _ = proc_text::tty_name(device);
    }
}
