//! Loads the programs and attaches them, by the best hook that the kernel takes.
//!
//! Loading needs CAP_BPF, CAP_PERFMON and, for the tracepoints of another user's processes, nothing more;
//! before Linux 5.8 it was CAP_SYS_ADMIN. Reading the rings afterwards needs no capability at all, so
//! privileges may be given up once this is done.

use std::sync::{Mutex, PoisonError};

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{BtfTracePoint, FEntry, FExit, Lsm, Program, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use bpfwatch_core::platform::Ebpf as Wanted;
use nix::errno::Errno;

use crate::proc;

/// What clang made of `bpfwatch.bpf.c`.
static OBJECT: &[u8] = include_bytes_aligned!("../../ebpf/bpfwatch.bpf.o");

/// How the kernel is hooked, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// BPF LSM.
    Lsm,
    /// fentry and fexit.
    Fentry,
    /// raw_syscalls:sys_exit and io_uring:io_uring_complete.
    Tracepoints,
}

impl Hook {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Hook::Lsm => "BPF LSM hooks",
            Hook::Fentry => "fentry and fexit",
            Hook::Tracepoints => "raw tracepoints",
        }
    }

    /// Whether it tells when a handle is closed.
    pub fn tells_close(self) -> bool {
        self != Hook::Tracepoints
    }

    /// Its programs, and what each hooks.
    fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Hook::Lsm => &[
                ("lsm_opened", "socket_post_create"),
                ("lsm_bound", "socket_bind"),
                ("lsm_option", "socket_setsockopt"),
                ("lsm_received", "file_receive"),
                ("lsm_program", "bpf_prog"),
                ("lsm_attached", "bpf"),
            ],
            Hook::Fentry => &[
                ("fexit_opened", "security_socket_post_create"),
                ("fexit_bound", "security_socket_bind"),
                ("fexit_option", "security_socket_setsockopt"),
                ("fexit_received", "security_file_receive"),
                ("fexit_program", "security_bpf_prog"),
                ("fentry_attached", "security_bpf"),
            ],
            Hook::Tracepoints => &[("call_ended", "sys_exit")],
        }
    }
}

/// Programs on functions, beside those of LSM or fentry. They tell results and ends.
const FUNCTIONS: [(&str, &str); 5] = [
    ("closed", "sock_close"),
    ("filtered", "sk_attach_filter"),
    ("filtered_bpf", "sk_attach_bpf"),
    ("unfiltered", "sk_detach_filter"),
    ("promiscuous", "dev_set_promiscuity"),
];
/// The function has the first name since Linux 6.15; the other then calls it.
const FLAGS: [(&str, &str); 2] =
    [("netif_flags", "netif_change_flags"), ("device_flags", "dev_change_flags")];
/// Programs that tell of processes.
const PROCESSES: [(&str, &str); 3] = [
    ("forked", "sched_process_fork"),
    ("executed", "sched_process_exec"),
    ("exited", "sched_process_exit"),
];

/// How the kernel is hooked and why not in a better way, or why it is not hooked at all.
pub type Outcome = Result<(Hook, Vec<String>), LoadError>;

/// What this process came to, for who asks how it watches: once it watches it may load nothing more, and
/// trying again would cost it the kernel's types, some 10 MB.
static OUTCOME: Mutex<Option<Outcome>> = Mutex::new(None);

/// What this process came to; `None` where it has not tried, or watches no more.
pub fn outcome() -> Option<Outcome> {
    OUTCOME.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn came_to(outcome: Option<Outcome>) {
    *OUTCOME.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
}

/// Why there are no events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The configuration says so.
    #[error("switched off")]
    Off,
    /// The kernel does not describe its types.
    #[error("the kernel has no BTF: /sys/kernel/btf/vmlinux cannot be read ({0})")]
    NoBtf(String),
    /// It does not take the programs.
    #[error("{0}")]
    Refused(String),
}

impl Drop for Loaded {
    fn drop(&mut self) {
        came_to(None);
    }
}

/// Programs that are attached, and their rings. They are detached when this is dropped.
pub struct Loaded {
    /// How.
    pub hook: Hook,
    /// Why not by a better one.
    not_better: Vec<String>,
    /// Events of handles.
    pub handles: RingBuf<MapData>,
    /// Events of processes.
    pub processes: RingBuf<MapData>,
    lost: Array<MapData, u64>,
    /// Keeps the programs attached.
    _programs: Ebpf,
}

impl Loaded {
    /// Loads and attaches what `wanted` allows, with a ring of `ring_kib` for processes.
    ///
    /// # Errors
    /// When the kernel takes none of it, with its reasons.
    pub fn new(wanted: Wanted, ring_kib: u32) -> Result<Self, LoadError> {
        let loaded = Self::load(wanted, ring_kib);
        came_to(Some(loaded.as_ref().map(Self::way).map_err(Clone::clone)));
        loaded
    }

    /// How, and why not by a better one.
    pub fn way(&self) -> (Hook, Vec<String>) {
        (self.hook, self.not_better.clone())
    }

