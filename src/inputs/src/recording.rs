//! bpfwatch's own recordings: a line that says where they come from, then one observation a line.
//!
//! ```text
//! {"type":"meta","schema":1,"host":"web-1","os":"linux","os_version":"6.12.8","boot_id":"…","bpfwatch":"0.1.0"}
//! {"type":"observation","at":"2026-11-24T02:45:17.123456Z","seq":0,"sensor":"linux.proc","kind":"executed","process":{…}}
//! ```
//!
//! Recordings can be concatenated: each meta line counts for what follows it. A recording without one
//! is read too, as of an unknown host.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bpfwatch_core::decoder::{Decoded, LineDecoder, LineError};
use bpfwatch_core::observation::{Observation, Origin, Os};
use bpfwatch_core::text::Text;
use memchr::memmem;
use serde::{Deserialize, Serialize};

use crate::error::RecordError;

/// Version of the format. It is raised only when an older bpfwatch would read a newer recording
/// wrongly; fields and kinds may be added without.
pub const SCHEMA: u32 = 1;

/// First line of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    #[serde(rename = "type")]
    line: MetaType,
    schema: u32,
    host: Text,
    os: Os,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    os_version: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot_id: Option<Text>,
    /// Version of the bpfwatch that wrote it: for people, never read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bpfwatch: Option<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MetaType {
    Meta,
}

/// Decodes recordings, line by line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recording;

impl LineDecoder for Recording {
    fn name(&self) -> &'static str {
        "recording"
    }

    fn sniff(&self, line: &[u8]) -> bool {
        // A quote inside a JSON string is escaped, so these can only be a key and its value.
        [
            &br#""type":"meta""#[..],
            br#""type": "meta""#,
            br#""type":"observation""#,
            br#""type": "observation""#,
        ]
        .iter()
        .any(|key| memmem::find(line, key).is_some())
    }

    fn os(&self) -> Option<Os> {
        None
    }

    fn keeps_seq(&self) -> bool {
        true
    }

    fn decode(&self, line: &[u8], out: &mut Vec<Observation>) -> Result<Decoded, LineError> {
        // Checked once for the whole line: serde_json would do it again for each string.
        let line = std::str::from_utf8(line).map_err(|error| LineError {
            what: "not valid UTF-8".into(),
            column: Some(error.valid_up_to() + 1),
        })?;
        if line.starts_with(r#"{"type":"meta""#) {
            return meta(line);
        }
        match serde_json::from_str(line) {
            Ok(observation) => {
                out.push(observation);
                Ok(Decoded::Observed)
            }
            Err(error) => match serde_json::from_str::<LineType>(line) {
                Ok(LineType { line: kind }) if kind == "meta" => meta(line),
                _ => Err(error.into()),
            },
        }
    }
}

/// The one field that tells a meta line from a faulty observation.
#[derive(Deserialize)]
struct LineType {
    #[serde(rename = "type")]
    line: String,
}

fn meta(line: &str) -> Result<Decoded, LineError> {
    let meta: Meta = serde_json::from_str(line)?;
    if meta.schema > SCHEMA {
        return Err(LineError::new(format!(
            "recorded in schema {}, this bpfwatch reads up to {SCHEMA}; replay it with a newer one",
            meta.schema
        )));
    }
    let Meta { host, os, os_version, boot_id, .. } = meta;
    Ok(Decoded::Origin(Box::new(Origin { host, os, os_version, boot_id })))
}

/// Writes a recording, buffered. Dropping it writes out what is buffered, but cannot tell of a failure:
/// call [`RecordingWriter::flush`] for that.
#[derive(Debug)]
pub struct RecordingWriter<W: Write = File> {
    name: String,
    out: BufWriter<W>,
    line: Vec<u8>,
}

impl RecordingWriter<File> {
    /// Creates the file, readable by its owner alone, and writes the meta line.
    ///
    /// A path that exists is refused: a recording is evidence and never replaced by accident, and
    /// exclusive creation follows no symbolic link (POSIX open(), O_EXCL), so that nobody can point
    /// a recording made as root at a file of his choice.
    ///
    /// # Errors
    /// When the path exists, or the file cannot be created or written.
    pub fn create(path: &Path, origin: &Origin, version: &str) -> Result<Self, RecordError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => RecordError::Exists { path: path.to_owned() },
            _ => RecordError::Create { path: path.to_owned(), error },
        })?;
        Self::new(file, &path.display().to_string(), origin, version)
    }
}

impl<W: Write> RecordingWriter<W> {
    /// Writes to `out`, which messages call `name`; the meta line is written at once.
    ///
    /// # Errors
    /// When writing fails.
    pub fn new(out: W, name: &str, origin: &Origin, version: &str) -> Result<Self, RecordError> {
        let out = BufWriter::with_capacity(64 * 1024, out);
        let mut writer = Self { name: name.to_owned(), out, line: Vec::with_capacity(2048) };
        writer.origin(origin, version)?;
        Ok(writer)
    }

