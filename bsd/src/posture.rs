//! `doctor`: who could capture here. For each mount of devfs, who may open its bpf node: every mount has its
//! own modes and its own rules of what it shows, so only asking each tells.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bpfwatch_core::platform::{Check, CheckState};

use crate::ffi;
use crate::kernel;
use crate::mounts::{self, Place};

/// One check for each devfs mount that shows a bpf node, and for each jail that may open raw sockets.
pub fn checks() -> Vec<Check> {
    let jails = match kernel::list_jails() {
        Ok(jails) => jails.into_values().collect::<Vec<_>>(),
        Err(error) => return vec![blind("jails", &error.to_string())],
    };
    let mounts = match ffi::mounts() {
        Ok(mounts) => mounts,
        Err(error) => return vec![blind("devfs mounts", &error.to_string())],
    };
    let devfs = mounts.iter().filter(|(kind, _)| kind == b"devfs").map(|(_, on)| on.as_slice());
    let mut out = Vec::new();
    for mount in devfs {
        let node = Path::new(OsStr::from_bytes(mount)).join("bpf");
        let Ok(facts) = fs::symlink_metadata(&node) else { continue };
        let place = mounts::place(mount, &jails);
        out.push(node_check(&node.display().to_string(), &facts, place));
    }
    out.extend(mounts::raw_socket_checks(&jails));
    out
}

fn blind(name: &str, why: &str) -> Check {
    Check {
        name: name.to_owned(),
        state: CheckState::Blind,
        detail: why.to_owned(),
        mend: Some("run it as root on the host".to_owned()),
    }
}

fn node_check(node: &str, facts: &Metadata, place: Place<'_>) -> Check {
    mounts::node_check(node, facts.mode() & 0o7777, facts.uid(), facts.gid(), place)
}
