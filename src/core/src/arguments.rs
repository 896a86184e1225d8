//! A process's argument list: the first 24 KiB and the last 8 KiB, and how much there was.
//!
//! Padding a command line so that the telling flag falls off the end is an evasion: so the end is
//! kept too, and a cut is a field that rules can match.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess};
use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text;

/// Bytes kept from the start of the arguments.
pub const HEAD_LIMIT: usize = 24 * 1024;
/// Bytes kept from the end of the arguments.
pub const TAIL_LIMIT: usize = 8 * 1024;

/// The arguments of one process, `argv[0]` first.
///
/// Held as one string with NUL between arguments: the kernel hands them out so on every system, and
/// ten thousand arguments cost one allocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Arguments {
    head: Box<str>,
    tail: Option<Box<str>>,
    count: u32,
    length: u64,
    escaped: bool,
}

impl Arguments {
    /// From NUL-separated bytes, as `/proc/PID/cmdline` and `kern.proc.args` give them. One NUL at the
    /// end is a terminator, not an empty last argument.
    pub fn from_nul_separated(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        if bytes.is_empty() {
            return Self::default();
        }
        let count = memchr::memchr_iter(0, bytes).count() + 1;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Self::from_parts(bytes, bytes.len() as u64, count)
    }

    /// From a list of arguments.
    pub fn from_list<I, A>(list: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: AsRef<[u8]>,
    {
        let mut bytes = Vec::new();
        let mut count = 0u32;
        for argument in list {
            if count > 0 {
                bytes.push(0);
            }
            // An embedded NUL cannot come from a real process; as a separator it would forge one.
            bytes.extend(argument.as_ref().iter().map(|b| if *b == 0 { b' ' } else { *b }));
            count = count.saturating_add(1);
        }
        Self::from_parts(&bytes, bytes.len() as u64, count)
    }

    /// From the two ends of a list that was too long to be held: `head` has at least [`HEAD_LIMIT`] bytes
    /// from the start, `tail` at least [`TAIL_LIMIT`] from the end, without the last terminator. `length`
    /// is the length of the whole list in bytes, `count` the number of arguments in it.
    pub fn from_ends(head: &[u8], tail: &[u8], length: u64, count: u32) -> Self {
        let (head, head_escaped) = text::escape(text::cut(head, HEAD_LIMIT));
        let (tail, tail_escaped) = text::escape(Self::end(tail));
        Self {
            head: head.into_boxed_str(),
            tail: Some(tail.into_boxed_str()),
            count,
            length,
            escaped: head_escaped || tail_escaped,
        }
    }

    /// The last [`TAIL_LIMIT`] bytes, from a character's edge.
    fn end(bytes: &[u8]) -> &[u8] {
        let end = &bytes[bytes.len().saturating_sub(TAIL_LIMIT)..];
        let skip = end.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
        &end[skip..]
    }

    fn from_parts(bytes: &[u8], length: u64, count: u32) -> Self {
        if bytes.len() <= HEAD_LIMIT + TAIL_LIMIT {
            let (head, escaped) = text::escape(bytes);
            return Self { head: head.into_boxed_str(), tail: None, count, length, escaped };
        }
        Self::from_ends(bytes, bytes, length, count)
    }

    /// How many arguments the process had.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the whole list, separators included.
    pub fn original_len(&self) -> u64 {
        self.length
    }

    /// Whether the middle was dropped.
    pub fn is_cut(&self) -> bool {
        self.tail.is_some() || self.length > text::kept_len(&self.head, self.escaped)
    }

    /// The kept arguments from the start; the last one may be cut.
    pub fn head(&self) -> impl Iterator<Item = &str> {
        let some = if self.count == 0 { None } else { Some(self.head.split('\0')) };
        some.into_iter().flatten()
    }

    /// The kept arguments from the end where the middle was dropped; the first one may be cut.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().flat_map(|tail| tail.split('\0'))
    }

