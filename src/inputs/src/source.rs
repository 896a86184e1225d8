//! Bytes of a file or a pipe, cut into chunks of whole lines or into blocks of one size.
//!
//! A regular file is read in chunks of about [`CHUNK`] bytes. From anything else a chunk is whatever
//! one read gives, up to its last newline: a line from a slow pipe goes on as soon as it is there.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::deliver::Counting;
use crate::{compressed, detect, json};
use bpfwatch_core::decoder::{Blocks, LineDecoder};

/// Bytes read at once from a regular file.
pub(crate) const CHUNK: usize = 256 * 1024;
/// Bytes read at once from a pipe; the usual size of one (pipe(7)).
const PIPE_READ: usize = 64 * 1024;
/// Longest line that is read. An argument list has at most 6 MiB on Linux (fs/exec.c
/// `bprm_stack_limits`) and 1 MiB on macOS (ARG_MAX), with the environment, and JSON seldom doubles it.
pub(crate) const LINE_CAP: usize = 16 * 1024 * 1024;
/// Bytes of the first line that detection sees.
const HEAD_CAP: usize = 1024 * 1024;

/// Where to read from.
pub enum Source {
    /// A file, opened when its turn comes.
    Path(PathBuf),
    /// A file that was opened before, or why it could not be: see [`Source::opened`].
    File {
        /// What messages call it.
        name: String,
        /// The file.
        file: io::Result<File>,
    },
    /// Standard input.
    Stdin,
    /// Anything else, read as a pipe is.
    Stream {
        /// What messages call it.
        name: String,
        /// Its bytes.
        bytes: Box<dyn Read + Send>,
    },
}

impl Source {
    /// What messages call it.
    pub fn name(&self) -> Arc<str> {
        match self {
            Source::Path(path) => path.display().to_string().into(),
            Source::Stdin => "standard input".into(),
            Source::File { name, .. } | Source::Stream { name, .. } => name.as_str().into(),
        }
    }

    /// The same, opened now. That it could not be is told when its turn comes.
    pub fn opened(self) -> Self {
        match self {
            Source::Path(path) => {
                Source::File { name: path.display().to_string(), file: File::open(path) }
            }
            other => other,
        }
    }

    /// Whether opening it may wait for somebody who writes it, as that of a named pipe does.
    pub fn may_wait(&self) -> bool {
        let Source::Path(path) = self else { return false };
        std::fs::metadata(path).is_ok_and(|facts| !facts.is_file() && !facts.is_dir())
    }

    /// Its size in bytes, where that can be told before reading.
    pub fn size(&self) -> Option<u64> {
        let metadata = match self {
            Source::Path(path) => std::fs::metadata(path).ok()?,
            Source::File { file, .. } => file.as_ref().ok()?.metadata().ok()?,
            Source::Stdin => stdin().ok()?.metadata().ok()?,
            Source::Stream { .. } => return None,
        };
        (metadata.is_file() && !self.is_compressed()).then_some(metadata.len())
    }
}

impl Source {
    fn is_compressed(&self) -> bool {
        let mut start = [0; 4];
        let read = match self {
            Source::Path(path) => File::open(path).and_then(|file| file.read_at(&mut start, 0)),
            Source::File { file: Ok(file), .. } => file.read_at(&mut start, 0),
            _ => return false,
        };
        read.is_ok_and(|read| compressed::kind(&start[..read]).is_some())
    }
}

/// Standard input without the buffer of [`std::io::Stdin`], so that it can be told a file from a pipe.
fn stdin() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn regular_or_not(file: File) -> io::Result<(Box<dyn Read + Send>, bool)> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((Box::new(file), metadata.is_file()))
}

/// A piece of the source: whole lines, except at the end of a file that was cut.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    /// Instead of `bytes`, one line of so many bytes that it was thrown away.
    pub(crate) overlong: Option<u64>,
}

/// Cuts the bytes of one source.
pub(crate) struct Cutter {
    input: Box<dyn Read + Send>,
    regular: bool,
    /// What was read and not yet given out.
    rest: Vec<u8>,
    ended: bool,
    /// Bytes read so far.
    pub(crate) bytes: u64,
    chunk: usize,
    line_cap: usize,
    blocks: Option<Blocks>,
    blocks_given: u64,
    /// The lines are records that were cut out of JSON.
    reframed: bool,
}

impl Cutter {
    /// Opens `source`: decompressed, and JSON that is no line by line cut into lines.
    pub(crate) fn open(source: Source) -> io::Result<Self> {
        let (input, regular): (Box<dyn Read + Send>, bool) = match source {
            Source::Path(path) => regular_or_not(File::open(path)?)?,
            Source::File { file, .. } => regular_or_not(file?)?,
            Source::Stdin => regular_or_not(stdin()?)?,
            Source::Stream { bytes, .. } => (bytes, false),
        };
        let input = compressed::open(input)?;
        let (input, reframed) = json::open(input)?;
        let mut cutter = Self::new(input, regular, CHUNK, LINE_CAP);
        cutter.reframed = reframed;
        Ok(cutter)
    }

