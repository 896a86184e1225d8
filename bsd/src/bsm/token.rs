//! The tokens of a record (audit.log(5), and contrib/openbsm/libbsm/bsm_io.c of FreeBSD for what the page
//! leaves out). Numbers are big-endian. Nothing is copied.

use std::fmt;

/// AUT_OTHER_FILE32 of bsm/audit_record.h, as all of these.
pub const FILE32: u8 = 0x11;
/// AUT_TRAILER.
pub const TRAILER: u8 = 0x13;
/// AUT_HEADER32.
pub const HEADER32: u8 = 0x14;
/// AUT_HEADER32_EX.
pub const HEADER32_EX: u8 = 0x15;
/// AUT_HEADER64.
pub const HEADER64: u8 = 0x74;
/// AUT_OTHER_FILE64.
pub const FILE64: u8 = 0x78;
/// AUT_HEADER64_EX.
pub const HEADER64_EX: u8 = 0x79;
/// AUT_IDENTITY of macOS: who signed the subject.
pub const IDENTITY: u8 = 0xed;

/// AU_IPv6 of bsm/audit.h.
const AU_IPV6: u32 = 16;
/// Most that sun_path holds (sys/un.h).
const SUN_PATH: usize = 104;

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token<'a> {
    /// What a record begins with.
    Header(Header),
    /// What it ends with: its size in bytes.
    Trailer(u32),
    /// Begin or end of a trail, with the name of the file before or after it.
    File(&'a [u8]),
    /// A path.
    Path(&'a [u8]),
    /// Words.
    Text(&'a [u8]),
    /// Full name of the jail.
    Zone(&'a [u8]),
    /// An argument of the system call.
    Argument {
        /// Which, from 1.
        number: u8,
        /// Its value.
        value: u64,
        /// What it means.
        text: &'a [u8],
    },
    /// Arguments of a program, each ended by a NUL.
    ExecArguments(&'a [u8]),
    /// An environment, which is not looked at.
    ExecEnvironment,
    /// A file.
    Attributes(Attributes),
    /// Who did it.
    Subject(Subject),
    /// Whom it was done to.
    Process(Subject),
    /// How it went.
    Return {
        /// 0 for success, else an error number of BSM.
        error: u8,
        /// What the call returned.
        value: u64,
    },
    /// How a process ended.
    Exit {
        /// Its status.
        status: u32,
        /// What it returned.
        value: u32,
    },
    /// Something that bpfwatch has no use for, by its id.
    Other(u8),
}

/// What a record begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole record.
    pub size: u32,
    /// Version of the format: 11, and 10 before 2009.
    pub version: u8,
    /// Number of the event.
    pub event: u16,
    /// PAD_FAILURE and others.
    pub modifier: u16,
    /// Seconds since the epoch.
    pub seconds: u64,
    /// Milliseconds.
    pub millis: u64,
}

/// A file as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Its file system.
    pub fsid: u32,
    /// Its inode.
    pub node: u64,
    /// Device number of a device; all ones for what is none.
    pub rdev: u64,
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// Audit id: the user who logged in; all ones where nobody did.
    pub auid: u32,
    /// Effective user.
    pub euid: u32,
    /// Effective group.
    pub egid: u32,
    /// Real user.
    pub ruid: u32,
    /// Real group.
    pub rgid: u32,
    /// Its id.
    pub pid: u32,
    /// Its audit session.
    pub session: u32,
    /// Port of its terminal.
    pub port: u64,
}

/// Why a token could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// The bytes end within it.
    CutShort,
    /// Its kind is not known, and so not how long it is.
    Unknown(u8),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::CutShort => f.write_str("a token is cut short"),
            TokenError::Unknown(id) => write!(f, "unknown token 0x{id:02x}"),
        }
    }
}

/// Reads numbers and runs of bytes one after the other.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// From the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Bytes not yet read.
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    /// The same after `count` bytes.
    pub fn skipped(mut self, count: usize) -> Option<Self> {
        self.take(count).map(|_| self)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// The next number of four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// A number of 4 or 8 bytes.
    fn wide(&mut self, wide: bool) -> Option<u64> {
        if wide { self.u64() } else { self.u32().map(u64::from) }
    }

    /// Bytes whose number stands before them.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// The same as text, without its NUL.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.counted().map(crate::bytes::until_nul)
    }

    /// As many strings as stand before them, each with its NUL.
    fn strings(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()? as usize;
        if count == 0 {
            return Some(&[]);
        }
        let end = memchr::memchr_iter(0, self.bytes).nth(count - 1)? + 1;
        self.take(end)
    }

    /// An address after its type.
    fn address(&mut self, kind: u32) -> Option<&'a [u8]> {
        self.take(if kind == AU_IPV6 { 16 } else { 4 })
    }
}

/// The next token, or `None` at the end.
///
/// # Errors
/// When the bytes end within it, or nothing is known of its kind.
pub fn next<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Token<'a>>, TokenError> {
    let Some(id) = cursor.u8() else { return Ok(None) };
    match known(id, cursor) {
        Some(token) => token.map(Some),
        None => Err(TokenError::CutShort),
    }
}

