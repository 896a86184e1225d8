//! What this process has used.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// User and system CPU time of this process so far.
pub fn cpu() -> Duration {
    cpu_of(UsageWho::RUSAGE_SELF)
}

/// User and system CPU time so far (getrusage(2)).
pub fn cpu_of(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    // Each by itself: the second is 32 bits wide on macOS.
    let micros = |time: TimeVal| {
        u64::try_from(time.tv_sec()).unwrap() * 1_000_000 + u64::try_from(time.tv_usec()).unwrap()
    };
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// Peak resident memory in KB (proc(5), VmHWM); 0 where there is no /proc.
pub fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}
