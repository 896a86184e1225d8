//! `emulate`: real BPF descriptors, opened in chosen ways, so that detection can be tried from end to end.
//! Nothing is ever read from them.

use std::fs::{File, OpenOptions};
use std::io;

use bpfwatch_core::platform::{OpenHandle, Technique, reported};
use bpfwatch_core::sensor::SensorError;

use crate::ffi;

/// Interface where none is told.
const LOOPBACK: &str = "lo0";
/// Nodes that are tried; the kernel makes no more than 256 by itself (bsd/net/bpf.c: `bpf_maxdevices`).
const MINORS: u32 = 256;

struct Entry {
    technique: Technique,
    open: fn(&str) -> io::Result<File>,
    /// What is held then; `{}` in it is the interface.
    held: &'static str,
}

const ENTRIES: [Entry; 3] = [
    Entry {
        technique: Technique {
            name: "open",
            what: "opens the first free /dev/bpfN and attaches it to nothing",
            rules: &[],
        },
        open: open_only,
        held: "a BPF descriptor that is attached to nothing",
    },
    Entry {
        technique: Technique {
            name: "attach",
            what: "attaches a BPF descriptor to the interface (BIOCSETIF), not promiscuous",
            rules: &[reported::UNEXPECTED],
        },
        open: attach,
        held: "a BPF descriptor on {}, not promiscuous",
    },
    Entry {
        technique: Technique {
            name: "promiscuous",
            what: "attaches a BPF descriptor and asks for promiscuous mode (BIOCPROMISC)",
            rules: &[reported::UNEXPECTED, reported::PROMISCUOUS],
        },
        open: promiscuous,
        held: "a BPF descriptor on {}, promiscuous",
    },
];

/// What can be shown here.
pub fn techniques() -> Vec<Technique> {
    ENTRIES.iter().map(|entry| entry.technique.clone()).collect()
}

/// Opens a descriptor in the given way.
///
/// # Errors
/// When the technique is unknown here, or the system refuses the device.
pub fn open(technique: &str, interface: &str) -> Result<OpenHandle, SensorError> {
    let Some(entry) = ENTRIES.iter().find(|entry| entry.technique.name == technique) else {
        let names: Vec<_> = ENTRIES.iter().map(|entry| entry.technique.name).collect();
        let mend = format!("choose one of: {}", names.join(", "));
        return Err(error(format!("unknown technique `{technique}`"), mend));
    };
    let interface = if interface.is_empty() { LOOPBACK } else { interface };
    let handle = (entry.open)(interface).map_err(|cause| refused(technique, interface, &cause))?;
    Ok(OpenHandle { handle: handle.into(), held: entry.held.replace("{}", interface) })
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

/// macOS has a node for each descriptor and makes another when the last is taken (bpf(4)).
fn open_only(_interface: &str) -> io::Result<File> {
    for minor in 0..MINORS {
        match OpenOptions::new().read(true).write(true).open(format!("/dev/bpf{minor}")) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            result => return result,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_do_when_refused() {
        let unknown = open("magic", "lo0").unwrap_err();
        assert!(unknown.mend.is_some_and(|mend| mend.contains("promiscuous")));
        let missing = refused("attach", "en9", &io::Error::from_raw_os_error(libc::ENXIO));
        assert!(missing.to_string().contains("ifconfig -l"), "{missing}");
        let denied = refused("attach", "lo0", &io::Error::from_raw_os_error(libc::EACCES));
        assert!(denied.to_string().contains("as root"), "{denied}");
    }
}
