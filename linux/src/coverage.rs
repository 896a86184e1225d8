//! `doctor`: what the sensors see on this machine, what is blind, and why.

use bpfwatch_core::platform::{Check, CheckState};

/// One check for each source that the sensors use.
pub fn checks() -> Vec<Check> {
    let root = nix::unistd::geteuid().is_root();
    vec![Check {
        name: "privilege".to_owned(),
        state: if root { CheckState::Ok } else { CheckState::Blind },
        detail: format!("effective user id {}", nix::unistd::geteuid()),
        mend: (!root).then(|| "run as root".to_owned()),
    }]
}
