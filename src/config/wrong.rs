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
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| before.matches('\n').count() + 1);
        let message = error.message().trim_end().replace('\n', ", ");
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
