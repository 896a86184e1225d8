//! `[[input]]`: a log file that the daemon follows as it grows.

use std::path::PathBuf;

use bpfwatch_core::observation::Os;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A file that is followed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The file; it need not be there yet.
    #[serde(deserialize_with = "absolute")]
    pub path: PathBuf,
    /// Its format; found by its content where absent.
    #[serde(default)]
    pub format: Option<String>,
    /// Host of records that name none; this machine where absent.
    #[serde(default)]
    pub host: Option<String>,
    /// System of records that do not tell; the format's own where absent.
    #[serde(default)]
    pub os: Option<Os>,
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        return Ok(path);
    }
    Err(D::Error::custom(format!("`{}` is not absolute: write the whole path", path.display())))
}
