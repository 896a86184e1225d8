//! Foreign text in a line for people.

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
