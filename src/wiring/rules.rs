//! Reads rule files and loads them beside the shipped ones.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpfwatch_core::observation::Os;
use bpfwatch_core::rules::{Problem, RuleFile, RuleSet};

use crate::exit::{Code, Failure, plain};
use crate::{config, shipped, trust};

/// A rule file is a few kilobytes: what is larger is none, and must not fill the memory.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// Directories deeper than this are a loop of links.
const DEPTH_LIMIT: usize = 32;

/// Rules in force, and what was left out of them.
pub struct Loaded {
    /// The rules.
    pub set: Arc<RuleSet>,
    /// What is wrong with which file.
    pub problems: Vec<Problem>,
    /// Tells the same rules from others: over the text of every file.
    pub digest: u64,
}

impl Loaded {
    /// How many rules were left out.
    pub fn refused(&self) -> usize {
        self.problems.iter().filter(|problem| problem.refused).count()
    }
}

/// Loads the shipped rules, unless told otherwise, and those of the given directories or files.
///
/// # Errors
/// When a directory cannot be read. A rule that is wrong is no error: it stands in the problems.
pub fn load(use_shipped: bool, paths: &[PathBuf]) -> Result<Loaded, Failure> {
    load_files(built_in(use_shipped), paths, None)
}

/// The same for events of one system alone, see [`RuleSet::load_for`].
///
/// # Errors
/// As [`load`].
pub fn load_for(os: Os, use_shipped: bool, paths: &[PathBuf]) -> Result<Loaded, Failure> {
    load_files(built_in(use_shipped), paths, Some(os))
}

fn built_in(wanted: bool) -> Vec<RuleFile> {
    if wanted { shipped::files() } else { Vec::new() }
}

/// Loads `files`, which are read already, and those of the given directories or files.
///
/// # Errors
/// As [`load`].
pub fn load_beside(files: Vec<RuleFile>, paths: &[PathBuf]) -> Result<Loaded, Failure> {
    load_files(files, paths, None)
}

fn load_files(
    mut files: Vec<RuleFile>,
    paths: &[PathBuf],
    only: Option<Os>,
) -> Result<Loaded, Failure> {
    let mut problems = Vec::new();
    for path in find(paths)? {
        match read(&path) {
            Ok(file) => files.push(file),
            Err(problem) => problems.push(problem),
        }
    }
    let (set, wrong) = match only {
        Some(os) => RuleSet::load_for(os, &files),
        None => RuleSet::load(&files),
    };
    problems.extend(wrong);
    problems.sort();
    Ok(Loaded { set: Arc::new(set), problems, digest: digest(&files) })
}

fn digest(files: &[RuleFile]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        (&file.path, &file.text, &file.page).hash(&mut hasher);
    }
    hasher.finish()
}

/// The rule files in the given directories, and the given files, in a fixed order.
///
/// # Errors
/// When one of the paths is not there or cannot be read.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        let failed = |error: &io::Error| Failure::file("read the rules in", path, error);
        if fs::metadata(path).map_err(|error| failed(&error))?.is_dir() {
            let first = found.len();
            walk(path, &mut found, DEPTH_LIMIT).map_err(|error| failed(&error))?;
            found[first..].sort();
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>, depth: usize) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if hidden {
            continue;
        }
        if path.is_dir() {
            if depth == 0 {
                let what = format!("more than {DEPTH_LIMIT} directories deep");
                return Err(io::Error::other(what));
            }
            walk(&path, found, depth - 1)?;
        } else if path.extension().is_some_and(|end| end == "yml" || end == "yaml") {
            found.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<RuleFile, Problem> {
    let text = read_text(path).map_err(|error| Problem {
        path: path.display().to_string(),
        line: None,
        rule: None,
        what: format!("cannot be read: {}", plain(&error)),
        refused: true,
    })?;
    let page = read_text(&path.with_extension("md")).ok();
    Ok(RuleFile { path: path.display().to_string(), text, page })
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(io::Error::other("larger than 4 MiB, so it is no rule"));
    }
    Ok(text)
}

/// The text of a rule's file, shipped or of the site; `None` where it cannot be read any more.
pub fn source(path: &str) -> Option<String> {
    let shipped = shipped::files().into_iter().find(|file| file.path == path);
    shipped.map(|file| file.text).or_else(|| read_text(Path::new(path)).ok())
}

/// One line for a problem: `file:line: what`.
pub fn line(problem: &Problem) -> String {
    let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
    let rule = problem.rule.as_ref().map(|rule| format!(" [{rule}]")).unwrap_or_default();
    let kind = if problem.refused { "" } else { "remark: " };
    format!("{}{line}: {kind}{}{rule}", problem.path, problem.what)
}

/// The rules that were left out, in words, at most as many as people read.
pub fn refused(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().filter(|problem| problem.refused).take(20).map(line).collect()
}

/// Says on standard error what was left out; the rest works.
pub fn warn(loaded: &Loaded) {
    for problem in loaded.problems.iter().filter(|problem| problem.refused) {
        crate::output::warn(&format!("rule left out: {}", line(problem)));
    }
}

/// A failure for callers that want every rule to load.
///
/// # Errors
/// When a rule was refused.
pub fn strict(loaded: &Loaded) -> Result<(), Failure> {
    match loaded.refused() {
        0 => Ok(()),
        1 => Err(Failure::new(Code::Data, "one rule was refused")
            .next("`bpfwatch rules check DIR` shows each with file and line")),
        count => Err(Failure::new(Code::Data, format!("{count} rules were refused"))
            .next("`bpfwatch rules check DIR` shows each with file and line")),
    }
}

/// Loads what the daemon's configuration names, for one system alone or all, but only from files that
/// nobody else may write.
///
/// # Errors
/// As [`load`], and when somebody else could write a rule.
pub fn load_trusted(rules: &config::Rules, only: Option<Os>) -> Result<Loaded, Failure> {
    let files = find(&rules.dirs)?;
    for path in rules.dirs.iter().chain(&files) {
        config::refuse_untrusted("a rule", trust::check(path))?;
    }
    load_files(built_in(rules.shipped), &rules.dirs, only)
}