    fn load(wanted: Wanted, ring_kib: u32) -> Result<Self, LoadError> {
        let hooks: &[Hook] = match wanted {
            Wanted::Auto => &[Hook::Lsm, Hook::Fentry, Hook::Tracepoints],
            Wanted::Lsm => &[Hook::Lsm],
            Wanted::Fentry => &[Hook::Fentry],
            Wanted::Tracepoints => &[Hook::Tracepoints],
            Wanted::Off => return Err(LoadError::Off),
        };
        let mut loader = EbpfLoader::new();
        // It has read the kernel's types by itself, some 10 MB: they go before they are read for programs.
        loader.btf(None);
        let btf = Btf::from_sys_fs().map_err(|error| LoadError::NoBtf(deepest(&error)))?;
        let ring = ring_kib.saturating_mul(1024);
        let (cgroup_v1, wake_at) = (u32::from(uses_cgroup_v1()), ring / 4);
        loader
            .btf(Some(&btf))
            .map_max_entries("processes", ring)
            .override_global("cgroup_v1", &cgroup_v1, true)
            .override_global("wake_at", &wake_at, true);
        let mut reasons = Vec::new();
        for hook in hooks {
            match Self::with(*hook, &btf, &mut loader) {
                Ok(mut loaded) => {
                    loaded.not_better = reasons;
                    return Ok(loaded);
                }
                Err(reason) => reasons.push(format!("{}: {reason}", hook.as_str())),
            }
        }
        Err(LoadError::Refused(reasons.join("; ")))
    }

    fn with(hook: Hook, btf: &Btf, loader: &mut EbpfLoader<'_>) -> Result<Self, String> {
        // It loads, but is never called (security/security.c calls only active modules).
        if hook == Hook::Lsm && proc::has_lsm("bpf") == Some(false) {
            return Err("bpf is not among the active security modules".to_owned());
        }
        if hook == Hook::Tracepoints && !cfg!(target_arch = "x86_64") {
            return Err("only on x86_64".to_owned());
        }
        let mut programs = loader.load(OBJECT).map_err(|error| deepest(&error))?;
        for (name, target) in hook.programs() {
            attach(&mut programs, name, target, btf)?;
        }
        for (name, target) in PROCESSES {
            attach(&mut programs, name, target, btf)?;
        }
        if hook == Hook::Tracepoints {
            // A kernel may be built without io_uring.
            let _ = attach(&mut programs, "ring_completed", "io_uring_complete", btf);
        } else {
            for (name, target) in FUNCTIONS {
                attach(&mut programs, name, target, btf)?;
            }
            // Without it an interface's flags are seen by the looks, without who set them.
            let _ =
                FLAGS.iter().any(|(name, target)| attach(&mut programs, name, target, btf).is_ok());
        }
        let mut map = |name: &str| {
            programs.take_map(name).ok_or_else(|| format!("the object has no map {name}"))
        };
        let (handles, processes, lost) = (map("handles")?, map("processes")?, map("lost")?);
        Ok(Self {
            hook,
            not_better: Vec::new(),
            handles: RingBuf::try_from(handles).map_err(|error| deepest(&error))?,
            processes: RingBuf::try_from(processes).map_err(|error| deepest(&error))?,
            lost: Array::try_from(lost).map_err(|error| deepest(&error))?,
            _programs: programs,
        })
    }

    /// Events since the start that found their ring full: of handles, of processes.
    pub fn lost(&self) -> [u64; 2] {
        [0, 1].map(|ring| self.lost.get(&ring, 0).unwrap_or(0))
    }
}

fn attach(programs: &mut Ebpf, name: &str, target: &str, btf: &Btf) -> Result<(), String> {
    let program =
        programs.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    attach_program(program, target, btf).map_err(|error| format!("{target}: {}", reason(&error)))
}

fn attach_program(program: &mut Program, target: &str, btf: &Btf) -> Result<(), ProgramError> {
    match program {
        Program::Lsm(_) => {
            let program: &mut Lsm = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Program::FEntry(_) => {
            let program: &mut FEntry = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Program::FExit(_) => {
            let program: &mut FExit = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Program::BtfTracePoint(_) => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        _ => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach(target)?;
        }
    }
    Ok(())
}

/// What the kernel said, without the verifier's whole account.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last = log.lines().rfind(|line| {
                !line.starts_with("processed") && !line.starts_with("verification time")
            });
            match last.filter(|line| !line.is_empty() && io_error.raw_os_error() != Some(1)) {
                Some(line) => format!("{}: {line}", said(io_error)),
                None => said(io_error),
            }
        }
        error => deepest(error),
    }
}

/// An error of the system in words, without its number.
fn said(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// The innermost cause: what the kernel said.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Whether version 1 of control groups is in use beside version 2, or alone.
fn uses_cgroup_v1() -> bool {
    let groups = proc::read("/proc/self/cgroup").unwrap_or_default();
    groups.split(|byte| *byte == b'\n').any(|line| !line.is_empty() && !line.starts_with(b"0::"))
}
