//! What survives a restart: which sessions were reported. One JSON file in the state directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::exit::Failure;
use crate::trust;

/// A larger file is none of ours.
const LIMIT: u64 = 64 * 1024 * 1024;

/// The state file.
pub struct State {
    file: PathBuf,
}

impl State {
    /// The file in this directory, which is made for its owner alone where it is missing.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
            Failure::file("make the state directory", dir, &error)
                .next("set state_dir in the configuration to a place of your own")
        })?;
        Ok(Self { file: dir.join("state.json") })
    }

    /// Another file in the same directory, with the same care.
    pub fn beside(&self, name: &str) -> Self {
        Self { file: self.file.with_file_name(name) }
    }

    /// What was saved; `None` on the first start.
    ///
    /// # Errors
    /// What is wrong with the file, in words: somebody else could write it, or it is damaged.
    pub fn load(&self) -> Result<Option<Value>, String> {
        let file = match File::open(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| self.failed("read", &error))?,
        };
        // Whoever can write it can make the daemon silent about a capture.
        trust::check(&self.file).map_err(|distrust| format!("not believed: {distrust}"))?;
        let mut text = Vec::new();
        file.take(LIMIT).read_to_end(&mut text).map_err(|error| self.failed("read", &error))?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| format!("{}: damaged: {error}", self.file.display()))
    }

    /// Saves it whole or not at all: a new file, then a rename over the old one.
    ///
    /// # Errors
    /// When it could not be written, in words; the old one is still there then.
    pub fn save(&self, state: &Value) -> Result<(), String> {
        let new = self.file.with_extension("new");
        let write = || -> io::Result<()> {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // create_new follows no link that somebody put there.
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(state.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.file)
        };
        write().map_err(|error| self.failed("save", &error))
    }

    fn failed(&self, doing: &str, error: &io::Error) -> String {
        Failure::file(doing, &self.file, error).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn saves_for_its_owner_alone_and_reads_it_back() {
        let dir = std::env::temp_dir().join(format!("bpfwatch-state-{}", std::process::id()));
        let state = State::open(&dir).unwrap();
        assert_eq!(state.load(), Ok(None));
        let value = serde_json::json!({"reported": [1, 2]});
        state.save(&value).unwrap();
        state.save(&value).unwrap();
        assert_eq!(state.load(), Ok(Some(value)));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&state.file)), (0o700, 0o600));
        fs::set_permissions(&state.file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(state.load().unwrap_err().contains("not believed"));
        fs::set_permissions(&state.file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&state.file, "{").unwrap();
        assert!(state.load().unwrap_err().contains("damaged"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