fn known<'a>(id: u8, cursor: &mut Cursor<'a>) -> Option<Result<Token<'a>, TokenError>> {
    let c = cursor;
    Some(Ok(match id {
        HEADER32 | HEADER32_EX | HEADER64 | HEADER64_EX => Token::Header(header(id, c)?),
        TRAILER => {
            c.u16()?;
            Token::Trailer(c.u32()?)
        }
        FILE32 | FILE64 => {
            c.wide(id == FILE64)?;
            c.wide(id == FILE64)?;
            Token::File(c.string()?)
        }
        0x23 => Token::Path(c.string()?),
        0x28 => Token::Text(c.string()?),
        0x60 => Token::Zone(c.string()?),
        0x2d | 0x71 => {
            Token::Argument { number: c.u8()?, value: c.wide(id == 0x71)?, text: c.string()? }
        }
        0x3c => Token::ExecArguments(c.strings()?),
        0x3d => {
            c.strings()?;
            Token::ExecEnvironment
        }
        0x31 | 0x3e | 0x73 => Token::Attributes(attributes(id, c)?),
        0x24 | 0x75 | 0x7a | 0x7c => Token::Subject(subject(id, c)?),
        0x26 | 0x77 | 0x7b | 0x7d => Token::Process(subject(id, c)?),
        0x27 | 0x72 => Token::Return { error: c.u8()?, value: c.wide(id == 0x72)? },
        0x52 => Token::Exit { status: c.u32()?, value: c.u32()? },
        _ => match other(id, c) {
            Some(true) => Token::Other(id),
            Some(false) => return Some(Err(TokenError::Unknown(id))),
            None => return None,
        },
    }))
}

fn header(id: u8, c: &mut Cursor<'_>) -> Option<Header> {
    let (size, version, event, modifier) = (c.u32()?, c.u8()?, c.u16()?, c.u16()?);
    if matches!(id, HEADER32_EX | HEADER64_EX) {
        let kind = c.u32()?;
        c.address(kind)?;
    }
    let wide = matches!(id, HEADER64 | HEADER64_EX);
    Some(Header { size, version, event, modifier, seconds: c.wide(wide)?, millis: c.wide(wide)? })
}

fn attributes(id: u8, c: &mut Cursor<'_>) -> Option<Attributes> {
    let wide = id == 0x73;
    let (mode, uid, gid, fsid, node) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.u64()?);
    Some(Attributes { mode, uid, gid, fsid, node, rdev: c.wide(wide)? })
}

fn subject(id: u8, c: &mut Cursor<'_>) -> Option<Subject> {
    let (auid, euid, egid, ruid, rgid, pid, session) =
        (c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.u32()?);
    let port = c.wide(matches!(id, 0x75 | 0x77 | 0x7c | 0x7d))?;
    // The address of the terminal comes alone, or after its type.
    let kind = if id >= 0x7a { c.u32()? } else { 0 };
    c.address(kind)?;
    Some(Subject { auid, euid, egid, ruid, rgid, pid, session, port })
}

/// Passes over a token that is not used; `Some(false)` where it is not known.
fn other(id: u8, c: &mut Cursor<'_>) -> Option<bool> {
    match id {
        // Arbitrary data: how to print it, size of a unit, units.
        0x21 => {
            c.u8()?;
            let unit = match c.u8()? {
                0 => 1,
                1 => 2,
                2 => 4,
                3 => 8,
                _ => return None,
            };
            let count = usize::from(c.u8()?);
            c.take(count * unit)?;
        }
        // System V IPC, and its permissions.
        0x22 => _ = c.take(5)?,
        0x32 => _ = c.take(28)?,
        // Path of an extended attribute.
        0x25 => _ = c.strings()?,
        // Opaque; a Kerberos principal.
        0x29 | 0xee => _ = c.counted()?,
        // An address, with its type, a header of IP, a port.
        0x2a => _ = c.take(4)?,
        0x7e => {
            let kind = c.u32()?;
            c.address(kind)?;
        }
        0x2b => _ = c.take(20)?,
        0x2c => _ = c.take(2)?,
        // A socket, old and new.
        0x2e => _ = c.take(14)?,
        0x7f => {
            c.take(4)?;
            let kind = u32::from(c.u16()?);
            for _ in 0..2 {
                c.u16()?;
                c.address(kind)?;
            }
        }
        0x80 => _ = c.take(8)?,
        0x81 => _ = c.take(20)?,
        0x82 => {
            c.take(2)?;
            let path = c.bytes.get(..c.bytes.len().min(SUN_PATH))?;
            let length = memchr::memchr(0, path).map_or(path.len(), |end| end + 1);
            c.take(length)?;
        }
        // Position.
        0x2f => _ = c.take(4)?,
        // Groups.
        0x3b => {
            let count = usize::from(c.u16()?);
            c.take(count * 4)?;
        }
        // Privileges.
        0x38 => {
            c.counted()?;
            c.counted()?;
        }
        0x39 => {
            c.u8()?;
            c.counted()?;
        }
        // Capsicum's rights.
        0x83 => _ = c.take(16)?,
        IDENTITY => {
            c.u32()?;
            for _ in 0..2 {
                c.counted()?;
                c.u8()?;
            }
            c.counted()?;
        }
        _ => return Some(false),
    }
    Some(true)
}
