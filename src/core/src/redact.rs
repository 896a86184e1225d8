//! Takes secrets out of what processes were called with, before anything is written.
//!
//! Found are: user-info in URLs; the values of credential headers; the values of options and variables
//! that are named like a password, token, secret or key, as `--password X`, `--password=X`,
//! `PASSWORD=X`, also inside one argument (`sh -c '...'`). A short option (`-p`) means something else to
//! every program and stays. The scan is one pass over ASCII marks: its time is linear, whatever the text.

mod names;

use std::borrow::Cow;

use crate::arguments::Arguments;
use crate::text::Text;
use names::{NAME_LIMIT, is_header, is_name_byte, is_scheme, is_script_option, is_secret};

/// What stands in place of a secret.
pub const MARK: &str = "[redacted]";

/// Replaces secrets and counts them.
#[derive(Debug)]
pub struct Redactor {
    on: bool,
    count: u32,
}

impl Redactor {
    /// One that does nothing where `on` is false.
    pub fn new(on: bool) -> Self {
        Self { on, count: 0 }
    }

    /// How many secrets were replaced so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// A text without its secrets.
    pub fn text(&mut self, text: &Text) -> String {
        self.line(text.as_str()).into_owned()
    }

    /// A line of text without its secrets.
    pub fn line<'a>(&mut self, line: &'a str) -> Cow<'a, str> {
        if !self.on {
            return Cow::Borrowed(line);
        }
        let spans = spans(line);
        self.count = self.count.saturating_add(u32::try_from(spans.len()).unwrap_or(u32::MAX));
        if spans.is_empty() { Cow::Borrowed(line) } else { Cow::Owned(replace(line, &spans)) }
    }

    /// Arguments without their secrets. Their number stays.
    pub fn arguments(&mut self, arguments: &Arguments) -> Arguments {
        if !self.on {
            return arguments.clone();
        }
        let mut next = Next::Plain;
        arguments.map(|before, argument| {
            let expected = std::mem::replace(&mut next, Next::Plain);
            let script = before.is_some_and(is_script_option);
            match expected {
                // `--password --user x` asks for the password: the next option is none.
                Next::Value if before.is_some() && argument.starts_with("--") => {
                    self.argument(argument, script, &mut next)
                }
                Next::Header if is_scheme(argument) => {
                    next = Next::Value;
                    None
                }
                Next::Value | Next::Header => self.whole(argument, &mut next),
                // Only the first argument behind the gap has none before it: what the gap cut apart is
                // taken out on both sides.
                Next::Rest if before.is_none() => self.whole(argument, &mut next),
                Next::Rest | Next::Plain => self.argument(argument, script, &mut next),
            }
        })
    }

    fn whole(&mut self, argument: &str, next: &mut Next) -> Option<String> {
        *next = Next::Rest;
        if argument.is_empty() {
            return None;
        }
        self.count = self.count.saturating_add(1);
        Some(MARK.to_owned())
    }

    /// One argument by itself; says what that makes of the next one.
    fn argument(&mut self, argument: &str, script: bool, next: &mut Next) -> Option<String> {
        if let Some(name) = argument.strip_prefix('-')
            && is_secret(name)
        {
            *next = Next::Value;
            return None;
        }
        if let Some(name) = argument.strip_suffix(':')
            && is_header(name)
        {
            *next = Next::Header;
            return None;
        }
        // Outside a script the value ends with the argument: the shell has taken its quotes away.
        let value = if script { None } else { first(argument) };
        let spans = match value {
            Some(start) => vec![(start, argument.len())],
            None => spans(argument),
        };
        if spans.last().is_some_and(|(_, end)| *end == argument.len()) {
            *next = Next::Rest;
        }
        if spans.is_empty() {
            return None;
        }
        self.count = self.count.saturating_add(u32::try_from(spans.len()).unwrap_or(u32::MAX));
        Some(replace(argument, &spans))
    }
}

/// What the argument after this one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Plain,
    /// A secret.
    Value,
    /// The value of a header, which may begin with a scheme.
    Header,
    /// If a gap comes first: the rest of a secret.
    Rest,
}

/// Where the value starts in `NAME=value`, `--name=value` or `Name: value`.
fn first(argument: &str) -> Option<usize> {
    let at = argument.find(['=', ':'])?;
    let (name, rest) = argument.split_at(at);
    if rest.starts_with('=') {
        return (is_secret(name) && rest.len() > 1).then_some(at + 1);
    }
    let value = rest.get(1..)?;
    let blank = value.len() - value.trim_start().len();
    (is_header(name) && blank < value.len()).then_some(at + 1 + blank)
}

