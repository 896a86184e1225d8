//! Text that cannot steer a terminal, and cutting and wrapping by display width.
//!
//! [`escaped`] shows every character that moves a cursor, changes the reading direction or takes no
//! space as an escape: `\x1b`, `\n`, `\u{202e}`. A real backslash stays as it is, so that ordinary
//! names read well; who needs to tell `\n` from a newline reads the JSON.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar;

/// Marks a place where something was left out.
pub const ELLIPSIS: char = '…';

/// How many combining marks may follow each other before the rest is escaped: enough for every living
/// script, too few to paint over the lines above.
const MARKS: u32 = 4;

/// Whether a character may not reach a terminal as it is: controls (C0, DEL, C1), format characters
/// (Unicode general category Cf: bidirectional overrides and isolates, zero-width characters, tags),
/// line and paragraph separators, variation selectors, and blanks that look like a space or like
/// nothing.
pub fn is_unsafe(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(u32::from(c),
        0x80..=0xA0 | 0xAD | 0x34F | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890..=0x891 | 0x8E2
        | 0x115F..=0x1160 | 0x1680 | 0x17B4..=0x17B5 | 0x180B..=0x180F | 0x2000..=0x200F
        | 0x2028..=0x202F | 0x205F..=0x206F | 0x2800 | 0x3000 | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF
        | 0xFFA0 | 0xFFF0..=0xFFFB | 0x110BD | 0x110CD | 0x13430..=0x1343F | 0x1BCA0..=0x1BCA3
        | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

/// Bytes of a text that are shown at most: more than sensors keep of a command line.
const TEXT_BYTES: usize = 40 * 1024;

/// `text` with everything unsafe shown as an escape; of more than 40 KiB, both ends.
pub fn escaped(text: &str) -> Cow<'_, str> {
    match cut_bytes(text, TEXT_BYTES) {
        Cow::Borrowed(text) => escape(text),
        Cow::Owned(text) => Cow::Owned(escape(&text).into_owned()),
    }
}

fn escape(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    push_escaped(&mut out, text);
    Cow::Owned(out)
}

/// Columns that a single name may take: more than real paths need, and little enough that a padded one
/// does not push the rest out of sight. The JSON has all of it.
const NAME_COLUMNS: usize = 200;

/// Bytes of a name that are looked at: characters may take many bytes and few columns.
const NAME_BYTES: usize = 4096;

/// `text` escaped and at most 200 columns wide, both of its ends kept: for names and paths.
pub fn name(text: &str) -> Cow<'_, str> {
    let text = match cut_bytes(text, NAME_BYTES) {
        Cow::Borrowed(text) => escape(text),
        Cow::Owned(text) => Cow::Owned(escape(&text).into_owned()),
    };
    match text {
        Cow::Borrowed(text) => cut_middle(text, NAME_COLUMNS),
        Cow::Owned(text) => match cut_middle(&text, NAME_COLUMNS) {
            Cow::Owned(cut) => Cow::Owned(cut),
            Cow::Borrowed(_) => Cow::Owned(text),
        },
    }
}

/// Appends `text` with everything unsafe shown as an escape.
fn push_escaped(out: &mut String, text: &str) {
    let mut marks = 0;
    for c in text.chars() {
        marks = if c.width() == Some(0) { marks + 1 } else { 0 };
        if is_unsafe(c) || marks > MARKS {
            push_escape(out, c);
        } else {
            out.push(c);
        }
    }
}

fn push_escape(out: &mut String, c: char) {
    // Writing to a String cannot fail.
    let _ = match c {
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        c if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

/// Columns that `text` takes on a terminal.
pub fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// `text` in at most `max` columns, its end replaced by `…` where it is longer.
pub fn cut_end(text: &str, max: usize) -> Cow<'_, str> {
    if width(text) <= max {
        return Cow::Borrowed(text);
    }
    let mut out = prefix(text, max.saturating_sub(1)).to_owned();
    if max > 0 {
        out.push(ELLIPSIS);
    }
    Cow::Owned(out)
}

/// `text` in at most `max` columns, its middle replaced by `…` where it is longer: of a command line
/// the program stands at one end and the telling flag may stand at the other.
pub fn cut_middle(text: &str, max: usize) -> Cow<'_, str> {
    if width(text) <= max {
        return Cow::Borrowed(text);
    }
    let room = max.saturating_sub(1);
    let mut out = prefix(text, room - room / 2).to_owned();
    if max > 0 {
        out.push(ELLIPSIS);
    }
    out.push_str(suffix(text, room / 2));
    Cow::Owned(out)
}

/// `text` in at most `max` bytes, its middle replaced by `…` where it is longer.
pub fn cut_bytes(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let room = max.saturating_sub(ELLIPSIS.len_utf8());
    let mut head = room - room / 2;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - room / 2;
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    Cow::Owned(format!("{}{ELLIPSIS}{}", &text[..head], &text[tail..]))
}

