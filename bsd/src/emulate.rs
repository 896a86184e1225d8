//! `emulate`: real BPF descriptors, opened in chosen ways, so that detection can be tried from end to end.
//! Nothing is ever read from them, and each closes when its hold is over.

use std::fs::{File, OpenOptions};
use std::io;
use std::time::Duration;

use bpfwatch_core::platform::{EmulateOptions, Emulated, Technique};
use bpfwatch_core::sensor::SensorError;

use crate::decode::BPF_DEVICE;
use crate::ffi;

/// Longest time that a handle is held, in milliseconds.
const MAX_HOLD_MS: u64 = 60_000;
/// How long `short` holds its handle, in milliseconds.
const SHORT_MS: u64 = 3;
/// Interface where none is told.
const LOOPBACK: &str = "lo0";

struct Entry {
    technique: Technique,
    open: fn(&str) -> io::Result<File>,
    /// What is held then; `{}` in it is the interface.
    held: &'static str,
}

const ENTRIES: [Entry; 4] = [
    Entry {
        technique: Technique {
            name: "open",
            what: "opens /dev/bpf and attaches it to nothing",
            expect: "a session of stage `opened`; no finding above informational",
        },
        open: open_only,
        held: "a BPF descriptor that is attached to nothing",
    },
    Entry {
        technique: Technique {
            name: "attach",
            what: "attaches a BPF descriptor to the interface (BIOCSETIF), not promiscuous",
            expect: "a session of stage `attached`, not promiscuous",
        },
        open: attach,
        held: "a BPF descriptor on {}, not promiscuous",
    },
    Entry {
        technique: Technique {
            name: "promiscuous",
            what: "attaches a BPF descriptor and asks for promiscuous mode (BIOCPROMISC)",
            expect: "a session of stage `attached` with the promiscuous mark, and the interface's own change",
        },
        open: promiscuous,
        held: "a BPF descriptor on {}, promiscuous",
    },
    Entry {
        technique: Technique {
            name: "short",
            what: "attaches a BPF descriptor for 3 milliseconds, whatever hold time is asked for",
            expect: "often the process; always, on the host, that somebody opened the device",
        },
        open: attach,
        held: "a BPF descriptor on {}, not promiscuous",
    },
];

/// What can be shown here.
pub fn techniques() -> Vec<Technique> {
    ENTRIES.iter().map(|entry| entry.technique.clone()).collect()
}

/// Captures in the given way.
///
/// # Errors
/// When the technique is unknown here, the hold is too long, or the system refuses the handle.
pub fn run(technique: &str, options: &EmulateOptions) -> Result<Emulated, SensorError> {
    let Some(entry) = ENTRIES.iter().find(|entry| entry.technique.name == technique) else {
        let names: Vec<_> = ENTRIES.iter().map(|entry| entry.technique.name).collect();
        let mend = format!("choose one of: {}", names.join(", "));
        return Err(error(format!("unknown technique `{technique}`"), mend));
    };
    if options.hold_ms > MAX_HOLD_MS {
        return Err(error(
            format!("a hold of {} ms is too long", options.hold_ms),
            format!("ask for at most {MAX_HOLD_MS} ms"),
        ));
    }
    let interface =
        if options.interface.is_empty() { LOOPBACK } else { options.interface.as_str() };
    let handle = (entry.open)(interface).map_err(|cause| refused(technique, interface, &cause))?;
    let hold_ms = if technique == "short" { SHORT_MS } else { options.hold_ms };
    std::thread::sleep(Duration::from_millis(hold_ms));
    drop(handle);
    let held = entry.held.replace("{}", interface);
    Ok(Emulated { pid: std::process::id(), did: format!("held {held}, for {hold_ms} ms") })
}

fn error(what: String, mend: String) -> SensorError {
    SensorError { sensor: "emulate", what, mend: Some(mend) }
}

fn refused(technique: &str, interface: &str, cause: &io::Error) -> SensorError {
    let mend = match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "run it as root: that another user is refused is as it should be".to_owned()
        }
        Some(libc::ENXIO) => {
            format!("there is no interface `{interface}` here; `ifconfig -l` lists them")
        }
        Some(libc::ENETDOWN) => format!("set it up first: `ifconfig {interface} up`"),
        Some(libc::ENOENT) => "this kernel has no BPF, or devfs hides it: see bpf(4)".to_owned(),
        _ => "choose another technique or interface".to_owned(),
    };
    error(format!("{technique} on {interface}: {cause}"), mend)
}

fn open_only(_interface: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(BPF_DEVICE)
}

fn attach(interface: &str) -> io::Result<File> {
    let bpf = open_only(interface)?;
    ffi::attach(&bpf, interface)?;
    Ok(bpf)
}

fn promiscuous(interface: &str) -> io::Result<File> {
    let bpf = attach(interface)?;
    ffi::promiscuous(&bpf)?;
    Ok(bpf)
}
