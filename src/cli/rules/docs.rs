//! `rules docs`: every rule as a Markdown page, with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bpfwatch_core::rules::{Rule, RuleKind};
use clap::Args;

use super::super::RuleArgs;
use super::{kind, systems, tactics, techniques};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, counted};
use crate::wiring::rules;

/// Folder of the pages below the index.
const PAGES: &str = "rules";

/// Write every rule as a Markdown page, with an index
#[derive(Debug, Args)]
#[command(after_help = "\
Writes DIR/README.md, an index by tactic, system and level, and a page for each rule and
expected filter in DIR/rules. Files of the same name are written anew, others are left.

Examples:
  bpfwatch rules docs ./rule-docs
  bpfwatch rules docs ./rule-docs --rules ./site-rules")]
pub struct Docs {
    /// Directory to write to; made where it is not there.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    rules: RuleArgs,
}

impl Docs {
    /// Writes them.
    pub fn run(&self) -> Outcome {
        let loaded = rules::load(true, &self.rules.dirs)?;
        rules::warn(&loaded);
        let rules = loaded.set.rules();
        let names = names(rules);
        let pages = self.directory.join(PAGES);
        let failed =
            |error: &io::Error| Failure::file("write the pages in", &self.directory, error);
        fs::create_dir_all(&pages).map_err(|error| failed(&error))?;
        for (rule, name) in std::iter::zip(rules, &names) {
            let source = rules::source(&rule.path);
            fs::write(pages.join(name), page(rule, source.as_deref()))
                .map_err(|error| failed(&error))?;
        }
        fs::write(self.directory.join("README.md"), index(rules, &names))
            .map_err(|error| failed(&error))?;
        let index = Path::new(&self.directory).join("README.md");
        let pages = counted(rules.len() as u64, "page");
        output::note(&format!("{pages} written; begin with {}", index.display()));
        Ok(Code::Ok)
    }
}

/// A file name for each rule: its title, and the beginning of its id where two titles give the same.
fn names(rules: &[Rule]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    rules
        .iter()
        .map(|rule| {
            let mut name = slug(&rule.shown.title);
            if name.is_empty() || !taken.insert(name.clone()) {
                name = format!("{name}-{}", slug(&rule.shown.id));
                taken.insert(name.clone());
            }
            format!("{name}.md")
        })
        .collect()
}

fn slug(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-");
    slug.chars().take(80).collect()
}

/// Text of a rule that Markdown shall not take for its own.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.push(' ');
            continue;
        }
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The page of a technique.
pub fn technique_url(id: &str) -> String {
    format!("https://attack.mitre.org/techniques/{}/", id.replace('.', "/"))
}

fn level(rule: &Rule) -> &'static str {
    match rule.kind {
        // A filter withholds findings: it has no level of its own.
        RuleKind::Filter => "expected",
        _ => rule.shown.level.as_str(),
    }
}

fn page(rule: &Rule, source: Option<&str>) -> String {
    let mut out = format!("# {}\n\n| | |\n|---|---|\n", plain(&rule.shown.title));
    let mut fact = |key: &str, value: String| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "| {key} | {value} |");
        }
    };
    fact("Id", format!("`{}`", rule.shown.id.replace(['`', '|'], " ")));
    fact("Level", level(rule).to_owned());
    fact("Kind", kind(rule).to_owned());
    fact("Status", plain(rule.status.as_deref().unwrap_or_default()));
    fact("Systems", systems(rule).join(", "));
    fact("Logsource", plain(&rule.logsource));
    let links: Vec<String> =
        techniques(rule).map(|id| format!("[{id}]({})", technique_url(&id))).collect();
    fact("ATT&CK", links.join(", "));
    fact("Author", plain(rule.shown.author.as_deref().unwrap_or_default()));
    fact("License", plain(rule.shown.license.as_deref().unwrap_or_default()));
    fact("File", plain(&rule.path));
    out.push('\n');
    let title = format!("# {}\n", rule.shown.title);
    match &rule.page {
        Some(page) => {
            out += page.strip_prefix(&title).unwrap_or(page).trim();
            out.push('\n');
        }
        None => {
            let _ = writeln!(
                out,
                "{}",
                rule.description.as_deref().map(plain).unwrap_or_default().trim()
            );
            list(&mut out, "False Positives", &rule.falsepositives);
        }
    }
    list(&mut out, "References", &rule.references);
    if let Some(source) = source {
        // A fence longer than any in the text.
        let longest = source.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        let _ = write!(out, "\n## Rule\n\n{fence}yaml\n{}\n{fence}\n", source.trim_end());
    }
    out
}

