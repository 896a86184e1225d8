//! Capabilities: which the sensors go on needing, and how the others are dropped for good.

use bpfwatch_core::platform::{Check, CheckState};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::release;
use crate::proc;

/// What the sensors need for as long as they watch:
///
/// - CAP_SYS_PTRACE: links of `/proc/PID/fd`, `exe` and `ns` of any process (ptrace(2), access mode
///   checking);
/// - CAP_DAC_READ_SEARCH: directories of `/proc` and of rules that are others';
/// - CAP_SYS_ADMIN: entering a network namespace (setns(2)), and the list of loaded eBPF programs
///   (kernel/bpf/syscall.c: `bpf_obj_get_next_id`);
/// - CAP_NET_ADMIN: the proc connector's events, filters of packet sockets (net/packet/diag.c:
///   `pdiag_put_filter`) and programs attached by tcx, in every namespace that is entered;
/// - CAP_NET_BROADCAST: link events of other namespaces (NETLINK_LISTEN_ALL_NSID).
///
/// Not among them: what eBPF programs need to be loaded (CAP_BPF, CAP_PERFMON, CAP_SYS_RESOURCE). They
/// are loaded before, and their rings are read through memory.
const NEEDED: CapabilitySet = CapabilitySet::SYS_PTRACE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_BROADCAST);

/// What is to be kept: what is needed, and what `more` names.
///
/// # Errors
/// When a name is none.
pub fn kept(more: &[String]) -> Result<CapabilitySet, String> {
    let mut kept = NEEDED;
    if reads_maps_by_privilege() {
        kept |= CapabilitySet::BPF;
    }
    for name in more {
        let upper = name.to_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let known = CapabilitySet::from_name(bare)
            .ok_or_else(|| format!("keep_capabilities: there is no capability `{name}`"))?;
        kept |= known;
    }
    Ok(kept)
}

/// Whether reading a map of an eBPF program takes CAP_BPF. Before Linux 5.19 every bpf(2) call did where
/// `kernel.unprivileged_bpf_disabled` is set; since then only making maps and loading programs does
/// (kernel/bpf/syscall.c: `__sys_bpf`).
fn reads_maps_by_privilege() -> bool {
    let is_disabled = proc::read_line("/proc/sys/kernel/unprivileged_bpf_disabled")
        .is_some_and(|value| value != b"0");
    is_disabled && release().is_some_and(|release| release < (5, 19))
}

/// Drops all others from every set of the calling thread.
pub fn drop_all_but(kept: CapabilitySet) -> Check {
    const NAME: &str = "capabilities";
    let before = match capabilities(None) {
        Ok(before) => before,
        Err(error) => return Check::new(NAME, CheckState::Warning, format!("not known: {error}")),
    };
    // What could ever come back: through a program that is executed. It takes CAP_SETPCAP, which goes
    // with the rest right after.
    let bounded = bound(kept);
    let _ = clear_ambient_capability_set();
    let stays = before.permitted & kept;
    let after =
        CapabilitySets { effective: stays, permitted: stays, inheritable: CapabilitySet::empty() };
    if let Err(error) = set_capabilities(None, after) {
        return Check::new(NAME, CheckState::Warning, format!("cannot be dropped: {error}"));
    }
    let dropped = (before.permitted - kept).bits().count_ones();
    let names: Vec<String> = stays.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let bounded = match bounded {
        Ok(()) => "",
        Err(_) => "; the bounding set stays, which takes CAP_SETPCAP",
    };
    Check::new(NAME, CheckState::Ok, format!("{dropped} dropped; kept: {names}{bounded}"))
}

fn bound(kept: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_can_be_kept_by_name() {
        let kept = kept(&["CAP_DAC_OVERRIDE".to_owned(), "chown".to_owned()]).unwrap();
        assert!(kept.contains(NEEDED | CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN));
        assert!(!kept.contains(CapabilitySet::SYS_MODULE));
        assert!(super::kept(&["CAP_FLY".to_owned()]).unwrap_err().contains("`CAP_FLY`"));
    }
}
