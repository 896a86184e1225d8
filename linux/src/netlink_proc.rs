//! The proc connector: forks, executions and ends of processes.
//!
//! Layouts from include/uapi/linux/{connector,cn_proc}.h; what fills them in is
//! drivers/connector/cn_proc.c. A datagram is a netlink header, `struct cn_msg` (20 bytes) and
//! `struct proc_event`, whose type stands at byte 36 and whose data begin at byte 52.

use crate::netlink::{self, Message, u32_at, u64_at};
use crate::raw::{ProcEvent, ProcWhat};

/// Bit of CN_IDX_PROC in the groups of a socket address, and its index.
pub const GROUP_PROC: u32 = 1;

/// `struct cn_msg`: u32 idx, u32 val, u32 seq, u32 ack, u16 len, u16 flags.
const CN_MSG_LEN: usize = 20;
const DATA: usize = CN_MSG_LEN + 16;
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;

const EVENT_NONE: u32 = 0;
const EVENT_FORK: u32 = 1;
const EVENT_EXEC: u32 = 2;
const EVENT_EXIT: u32 = 0x8000_0000;

/// Asks for events.
pub fn listen_request() -> Vec<u8> {
    let mut body = Vec::with_capacity(CN_MSG_LEN + 4);
    body.extend(CN_IDX_PROC.to_ne_bytes());
    body.extend(CN_VAL_PROC.to_ne_bytes());
    body.extend([0; 8]);
    body.extend(4u16.to_ne_bytes());
    body.extend(0u16.to_ne_bytes());
    body.extend(PROC_CN_MCAST_LISTEN.to_ne_bytes());
    netlink::message(netlink::DONE, 0, 0, &body)
}

/// What a connector message tells; `None` for what is none of the proc connector's or is cut short.
pub fn event(message: &Message<'_>) -> Option<ProcEvent> {
    let body = message.body;
    if u32_at(body, 0)? != CN_IDX_PROC || u32_at(body, 4)? != CN_VAL_PROC {
        return None;
    }
    let field = |at| u32_at(body, DATA + at);
    let what = match u32_at(body, CN_MSG_LEN)? {
        EVENT_NONE => ProcWhat::Answer(field(0)?),
        // parent pid, parent tgid, child pid, child tgid
        EVENT_FORK if field(8)? == field(12)? => {
            ProcWhat::Fork { parent: field(4)?, child: field(12)? }
        }
        // An exec by a thread kills its siblings and takes over their number.
        EVENT_EXEC => ProcWhat::Exec { pid: field(4)? },
        EVENT_EXIT if field(0)? == field(4)? => ProcWhat::Exit { pid: field(4)? },
        _ => ProcWhat::Other,
    };
    Some(ProcEvent {
        cpu: u32_at(body, CN_MSG_LEN + 4)?,
        monotonic_ns: u64_at(body, CN_MSG_LEN + 8)?,
        what,
    })
}

/// One instruction of a classic BPF program: code, jump if true, jump if false, operand.
pub type Instruction = (u16, u8, u8, u32);

