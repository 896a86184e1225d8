//! `doctor`: who could capture on this machine.

use bpfwatch_core::platform::{Check, CheckState};

/// One check for each way in which somebody other than root may capture.
pub fn checks() -> Vec<Check> {
    let path = "/proc/sys/user/max_user_namespaces";
    let allowed = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    let state = match allowed {
        Some(0u64) => CheckState::Ok,
        _ => CheckState::Info,
    };
    vec![Check {
        name: "user namespaces".to_owned(),
        state,
        detail: format!(
            "{path} is {}; a user namespace gives CAP_NET_RAW over its own network namespace",
            allowed.map_or("unreadable".to_owned(), |limit| limit.to_string())
        ),
        mend: None,
    }]
}
