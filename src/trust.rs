//! Whether the daemon may believe a file: nobody but root and the user it runs as may be able to
//! write it, or to put another one in its place.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::exit::plain;

/// Permission bits that let group or others write.
const WRITABLE: u32 = 0o022;
/// Only a file's owner may rename or remove it in a directory with this bit (chmod(2)).
const STICKY: u32 = 0o1000;

/// Why a file is not believed.
#[derive(Debug, PartialEq, Eq)]
pub struct Distrust {
    /// The file or directory at fault, which may be one above the file in question.
    path: PathBuf,
    what: String,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.what)
    }
}

/// Checks a file or directory and every directory on the way to it, by the name that was given and by
/// the one that its links lead to.
///
/// # Errors
/// The first thing that somebody else could write.
pub fn check(path: &Path) -> Result<(), Distrust> {
    let user = nix::unistd::geteuid().as_raw();
    let fail = |path: &Path, error: &io::Error| Distrust {
        path: path.to_owned(),
        what: format!("cannot be checked: {}", plain(error)),
    };
    let given = std::path::absolute(path).map_err(|error| fail(path, &error))?;
    let real = fs::canonicalize(path).map_err(|error| fail(path, &error))?;
    for (name, links) in [(&real, false), (&given, true)] {
        for (depth, part) in name.ancestors().enumerate() {
            let about = if links { fs::symlink_metadata(part) } else { fs::metadata(part) };
            let about = about.map_err(|error| fail(part, &error))?;
            if let Some(what) = fault(&about, user, depth > 0) {
                return Err(Distrust { path: part.to_owned(), what });
            }
        }
    }
    Ok(())
}

/// Checks that nobody but root and the user it runs as can read a file.
///
/// # Errors
/// When group or others can.
pub fn check_private(path: &Path) -> Result<(), Distrust> {
    let fail = |what: String| Distrust { path: path.to_owned(), what };
    let about = fs::metadata(path)
        .map_err(|error| fail(format!("cannot be checked: {}", plain(&error))))?;
    if about.mode() & 0o077 == 0 {
        return Ok(());
    }
    let who = if about.mode() & 0o007 != 0 { "everybody" } else { "its group" };
    Err(fail(format!("may be read by {who} (mode {:04o})", about.mode() & 0o7777)))
}

fn fault(about: &Metadata, user: u32, is_above: bool) -> Option<String> {
    let (owner, mode) = (about.uid(), about.mode());
    if owner != 0 && owner != user {
        return Some(format!("belongs to user {owner}, who could change it"));
    }
    // The mode of a symbolic link says nothing: its owner and its directory do.
    let sticky = is_above && mode & STICKY != 0;
    if about.is_symlink() || mode & WRITABLE == 0 || sticky {
        return None;
    }
    let who = if mode & 0o002 != 0 { "everybody" } else { "its group" };
    Some(format!("may be written by {who} (mode {:04o})", mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_may_write_is_not_believed() {
        let dir = std::env::temp_dir().join(format!("bpfwatch-trust-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("bpfwatch.toml");
        fs::write(&file, "").unwrap();
        set(&dir, 0o755);
        for (mode, good) in [(0o644, true), (0o600, true), (0o664, false), (0o646, false)] {
            set(&file, mode);
            assert_eq!(check(&file).is_ok(), good, "{mode:o}: {:?}", check(&file));
        }
        set(&file, 0o644);
        for (mode, good) in [(0o775, false), (0o777, false), (0o1777, true), (0o755, true)] {
            set(&dir, mode);
            assert_eq!(check(&file).is_ok(), good, "directory {mode:o}");
        }
        set(&dir, 0o777);
        assert!(check(&file).unwrap_err().to_string().contains("everybody"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
