//! Sigma rules: loading, listing, evaluation, expected filters, correlation.

use std::sync::Arc;

use crate::finding::RuleRef;

/// One file to load. Reading it is the caller's business.
#[derive(Debug, Clone)]
pub struct RuleFile {
    /// Path as the user knows it, for messages.
    pub path: String,
    /// Its text.
    pub text: String,
    /// The ADS page beside it (`NAME.md` beside `NAME.yml`), if there is one.
    pub page: Option<String>,
}

/// Something wrong with a rule, with its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// File.
    pub path: String,
    /// Line of the file, from 1, where it could be told.
    pub line: Option<usize>,
    /// Title or id of the rule, where it could be told.
    pub rule: Option<String>,
    /// What is wrong, and what would be right.
    pub what: String,
    /// The rule was left out (or: it was loaded, and this is only a remark).
    pub refused: bool,
}

/// What a loaded rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// Matches one event.
    Detection,
    /// Matches several events by time and group.
    Correlation,
    /// Says what is expected.
    Filter,
}

/// A loaded rule, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What outputs show of it.
    pub shown: Arc<RuleRef>,
    /// Detection, correlation or expected filter.
    pub kind: RuleKind,
    /// File.
    pub path: String,
    /// Line of the file, from 1, where the rule starts.
    pub line: usize,
    /// Sigma status.
    pub status: Option<String>,
    /// Logsource in words, such as `linux/process_creation`.
    pub logsource: String,
    /// Description.
    pub description: Option<String>,
    /// Known false positives.
    pub falsepositives: Vec<String>,
    /// The ADS page, Markdown.
    pub page: Option<String>,
    /// Steps of the page's section Response.
    pub response: Vec<String>,
    /// It needs a field that this operating system never supplies: which one.
    pub never_here: Option<String>,
}

/// All loaded rules, compiled.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
}

impl RuleSet {
    /// Loads the files. What cannot be loaded is left out and named; the rest works.
    pub fn load(_files: &[RuleFile]) -> (Self, Vec<Problem>) {
        (Self::default(), Vec::new())
    }

    /// The rules in a fixed order: path, then line.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}
