//! `emulate`: opens a real capture handle, so that detection can be tried from end to end.

use std::sync::Arc;
use std::time::Duration;

use bpfwatch_core::finding::{Level, Line, RuleRef};
use bpfwatch_core::platform::Platform;
use bpfwatch_core::rules::RuleSet;
use bpfwatch_core::sensor::SensorError;
use clap::Args;
use serde::Serialize;

use super::{FormatArgs, RuleArgs};
use crate::config::nearest;
use crate::emulate::verify::{Report, Verdict, verify};
use crate::emulate::{Entry, LONGEST, Run, entries};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Printer, Shape};
use crate::platform;
use crate::signals::{Hangup, Signals};
use crate::wiring::rules;

/// Open a real capture handle in a chosen way, to try detection from end to end
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is captured: packets are thrown away unread. Everything is closed and removed again,
also on Ctrl-C, and nothing leaves this machine.
With --verify the sensors and rules run in the same process; it says which rules reported the
technique and how soon, ends as soon as all did that should, and exits with 1 if one did not.

Examples:
  bpfwatch emulate --list
  bpfwatch emulate promiscuous --interface eth0 --hold 10s
  bpfwatch emulate attach --verify
  bpfwatch emulate --all --verify           a row for each technique")]
pub struct Emulate {
    /// What to do; `--list` shows what there is.
    #[arg(required_unless_present_any = ["list", "all"])]
    technique: Option<String>,
    /// Do all of it, one after the other.
    #[arg(long, conflicts_with = "technique")]
    all: bool,
    /// Interface to attach to.
    #[arg(long, value_name = "NAME", default_value = platform::LOOPBACK)]
    interface: String,
    /// How long the handle is held, at most 60s.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = hold)]
    hold: Duration,
    /// Watch at the same time and say whether it was reported.
    #[arg(long)]
    verify: bool,
    /// List the techniques of this system.
    #[arg(long, conflicts_with_all = ["technique", "verify", "all"])]
    list: bool,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    rules: RuleArgs,
}

fn hold(text: &str) -> Result<Duration, String> {
    let hold = super::span(text)?;
    if hold > LONGEST { Err("a handle is held for at most 60s".to_owned()) } else { Ok(hold) }
}

impl Emulate {
    /// Lists, or does it.
    pub fn run(self) -> Outcome {
        let platform = platform::current();
        let entries = entries(&*platform);
        let loaded = rules::load_for(platform.origin().os, true, &self.rules.dirs)?;
        if self.list {
            return list(&entries, &loaded.set, self.format.format);
        }
        let signals = Signals::catch(Hangup::Stops, || {})
            .map_err(|error| Failure::new(Code::Software, format!("signals: {error}")))?;
        if self.verify {
            rules::warn(&loaded);
        }
        match &self.technique {
            None if self.verify => self.verify_all(&*platform, &entries, &loaded.set, &signals),
            None => self.act_all(&entries, &loaded.set, &signals),
            Some(name) => {
                let entry = find(&entries, name)?;
                let run = Run::new(&self.interface, self.hold, signals);
                output::note(&announced(entry, &loaded.set));
                if self.verify {
                    self.verify_one(&*platform, entry, &loaded.set, &run)
                } else {
                    act(entry, &run)
                }
            }
        }
    }

    fn act_all(&self, entries: &[Entry], set: &RuleSet, signals: &Signals) -> Outcome {
        let mut refused = Vec::new();
        for entry in entries {
            let run = Run::new(&self.interface, self.hold, signals.clone());
            output::note(&format!("{}: {}", entry.technique.name, announced(entry, set)));
            match act(entry, &run) {
                Err(failure) => refused.push(failure),
                Ok(_) if signals.stop() => return Ok(Code::Ok),
                Ok(_) => {}
            }
        }
        let all = refused.len() == entries.len();
        for failure in &refused {
            output::warn(&failure.to_string());
        }
        match refused.pop() {
            Some(last) if all => Err(last),
            _ => Ok(Code::Ok),
        }
    }