/// `text` in at most `max` columns, its beginning replaced by `…` where it is longer: of a path the
/// end tells most.
pub fn cut_start(text: &str, max: usize) -> Cow<'_, str> {
    if width(text) <= max {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    if max > 0 {
        out.push(ELLIPSIS);
    }
    out.push_str(suffix(text, max.saturating_sub(1)));
    Cow::Owned(out)
}

/// The longest beginning of at most `max` columns.
pub fn prefix(text: &str, max: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += char_width(c);
        if used > max {
            return &text[..at];
        }
    }
    text
}

/// The longest end of at most `max` columns. It does not begin with a combining mark.
fn suffix(text: &str, max: usize) -> &str {
    let mut used = 0;
    let mut start = text.len();
    for (at, c) in text.char_indices().rev() {
        used += char_width(c);
        if used > max {
            break;
        }
        if char_width(c) > 0 {
            start = at;
        }
    }
    &text[start..]
}

/// Breaks `text` into pieces of at most `max` columns, at spaces where there are any.
pub fn wrap(text: &str, max: usize) -> Vec<&str> {
    let max = max.max(1);
    let mut pieces = Vec::new();
    let mut rest = text;
    while width(rest) > max {
        let fits = prefix(rest, max);
        let at = match (fits.rfind(' '), rest[fits.len()..].starts_with(' ')) {
            (_, true) => fits.len(),
            // A break far to the left would leave a line nearly empty: break the word instead.
            (Some(space), false) if width(&fits[..space]) * 3 >= max => space,
            // A character wider than the line still has to go somewhere.
            _ if fits.is_empty() => rest.chars().next().map_or(rest.len(), char::len_utf8),
            _ => fits.len(),
        };
        pieces.push(rest[..at].trim_end_matches(' '));
        rest = rest[at..].trim_start_matches(' ');
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(rest);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unsafe_passes() {
        for code in 0..=0x0010_FFFF {
            let Some(c) = char::from_u32(code) else { continue };
            let shown = escaped(c.encode_utf8(&mut [0; 4])).into_owned();
            let plain = shown.chars().eq([c]);
            assert_eq!(plain, !is_unsafe(c), "U+{code:04X}");
            // What the width table calls a control or invisible must not be taken for text, but for
            // combining marks, which have no width and are text.
            assert!(!plain || c.width().is_some(), "U+{code:04X}");
            assert!(!plain || !c.is_control(), "U+{code:04X}");
        }
    }

    #[test]
    fn cuts_by_bytes_and_keeps_both_ends() {
        assert_eq!(cut_bytes(&format!("abc{}xyz", "é".repeat(100)), 9), "abc…xyz");
        for max in 3..60 {
            let text = cut_bytes(&"漢é".repeat(40), max).into_owned();
            assert!(text.len() <= max && text.contains(ELLIPSIS), "{max}: {text}");
        }
    }

    #[test]
    fn escapes_are_readable() {
        assert_eq!(
            escaped("a\u{1b}[2Jb\nc\t\u{202e}\u{9b}\u{7f}é\u{200b}"),
            "a\\x1b[2Jb\\nc\\t\\u{202e}\\u{9b}\\x7fé\\u{200b}"
        );
        assert!(matches!(escaped(r"C:\new"), Cow::Borrowed(r"C:\new")));
        let zalgo = format!("e{}", "\u{301}".repeat(40));
        assert_eq!(escaped(&zalgo).matches("\\u{301}").count(), 36);
    }

    #[test]
    fn cuts_by_columns() {
        assert_eq!(cut_end("abcdef", 4), "abc…");
        assert_eq!(cut_start("abcdef", 4), "…def");
        assert_eq!(cut_middle("tcpdump -i em0 -w out", 11), "tcpdu…w out");
        assert_eq!(cut_end("漢字漢字", 5), "漢字…");
        assert_eq!(cut_middle("漢字漢字", 6), "漢…字");
        assert_eq!(cut_start("漢字漢字", 4), "…字");
        for max in 0..9 {
            for text in ["abcdefgh", "漢字漢字漢字", "e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}"]
            {
                for cut in [cut_end(text, max), cut_middle(text, max), cut_start(text, max)] {
                    assert!(width(&cut) <= max, "{cut:?} is wider than {max}");
                }
            }
        }
    }

    #[test]
    fn wraps_at_spaces_and_loses_nothing() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a bcdefghijkl", 8), ["a bcdefg", "hijkl"]);
        assert_eq!(wrap("", 8), [""]);
        assert_eq!(wrap("漢漢", 1), ["漢", "漢"]);
        assert_eq!(wrap("ab  ", 2), ["ab"]);
    }
}