fn list(out: &mut String, title: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    let _ = write!(out, "\n## {title}\n\n");
    for item in items {
        // A bare address is a link already.
        let item = if item.starts_with("https://") { format!("<{item}>") } else { plain(item) };
        let _ = writeln!(out, "- {}", item.replace('\n', " "));
    }
}

/// `credential-access` as ATT&CK writes it.
fn tactic_name(tag: &str) -> String {
    let word = |word: &str| match word {
        "and" => "and".to_owned(),
        word => {
            word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect()
        }
    };
    tag.split('-').map(word).collect::<Vec<String>>().join(" ")
}

fn index(rules: &[Rule], names: &[String]) -> String {
    let all: Vec<(&Rule, &String)> = std::iter::zip(rules, names).collect();
    let filters = rules.iter().filter(|rule| rule.kind == RuleKind::Filter).count();
    let mut out = format!(
        "# Rules of bpfwatch\n\n{} and {} filters of expected captures, written by \
         `bpfwatch rules docs` of version {}.\n\nBy [tactic](#by-tactic), [system](#by-system), \
         [level](#by-level).\n",
        counted((rules.len() - filters) as u64, "rule"),
        filters,
        env!("CARGO_PKG_VERSION"),
    );
    let detections = || all.iter().filter(|(rule, _)| rule.kind != RuleKind::Filter);
    groups(&mut out, "By tactic", detections(), |rule| tactics(rule).map(tactic_name).collect());
    groups(&mut out, "By system", all.iter(), |rule| {
        systems(rule).into_iter().map(str::to_owned).collect()
    });
    out += "\n## By level\n";
    let mut by_level: BTreeMap<(u8, &str), Vec<&(&Rule, &String)>> = BTreeMap::new();
    for entry in &all {
        let place = match entry.0.kind {
            RuleKind::Filter => u8::MAX,
            _ => 4 - entry.0.shown.level as u8,
        };
        by_level.entry((place, level(entry.0))).or_default().push(entry);
    }
    for ((_, name), entries) in by_level {
        table(&mut out, &tactic_name(name), &entries);
    }
    out
}

fn groups<'a>(
    out: &mut String,
    title: &str,
    entries: impl Iterator<Item = &'a (&'a Rule, &'a String)>,
    keys: impl Fn(&Rule) -> Vec<String>,
) {
    let mut groups: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for entry in entries {
        for key in keys(entry.0) {
            groups.entry(key).or_default().push(entry);
        }
    }
    let _ = write!(out, "\n## {title}\n");
    for (name, mut entries) in groups {
        entries.sort_by_key(|(rule, _)| {
            (rule.kind == RuleKind::Filter, std::cmp::Reverse(rule.shown.level))
        });
        table(out, &plain(&name), &entries);
    }
}

fn table(out: &mut String, name: &str, entries: &[&(&Rule, &String)]) {
    let _ = write!(out, "\n### {name}\n\n| Level | Rule | Systems |\n|---|---|---|\n");
    for (rule, file) in entries {
        let (title, systems) = (plain(&rule.shown.title), systems(rule).join(", "));
        let _ = writeln!(out, "| {} | [{title}]({PAGES}/{file}) | {systems} |", level(rule));
    }
}

#[cfg(test)]
mod tests {
    use bpfwatch_core::rules::RuleSet;

    use super::*;
    use crate::shipped;

    #[test]
    fn every_link_of_the_index_leads_to_a_page() {
        let (set, _) = RuleSet::load(&shipped::files());
        let names = names(set.rules());
        let unique: BTreeSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), set.rules().len());
        let index = index(set.rules(), &names);
        let mut links = 0;
        for link in index.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if let Some(name) = link.strip_prefix("rules/") {
                links += 1;
                assert!(unique.contains(&name.to_owned()), "{link}");
            }
        }
        assert!(links > set.rules().len(), "{links}");
        for tactic in ["### Credential Access", "### Command and Control", "### Stealth"] {
            assert!(index.contains(tactic), "{tactic}");
        }
    }

    #[test]
    fn a_hostile_title_writes_no_markdown_and_no_path() {
        assert_eq!(slug("../../etc/x [a](b)"), "etc-x-a-b");
        assert_eq!(plain("a](b) `c` <script>"), "a\\](b) \\`c\\` \\<script\\>");
    }

    #[test]
    fn the_rule_stands_in_a_fence_that_it_cannot_close() {
        let (set, _) = RuleSet::load(&shipped::files());
        let rule = set.rules().first().unwrap();
        let page = page(rule, Some("a: '````'\n"));
        assert!(page.contains("\n`````yaml\na: '````'\n`````\n"), "{page}");
        assert!(page.contains("## Response"));
        assert_eq!(page.matches(&format!("# {}\n", rule.shown.title)).count(), 1);
    }
}