    /// Cuts as the format wants it, and tells how its problems are placed.
    pub(crate) fn counting(&mut self, decoder: &dyn LineDecoder) -> Counting {
        self.blocks = decoder.blocks();
        if self.reframed { Counting::Records } else { Counting::of(self.blocks) }
    }

    fn new(input: Box<dyn Read + Send>, regular: bool, chunk: usize, line_cap: usize) -> Self {
        Self {
            input,
            regular,
            rest: Vec::new(),
            ended: false,
            bytes: 0,
            chunk,
            line_cap,
            blocks: None,
            blocks_given: 0,
            reframed: false,
        }
    }

    /// Whether it is a file, of which no read waits.
    pub(crate) fn is_regular(&self) -> bool {
        self.regular
    }

    /// The start of the source, with the first line that is not blank as far as detection needs it.
    pub(crate) fn head(&mut self) -> io::Result<&[u8]> {
        let mut head = std::mem::take(&mut self.rest);
        while !self.ended && head.len() < HEAD_CAP && !has_line(&head) {
            if let Err(error) = self.fill(&mut head) {
                self.rest = head;
                return Err(error);
            }
            if head.starts_with(b"\xef\xbb\xbf") {
                // A byte order mark, which editors on Windows leave.
                head.drain(..3);
            }
        }
        self.rest = head;
        Ok(&self.rest)
    }

    /// The next chunk, in the memory of `chunk`; false at the end.
    pub(crate) fn next(&mut self, chunk: &mut Chunk) -> io::Result<bool> {
        let buffer = &mut chunk.bytes;
        chunk.overlong = None;
        buffer.clear();
        std::mem::swap(buffer, &mut self.rest);
        match self.blocks {
            Some(Blocks::Fixed { header, size, .. }) => {
                return self.next_block(header, size, buffer);
            }
            Some(Blocks::Records(whole)) => return self.next_records(whole, buffer),
            None => {}
        }
        let mut searched = 0;
        loop {
            if self.ended || !self.regular || buffer.len() >= self.chunk {
                if let Some(at) = memchr::memrchr(b'\n', &buffer[searched..]) {
                    let end = searched + at + 1;
                    self.rest.extend_from_slice(&buffer[end..]);
                    buffer.truncate(end);
                    return Ok(true);
                }
                searched = buffer.len();
                if searched > self.line_cap {
                    let length = self.skip_line(buffer)?;
                    chunk.bytes = Vec::new();
                    chunk.overlong = Some(length);
                    return Ok(true);
                }
                if self.ended {
                    return Ok(!buffer.is_empty());
                }
            }
            self.fill(buffer)?;
        }
    }

    /// The next block; at the end of a file that was cut, what there is of it.
    fn next_block(&mut self, header: usize, size: usize, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let skip = if self.blocks_given == 0 { header } else { 0 };
        self.blocks_given += 1;
        let want = skip + size;
        while buffer.len() < want && !self.ended {
            self.fill(buffer)?;
        }
        let end = want.min(buffer.len());
        self.rest.extend_from_slice(&buffer[end..]);
        buffer.truncate(end);
        buffer.drain(..skip.min(end));
        Ok(!buffer.is_empty())
    }

    /// The next whole records; at the end of a file that was cut, what there is of one.
    fn next_records(
        &mut self,
        whole: fn(&[u8]) -> usize,
        buffer: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let mut enough = self.chunk;
        loop {
            if self.ended || !self.regular || buffer.len() >= enough {
                let end = whole(buffer).min(buffer.len());
                if end > 0 {
                    self.rest.extend_from_slice(&buffer[end..]);
                    buffer.truncate(end);
                    return Ok(true);
                }
                if self.ended {
                    return Ok(!buffer.is_empty());
                }
                enough = buffer.len() * 2;
            }
            self.fill(buffer)?;
        }
    }

