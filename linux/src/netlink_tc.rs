//! rtnetlink, traffic control: filters and actions that hand packets to an eBPF program or copy them to
//! another interface.
//!
//! Layouts from include/uapi/linux/{rtnetlink,pkt_cls}.h and linux/tc_act/{tc_mirred,tc_bpf}.h; what fills
//! them in is net/sched/{sch_api,cls_api,act_api,cls_bpf,act_bpf,act_mirred}.c.

use crate::netlink::{Attributes, Message, c_text, dump_request, u32_at};

const NEW_QDISC: u16 = 36;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;
/// Bit of RTNLGRP_TC in the groups of a socket address.
pub const GROUP_TC: u32 = 1 << 3;

/// `struct tcmsg`: family, padding, index, handle, parent, info.
const TC_FIXED: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_ACT_BPF_ID: u16 = 9;

/// Where each kind of filter keeps its actions.
const ACTIONS: [(&[u8], u16); 10] = [
    (b"basic", 3),
    (b"bpf", 1),
    (b"cgroup", 1),
    (b"flow", 13),
    (b"flower", 3),
    (b"fw", 4),
    (b"matchall", 2),
    (b"route", 6),
    (b"tcindex", 6),
    (b"u32", 7),
];

/// Queueing disciplines that take filters, besides `ingress` and `clsact`.
const CLASSFUL: [&[u8]; 10] =
    [b"cbq", b"drr", b"dsmark", b"ets", b"hfsc", b"htb", b"multiq", b"prio", b"qfq", b"sfq"];

/// Parents of the filters of `clsact` (TC_H_CLSACT with TC_H_MIN_{INGRESS,EGRESS}); the first one is also
/// that of `ingress`.
const INGRESS: u32 = 0xFFFF_FFF2;
const EGRESS: u32 = 0xFFFF_FFF3;

/// A place that filters may hang at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hook {
    /// Index of the interface.
    pub ifindex: i32,
    /// Parent of the filters.
    pub parent: u32,
}

impl Hook {
    /// As bpftool and tc name it.
    pub fn name(self) -> &'static str {
        match self.parent {
            INGRESS => "clsact/ingress",
            EGRESS => "clsact/egress",
            _ => "qdisc",
        }
    }
}

/// What a filter does with packets, of the things that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Shows them to the program of that number.
    Program(u32),
    /// Sends a copy to the interface of that index, which goes out or comes in there.
    Mirror(u32),
    /// Sends the packet itself there.
    Redirect(u32),
}

/// Asks for all queueing disciplines of the namespace.
pub fn qdiscs_request(seq: u32) -> Vec<u8> {
    dump_request(GET_QDISC, seq, &[0; TC_FIXED])
}

/// The places that a queueing discipline gives filters; none for one that takes none.
pub fn hooks(message: &Message<'_>) -> Vec<Hook> {
    let body = message.body;
    if message.kind != NEW_QDISC || body.len() < TC_FIXED {
        return Vec::new();
    }
    let (Some(ifindex), Some(handle)) = (u32_at(body, 4), u32_at(body, 8)) else {
        return Vec::new();
    };
    let hook = |parent| Hook { ifindex: ifindex.cast_signed(), parent };
    match kind(body) {
        Some(b"clsact") => vec![hook(INGRESS), hook(EGRESS)],
        Some(b"ingress") => vec![hook(INGRESS)],
        Some(other) if CLASSFUL.contains(&other) => vec![hook(handle)],
        _ => Vec::new(),
    }
}

fn kind(body: &[u8]) -> Option<&[u8]> {
    let (_, payload) = Attributes::behind(body, TC_FIXED).find(|(kind, _)| *kind == TCA_KIND)?;
    Some(c_text(payload))
}

/// Asks for all filters at a place.
pub fn filters_request(seq: u32, hook: Hook) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(hook.ifindex.to_ne_bytes());
    body.extend(0u32.to_ne_bytes());
    body.extend(hook.parent.to_ne_bytes());
    body.extend(0u32.to_ne_bytes());
    dump_request(GET_FILTER, seq, &body)
}

/// What a filter does.
pub fn effects(message: &Message<'_>) -> Vec<Effect> {
    let mut effects = Vec::new();
    if message.kind != NEW_FILTER || message.body.len() < TC_FIXED {
        return effects;
    }
    let Some(filter) = kind(message.body) else { return effects };
    let actions = ACTIONS.iter().find(|(name, _)| *name == filter).map(|(_, kind)| *kind);
    let options =
        Attributes::behind(message.body, TC_FIXED).filter(|(kind, _)| *kind == TCA_OPTIONS);
    for (kind, payload) in options.flat_map(|(_, options)| Attributes::new(options)) {
        if filter == b"bpf" && kind == TCA_BPF_ID {
            effects.extend(u32_at(payload, 0).map(Effect::Program));
        } else if Some(kind) == actions {
            // One attribute for each action, numbered by its place.
            effects.extend(Attributes::new(payload).filter_map(|(_, action)| effect(action)));
        }
    }
    effects
}

