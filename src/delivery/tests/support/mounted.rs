//! A small disk, to be filled.

use std::path::Path;
use std::process::{Command, Stdio};

/// A file system of 256 KiB, until the end.
pub struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// `None` where this may not be mounted.
    pub fn small(at: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs"]).arg(at);
        let done = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        done.then_some(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
