//! What a receiver refused for good, kept for an operator to look at: bounded, oldest first out.
//!
//! Each time makes two files, named by the first sequence number: `.records` holds the rendered records
//! one after another (JSON Lines for JSON formats), `.why` the receiver's reason.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::private;
use crate::remote::Record;

/// Bytes that the folder holds at most.
pub const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Files that it holds at most.
pub const MAX_FILES: usize = 1000;

/// Name of the folder within a spool's directory.
pub const NAME: &str = "poison";

/// Writes the records into the poison folder of a spool's directory and makes room there.
///
/// # Errors
/// When the folder cannot be written; the records are counted all the same.
pub fn set_aside(dir: &Path, records: &[Record], why: &str) -> io::Result<()> {
    let Some(first) = records.first() else { return Ok(()) };
    let folder = dir.join(NAME);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend_from_slice(&record.bytes);
    }
    let name = |end: &str| folder.join(format!("{:020}.{end}", first.seq));
    let result = write(&name("records"), &bytes)
        .and_then(|()| write(&name("why"), format!("{why}\n").as_bytes()));
    make_room(&folder)?;
    result
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)
}

fn make_room(folder: &Path) -> io::Result<()> {
    let mut files: Vec<(PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.path(), entry.metadata()?.size()));
    }
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, size)| size).sum();
    let mut count = files.len();
    for (path, size) in files {
        if bytes <= MAX_BYTES && count <= MAX_FILES {
            break;
        }
        fs::remove_file(path)?;
        bytes -= size;
        count -= 1;
    }
    Ok(())
}