    /// The command line as Sigma rules see it: arguments joined by a space, ` … ` where the middle is
    /// missing.
    pub fn command_line(&self) -> String {
        let mut line = self.head.replace('\0', " ");
        if let Some(tail) = &self.tail {
            line.push_str(" … ");
            line.push_str(&tail.replace('\0', " "));
        } else if self.is_cut() {
            line.push_str(" …");
        }
        line
    }

    /// A copy that keeps at most `limit` bytes from the start, for ancestors and the process table.
    pub fn shortened(&self, limit: usize) -> Self {
        if self.tail.is_none() && self.head.len() <= limit {
            return self.clone();
        }
        let head = std::str::from_utf8(text::cut(self.head.as_bytes(), limit)).unwrap_or_default();
        // A cut inside an escape would leave half of it.
        let head = if self.escaped {
            head.rsplit_once('\\').map_or(head, |(front, _)| front)
        } else {
            head
        };
        Self { head: head.into(), tail: None, ..*self }
    }

    /// A copy with each kept argument passed through `change`, which also sees the one before it.
    pub fn map(&self, mut change: impl FnMut(Option<&str>, &str) -> Option<String>) -> Self {
        let mut rewrite = |part: &str| {
            let mut out = String::with_capacity(part.len());
            let mut before = None;
            for (index, argument) in part.split('\0').enumerate() {
                if index > 0 {
                    out.push('\0');
                }
                match change(before, argument) {
                    Some(new) => out.push_str(&new),
                    None => out.push_str(argument),
                }
                before = Some(argument);
            }
            out.into_boxed_str()
        };
        let mut new = Self {
            head: rewrite(&self.head),
            tail: self.tail.as_deref().map(&mut rewrite),
            ..*self
        };
        // What was cut stays cut, and what was whole stays whole.
        new.length = self.length.saturating_sub(self.kept()) + new.kept();
        new
    }

    /// Bytes of the original that were kept.
    fn kept(&self) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |tail| text::kept_len(tail, self.escaped));
        text::kept_len(&self.head, self.escaped) + tail
    }

    /// Memory beside its own fields, in bytes.
    pub fn weight(&self) -> usize {
        self.head.len() + self.tail.as_ref().map_or(0, |tail| tail.len())
    }
}

struct List<'a>(&'a str);

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for argument in self.0.split('\0') {
            seq.serialize_element(argument)?;
        }
        seq.end()
    }
}

impl Serialize for Arguments {
    /// An array of strings where nothing was cut or escaped, else an object.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.count == 0 {
            return serializer.serialize_seq(Some(0))?.end();
        }
        if !self.escaped && !self.is_cut() {
            return List(&self.head).serialize(serializer);
        }
        let mut object = serializer.serialize_struct("Arguments", 5)?;
        object.serialize_field("head", &List(&self.head))?;
        match &self.tail {
            Some(tail) => object.serialize_field("tail", &List(tail))?,
            None => object.skip_field("tail")?,
        }
        object.serialize_field("count", &self.count)?;
        object.serialize_field("length", &self.length)?;
        object.serialize_field("escaped", &self.escaped)?;
        object.end()
    }
}

/// Collects a JSON array of strings into one NUL-separated string.
#[derive(Default)]
struct Joined {
    text: String,
    count: u32,
}