    fn verify_one(
        &self,
        platform: &dyn Platform,
        entry: &Entry,
        set: &Arc<RuleSet>,
        run: &Run,
    ) -> Outcome {
        let report = verify(platform, set, entry, run)?.map_err(|error| Failure::sensor(&error))?;
        output::note(&report.did);
        if let Some(finding) = &report.finding {
            let mut printer = Printer::new(self.format.format, Level::Informational, false);
            printer.line(&Line::Finding(finding.clone()));
            printer.flush()?;
        }
        match &report.verdict {
            Verdict::Reported(after) => {
                let titles: Vec<String> = report.rules.iter().map(|rule| named(rule)).collect();
                let text =
                    format!("reported after {} ms: {}", after.as_millis(), titles.join(", "));
                output::note(&text);
                Ok(Code::Ok)
            }
            Verdict::Quiet(after) => {
                output::note(&format!(
                    "seen after {} ms; no finding, as it cannot receive packets",
                    after.as_millis()
                ));
                Ok(Code::Ok)
            }
            Verdict::Unnamed(after) => {
                output::note(&format!(
                    "reported after {} ms without its process: it was over before more than the open was seen",
                    after.as_millis()
                ));
                Ok(Code::Ok)
            }
            Verdict::Missed { .. } if run.is_stopped() => {
                Err(Failure::new(Code::NotSeen, "stopped by a signal before it was reported"))
            }
            Verdict::Missed { what, rules } => {
                let failure = Failure::new(Code::NotSeen, format!("{what}{}", missing(rules, set)));
                Err(failure.next(
                    "`bpfwatch doctor` shows what cannot be seen here, and `bpfwatch rules \
                                  check` what is wrong with the rules",
                ))
            }
        }
    }

    fn verify_all(
        &self,
        platform: &dyn Platform,
        entries: &[Entry],
        set: &Arc<RuleSet>,
        signals: &Signals,
    ) -> Outcome {
        let mut rows = Vec::new();
        let mut refused = Vec::new();
        for entry in entries {
            let run = Run::new(&self.interface, self.hold, signals.clone());
            let result = verify(platform, set, entry, &run)?;
            if signals.stop() {
                let done = rows.len();
                return Err(Failure::new(
                    Code::NotSeen,
                    format!("stopped by a signal after {done} of {} techniques", entries.len()),
                ));
            }
            let row = Row::new(entry, &result);
            row.print(self.format.format, rows.is_empty())?;
            match result {
                Err(error) => refused.push(error),
                Ok(report) if matches!(report.verdict, Verdict::Missed { .. }) => {
                    output::warn(&format!("{}: {}", row.technique, told(&report, set)));
                }
                Ok(_) => {}
            }
            rows.push(row);
        }
        for error in &refused {
            output::warn(&error.to_string());
        }
        if let Some(error) = refused.first().filter(|_| refused.len() == rows.len()) {
            return Err(Failure::sensor(error));
        }
        summary(&rows)
    }
}

fn summary(rows: &[Row]) -> Outcome {
    let count = |result| rows.iter().filter(|row| row.result == result).count();
    let (missed, refused) = (count("missed"), count("refused"));
    let good = rows.len() - missed - refused;
    let mut text = format!("{good} of {} techniques came out as they should", rows.len());
    if refused > 0 {
        text += &format!("; {refused} cannot be done here");
    }
    if missed > 0 {
        let failure = Failure::new(Code::NotSeen, format!("{text}; {missed} missed"));
        return Err(failure.next("`bpfwatch doctor` shows what cannot be seen here"));
    }
    output::note(&text);
    Ok(Code::Ok)
}

fn find<'a>(entries: &'a [Entry], name: &str) -> Result<&'a Entry, Failure> {
    entries.iter().find(|entry| entry.technique.name == name).ok_or_else(|| {
        let names = entries.iter().map(|entry| entry.technique.name);
        let failure = Failure::new(Code::Usage, format!("there is no technique `{name}` here"));
        match nearest(name, names) {
            Some(near) => failure.next(format!("did you mean `{near}`?")),
            None => failure.next("`bpfwatch emulate --list` shows what there is"),
        }
    })
}

fn act(entry: &Entry, run: &Run) -> Outcome {
    let did = entry.act(run).map_err(|error| Failure::sensor(&error))?;
    output::print(&format!("{did}\n"))?;
    if run.is_stopped() {
        output::note("stopped by a signal; everything is closed and removed");
    }
    Ok(Code::Ok)
}

fn announced(entry: &Entry, set: &RuleSet) -> String {
    format!("{}; should be reported as: {}", entry.technique.what, expected(entry, set))
}

