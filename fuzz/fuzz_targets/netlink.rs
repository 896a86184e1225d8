//! What the kernel sends and shows, of any bytes: netlink datagrams, texts of /proc, answers of bpf(2). Decoders may
//! neither panic nor make more of their input than is there.
#![no_main]

use bpfwatch_linux::netlink::{Attributes, Messages};
use bpfwatch_linux::programs::info;
use bpfwatch_linux::{
    grip, netlink_diag, netlink_proc, netlink_route, netlink_tc, proc_text, readers,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    datagram(bytes);
    text(bytes);
});

fn datagram(bytes: &[u8]) {
    let mut messages = Messages::new(bytes);
    let mut total = 0;
    for message in messages.by_ref() {
        total += message.body.len();
        let _ = (message.error(), message.is_interrupted());
        let _ = (netlink_diag::packet_row(&message), netlink_diag::raw_row(&message));
        let _ = (netlink_route::link(&message), netlink_proc::event(&message));
        let _ = (netlink_diag::xdp_row(&message), netlink_tc::effects(&message));
        assert!(netlink_tc::hooks(&message).len() <= 2);
        let payload: usize = Attributes::new(message.body).map(|(_, payload)| payload.len()).sum();
        assert!(payload <= message.body.len());
    }
    assert!(total + messages.rest().len() <= bytes.len());
}

fn text(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(proc_text::users(bytes).len() <= lines);
    assert!(proc_text::packet_table(bytes).len() <= lines);
    for ip_version in [4, 6] {
        assert!(proc_text::raw_table(bytes, ip_version).len() <= lines);
    }
    let _ = (proc_text::stat(bytes), proc_text::image(bytes));
    let _ = (proc_text::sockets_of(bytes, b"XDP"), info::fdinfo_program(bytes));
    let _ = (info::program(bytes), info::link(bytes), grip::link(bytes));
    let _ = (grip::told(&grip::Link::Bpf, bytes), grip::told(&grip::Link::Tun, bytes));
    let rows = readers::rows(Some(bytes), Some(bytes), || Some(bytes.to_vec()));
    assert!(rows.is_none_or(|rows| rows.len() <= 2 * lines));
    for kind in ["socket", "net"] {
        let _ = proc_text::link_inode(bytes, kind);
    }
    if let Some(device) = bytes.first_chunk() {
        let _ = proc_text::tty_name(u32::from_ne_bytes(*device));
    }
}
