//! A token or key in a file: read again when the file changes, so that it can be replaced while the
//! program runs, and never shown.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::stamp::Stamp;

/// A larger file is none.
const LIMIT: u64 = 64 * 1024;

/// A secret that lies in a file.
pub struct Secret {
    path: PathBuf,
    value: String,
    stamp: Stamp,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Secret {
    /// Reads it.
    ///
    /// # Errors
    /// In words: when the file cannot be read, may be read by everybody, or holds anything but one line
    /// of visible ASCII.
    pub fn open(path: &Path) -> Result<Self, String> {
        let (value, stamp) = read(path)?;
        Ok(Self { path: path.to_owned(), value, stamp })
    }

    /// The secret as it is now.
    ///
    /// # Errors
    /// As for [`Secret::open`]; the next call tries anew.
    pub fn get(&mut self) -> Result<&str, String> {
        if Stamp::of(&self.path).map_err(|error| failed(&self.path, &error))? != self.stamp {
            (self.value, self.stamp) = read(&self.path)?;
        }
        Ok(&self.value)
    }
}

fn read(path: &Path) -> Result<(String, Stamp), String> {
    let file = File::open(path).map_err(|error| failed(path, &error))?;
    let metadata = file.metadata().map_err(|error| failed(path, &error))?;
    if metadata.mode() & 0o007 != 0 {
        return Err(format!(
            "{} is a secret and may be read by everybody (mode {:04o}): chmod 0600",
            path.display(),
            metadata.mode() & 0o7777
        ));
    }
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text).map_err(|error| failed(path, &error))?;
    let value = text.trim();
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{} must hold one word of visible ASCII", path.display()));
    }
    Ok((value.to_owned(), Stamp::from(&metadata)))
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_read_again_when_it_changes_and_never_shown() {
        let dir = std::env::temp_dir().join(format!("bpfwatch-secret-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("token");
        let put = |text: &str, mode| {
            let new = dir.join("new");
            fs::write(&new, text).unwrap();
            fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        put("first\n", 0o600);
        let mut secret = Secret::open(&path).unwrap();
        assert_eq!(secret.get(), Ok("first"));
        put("other\n", 0o640);
        assert_eq!(secret.get(), Ok("other"));
        assert!(!format!("{secret:?}").contains("other"));
        put("open\n", 0o644);
        assert!(secret.get().unwrap_err().contains("chmod 0600"));
        put("two words\n", 0o600);
        assert!(secret.get().unwrap_err().contains("one word"));
        fs::remove_file(&path).unwrap();
        assert!(secret.get().unwrap_err().contains("token"));
        put("back\n", 0o600);
        assert_eq!(secret.get(), Ok("back"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