    /// Writes a meta line: what follows comes from `origin`.
    ///
    /// # Errors
    /// When writing fails.
    pub fn origin(&mut self, origin: &Origin, version: &str) -> Result<(), RecordError> {
        let Origin { host, os, os_version, boot_id } = origin.clone();
        let bpfwatch = Some(Text::from(version));
        let meta =
            Meta { line: MetaType::Meta, schema: SCHEMA, host, os, os_version, boot_id, bpfwatch };
        self.write_line(&meta)
    }

    /// Writes one observation.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write(&mut self, observation: &Observation) -> Result<(), RecordError> {
        self.write_line(observation)
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// When writing fails.
    pub fn flush(&mut self) -> Result<(), RecordError> {
        self.out.flush().map_err(|error| RecordError::Write { name: self.name.clone(), error })
    }

    fn write_line(&mut self, value: &impl Serialize) -> Result<(), RecordError> {
        self.line.clear();
        // The whole line or nothing: a value that fails half-way leaves no torn line behind.
        let written = serde_json::to_writer(&mut self.line, value).map_err(std::io::Error::from);
        self.line.push(b'\n');
        written
            .and_then(|()| self.out.write_all(&self.line))
            .map_err(|error| RecordError::Write { name: self.name.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Arc;

    use bpfwatch_core::observation::Kind;
    use bpfwatch_core::process::Process;
    use bpfwatch_core::time::Timestamp;

    use super::*;
    use crate::testing::TempDir;

    fn origin() -> Origin {
        Origin {
            host: "web-1".into(),
            os: Os::Freebsd,
            os_version: Some("15.1-RELEASE".into()),
            boot_id: None,
        }
    }

    fn observation(seq: u64) -> Observation {
        Observation {
            at: Timestamp::from_secs(1_800_000_000),
            seq,
            sensor: Arc::from("test"),
            actor: Some(Arc::new(Process::from_pid(7))),
            kind: Kind::Executed,
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let dir = TempDir::new();
        let path = dir.path("a.jsonl");
        let mut writer = RecordingWriter::create(&path, &origin(), "0.1.0").unwrap();
        writer.write(&observation(1)).unwrap();
        writer.write(&observation(2)).unwrap();
        drop(writer);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let bytes = std::fs::read(&path).unwrap();
        let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
        assert_eq!(
            std::str::from_utf8(lines[0]).unwrap(),
            r#"{"type":"meta","schema":1,"host":"web-1","os":"freebsd","os_version":"15.1-RELEASE","bpfwatch":"0.1.0"}"#
        );
        let mut out = Vec::new();
        assert_eq!(Recording.decode(lines[0], &mut out), Ok(Decoded::Origin(Box::new(origin()))));
        assert_eq!(Recording.decode(lines[1], &mut out), Ok(Decoded::Observed));
        assert_eq!(Recording.decode(lines[2], &mut out), Ok(Decoded::Observed));
        assert_eq!(lines[3], b"");
        assert_eq!(out, [observation(1), observation(2)]);
    }

    #[test]
    fn never_replaces_a_file_nor_follows_a_link() {
        let dir = TempDir::new();
        let there = dir.path("there");
        std::fs::write(&there, "evidence").unwrap();
        let link = dir.path("link");
        symlink(&there, &link).unwrap();
        let dangling = dir.path("dangling");
        symlink(dir.path("nowhere"), &dangling).unwrap();
        for path in [&there, &link, &dangling] {
            let error = RecordingWriter::create(path, &origin(), "0").unwrap_err();
            assert!(matches!(error, RecordError::Exists { .. }), "{error}");
        }
        assert_eq!(std::fs::read(&there).unwrap(), b"evidence");
        assert!(!dir.path("nowhere").exists());
    }

    #[test]
    fn a_meta_line_may_have_any_order_and_more_fields() {
        let line = br#"{ "os":"linux", "colour":"red", "host":"h", "schema":1, "type":"meta" }"#;
        assert!(!Recording.sniff(br#"{"type":"finding"}"#));
        assert!(Recording.sniff(line));
        let mut out = Vec::new();
        let Ok(Decoded::Origin(origin)) = Recording.decode(line, &mut out) else {
            panic!("no origin")
        };
        assert_eq!((origin.host.as_str(), origin.os), ("h", Os::Linux));
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        let wrong = |line: &[u8]| Recording.decode(line, &mut Vec::new()).unwrap_err().to_string();
        assert!(wrong(br#"{"type":"meta","schema":2,"host":"h","os":"linux"}"#).contains("newer"));
        assert_eq!(
            wrong(br#"{"type":"observation","at":"2026-11-24T02:45:17Z","sensor":"t","kind":"x"}"#),
            "unknown kind `x`"
        );
        assert_eq!(wrong(b"{\"a\":\"\xff\"}"), "not valid UTF-8 (column 7)");
        assert!(wrong(br#"{"type":"observation","at":"2026-1"#).starts_with("cut short: "));
    }
}
