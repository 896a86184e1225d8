//! What the daemon gives up once its sensors are open, so that a flaw in it is less than a flaw in root.
//!
//! | what | which threads | how |
//! |---|---|---|
//! | capabilities | all | [`capabilities`]: all but those that the sensors go on needing, for good (bounding set) |
//! | new privileges | all | `no_new_privs`: no set-user-ID program gives any back |
//! | system calls | all | [`calls`]: programs, modules, mounts, tracing and more cannot be asked for |
//! | files | those that deliver | [`files`]: Landlock lets them write in the directories of the configuration alone |
//!
//! Capabilities, `no_new_privs` and seccomp filters belong to a thread and are handed on to those that it
//! starts: hence [`reduce`] comes before there are any.
//!
//! The sensors' threads are not under Landlock. It also decides who may look at whom: a thread under it
//! may not read `/proc/PID/fd`, `exe` or `ns` of a process outside (security/landlock/ptrace.c:
//! `hook_ptrace_access_check`), which is what the sensors live by. For the other threads that is one
//! more thing given up. Threads share their memory, so this stops mistakes and what is written where it
//! should not be, not somebody who runs code in the process: for him there are the other three.

mod calls;
mod capabilities;
mod files;

use std::path::PathBuf;

use bpfwatch_core::platform::{Check, CheckState, HardeningSettings};
use nix::sys::resource::{Resource, setrlimit};
use rustix::thread::CapabilitySet;

use crate::proc;

pub use files::confine;

/// The nice value that a sensor's thread gives itself, as RLIMIT_NICE counts: 20 minus it (setrlimit(2)).
const NICE: u64 = 30;

/// Whether [`reduce`] would take these settings.
///
/// # Errors
/// When a capability that is to be kept does not exist.
pub fn check(settings: &HardeningSettings) -> Result<(), String> {
    capabilities::kept(&settings.keep_capabilities).map(drop)
}

/// Gives up capabilities, new privileges and system calls for the calling thread and those to come.
///
/// # Errors
/// As for [`check`].
pub fn reduce(settings: &HardeningSettings) -> Result<Vec<Check>, String> {
    let mut kept = capabilities::kept(&settings.keep_capabilities)?;
    if !settings.enabled {
        let detail = "switched off by the configuration: it runs with all that it was started with";
        return Ok(vec![Check::new("hardening", CheckState::Warning, detail.to_owned())]);
    }
    // So that a sensor can raise its thread without CAP_SYS_NICE. It takes CAP_SYS_RESOURCE, or the
    // unit's LimitNICE= that did it before.
    if setrlimit(Resource::RLIMIT_NICE, NICE, NICE).is_err() {
        kept |= CapabilitySet::SYS_NICE;
    }
    // What it holds in memory is not for a core file.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let mut checks = Vec::new();
    let others = threads().saturating_sub(1);
    if others > 0 {
        let detail = format!("{others} threads run already and give nothing up");
        checks.push(Check::new("threads", CheckState::Warning, detail));
    }
    checks.push(capabilities::drop_all_but(kept));
    checks.push(match rustix::thread::set_no_new_privs(true) {
        Ok(()) => {
            Check::new("new privileges", CheckState::Ok, "no program gives any back".to_owned())
        }
        Err(error) => {
            Check::new("new privileges", CheckState::Warning, format!("refused: {error}"))
        }
    });
    checks.push(calls::deny());
    Ok(checks)
}

/// What this system lets a daemon give up, for `doctor`.
pub fn offered() -> Vec<Check> {
    vec![calls::offered(), files::offered()]
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, |tasks| tasks.count())
}

/// Directories as a message names them.
fn names(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

/// Release of the kernel as major and minor.
fn release() -> Option<(u32, u32)> {
    let line = proc::read_line("/proc/sys/kernel/osrelease")?;
    let line = String::from_utf8(line).ok()?;
    let mut parts = line.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
