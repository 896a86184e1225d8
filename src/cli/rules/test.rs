//! `rules test`: a site's own rules against its own cases.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpfwatch_core::cases::{self, Covered, Difference, Expectation};
use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_core::pipeline::Batch;
use bpfwatch_core::rules::RuleSet;
use bpfwatch_delivery::style::{Paint, Style};
use bpfwatch_delivery::visible;
use bpfwatch_inputs::reader::{self, Delivery, Options, Source};
use clap::Args;
use serde_json::json;

use super::super::{FormatArgs, RuleArgs};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Shape, counted};
use crate::wiring::{inputs, rules};

/// What must come out of a case.
const EXPECTED: &str = "expected.jsonl";
/// Cases lie no deeper than this below the directory that is named.
const DEPTH_LIMIT: usize = 8;

/// Run rules against recorded cases, and show where they differ
#[derive(Debug, Args)]
#[command(after_help = "\
A case is a directory with `expected.jsonl` and a recording of any format that `replay`
reads (`observations.jsonl`, or the one other file there). Rules below DIR are loaded beside
the shipped ones, and so are those of --rules.

expected.jsonl has one JSON object a line:
  {\"type\":\"finding\",\"rule\":\"TITLE\",\"level\":\"high\",\"process\":{\"pid\":500},\"rules\":[\"OTHER\"]}
  {\"type\":\"finding\",\"rule\":\"TITLE\",\"not_rules\":[\"THIRD\"]}
  {\"type\":\"session\",\"verdict\":\"expected\",\"expected_by\":\"FILTER\"}
  {\"type\":\"never\",\"rules\":[\"TITLE\"],\"pid\":501}
Lines of type finding, closed, repeats and lost are what must come, all of it and in order;
`session` is what `scan` would list two seconds later, `withheld` what a filter withheld
(`filter`, `count`), `never` what must not come. `rule` leads and `rules` stand beside it,
`led_by` names what led to a correlation. Any other key must be there with an equal value.
To begin a case, leave expected.jsonl empty and run it.

Exits with 1 if a case differs, with 65 if one cannot be read or a rule was refused.

Examples:
  bpfwatch rules test ./site-rules
  bpfwatch rules test ./cases --rules ./site-rules --format json")]
pub struct Test {
    /// Directory of cases, or one case.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    rules: RuleArgs,
    /// Run the cases whose path has this in it.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Fail also if a site rule has no case that it must match, or none that it must not.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: FormatArgs,
}

/// A case that ran, or could not.
struct Ran {
    name: String,
    result: Result<Vec<Difference>, String>,
}

impl Test {
    /// Runs them.
    pub fn run(&self) -> Outcome {
        let failed = |error: &io::Error| Failure::file("read the cases in", &self.directory, error);
        let mut folders = Vec::new();
        find(&self.directory, &mut folders, DEPTH_LIMIT).map_err(|error| failed(&error))?;
        let wanted = |folder: &PathBuf| {
            let only = self.only.as_deref();
            only.is_none_or(|only| folder.to_string_lossy().contains(only))
        };
        folders.retain(wanted);
        folders.sort();
        if folders.is_empty() {
            let what = format!("there is no case in {}", self.directory.display());
            return Err(Failure::new(Code::NoInput, what)
                .next("a case is a directory with expected.jsonl and a recording"));
        }
        let mut dirs = self.rules.dirs.clone();
        dirs.push(self.directory.clone());
        let loaded = rules::load(true, &dirs)?;
        rules::warn(&loaded);
        let mut covered = Covered::default();
        let mut ran = Vec::new();
        let style = output::style();
        for folder in &folders {
            let case = self.case(folder, &loaded.set, &mut covered);
            output::print(&match self.format.format {
                Shape::Human => human(&case, &style),
                Shape::Json => as_json(&case),
            })?;
            ran.push(case);
        }
        let site: BTreeSet<String> =
            rules::find(&dirs)?.iter().map(|path| path.display().to_string()).collect();
        let bare = uncovered(&loaded.set, &site, &covered);
        output::print(&match self.format.format {
            Shape::Human => summary(&ran, &bare, &style),
            Shape::Json => String::new(),
        })?;
        let broken = ran.iter().any(|case| case.result.is_err());
        let differs = ran.iter().any(|case| case.result.as_ref().is_ok_and(|d| !d.is_empty()));
        Ok(match () {
            () if broken || loaded.refused() > 0 => Code::Data,
            () if differs || (self.strict && !bare.is_empty() && self.only.is_none()) => {
                Code::NotSeen
            }
            () => Code::Ok,
        })
    }

    fn case(&self, folder: &Path, rules: &Arc<RuleSet>, covered: &mut Covered) -> Ran {
        let name = folder.strip_prefix(&self.directory).unwrap_or(folder).display().to_string();
        let name = if name.is_empty() { folder.display().to_string() } else { name };
        let result = read(folder).map(|(batches, expected)| {
            covered.add(&expected);
            cases::differences(&expected, &cases::replay(batches, rules), rules)
        });
        Ran { name, result }
    }
}

/// Directories that hold a case.
fn find(folder: &Path, found: &mut Vec<PathBuf>, depth: usize) -> io::Result<()> {
    if folder.join(EXPECTED).is_file() {
        found.push(folder.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Links are not followed: a case lies where it is.
        if depth > 0 && entry.file_type()?.is_dir() {
            find(&entry.path(), found, depth - 1)?;
        }
    }
    Ok(())
}

/// The recording and the expectations of a case.
fn read(folder: &Path) -> Result<(Vec<Batch>, Vec<Expectation>), String> {
    let text = fs::read_to_string(folder.join(EXPECTED))
        .map_err(|error| format!("{EXPECTED}: {error}"))?;
    let expected =
        cases::expectations(&text).map_err(|(line, what)| format!("{EXPECTED}:{line}: {what}"))?;
    let path = recording(folder)?;
    let formats = inputs::formats();
    let formats: Vec<&dyn LineDecoder> = formats.iter().map(AsRef::as_ref).collect();
    let mut batches = Vec::new();
    let mut problem = None;
    let read =
        reader::read(vec![Source::Path(path)], &formats, &Options::default(), &mut |delivery| {
            match delivery {
                Delivery::Batch(batch) => batches.push(batch),
                Delivery::Problem(wrong) => {
                    problem = Some(wrong.to_string());
                    return ControlFlow::Break(());
                }
                Delivery::Progress(_) => {}
            }
            ControlFlow::Continue(())
        });
    match (read, problem) {
        (_, Some(problem)) => Err(problem),
        (Err(error), None) => Err(error.to_string()),
        (Ok(_), None) => Ok((batches, expected)),
    }
}

/// The recording of a case: `observations.jsonl`, or the one other file.
fn recording(folder: &Path) -> Result<PathBuf, String> {
    let usual = folder.join("observations.jsonl");
    if usual.is_file() {
        return Ok(usual);
    }
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let other = |path: &PathBuf| {
        let no_recording = path.extension().is_some_and(|end| end == "md" || end == "yml");
        path.is_file() && !path.ends_with(EXPECTED) && !no_recording
    };
    let files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(other).collect();
    match files.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err("there is no recording beside expected.jsonl".to_owned()),
        _ => Err("there are several files: call the recording observations.jsonl".to_owned()),
    }
}

fn human(case: &Ran, style: &Style) -> String {
    let mut out = String::new();
    let (paint, word) = match &case.result {
        Ok(differences) if differences.is_empty() => (Paint::Green, "ok"),
        Ok(_) => (Paint::Red, "DIFFERS"),
        Err(_) => (Paint::Red, "BROKEN"),
    };
    style.push(&mut out, paint, word);
    out += &" ".repeat(9 - word.len());
    out += &visible::escaped(&case.name);
    out.push('\n');
    match &case.result {
        Err(what) => out += &format!("    {}\n", visible::escaped(what)),
        Ok(differences) => {
            for Difference { line, what, found } in differences {
                let line = line.map_or(String::new(), |line| format!("{EXPECTED}:{line}: "));
                out += &format!("    {line}{}\n", visible::escaped(what));
                if let Some(found) = found {
                    style.push(
                        &mut out,
                        Paint::Dim,
                        &format!("        in {}", visible::escaped(found)),
                    );
                    out.push('\n');
                }
            }
        }
    }
    out
}

fn as_json(case: &Ran) -> String {
    let (result, differences) = match &case.result {
        Ok(differences) => {
            let list: Vec<_> = differences
                .iter()
                .map(|d| json!({ "expected_line": d.line, "what": d.what, "found": d.found }))
                .collect();
            (if list.is_empty() { "ok" } else { "differs" }, list)
        }
        Err(what) => ("broken", vec![json!({ "what": what })]),
    };
    let line = json!({
        "type": "case", "name": case.name, "result": result, "differences": differences,
    });
    line.to_string() + "\n"
}

/// Site rules that lack a case for or against them, with what they lack.
fn uncovered(set: &RuleSet, site: &BTreeSet<String>, covered: &Covered) -> Vec<String> {
    let mut out = Vec::new();
    for rule in set.rules().iter().filter(|rule| site.contains(&rule.path)) {
        let title = &rule.shown.title;
        let lacks = match (covered.matched.contains(title), covered.spared.contains(title)) {
            (true, true) => continue,
            (false, true) => "no case that it must match",
            (true, false) => "no case that it must not match",
            (false, false) => "no case",
        };
        out.push(format!("{title}: {lacks}"));
    }
    out
}

fn summary(ran: &[Ran], bare: &[String], style: &Style) -> String {
    let mut out = String::new();
    for what in bare {
        style.push(&mut out, Paint::Yellow, "untested");
        out += &format!(" {}\n", visible::escaped(what));
    }
    let differs = ran.iter().filter(|case| case.result.as_ref().is_ok_and(|d| !d.is_empty()));
    let broken = ran.iter().filter(|case| case.result.is_err()).count();
    let mut text = counted(ran.len() as u64, "case");
    text += &format!(", {} as expected", ran.iter().filter(|c| c.result == Ok(vec![])).count());
    match differs.count() {
        0 => {}
        1 => text += ", 1 differs",
        count => text += &format!(", {count} differ"),
    }
    if broken > 0 {
        text += &format!(", {broken} broken");
    }
    style.push(&mut out, Paint::Bold, &text);
    out.push('\n');
    out
}
