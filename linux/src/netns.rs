//! Network namespaces: which there are, and how to look into one.
//!
//! A descriptor of a namespace, or of a socket in it, keeps the namespace and its interfaces alive
//! after its last process. So nothing here outlives one look.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use bpfwatch_core::text::Text;
use nix::sched::{CloneFlags, setns};

/// Where tools mount namespaces under names: ip-netns(8), Docker.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// A way to a namespace that holds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// It is ours.
    Home,
    /// Through a process in it.
    Process(u32),
    /// Through a name.
    Named(PathBuf),
}

/// Named namespaces: inode, path and name.
pub fn named() -> Vec<(u64, PathBuf, Text)> {
    let mut found = Vec::new();
    for folder in NAMED {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            // Not the link's target: these files are mount points of nsfs.
            if let Ok(facts) = entry.path().symlink_metadata()
                && facts.is_file()
            {
                let name = Text::from_bytes(entry.file_name().as_encoded_bytes());
                found.push((facts.ino(), entry.path(), name));
            }
        }
    }
    found
}

/// Ways to all namespaces that `pids`, pairs of process and namespace, and names lead to.
pub fn ways(
    home: u64,
    pids: impl IntoIterator<Item = (u32, u64)>,
    named: &[(u64, PathBuf, Text)],
) -> HashMap<u64, Way> {
    let mut ways = HashMap::from([(home, Way::Home)]);
    for (inode, path, _) in named {
        ways.entry(*inode).or_insert_with(|| Way::Named(path.clone()));
    }
    for (pid, inode) in pids {
        ways.entry(inode).or_insert(Way::Process(pid));
    }
    ways
}

/// A thread's way back. It holds the home namespace, which lives as long as we do.
pub struct Visitor {
    home: File,
}

/// The thread could not return: it must not be used any more.
#[derive(Debug, thiserror::Error)]
#[error("cannot return to the own network namespace: {0}")]
pub struct Stranded(nix::Error);

impl Visitor {
    /// For this thread, which is at home now.
    ///
    /// # Errors
    /// When its own namespace cannot be opened.
    pub fn at_home() -> std::io::Result<Self> {
        Ok(Self { home: File::open("/proc/thread-self/ns/net")? })
    }

    /// Inode of the home namespace.
    ///
    /// # Errors
    /// What the system says.
    pub fn home_inode(&self) -> std::io::Result<u64> {
        Ok(self.home.metadata()?.ino())
    }

    /// Runs `look` inside the namespace `inode` and returns. `None` when it cannot be entered or is not
    /// that one any more.
    ///
    /// # Errors
    /// When the thread is stranded there.
    pub fn visit<T>(
        &self,
        inode: u64,
        way: &Way,
        look: impl FnOnce() -> T,
    ) -> Result<Option<T>, Stranded> {
        let opened = match way {
            Way::Home => return Ok(Some(look())),
            Way::Process(pid) => File::open(format!("/proc/{pid}/ns/net")),
            Way::Named(path) => File::open(path),
        };
        let Ok(there) = opened else { return Ok(None) };
        if there.metadata().map_or(0, |facts| facts.ino()) != inode
            || setns(&there, CloneFlags::CLONE_NEWNET).is_err()
        {
            return Ok(None);
        }
        drop(there);
        let seen = look();
        setns(&self.home, CloneFlags::CLONE_NEWNET).map_err(Stranded)?;
        Ok(Some(seen))
    }
}