fn replace(text: &str, spans: &[(usize, usize)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (start, end) in spans {
        out.push_str(text.get(from..*start).unwrap_or_default());
        out.push_str(MARK);
        from = *end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// Secrets in a text, in order and apart from one another. Each starts and ends at an ASCII character
/// or at the text's edge, so that both are edges of characters.
fn spans(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while let Some(found) = next_mark(bytes, at) {
        let span = match bytes[found] {
            b'=' => assignment(bytes, found),
            b':' if bytes[found..].starts_with(b"://") => user_info(bytes, found),
            b':' => header(bytes, found),
            _ => option(bytes, found),
        };
        at = match span {
            Some((start, end)) if start < end => {
                spans.push((start, end));
                end
            }
            _ => found + 1,
        };
    }
    spans
}

/// The next `=`, `:`, or `--` at the start of a word.
fn next_mark(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + memchr::memchr3(b'=', b':', b'-', bytes.get(from..)?)?;
        let starts_option =
            || bytes[at..].starts_with(b"--") && (at == 0 || !is_name_byte(bytes[at - 1]));
        if bytes[at] != b'-' || starts_option() {
            return Some(at);
        }
        from = at + 1;
    }
}

/// `NAME=value`
fn assignment(bytes: &[u8], equals: usize) -> Option<(usize, usize)> {
    is_secret(name_before(bytes, equals)).then(|| word(bytes, equals + 1))
}

/// `--name value`
fn option(bytes: &[u8], dashes: usize) -> Option<(usize, usize)> {
    let rest = &bytes[dashes..];
    let length = rest.iter().take(NAME_LIMIT).position(|byte| !is_name_byte(*byte))?;
    if !rest[length].is_ascii_whitespace() || !is_secret(ascii(&rest[..length])) {
        return None;
    }
    let blank = rest[length..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let start = dashes + length + blank;
    if bytes[start..].starts_with(b"--") {
        return None;
    }
    Some(word(bytes, start))
}

/// `scheme://user:password@`
fn user_info(bytes: &[u8], colon: usize) -> Option<(usize, usize)> {
    if colon == 0 || !bytes[colon - 1].is_ascii_alphanumeric() {
        return None;
    }
    let start = colon + 3;
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"/?#'\"<>".contains(byte);
    let rest = &bytes[start..];
    let authority = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
    let at = memchr::memrchr(b'@', authority)?;
    Some((start, start + at))
}

/// `Name: value`, up to the quote that it stands in or the end of the line.
fn header(bytes: &[u8], colon: usize) -> Option<(usize, usize)> {
    let name = name_before(bytes, colon);
    if !is_header(name) {
        return None;
    }
    let before = colon.checked_sub(name.len() + 1).map(|at| bytes[at]);
    let quote = before.filter(|byte| matches!(byte, b'\'' | b'"'));
    let rest = &bytes[colon + 1..];
    let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    let ends = |byte: &u8| match quote {
        Some(quote) => *byte == quote,
        None => matches!(byte, b'\'' | b'"' | b'\n' | b'\r'),
    };
    let length = rest[start..].iter().position(ends).unwrap_or(rest.len() - start);
    Some((colon + 1 + start, colon + 1 + start + length))
}

/// A value in a shell's line: what stands between quotes, or a word.
fn word(bytes: &[u8], start: usize) -> (usize, usize) {
    let rest = bytes.get(start..).unwrap_or_default();
    match rest.first() {
        Some(quote @ (b'\'' | b'"')) => {
            let inner = &rest[1..];
            let length = memchr::memchr(*quote, inner).unwrap_or(inner.len());
            (start + 1, start + 1 + length)
        }
        _ => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || b"'\"&;|<>`".contains(byte);
            (start, start + rest.iter().position(ends).unwrap_or(rest.len()))
        }
    }
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The name that ends right before `end`.
fn name_before(bytes: &[u8], end: usize) -> &str {
    let window = &bytes[end.saturating_sub(NAME_LIMIT)..end];
    let length = window.iter().rev().take_while(|byte| is_name_byte(**byte)).count();
    ascii(&window[window.len() - length..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(arguments: &[&str]) -> (String, u32) {
        let mut redactor = Redactor::new(true);
        let line = redactor.arguments(&Arguments::from_list(arguments)).command_line();
        (line, redactor.count())
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let cases: &[(&[&str], &str)] = &[
            (&["curl", "https://u:p@h/x"], "curl https://[redacted]@h/x"),
            (&["git", "clone", "ssh://git@h:22/x"], "git clone ssh://[redacted]@h:22/x"),
            (&["curl", "-H", "Authorization: Bearer abc"], "curl -H Authorization: [redacted]"),
            (
                &["curl", "-H", "authorization:", "Bearer", "abc", "u"],
                "curl -H authorization: Bearer [redacted] u",
            ),
            (&["curl", "-HAuthorization:", "x"], "curl -HAuthorization: x"),
            (&["mysql", "--password", "x y", "db"], "mysql --password [redacted] db"),
            (&["mysql", "--password=x y", "db"], "mysql --password=[redacted] db"),
            (&["mysql", "--password", "--user", "u"], "mysql --password --user u"),
            (&["x", "--API-Key", "k", "-token", "t"], "x --API-Key [redacted] -token [redacted]"),
            (
                &["env", "AWS_SECRET_ACCESS_KEY=a", "GITHUB_TOKEN=b", "PWD=/x"],
                "env AWS_SECRET_ACCESS_KEY=[redacted] GITHUB_TOKEN=[redacted] PWD=/x",
            ),
            (&["env", "db_pwd=a", "OLDPWD=/y"], "env db_pwd=[redacted] OLDPWD=/y"),
            (
                &["sh", "-c", "PGPASSWORD='a b' psql; TOKEN=x; curl --secret s u"],
                "sh -c PGPASSWORD='[redacted]' psql; TOKEN=[redacted]; curl --secret [redacted] u",
            ),
            (
                &["sh", "-c", "curl -H 'Authorization: Basic dTpw' https://h"],
                "sh -c curl -H 'Authorization: [redacted]' https://h",
            ),
            (
                &["sh", "-c", "curl -H \"X-Api-Key: k\" http://u@h | tee"],
                "sh -c curl -H \"X-Api-Key: [redacted]\" http://[redacted]@h | tee",
            ),
            (
                &["curl", "http://h/?a=1&access_token=t&b=2"],
                "curl http://h/?a=1&access_token=[redacted]&b=2",
            ),
        ];
        for (arguments, expected) in cases {
            let (line, count) = redacted(arguments);
            assert_eq!(line, *expected);
            assert_eq!(count as usize, line.matches(MARK).count(), "{line}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        let lines: &[&[&str]] = &[
            &["tcpdump", "-p", "-i", "eth0", "-w", "token.pcap"],
            &["x", "--bypass", "y", "--password-file", "/p", "--tokens=3", "a=b"],
            &["ls", "C:\\a", "time: 12:30", "mail@host", "http://h/@x"],
            &["x", "--password="],
            &["x", "--password"],
            &["ünïcödé=ä", "--tökèn", "ß"],
        ];
        for line in lines {
            assert_eq!(redacted(line), (line.join(" "), 0));
        }
        let mut off = Redactor::new(false);
        let arguments = Arguments::from_list(["--password", "x"]);
        assert_eq!(off.arguments(&arguments), arguments);
        assert_eq!((off.line("TOKEN=x").as_ref(), off.count()), ("TOKEN=x", 0));
    }

    #[test]
    fn a_secret_across_the_gap_goes_on_both_sides() {
        let long = "q".repeat(100_000);
        for arguments in [&["x", "--password", &long][..], &["x", &format!("TOKEN={long}")]] {
            let (line, _) = redacted(arguments);
            assert!(!line.contains("qq"), "{:.80}", line);
        }
    }

    #[test]
    fn hostile_text_costs_no_more_than_its_length() {
        let units = [
            "a=",
            "://",
            "a://@",
            "--",
            "--token ",
            "token=",
            "authorization:",
            "@",
            "é",
            "'",
            "-",
        ];
        let started = std::time::Instant::now();
        for unit in units {
            let text = unit.repeat((1 << 18) / unit.len());
            let mut redactor = Redactor::new(true);
            let _ = redactor.line(&text);
            let _ = redactor.arguments(&Arguments::from_list([&text, &text]));
        }
        // 5 MB of it; a quadratic scan of one such text alone would take minutes.
        assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    }

    #[test]
    fn never_breaks_a_character() {
        let signs =
            ["=", ":", "://", "@", "--token", " ", "'", "\"", "é", "☃", "token", "cookie", "\\x"];
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text += signs[(state >> 33) as usize % signs.len()];
            }
            let mut redactor = Redactor::new(true);
            let line = redactor.line(&text).into_owned();
            assert_eq!(redactor.count() as usize, line.matches(MARK).count(), "{text}");
        }
    }
}
