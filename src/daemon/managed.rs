//! Managed preferences change without a signal: MDM replaces the file and tells nobody. So it is looked at now
//! and then, and a change is a reason to read the configuration again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// What tells a file from its successor: device, inode, size, and change time in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

/// The file, and how it was when it was last looked at.
#[derive(Debug)]
pub struct Managed {
    file: Option<PathBuf>,
    seen: Option<Stamp>,
    looked: Instant,
}

impl Managed {
    /// Begins with the file as it is now. Without one nothing ever changes.
    pub fn new(file: Option<PathBuf>) -> Self {
        let mut managed = Self { file, seen: None, looked: Instant::now() };
        managed.seen = managed.stamp();
        managed
    }

    /// Whether it came, went or is another one since the last look; looks no more often than it has to.
    pub fn has_changed(&mut self) -> bool {
        if self.file.is_none() || self.looked.elapsed() < EVERY {
            return false;
        }
        self.looked = Instant::now();
        self.look()
    }

    fn look(&mut self) -> bool {
        let stamp = self.stamp();
        std::mem::replace(&mut self.seen, stamp) != stamp
    }

    fn stamp(&self) -> Option<Stamp> {
        let facts = fs::metadata(self.file.as_ref()?).ok()?;
        Some((facts.dev(), facts.ino(), facts.size(), facts.ctime(), facts.ctime_nsec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_comes_changes_or_goes_is_noticed_once() {
        let dir = std::env::temp_dir().join(format!("bpfwatch-mdm-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("managed.plist");
        let mut managed = Managed::new(Some(file.clone()));
        assert!(!managed.look());
        fs::write(&file, "a").unwrap();
        assert!(managed.look() && !managed.look());
        fs::write(dir.join("new"), "b").unwrap();
        fs::rename(dir.join("new"), &file).unwrap();
        assert!(managed.look() && !managed.look());
        fs::remove_file(&file).unwrap();
        assert!(managed.look() && !managed.look());
        assert!(!managed.has_changed(), "it was looked at a moment ago");
        assert!(!Managed::new(None).look());
        fs::remove_dir_all(&dir).unwrap();
    }
}
