//! Sigma rules: loading, listing, evaluation, expected filters, correlation.
//!
//! rsigma parses, compiles and matches. Around it stands what it leaves open: where a rule comes from
//! and what is wrong with it (`load`, `document`, `check`), which fields there are (`fields`), what is
//! expected and why nothing was said (`expected`), one order of hits (`evaluate`), and guarded
//! correlation (`correlate`).

mod check;
pub mod correlate;
mod correlation;
mod document;
mod evaluate;
mod expected;
pub mod fields;
mod load;
mod page;
mod shape;

use std::fmt;
use std::sync::Arc;

use crate::events::{RuleEvent, SessionEvent};
use crate::finding::{Level, RuleRef};
use crate::observation::Os;

pub use document::FILE_LIMIT;
pub use evaluate::{Hit, Verdict, Withheld};

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
    /// Logsource in words, such as `linux/process_creation`; of a correlation, those of its rules.
    pub logsource: String,
    /// Systems whose events it is evaluated on, in the order of [`fields::SYSTEMS`].
    pub systems: Vec<Os>,
    /// References.
    pub references: Vec<String>,
    /// Description.
    pub description: Option<String>,
    /// Known false positives.
    pub falsepositives: Vec<String>,
    /// The ADS page, Markdown.
    pub page: Option<String>,
    /// Steps of the page's section Response.
    pub response: Vec<String>,
    /// It needs a field that the system of its logsource never supplies (or that no system does): which
    /// one. For a rule that names no system, see [`RuleSet::never_on`].
    pub never_here: Option<String>,
}

/// All loaded rules, compiled.
#[derive(Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    engines: evaluate::Engines,
    filters: Vec<expected::Filter>,
    correlations: Vec<correlation::Correlation>,
    roles: Vec<correlation::Role>,
    /// See [`RuleSet::promiscuous`].
    promiscuous: Option<Level>,
}

impl RuleSet {
    /// Loads the files. What cannot be loaded is left out and named; the rest works.
    pub fn load(files: &[RuleFile]) -> (Self, Vec<Problem>) {
        load::load(files, None)
    }

    /// Loads the files for events of one system alone. All rules are read and listed, but what no such event
    /// can match is not compiled, and pages are not kept.
    pub fn load_for(os: Os, files: &[RuleFile]) -> (Self, Vec<Problem>) {
        load::load(files, Some(os))
    }

    /// The rules in a fixed order: path, then line.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Which rules match the event, and which of them an expected filter withholds.
    ///
    /// Nothing is allocated by us where nothing matches; rsigma's candidate index takes one byte a
    /// rule.
    pub fn evaluate(&self, event: &impl RuleEvent) -> Verdict {
        self.engines.evaluate(event, self)
    }

    /// The highest level of a rule that may say something else of a capture when it becomes promiscuous.
    pub fn promiscuous(&self) -> Option<Level> {
        self.promiscuous
    }

    /// Whether an expected filter that matches the event would withhold one of these hits.
    pub fn withholds(&self, event: &SessionEvent<'_>, hits: &[evaluate::Hit]) -> bool {
        self.engines.withholds(event, hits, self)
    }

    /// The field that the rule of this index needs and `os` never supplies.
    pub fn never_on(&self, index: usize, os: Os) -> Option<&str> {
        self.engines.never_on(index, os)
    }
}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleSet").field("rules", &self.rules).finish_non_exhaustive()
    }
}
