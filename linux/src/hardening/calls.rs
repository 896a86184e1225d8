//! System calls that bpfwatch never makes, denied by a seccomp filter.
//!
//! A list of what is denied, not of what is allowed: which calls a C library makes changes with its
//! version, and a monitor that a library's update blinds is worse than one that could call getcpu(2).
//! What is denied is what turns a flaw into more: running programs, loading code into the kernel,
//! changing mounts, clock and names, looking into other processes' memory, and ways around the filter
//! (io_uring). A program of another word size is ended: its calls have other numbers.

use std::collections::BTreeMap;

use bpfwatch_core::platform::{Check, CheckState};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::proc;

const NAME: &str = "system calls";

/// What is never called once the sensors are open.
const DENIED: [libc::c_long; 49] = [
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel's code and its start.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_perf_event_open,
    // Mounts, roots and namespaces of one's own; setns(2) is what the sensors visit by.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    // Swap, quota, accounting.
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
    // Clock and names of the machine.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Keys.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Other users, and other rules for memory.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_personality,
    libc::SYS_userfaultfd,
    // A way around this filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Denies them to the calling thread and to those that it starts: they answer EPERM.
pub fn deny() -> Check {
    let program = match program() {
        Ok(program) => program,
        Err(error) => {
            return Check::new(NAME, CheckState::Warning, format!("all allowed: {error}"));
        }
    };
    match seccompiler::apply_filter(&program) {
        Ok(()) => Check::new(NAME, CheckState::Ok, format!("{} denied", DENIED.len())),
        Err(error) => Check::new(NAME, CheckState::Warning, format!("all allowed: {error}")),
    }
}

fn program() -> Result<BpfProgram, String> {
    let arch: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(|_| format!("no filter for {}", std::env::consts::ARCH))?;
    let denied =
        DENIED.iter().flat_map(|number| numbers(*number)).map(|number| (number, Vec::new()));
    let rules: BTreeMap<i64, _> = denied.collect();
    let error = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, error, arch)
        .map_err(|error| error.to_string())?;
    filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
}

/// A call by its number and, on x86_64, by the one that it has in the x32 interface, which the filter
/// sees as the same architecture (seccomp(2)).
fn numbers(number: libc::c_long) -> Vec<i64> {
    const X32: i64 = 0x4000_0000;
    #[allow(clippy::useless_conversion, reason = "a long has 32 bits on some systems")]
    let number = i64::from(number);
    if cfg!(target_arch = "x86_64") { vec![number, number | X32] } else { vec![number] }
}

/// Whether the kernel has such filters.
pub fn offered() -> Check {
    match proc::read_line("/proc/sys/kernel/seccomp/actions_avail") {
        Some(_) => Check::new(NAME, CheckState::Ok, format!("{} can be denied", DENIED.len())),
        None => Check::new(
            NAME,
            CheckState::Warning,
            "the kernel lacks CONFIG_SECCOMP_FILTER".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_denied_once_and_what_the_sensors_call_is_not() {
        let mut numbers = DENIED.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), DENIED.len());
        for needed in [libc::SYS_setns, libc::SYS_bpf, libc::SYS_socket, libc::SYS_setpriority] {
            assert!(!numbers.contains(&needed));
        }
        // Three instructions a call, and what stands around them.
        assert!(program().unwrap().len() > DENIED.len());
    }

    /// On a thread of its own: it keeps its filter to itself.
    #[test]
    fn what_is_denied_answers_eperm() {
        std::thread::spawn(|| {
            assert_eq!(deny().state, CheckState::Ok);
            let error = std::process::Command::new("/bin/true").status().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
            assert_eq!(unshared, Err(nix::Error::EPERM));
            // What is not denied goes on.
            assert!(std::fs::read("/proc/self/status").is_ok());
            assert!(std::thread::spawn(|| 1).join().is_ok());
        })
        .join()
        .unwrap();
    }
}
