//! What is pinned: programs and links with a path in a bpf file system, which live without any process.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use bpfwatch_core::text::Text;

use super::{ffi, info};
use crate::proc;

/// Most objects that one walk opens.
const MAX_OBJECTS: usize = 4096;
/// Most paths of one program that are kept.
const MAX_PATHS: usize = 4;
/// Where bpf(8) file systems are mounted.
const ROOT: &str = "/sys/fs/bpf";

/// Paths by number of the program. Objects are opened for a moment and not used.
pub fn walk() -> BTreeMap<u32, Vec<Text>> {
    let mut pins: BTreeMap<u32, Vec<Text>> = BTreeMap::new();
    let mut left = vec![PathBuf::from(ROOT)];
    let mut seen = 0;
    while let Some(directory) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            // Its own files, maps.debug and progs.debug, are no objects but iterators; they do no harm.
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                seen += 1;
                if seen > MAX_OBJECTS {
                    return pins;
                }
                if let Some(id) = program_at(&entry.path()) {
                    let paths = pins.entry(id).or_default();
                    if paths.len() < MAX_PATHS {
                        let path = entry.path();
                        paths.push(Text::from_bytes_limited(path.as_os_str().as_bytes(), 1024));
                        paths.sort_unstable();
                    }
                }
            }
        }
    }
    pins
}

fn program_at(path: &std::path::Path) -> Option<u32> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let object = ffi::open_pinned(&path).ok()?;
    let fdinfo = proc::read(&format!("/proc/thread-self/fdinfo/{}", object.as_raw_fd()))?;
    info::fdinfo_program(&fdinfo)
}
