//! What is wrong with a configuration: line, key, and what was most likely meant.

use std::path::Path;

/// What is wrong with a configuration, and where.
#[derive(Debug)]
pub struct Wrong {
    /// Line, from 1, where it could be told.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub next: String,
}

impl Wrong {
    /// From what the parser says about `text`.
    pub fn new(text: &str, error: &toml::de::Error) -> Self {
        let message = plain(&error.message().trim_end().replace('\n', ", "));
        let line = error.span().and_then(|span| {
            let first = text.get(..span.start)?.matches('\n').count() + 1;
            // Of an error over a whole table the parser gives the table's header.
            let rest = text.get(span.start..)?;
            let is_header = rest.starts_with('[');
            let table = rest.split("\n[").next().filter(|_| is_header);
            let within = table.and_then(|table| line_of_key(table, &message));
            Some(first + within.unwrap_or(0))
        });
        let nearest = message.strip_prefix("unknown ").and_then(|rest| {
            let mut names = rest.split('`').skip(1).step_by(2);
            let given = names.next()?;
            nearest(given, names)
        });
        let next = match nearest {
            Some(name) => format!("did you mean `{name}`?"),
            None => "`bpfwatch config default` shows every key with its default".to_owned(),
        };
        // A wrong value is told without its key, which stands before it on its line.
        let key = line.and_then(|line| key(text.lines().nth(line - 1)?));
        let what = match key {
            Some(key) if !message.contains(&format!("`{key}`")) => format!("`{key}`: {message}"),
            _ => message,
        };
        Self { line, what, next }
    }

    /// With the file that it is in.
    pub fn at(&self, file: &Path) -> String {
        match self.line {
            Some(line) => format!("{}:{line}: {}", file.display(), self.what),
            None => format!("{}: {}", file.display(), self.what),
        }
    }
}

/// Types as people call them.
fn plain(message: &str) -> String {
    let mut message = message.to_owned();
    for (theirs, ours) in [
        ("expected a sequence", "expected a list in brackets"),
        ("expected a map", "expected a table"),
    ] {
        message = message.replace(theirs, ours);
    }
    for number in ["u64", "u32", "u16", "usize"] {
        message = message.replace(&format!("expected {number}"), "expected a whole number from 0");
    }
    message
}

/// The line, from 0, of the key that a message about a whole table begins with: `` `spool.name` is ... ``.
fn line_of_key(table: &str, message: &str) -> Option<usize> {
    let named = message.strip_prefix('`')?.split('`').next()?;
    let last = named.rsplit('.').next()?;
    table.lines().position(|line| {
        let written = key(line);
        written.is_some_and(|key| key == named || key == last)
            || line.contains(&format!("{last} ="))
    })
}

/// The bare key of a line `key = value`.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!key.is_empty() && key.chars().all(bare)).then_some(key)
}

/// The name that was most likely meant: at most a third of it is mistyped.
pub fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::osa_distance(given, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(given.len()).div_ceil(3))
        .min()
        .map(|(_, name)| name)
}
