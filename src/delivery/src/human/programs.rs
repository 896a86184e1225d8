//! eBPF programs in words.

use std::fmt::Write as _;

use bpfwatch_core::handle::Handle;
use bpfwatch_core::program::BpfProgram;
use bpfwatch_core::text::Text;

use crate::visible::name;

/// `eBPF tc program sniff`.
pub fn called(handle: &Handle, kind: &str) -> String {
    match handle.program.as_ref().and_then(|program| program.name.as_ref()) {
        Some(called) => format!("eBPF {kind} {}", name(called.as_str())),
        None => format!("eBPF {kind} without a name"),
    }
}

/// What else is known of a program.
pub fn facts(program: &BpfProgram, out: &mut String) {
    let mut list = |before: &str, texts: &[Text]| {
        for (index, text) in texts.iter().enumerate() {
            out.push_str(if index == 0 { before } else { ", " });
            out.push_str(&name(text.as_str()));
        }
    };
    list(", attached to ", &program.attached);
    list(", cgroup ", &program.cgroups);
    list(", maps ", program.maps.as_deref().unwrap_or_default());
    list(", pinned to ", &program.pinned);
    if program.maps.as_ref().is_some_and(Vec::is_empty) {
        out.push_str(", no maps");
    }
    if let Some(tag) = &program.tag {
        let _ = write!(out, ", tag {}", name(tag.as_str()));
    }
    if let Some(uid) = program.uid {
        let _ = write!(out, ", loaded by uid {uid}");
        if let Some(at) = program.loaded_at {
            let _ = write!(out, " at {at}");
        }
    }
}