    /// Reads once, or a whole chunk from a regular file.
    fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let before = buffer.len();
        if self.regular {
            let want = self.chunk.saturating_sub(before).max(PIPE_READ.min(self.chunk));
            (&mut self.input).take(want as u64).read_to_end(buffer)?;
        } else {
            buffer.resize(before + PIPE_READ, 0);
            let read = loop {
                match self.input.read(&mut buffer[before..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            buffer.truncate(before + *read.as_ref().unwrap_or(&0));
            read?;
        }
        self.ended = buffer.len() == before;
        self.bytes += (buffer.len() - before) as u64;
        Ok(())
    }

    /// Throws away the line that `buffer` holds the start of; returns its length.
    fn skip_line(&mut self, buffer: &mut Vec<u8>) -> io::Result<u64> {
        let mut length = buffer.len() as u64;
        loop {
            buffer.clear();
            self.fill(buffer)?;
            if let Some(end) = memchr::memchr(b'\n', buffer) {
                self.rest.extend_from_slice(&buffer[end + 1..]);
                return Ok(length + end as u64);
            }
            length += buffer.len() as u64;
            if self.ended {
                return Ok(length);
            }
        }
    }
}

fn has_line(head: &[u8]) -> bool {
    detect::first_line(head).is_some_and(|line| {
        // More than the line itself is there: its newline, at least.
        line.as_ptr_range().end < head.as_ptr_range().end
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Slow;

    fn pieces(text: &str, step: usize, regular: bool) -> Vec<Result<String, u64>> {
        let input = Slow(io::Cursor::new(text.into()), step);
        let mut cutter = Cutter::new(Box::new(input), regular, 8, 20);
        let mut out = Vec::new();
        let mut chunk = Chunk::default();
        while cutter.next(&mut chunk).unwrap() {
            match chunk.overlong {
                Some(length) => out.push(Err(length)),
                None => out.push(Ok(String::from_utf8(chunk.bytes.clone()).unwrap())),
            }
        }
        assert_eq!(cutter.bytes, text.len() as u64);
        out
    }

    #[test]
    fn what_was_opened_before_is_read_as_what_is_opened_at_its_turn() {
        let path = std::env::temp_dir().join(format!("bpfwatch-source-{}", std::process::id()));
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let (later, now) = (Source::Path(path.clone()), Source::Path(path.clone()).opened());
        assert!(!later.may_wait() && now.name() == later.name() && now.size() == later.size());
        assert_eq!(now.size(), Some(8));
        std::fs::remove_file(&path).unwrap();
        assert!(Cutter::open(later).is_err());
        let mut cutter = Cutter::open(now).unwrap();
        let mut chunk = Chunk::default();
        assert!(cutter.next(&mut chunk).unwrap() && cutter.is_regular());
        assert_eq!(chunk.bytes, b"one\ntwo\n", "asking for the size read nothing");
        // One that is not there is told of when its turn comes.
        let missing = Source::Path(path).opened();
        assert_eq!(missing.size(), None);
        assert!(Cutter::open(missing).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        assert!(Source::Path("/dev/null".into()).may_wait() && !Source::Stdin.may_wait());
    }

    #[test]
    fn cuts_at_newlines_and_loses_nothing() {
        let text = "one\ntwo two\n\nthree three three\nfour\nand the rest";
        for step in 1..60 {
            for regular in [false, true] {
                let pieces = pieces(text, step, regular);
                let all: String = pieces.iter().map(|piece| piece.as_deref().unwrap()).collect();
                assert_eq!(all, text);
                let (_, whole) = pieces.split_last().unwrap();
                assert!(whole.iter().all(|piece| piece.as_ref().unwrap().ends_with('\n')));
            }
        }
    }

    /// Of records that begin with their length: how many bytes are whole ones.
    fn whole(bytes: &[u8]) -> usize {
        let mut end = 0;
        while let Some(length) = bytes.get(end).map(|length| usize::from(*length))
            && end + length <= bytes.len()
        {
            end += length;
        }
        end
    }

    #[test]
    fn cuts_after_whole_records_and_loses_nothing() {
        let records: Vec<Vec<u8>> = (1..40).map(|length| vec![length; length.into()]).collect();
        let mut all = records.concat();
        all.extend([9, 9, 9]);
        for step in 1..60 {
            for regular in [false, true] {
                let input = Slow(io::Cursor::new(all.clone()), step);
                let mut cutter = Cutter::new(Box::new(input), regular, 8, 20);
                cutter.blocks = Some(Blocks::Records(whole));
                let (mut seen, mut chunk) = (Vec::new(), Chunk::default());
                while cutter.next(&mut chunk).unwrap() {
                    let cut = whole(&chunk.bytes) != chunk.bytes.len();
                    assert!(!cut || chunk.bytes == [9, 9, 9], "{step}");
                    seen.extend_from_slice(&chunk.bytes);
                }
                assert_eq!(seen, all, "{step}");
            }
        }
    }

    #[test]
    fn a_pipe_gives_a_line_as_soon_as_it_is_there() {
        assert_eq!(
            pieces("one\ntwo\nthree\n", 5, false),
            [Ok("one\n".to_owned()), Ok("two\n".to_owned()), Ok("three\n".to_owned()),]
        );
    }

    #[test]
    fn a_line_too_long_is_thrown_away_and_counted() {
        for step in 1..60 {
            let text = format!("a\n{}\nb\n{}", "x".repeat(50), "y".repeat(30));
            let pieces = pieces(&text, step, true);
            assert_eq!(pieces, [Ok("a\n".into()), Err(50), Ok("b\n".into()), Err(30)], "{step}");
        }
    }

    #[test]
    fn the_head_holds_a_whole_line_and_is_not_lost() {
        for step in 1..20 {
            let input =
                Slow(io::Cursor::new(b"\xef\xbb\xbf\n \nfirst line\nsecond\n".to_vec()), step);
            let mut cutter = Cutter::new(Box::new(input), false, CHUNK, LINE_CAP);
            let head = cutter.head().unwrap().to_vec();
            assert_eq!(detect::first_line(&head).unwrap(), b"first line");
            let mut all = Vec::new();
            let mut chunk = Chunk::default();
            while cutter.next(&mut chunk).unwrap() {
                all.extend_from_slice(&chunk.bytes);
            }
            assert_eq!(all, b"\n \nfirst line\nsecond\n");
        }
    }
}