impl<'de> Deserialize<'de> for Joined {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Joined;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of strings")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Joined, A::Error> {
                joined(seq)
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

fn joined<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Joined, A::Error> {
    /// Appends one string to the text without an allocation of its own.
    struct Append<'a>(&'a mut Joined);
    impl<'de> de::DeserializeSeed<'de> for Append<'_> {
        type Value = ();
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_str(self)
        }
    }
    impl de::Visitor<'_> for Append<'_> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_str<E: de::Error>(self, argument: &str) -> Result<(), E> {
            if self.0.count > 0 {
                self.0.text.push('\0');
            }
            if memchr::memchr(0, argument.as_bytes()).is_some() {
                self.0.text.push_str(&argument.replace('\0', " "));
            } else {
                self.0.text.push_str(argument);
            }
            self.0.count = self.0.count.saturating_add(1);
            Ok(())
        }
    }
    // Enough for most; growing from nothing copies the text several times.
    let mut out = Joined { text: String::with_capacity(1024), count: 0 };
    while seq.next_element_seed(Append(&mut out))?.is_some() {}
    Ok(out)
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Arguments;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an array of strings, or an object with head, tail, count, length, escaped",
                )
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Arguments, A::Error> {
                let all = joined(seq)?;
                let length = all.text.len() as u64;
                if all.text.len() > HEAD_LIMIT + TAIL_LIMIT {
                    return Ok(Arguments::from_parts(all.text.as_bytes(), length, all.count));
                }
                Ok(Arguments {
                    head: all.text.into_boxed_str(),
                    tail: None,
                    count: all.count,
                    length,
                    escaped: false,
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Arguments, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Wire {
                    head: Joined,
                    tail: Option<Joined>,
                    count: u32,
                    length: u64,
                    #[serde(default)]
                    escaped: bool,
                }
                let wire = Wire::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let tail = wire.tail.map(|tail| tail.text.into_boxed_str());
                let kept = wire.head.text.len() + tail.as_ref().map_or(0, |tail| tail.len());
                // Escapes lengthen by at most four; more than that no recording of ours holds.
                if kept > 4 * (HEAD_LIMIT + TAIL_LIMIT) {
                    return Err(de::Error::custom("arguments longer than a recording keeps"));
                }
                Ok(Arguments {
                    head: wire.head.text.into_boxed_str(),
                    tail,
                    count: wire.count,
                    length: wire.length,
                    escaped: wire.escaped,
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_gives() {
        let args = Arguments::from_nul_separated(b"tcpdump\0-i\0lo\0");
        assert_eq!(args.command_line(), "tcpdump -i lo");
        assert_eq!(args.count(), 3);
        assert_eq!(serde_json::to_string(&args).unwrap(), r#"["tcpdump","-i","lo"]"#);
        assert_eq!(serde_json::from_str::<Arguments>(r#"["tcpdump","-i","lo"]"#).unwrap(), args);
        let empty = Arguments::from_nul_separated(b"");
        assert_eq!(serde_json::to_string(&empty).unwrap(), "[]");
        assert_eq!(empty.head().count(), 0);
    }

    #[test]
    fn two_megabytes_keep_both_ends() {
        let mut list: Vec<String> = (0..10_000).map(|n| format!("{n:0>200}")).collect();
        list.push("--interface=eth0".into());
        let args = Arguments::from_list(&list);
        assert_eq!(args.count(), 10_001);
        assert!(args.is_cut());
        assert!(args.weight() <= HEAD_LIMIT + TAIL_LIMIT);
        assert!(args.command_line().ends_with("--interface=eth0"));
        assert!(args.original_len() > 2_000_000);
        let bytes = list.join("\0");
        let (head, tail) = (&bytes.as_bytes()[..30_000], &bytes.as_bytes()[bytes.len() - 9_000..]);
        assert_eq!(Arguments::from_ends(head, tail, bytes.len() as u64, 10_001), args);
        let json = serde_json::to_string(&args).unwrap();
        assert_eq!(serde_json::from_str::<Arguments>(&json).unwrap(), args);
    }

    #[test]
    fn bad_bytes_and_forged_separators() {
        let args = Arguments::from_list([b"a\0b".as_slice(), b"\xff\\"]);
        assert_eq!(args.command_line(), "a b \\xff\\\\");
        assert_eq!(args.count(), 2);
        let json = serde_json::to_string(&args).unwrap();
        assert_eq!(serde_json::from_str::<Arguments>(&json).unwrap(), args);
    }

    #[test]
    fn shortened_is_marked_as_cut() {
        let args = Arguments::from_list(["x".repeat(5000).as_str(), "-w"]);
        let short = args.shortened(1024);
        assert_eq!(short.weight(), 1024);
        assert!(short.is_cut());
    }
}
