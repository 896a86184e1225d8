//! A secret that a file holds: a token or a key. The configuration has only its path, which may begin
//! with the name of a variable, since service managers tell by one where they put credentials
//! (systemd.exec(5): `$CREDENTIALS_DIRECTORY`). No other value of the configuration reads the
//! environment.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::exit::{Code, Failure};
use crate::trust;

/// A larger file is no token, key or certificate.
const LIMIT: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile(PathBuf);

impl SecretFile {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its text, without the end of its last line.
    ///
    /// # Errors
    /// When it cannot be read, or others than root and the user bpfwatch runs as could read or write it.
    pub fn read(&self) -> Result<String, Failure> {
        trust::check(&self.0).and_then(|()| trust::check_private(&self.0)).map_err(|distrust| {
            Failure::new(Code::Config, format!("a secret is not used: {distrust}"))
                .next("keep it to root: chown root, chmod 0600")
        })?;
        let failed = |error: &std::io::Error| Failure::file("read the secret", &self.0, error);
        let mut text = String::new();
        let file = fs::File::open(&self.0).map_err(|error| failed(&error))?;
        file.take(LIMIT + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
        if text.len() as u64 > LIMIT {
            let what = format!("{} is larger than 64 KiB, so it is no secret", self.0.display());
            return Err(Failure::new(Code::Config, what));
        }
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        Ok(text)
    }

    /// `text` with its variable replaced by what `lookup` gives.
    fn parse(text: &str, lookup: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, String> {
        let path = match text.strip_prefix("${").and_then(|rest| rest.split_once('}')) {
            Some((name, rest)) => {
                let begin = lookup(name).ok_or_else(|| {
                    format!("the variable {name} is not set: `{text}` leads nowhere")
                })?;
                match rest.strip_prefix('/') {
                    Some(rest) => begin.join(rest),
                    None if rest.is_empty() => begin,
                    None => return Err(format!("write `/` after the variable in `{text}`")),
                }
            }
            None => PathBuf::from(text),
        };
        if path.is_absolute() {
            return Ok(Self(path));
        }
        Err(format!("`{}` is not absolute: write the whole path", path.display()))
    }
}

impl<'de> Deserialize<'de> for SecretFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text, |name| std::env::var_os(name).map(PathBuf::from)).map_err(Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_variable_stands_only_at_the_beginning() {
        let parse = |text: &str| {
            SecretFile::parse(text, |name| (name == "DIR").then(|| PathBuf::from("/run/creds")))
                .map(|file| file.0.display().to_string())
        };
        assert_eq!(parse("/etc/token").as_deref(), Ok("/etc/token"));
        assert_eq!(parse("${DIR}/token").as_deref(), Ok("/run/creds/token"));
        assert_eq!(parse("${DIR}").as_deref(), Ok("/run/creds"));
        assert_eq!(parse("/x/${DIR}").as_deref(), Ok("/x/${DIR}"));
        for wrong in ["token", "${NONE}/token", "${DIR}token", "${DIR"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_that_others_may_read_is_none() {
        let dir = std::env::temp_dir().join(format!("bpfwatch-secret-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.join("token");
        fs::write(&file, "hunter2\n").unwrap();
        let secret = SecretFile(file.clone());
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let read = secret.read();
            assert_eq!(read.is_ok(), good, "{mode:o}");
            match read {
                Ok(text) => assert_eq!(text, "hunter2"),
                Err(failure) => assert!(!failure.to_string().contains("hunter2")),
            }
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
