//! Foreign text: in a line for people, and out of hexadecimal.

/// The first line that is not blank, cut to `limit` bytes at a character's edge.
pub(crate) fn first_line(text: &str, limit: usize) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.next().unwrap_or_default();
    let cut = shortened(line, limit);
    if cut.len() == line.len() && lines.next().is_some() { format!("{cut} …") } else { cut }
}

/// The text, or its start of at most `limit` bytes with `…` after it.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Bytes from hexadecimal; `None` where it is none.
pub(crate) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