/// What should be reported, in words.
fn expected(entry: &Entry, set: &RuleSet) -> String {
    match entry.technique.rules {
        [] => "nothing, as it cannot receive packets".to_owned(),
        ids => titles(ids, set).join(", "),
    }
}

fn titles(ids: &[&str], set: &RuleSet) -> Vec<String> {
    let rules = ids.iter().map(|id| set.rules().iter().find(|rule| rule.shown.id == *id));
    rules
        .flatten()
        .map(|rule| format!("{} ({})", rule.shown.title, rule.shown.level.as_str()))
        .collect()
}

fn named(rule: &RuleRef) -> String {
    format!("{} ({})", rule.title, rule.level.as_str())
}

fn missing(rules: &[&str], set: &RuleSet) -> String {
    if rules.is_empty() { String::new() } else { format!(": {}", titles(rules, set).join(", ")) }
}

fn told(report: &Report, set: &RuleSet) -> String {
    match &report.verdict {
        Verdict::Missed { what, rules } => format!("{what}{}; {}", missing(rules, set), report.did),
        Verdict::Reported(_) | Verdict::Quiet(_) | Verdict::Unnamed(_) => report.did.clone(),
    }
}

/// A technique and how it came out.
#[derive(Debug, Serialize)]
struct Row {
    technique: &'static str,
    /// `reported`, `unnamed` (without its process), `quiet`, `missed`, or `refused` by the system.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ms: Option<u128>,
    did: String,
    /// Rules that should report it.
    expected: &'static [&'static str],
    /// Those that did, highest level first.
    rules: Vec<Arc<RuleRef>>,
}

impl Row {
    fn new(entry: &Entry, result: &Result<Report, SensorError>) -> Self {
        let expected = entry.technique.rules;
        let technique = entry.technique.name;
        let (result, after, did, rules) = match result {
            Err(error) => ("refused", None, error.what.clone(), Vec::new()),
            Ok(report) => {
                let (result, after) = match report.verdict {
                    Verdict::Reported(after) => ("reported", Some(after)),
                    Verdict::Quiet(after) => ("quiet", Some(after)),
                    Verdict::Unnamed(after) => ("unnamed", Some(after)),
                    Verdict::Missed { .. } => ("missed", None),
                };
                (result, after, report.did.clone(), report.rules.clone())
            }
        };
        Self {
            technique,
            result,
            after_ms: after.map(|time| time.as_millis()),
            did,
            expected,
            rules,
        }
    }

    fn print(&self, shape: Shape, is_first: bool) -> Result<(), Failure> {
        let text = match shape {
            Shape::Json => serde_json::to_string(self).unwrap_or_default() + "\n",
            Shape::Human => {
                let head =
                    format!("{:<12} {:<9} {:>8}  REPORTED AS\n", "TECHNIQUE", "RESULT", "AFTER");
                let after = self.after_ms.map(|time| format!("{time} ms")).unwrap_or_default();
                let lead = match (self.rules.first(), self.rules.len()) {
                    (Some(rule), 1) => named(rule),
                    (Some(rule), all) => format!("{} and {} more", named(rule), all - 1),
                    (None, _) if self.result == "quiet" => "nothing, as it should be".to_owned(),
                    (None, _) => "-".to_owned(),
                };
                let row = format!("{:<12} {:<9} {after:>8}  {lead}\n", self.technique, self.result);
                if is_first { head + &row } else { row }
            }
        };
        output::print(&text)
    }
}

fn list(entries: &[Entry], set: &RuleSet, shape: Shape) -> Outcome {
    let mut out = String::new();
    let width = entries.iter().map(|entry| entry.technique.name.len()).max().unwrap_or(0);
    for entry in entries {
        let technique = &entry.technique;
        out += &match shape {
            Shape::Json => {
                let line = serde_json::json!({
                    "name": technique.name,
                    "what": technique.what,
                    "rules": technique.rules,
                    "expect": expected(entry, set),
                });
                line.to_string() + "\n"
            }
            Shape::Human => format!(
                "{:<width$}  {}\n{:width$}  reported as: {}\n",
                technique.name,
                technique.what,
                "",
                expected(entry, set)
            ),
        };
    }
    if out.is_empty() {
        return Err(Failure::new(Code::Unavailable, "nothing can be emulated on this system"));
    }
    output::print(&out)?;
    Ok(Code::Ok)
}
