//! Text that came from a watched process or from the kernel: hostile, bounded, never trusted.
//!
//! [`Text`] is always valid UTF-8. What was valid is kept as it was (control characters too: each
//! sink escapes for itself); a byte that was not valid becomes `\xNN`, and only then a real backslash
//! becomes `\\`, which [`Text::is_escaped`] tells. Ordinary names, Windows paths among them, read as
//! they are.

use std::fmt::{self, Write as _};

use serde::de::{self, MapAccess};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name, path or other text of foreign origin.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text {
    text: Box<str>,
    /// Bytes of the original, more than what was kept where it was cut.
    length: u64,
    escaped: bool,
}

impl Text {
    /// Takes all of `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::from_bytes_cut(bytes, bytes.len() as u64)
    }

    /// Takes the part that was kept of an original of `length` bytes.
    pub fn from_bytes_cut(bytes: &[u8], length: u64) -> Self {
        let (text, escaped) = escape(bytes);
        Self { text: text.into_boxed_str(), length: length.max(bytes.len() as u64), escaped }
    }

    /// Takes at most `limit` bytes of `bytes`, cut at a character's edge, and remembers the full length.
    pub fn from_bytes_limited(bytes: &[u8], limit: usize) -> Self {
        Self::from_bytes_cut(cut(bytes, limit), bytes.len() as u64)
    }

    /// The text. Bad bytes of the original stand as `\xNN`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Length of the original in bytes.
    pub fn original_len(&self) -> u64 {
        self.length
    }

    /// Whether the original had bytes that are no UTF-8.
    pub fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// Whether only a part of the original was kept.
    pub fn is_cut(&self) -> bool {
        self.length > kept_len(&self.text, self.escaped)
    }

    /// Memory that it takes beside its own fields, in bytes.
    pub fn weight(&self) -> usize {
        self.text.len()
    }
}

/// The longest prefix of at most `limit` bytes that does not end inside a UTF-8 character.
pub fn cut(bytes: &[u8], limit: usize) -> &[u8] {
    if bytes.len() <= limit {
        return bytes;
    }
    let mut end = limit;
    // A UTF-8 character has at most three continuation bytes; in bad text any edge will do.
    while end > 0 && limit - end < 4 && bytes[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    if limit - end == 4 { &bytes[..limit] } else { &bytes[..end] }
}

/// Valid UTF-8 from any bytes, and whether escapes were needed.
pub(crate) fn escape(bytes: &[u8]) -> (String, bool) {
    if let Ok(valid) = std::str::from_utf8(bytes) {
        return (valid.to_owned(), false);
    }
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for part in chunk.valid().split_inclusive('\\') {
            out.push_str(part);
            if part.ends_with('\\') {
                out.push('\\');
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    (out, true)
}

/// Bytes of the original that `text` stands for.
pub(crate) fn kept_len(text: &str, escaped: bool) -> u64 {
    if !escaped {
        return text.len() as u64;
    }
    let mut rest = text.as_bytes();
    let mut length = 0;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let width = if rest.get(at + 1) == Some(&b'x') { 4 } else { 2 };
        length += at as u64 + 1;
        rest = rest.get(at + width..).unwrap_or_default();
    }
    length + rest.len() as u64
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self { text: text.into(), length: text.len() as u64, escaped: false }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self { length: text.len() as u64, text: text.into_boxed_str(), escaped: false }
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        &*self.text == other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for Text {
    /// A plain string where that says all; else an object with `text`, `length` and `escaped`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.escaped && self.length == self.text.len() as u64 {
            return serializer.serialize_str(&self.text);
        }
        let mut object = serializer.serialize_struct("Text", 3)?;
        object.serialize_field("text", &self.text)?;
        object.serialize_field("length", &self.length)?;
        object.serialize_field("escaped", &self.escaped)?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or an object with text, length and escaped")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text::from(text))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Text, E> {
                Ok(Text::from(text))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Text, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Wire {
                    text: Box<str>,
                    #[serde(default)]
                    length: u64,
                    #[serde(default)]
                    escaped: bool,
                }
                let wire = Wire::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let length = wire.length.max(kept_len(&wire.text, wire.escaped));
                Ok(Text { text: wire.text, length, escaped: wire.escaped })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_text_is_kept_as_it_is() {
        for text in ["/usr/bin/tcpdump", r"C:\Windows\System32\x64\pktmon.exe", "päck\u{1b}[2J\n"]
        {
            let kept = Text::from_bytes(text.as_bytes());
            assert_eq!(kept.as_str(), text);
            assert!(!kept.is_escaped() && !kept.is_cut());
            assert_eq!(serde_json::to_string(&kept).unwrap(), serde_json::to_string(text).unwrap());
        }
    }

    #[test]
    fn bad_bytes_are_escaped_without_doubt() {
        let real = Text::from_bytes(b"a\\xff\xff");
        assert_eq!(real.as_str(), r"a\\xff\xff");
        assert!(real.is_escaped() && !real.is_cut());
        let back: Text = serde_json::from_str(&serde_json::to_string(&real).unwrap()).unwrap();
        assert_eq!(back, real);
    }

    #[test]
    fn a_cut_is_remembered() {
        let long = "é".repeat(600);
        let kept = Text::from_bytes_limited(long.as_bytes(), 1023);
        assert_eq!(kept.as_str().len(), 1022);
        assert!(kept.is_cut());
        assert_eq!(kept.original_len(), 1200);
        let back: Text = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        assert_eq!(back, kept);
        let junk = [0x80u8; 64];
        assert_eq!(cut(&junk, 10).len(), 10);
    }
}
