//! An eBPF program that can see packets, as the kernel describes it.

use serde::{Deserialize, Serialize};

use crate::text::Text;
use crate::time::Timestamp;

/// What the kernel tells of a program (bpf(2), BPF_OBJ_GET_INFO_BY_FD: `struct bpf_prog_info`), and where
/// it is attached. The number that it has there is the id of its handle.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BpfProgram {
    /// Name that its loader gave it, 15 bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// Hash of its instructions, 16 hexadecimal digits: the same program has the same on every machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Text>,
    /// Its type, as bpftool names it: `sched_cls`, `xdp`, `socket_filter` ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_type: Option<Text>,
    /// User who loaded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// When it was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_at: Option<Timestamp>,
    /// Where it is attached, sorted: `clsact/ingress`, `tcx/egress`, `xdp`, `xdp/generic`,
    /// `cgroup/ingress` ... Empty where that is not known, or nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<Text>,
    /// Control groups that it is attached to, as paths below the root of the hierarchy, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<Text>,
    /// Types of the maps that it uses, sorted, each once: `ringbuf` and `perf_event_array` carry data to
    /// a process as it comes. `None` where they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maps: Option<Vec<Text>>,
    /// Paths that it, or its attachment, is pinned to, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<Text>,
}

/// Map types that carry data to whoever reads them, as it comes.
const CARRIERS: [&str; 5] = ["perf_event_array", "queue", "ringbuf", "stack", "user_ringbuf"];

impl BpfProgram {
    /// Whether it uses a map that is made for handing data on; `None` where its maps are not known.
    pub fn carries_out(&self) -> Option<bool> {
        let maps = self.maps.as_ref()?;
        Some(maps.iter().any(|map| CARRIERS.contains(&map.as_str())))
    }

    /// Takes over what `newer` knows; what it does not know stays.
    pub fn update(&mut self, newer: &BpfProgram) {
        fn take<T: Clone>(mine: &mut Option<T>, theirs: &Option<T>) {
            if theirs.is_some() {
                mine.clone_from(theirs);
            }
        }
        fn take_list(mine: &mut Vec<Text>, theirs: &[Text]) {
            if !theirs.is_empty() {
                *mine = theirs.to_vec();
            }
        }
        take(&mut self.name, &newer.name);
        take(&mut self.tag, &newer.tag);
        take(&mut self.program_type, &newer.program_type);
        take(&mut self.uid, &newer.uid);
        take(&mut self.loaded_at, &newer.loaded_at);
        take(&mut self.maps, &newer.maps);
        take_list(&mut self.attached, &newer.attached);
        take_list(&mut self.cgroups, &newer.cgroups);
        take_list(&mut self.pinned, &newer.pinned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_anew_stays() {
        let mut known = BpfProgram {
            name: Some("sniff".into()),
            attached: vec!["tcx/ingress".into()],
            maps: Some(vec!["array".into(), "ringbuf".into()]),
            ..BpfProgram::default()
        };
        assert_eq!(known.carries_out(), Some(true));
        let newer = BpfProgram { uid: Some(0), maps: Some(vec![]), ..BpfProgram::default() };
        known.update(&newer);
        assert_eq!(known.name, Some("sniff".into()));
        assert_eq!(known.attached, [Text::from("tcx/ingress")]);
        assert_eq!((known.uid, known.carries_out()), (Some(0), Some(false)));
        assert_eq!(BpfProgram::default().carries_out(), None);
    }
}
