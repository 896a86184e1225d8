//! Composition root: puts rules, sensors, pipeline and sinks together for the commands.
//!
//! | module | duty |
//! |---|---|
//! | [`rules`] | shipped rules and the site's, loaded |
//! | [`sensors`] | each sensor on a thread of its own |
//! | [`inputs`] | the formats that `replay` reads |
//! | [`live`] | sensors to pipeline, with the clock |
//! | [`sinks`] | each sink on a thread of its own, behind a bounded queue |
//! | [`state`] | what survives a restart |

pub mod follow;
pub mod inputs;
pub mod live;
pub mod rules;
pub mod sensors;
pub mod sinks;
pub mod state;

use std::sync::Arc;
use std::time::SystemTime;

use bpfwatch_core::finding::Host;
use bpfwatch_core::observation::Origin;
use bpfwatch_core::time::Timestamp;

use crate::output;

/// The clock. Nothing below the commands reads it.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::default() + since_epoch
}

/// How output names the machine.
pub fn host(origin: &Origin) -> Arc<Host> {
    Arc::new(Host { name: origin.host.as_str().to_owned(), os: origin.os })
}

/// Says that a user other than root sees less, so that an empty answer is not taken for a clean one.
pub fn warn_unprivileged() {
    if !nix::unistd::geteuid().is_root() {
        output::warn(
            "not root: not everything can be seen; `bpfwatch doctor` tells what is missing",
        );
    }
}