fn effect(action: &[u8]) -> Option<Effect> {
    let (_, name) = Attributes::new(action).find(|(kind, _)| *kind == TCA_ACT_KIND)?;
    let (_, options) = Attributes::new(action).find(|(kind, _)| *kind == TCA_ACT_OPTIONS)?;
    let option = |wanted| Attributes::new(options).find(|(kind, _)| *kind == wanted);
    match c_text(name) {
        b"mirred" => {
            // struct tc_mirred: index, capabilities, action, two counts, then what and whither.
            let (_, parameters) = option(TCA_MIRRED_PARMS)?;
            let to = u32_at(parameters, 24)?;
            match u32_at(parameters, 20)? {
                2 | 4 => Some(Effect::Mirror(to)),
                1 | 3 => Some(Effect::Redirect(to)),
                _ => None,
            }
        }
        b"bpf" => u32_at(option(TCA_ACT_BPF_ID)?.1, 0).map(Effect::Program),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Messages, attribute, message};

    fn head(ifindex: i32, handle: u32, parent: u32) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(ifindex.to_ne_bytes());
        body.extend(handle.to_ne_bytes());
        body.extend(parent.to_ne_bytes());
        body.extend([0; 4]);
        body
    }

    fn qdisc(name: &[u8]) -> Vec<Hook> {
        let mut body = head(3, 0x10_0000, u32::MAX);
        body.extend(attribute(TCA_KIND, name));
        let bytes = message(NEW_QDISC, 2, 1, &body);
        hooks(&Messages::new(&bytes).next().unwrap())
    }

    fn filter(name: &[u8], options: &[u8]) -> Vec<Effect> {
        let mut body = head(3, 1, INGRESS);
        body.extend(attribute(TCA_KIND, name));
        body.extend(attribute(TCA_OPTIONS | 0x8000, options));
        let bytes = message(NEW_FILTER, 2, 1, &body);
        effects(&Messages::new(&bytes).next().unwrap())
    }

    fn action(name: &[u8], options: &[u8]) -> Vec<u8> {
        let inner = [attribute(TCA_ACT_KIND, name), attribute(TCA_ACT_OPTIONS, options)].concat();
        attribute(1, &inner)
    }

    fn mirred(what: u32, to: u32) -> Vec<u8> {
        let mut parameters = vec![0; 20];
        parameters.extend(what.to_ne_bytes());
        parameters.extend(to.to_ne_bytes());
        action(b"mirred\0", &attribute(TCA_MIRRED_PARMS, &parameters))
    }

    #[test]
    fn places_of_filters() {
        let parents = |hooks: Vec<Hook>| hooks.iter().map(|hook| hook.parent).collect::<Vec<_>>();
        assert_eq!(parents(qdisc(b"clsact\0")), [INGRESS, EGRESS]);
        assert_eq!(parents(qdisc(b"ingress\0")), [INGRESS]);
        assert_eq!(parents(qdisc(b"htb\0")), [0x10_0000]);
        assert_eq!(qdisc(b"fq_codel\0"), []);
        assert_eq!(qdisc(b"clsact\0")[1].name(), "clsact/egress");
    }

    #[test]
    fn programs_and_mirrors() {
        let id = attribute(TCA_BPF_ID, &41u32.to_ne_bytes());
        assert_eq!(filter(b"bpf\0", &id), [Effect::Program(41)]);
        // The number of a BPF program's attribute is another thing elsewhere.
        assert_eq!(filter(b"u32\0", &id), []);
        let both = [mirred(2, 7), mirred(1, 8)].concat();
        let want = [Effect::Mirror(7), Effect::Redirect(8)];
        assert_eq!(filter(b"u32\0", &attribute(7, &both)), want);
        assert_eq!(filter(b"flower\0", &attribute(3, &mirred(4, 9))), [Effect::Mirror(9)]);
        let bpf = action(b"bpf\0", &attribute(TCA_ACT_BPF_ID, &5u32.to_ne_bytes()));
        assert_eq!(filter(b"matchall\0", &attribute(2, &bpf)), [Effect::Program(5)]);
        assert_eq!(filter(b"u32\0", &attribute(7, &action(b"gact\0", &[]))), []);
        // Cut short.
        assert_eq!(filter(b"u32\0", &attribute(7, &mirred(2, 7)[..20])), []);
    }
}
