//! What can go wrong when recorded events are read or written, with the place and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bpfwatch_core::decoder::LineError;

/// Where in a source a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line, from 1.
    Line(u64),
    /// A record: the number that its format gives it, or its place among the file's records, from 1.
    Record(u64),
    /// A block of a binary file, from 1.
    Block(u64),
}

/// A record that could not be used. The rest of its file goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File, or `standard input`.
    pub source: Arc<str>,
    /// Where in it.
    pub place: Place,
    /// What is wrong with it.
    pub error: LineError,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, error, .. } = self;
        match self.place {
            Place::Line(line) => write!(f, "{source}:{line}: {error}"),
            Place::Record(number) => write!(f, "{source}: record {number}: {error}"),
            Place::Block(number) => write!(f, "{source}: block {number}: {error}"),
        }
    }
}

/// Why reading could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file could not be opened.
    #[error("{source_name}: cannot be opened: {error}")]
    Open {
        /// File.
        source_name: Arc<str>,
        /// What the system said.
        error: io::Error,
    },
    /// Reading failed on the way; everything before was delivered.
    #[error("{source_name}: reading failed after {bytes} bytes: {error}")]
    Read {
        /// File.
        source_name: Arc<str>,
        /// Bytes that were read before.
        bytes: u64,
        /// What the system said.
        error: io::Error,
    },
    /// The content is of no format that is known.
    #[error(
        "{source_name}: not recognised; the first line is of none of the formats {}; \
         if it is one of them after all, name it with --input", .known.join(", ")
    )]
    UnknownFormat {
        /// File.
        source_name: Arc<str>,
        /// Names of the formats.
        known: Vec<&'static str>,
    },
    /// `--input` names no format.
    #[error("there is no input format `{name}`; the formats are {}", .known.join(", "))]
    UnknownInput {
        /// What was asked for.
        name: String,
        /// Names of the formats.
        known: Vec<&'static str>,
    },
    /// What cannot be followed as it grows: a compressed file, or one that begins otherwise.
    #[error(
        "{source_name}: cannot be followed, because it does not begin as a file of format {name}; \
         if it is compressed, use `bpfwatch replay` on it"
    )]
    NotFollowed {
        /// File.
        source_name: Arc<str>,
        /// The format.
        name: &'static str,
    },
    /// A thread of the reader ended early, which is an error in bpfwatch.
    #[error("{source_name}: a reader thread failed; please report this as a bug")]
    Worker {
        /// File.
        source_name: Arc<str>,
    },
}

/// Why a recording could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is something at that path; a recording never replaces it, nor follows a symbolic link.
    #[error("{}: exists already; remove it, or record to another file", .path.display())]
    Exists {
        /// Path.
        path: PathBuf,
    },
    /// The file could not be created.
    #[error("{}: cannot be created: {error}", .path.display())]
    Create {
        /// Path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Writing failed; the recording may be cut.
    #[error("{name}: writing the recording failed: {error}")]
    Write {
        /// Path, or what else names the destination.
        name: String,
        /// What the system said.
        error: io::Error,
    },
}
