//! `doctor`: what the sensor sees on this machine, what is blind, and why; and who could capture. Each source
//! is tried once.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use bpfwatch_core::platform::{Check, CheckState};
use nix::unistd::{Group, geteuid};

use super::kernel::Kernel;
use super::{es, oslog, sensor};
use crate::decode::{self, ACCESS_GROUP};
use crate::grade::Grade;

/// What nothing here tells of.
const GAPS: [(&str, &str); 2] = [
    (
        "short-lived opens",
        "without Endpoint Security a capture that is shorter than the time between two looks is not seen",
    ),
    (
        "capture without a BPF device",
        "PF_NDRV sockets and packet providers of NetworkExtension: nothing tells of them",
    ),
];

fn check(name: &str, state: CheckState, detail: String, mend: Option<&str>) -> Check {
    Check { name: name.to_owned(), state, detail, mend: mend.map(str::to_owned) }
}

/// One check for each source that the sensor uses, then what none of them sees.
pub fn checks() -> Vec<Check> {
    let mut out = endpoint_security();
    out.extend([descriptors(), holders(), route(), unified_log()]);
    let blind =
        |(name, why): &(&str, &str)| check(name, CheckState::Blind, (*why).to_owned(), None);
    out.extend(GAPS.iter().map(blind));
    out
}

/// Both clients are made once, and each signal that they give is said.
fn endpoint_security() -> Vec<Check> {
    const SIGNALS: [(&str, &str); 4] = [
        ("opens of BPF devices", "NOTIFY_OPEN and NOTIFY_CLOSE"),
        ("executions", "NOTIFY_EXEC, NOTIFY_FORK and NOTIFY_EXIT"),
        ("access to capture devices", "NOTIFY_SETMODE and NOTIFY_SETOWNER"),
        ("members of group access_bpf", "NOTIFY_OD_GROUP_ADD, macOS 14 and later"),
    ];
    let refusal = es::probe().err();
    let grade = refusal.clone().map_or(Grade::Full, Grade::WithoutEndpointSecurity);
    let state = if refusal.is_none() { CheckState::Ok } else { CheckState::Warning };
    let mend = refusal.as_ref().map(crate::grade::Refusal::mend);
    let mut out = vec![check("grade", state, grade.to_string(), mend)];
    let state = if refusal.is_none() { CheckState::Ok } else { CheckState::Blind };
    out.extend(SIGNALS.iter().map(|(name, source)| {
        let detail = match &refusal {
            None => format!("by Endpoint Security, {source}"),
            Some(refusal) => format!("need Endpoint Security, {source}: {refusal}"),
        };
        check(name, state, detail, None)
    }));
    out
}

fn descriptors() -> Check {
    let name = "open, attached and promiscuous descriptors";
    match Kernel::new().rows() {
        Ok(rows) => {
            let promiscuous = rows.iter().filter(|row| row.promiscuous).count();
            let detail =
                format!("{} open, {promiscuous} promiscuous, by debug.bpf_stats", rows.len());
            check(name, CheckState::Ok, detail, None)
        }
        Err(error) => check(name, CheckState::Blind, error.to_string(), Some("see bpf(4)")),
    }
}

fn holders() -> Check {
    let name = "holders of BPF descriptors";
    if geteuid().is_root() {
        return check(name, CheckState::Ok, "by libproc".to_owned(), None);
    }
    let detail = "libproc shows this user's own processes only: who opened a descriptor is taken for its \
                  holder";
    check(name, CheckState::Warning, detail.to_owned(), Some("run it as root"))
}

fn route() -> Check {
    let name = "promiscuous interfaces";
    match sensor::route_socket() {
        Ok(_) => check(name, CheckState::Ok, "told by a route socket".to_owned(), None),
        Err(error) => check(name, CheckState::Blind, error.to_string(), None),
    }
}

/// A record is written; whether it came is for the user to see.
fn unified_log() -> Check {
    match oslog::probe() {
        Ok(command) => {
            let detail = "a probe was written; this way in has not been seen to work on a Mac yet";
            let mend = format!("read it back: {command}");
            check("unified log", CheckState::Info, detail.to_owned(), Some(&mend))
        }
        Err(error) => check("unified log", CheckState::Blind, error.to_string(), None),
    }
}

/// Who could capture: modes of the devices, and members of the group that may have been given them.
pub fn posture() -> Vec<Check> {
    vec![devices(), members()]
}

fn devices() -> Check {
    let name = "BPF devices";
    let loose = || -> io::Result<(usize, Vec<String>)> {
        let (mut count, mut loose) = (0, Vec::new());
        for entry in fs::read_dir("/dev")? {
            let entry = entry?;
            let path = entry.path();
            if !path.to_str().is_some_and(decode::is_bpf_device) {
                continue;
            }
            count += 1;
            let facts = entry.metadata()?;
            let mode = facts.mode() & 0o7777;
            if mode & 0o006 != 0 || (mode & 0o060 != 0 && facts.gid() != 0) || facts.uid() != 0 {
                let (uid, gid) = (facts.uid(), facts.gid());
                loose.push(format!("{} {mode:o} uid {uid} gid {gid}", path.display()));
            }
        }
        loose.sort();
        Ok((count, loose))
    };
    match loose() {
        Ok((count, loose)) => match loose.first() {
            None => check(name, CheckState::Ok, format!("{count}, for root alone"), None),
            Some(first) => {
                let detail = format!("{} of {count} are open to others: {first} ...", loose.len());
                let mend = "Wireshark's ChmodBPF does this; without it `chmod 600 /dev/bpf*`";
                check(name, CheckState::Warning, detail, Some(mend))
            }
        },
        Err(error) => check(name, CheckState::Blind, error.to_string(), None),
    }
}

fn members() -> Check {
    let name = "group access_bpf";
    match Group::from_name(ACCESS_GROUP) {
        Ok(None) => check(name, CheckState::Ok, "there is none".to_owned(), None),
        Ok(Some(group)) => {
            let detail = format!("members: {}", group.mem.join(", "));
            let mend = "each of them can capture: remove who need not";
            check(name, CheckState::Warning, detail, Some(mend))
        }
        Err(error) => check(name, CheckState::Blind, error.to_string(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_tried_and_the_unified_log_is_read_back() {
        let checks = checks();
        let log = checks.iter().find(|check| check.name == "unified log").unwrap();
        assert_eq!(log.state, CheckState::Info, "{}", log.detail);
        assert!(log.mend.as_deref().unwrap().starts_with("read it back: log show "));
        let named = |name: &str| checks.iter().any(|check| check.name == name);
        assert!(named("grade") && named("open, attached and promiscuous descriptors"));
    }
}