/// A socket filter that passes answers, executions, and forks and ends of whole processes: threads and
/// changes of names and ids cost no wake-up.
///
/// BPF loads words in network order, so that a constant is swapped before it is compared. What the
/// filter drops leaves gaps in the numbers of the messages, so gaps say nothing about loss: the kernel
/// tells that by ENOBUFS (net/netlink/af_netlink.c: `netlink_overrun`).
pub fn socket_filter() -> [Instruction; 16] {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const TO_X: u16 = 0x07; // BPF_MISC | BPF_TAX
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const EQUAL_X: u16 = 0x1D; // BPF_JMP | BPF_JEQ | BPF_X
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const WHAT: u32 = (netlink::HEADER_LEN + CN_MSG_LEN) as u32;
    const FIRST: u32 = (netlink::HEADER_LEN + DATA) as u32;
    [
        (LOAD, 0, 0, WHAT),
        (EQUAL, 13, 0, EVENT_EXEC.to_be()),
        (EQUAL, 12, 0, EVENT_NONE.to_be()),
        (EQUAL, 2, 0, EVENT_FORK.to_be()),
        (EQUAL, 5, 0, EVENT_EXIT.to_be()),
        (RETURN, 0, 0, 0),
        // Fork: the child's pid is its tgid.
        (LOAD, 0, 0, FIRST + 8),
        (TO_X, 0, 0, 0),
        (LOAD, 0, 0, FIRST + 12),
        (EQUAL_X, 5, 4, 0),
        // Exit: the pid is the tgid.
        (LOAD, 0, 0, FIRST),
        (TO_X, 0, 0, 0),
        (LOAD, 0, 0, FIRST + 4),
        (EQUAL_X, 1, 0, 0),
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, u32::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Messages;

    fn datagram(what: u32, data: &[u32]) -> Vec<u8> {
        let mut body = Vec::new();
        for number in [CN_IDX_PROC, CN_VAL_PROC, 5, 0, 0, what, 1] {
            body.extend(number.to_ne_bytes());
        }
        body.extend(77u64.to_ne_bytes());
        for number in data {
            body.extend(number.to_ne_bytes());
        }
        body.resize(body.len().max(60), 0);
        netlink::message(netlink::DONE, 0, 5, &body)
    }

    /// Runs a classic BPF program of the instructions that ours uses.
    fn passes(packet: &[u8]) -> bool {
        let program = socket_filter();
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        loop {
            let (code, yes, no, k) = program[at];
            at += 1;
            let jump = |hit: bool| usize::from(if hit { yes } else { no });
            match code {
                0x20 => {
                    let start = k as usize;
                    a = u32::from_be_bytes(packet[start..start + 4].try_into().unwrap());
                }
                0x07 => x = a,
                0x15 => at += jump(a == k),
                0x1D => at += jump(a == x),
                0x06 => return k > 0,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn decoded(packet: &[u8]) -> ProcWhat {
        event(&Messages::new(packet).next().unwrap()).unwrap().what
    }

    #[test]
    fn filter_and_decoder_agree() {
        let cases: [(u32, &[u32], ProcWhat); 9] = [
            (EVENT_NONE, &[0], ProcWhat::Answer(0)),
            (EVENT_FORK, &[9, 8, 11, 11], ProcWhat::Fork { parent: 8, child: 11 }),
            (EVENT_FORK, &[8, 8, 12, 8], ProcWhat::Other),
            (EVENT_EXEC, &[13, 12], ProcWhat::Exec { pid: 12 }),
            (EVENT_EXIT, &[12, 12, 0, 17, 1, 1], ProcWhat::Exit { pid: 12 }),
            (EVENT_EXIT, &[13, 12, 0, 17, 1, 1], ProcWhat::Other),
            (4, &[12, 12, 0, 0], ProcWhat::Other),
            (0x200, &[12, 12], ProcWhat::Other),
            (0x4000_0000, &[12, 12], ProcWhat::Other),
        ];
        for (what, data, want) in cases {
            let packet = datagram(what, data);
            assert_eq!(decoded(&packet), want, "{what:#x} {data:?}");
            assert_eq!(passes(&packet), want != ProcWhat::Other, "{what:#x} {data:?}");
        }
        let packet = datagram(EVENT_EXEC, &[5, 5]);
        let got = event(&Messages::new(&packet).next().unwrap()).unwrap();
        assert_eq!((got.cpu, got.monotonic_ns), (1, 77));
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let mut packet = datagram(EVENT_EXEC, &[5, 5]);
        packet[16] = 3;
        assert_eq!(event(&Messages::new(&packet).next().unwrap()), None);
        let short = netlink::message(netlink::DONE, 0, 0, &listen_request()[16..40]);
        assert_eq!(event(&Messages::new(&short).next().unwrap()), None);
    }
}
