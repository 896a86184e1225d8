//! Control groups: which path a number stands for, and which programs are attached without a link.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bpfwatch_core::text::Text;

use super::ffi;
use super::info::CGROUP_SKB;

/// Most directories that one walk looks into.
const MAX_DIRECTORIES: usize = 8192;
/// Where version 2 is mounted: alone, or beside version 1 (systemd(1), hybrid hierarchy).
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// What one walk found.
#[derive(Debug, Default)]
pub struct Groups {
    /// Path below the root, by number.
    pub paths: HashMap<u64, Text>,
    /// Program, where it is attached, and the number of the control group.
    pub attached: Vec<(u32, &'static str, u64)>,
}

/// Walks the hierarchy. With `query`, each group is asked for the programs attached to it.
pub fn walk(query: bool) -> Groups {
    let mut groups = Groups::default();
    let Some(root) = ROOTS.iter().map(Path::new).find(|root| root.join("cgroup.procs").exists())
    else {
        return groups;
    };
    let mut left: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        if groups.paths.len() >= MAX_DIRECTORIES {
            break;
        }
        let Ok(directory) = File::open(&path) else { continue };
        let Ok(facts) = directory.metadata() else { continue };
        let below = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes();
        let shown = [b"/", below].concat();
        groups.paths.insert(facts.ino(), Text::from_bytes_limited(&shown, 1024));
        if query {
            for (kind, name) in CGROUP_SKB {
                let target = directory.as_raw_fd().cast_unsigned();
                let programs = ffi::attached(target, kind).unwrap_or_default();
                groups.attached.extend(programs.into_iter().map(|id| (id, name, facts.ino())));
            }
        }
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        let is_group =
            |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        left.extend(entries.flatten().filter(is_group).map(|entry| entry.path()));
    }
    groups
}
