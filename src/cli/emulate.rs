//! `emulate`: opens a real capture handle, so that detection can be tried from end to end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bpfwatch_core::finding::{Finding, Level, Line, SessionLine, Stage};
use bpfwatch_core::pipeline::{Pipeline, Settings};
use bpfwatch_core::platform::{EmulateOptions, Emulated, Platform, SensorSettings, Technique};
use bpfwatch_core::sensor::SensorError;
use clap::Args;

use super::{FormatArgs, RuleArgs};
use crate::config::nearest;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Printer, Shape};
use crate::platform;
use crate::wiring::live::Live;
use crate::wiring::{now, rules};

/// Longest time that a handle is held.
const LONGEST: Duration = Duration::from_secs(60);
/// How long the sensors may take for their first look round.
const SETTLE: Duration = Duration::from_secs(3);
/// They are done with it when nothing came for so long.
const QUIET: Duration = Duration::from_millis(400);
/// How long a finding is waited for after the handle was closed.
const GRACE: Duration = Duration::from_secs(3);

/// Open a real capture handle in a chosen way, to try detection from end to end
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is captured: packets are thrown away unread, and everything is closed again.
With --verify the sensors and rules run in the same process; it says whether the technique
was reported and how fast, and exits with 1 if it was not.

Examples:
  bpfwatch emulate --list
  bpfwatch emulate promiscuous --interface eth0 --hold 10s
  bpfwatch emulate attach --verify")]
pub struct Emulate {
    /// What to do; `--list` shows what there is.
    #[arg(required_unless_present = "list")]
    technique: Option<String>,
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
    #[arg(long, conflicts_with_all = ["technique", "verify"])]
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
        let techniques = platform.techniques();
        let Some(name) = self.technique.as_deref().filter(|_| !self.list) else {
            return list(&techniques, self.format.format);
        };
        let Some(technique) = techniques.iter().find(|technique| technique.name == name) else {
            let names = techniques.iter().map(|technique| technique.name);
            let failure = Failure::new(Code::Usage, format!("there is no technique `{name}` here"));
            return Err(match nearest(name, names) {
                Some(near) => failure.next(format!("did you mean `{near}`?")),
                None => failure.next("`bpfwatch emulate --list` shows what there is"),
            });
        };
        let hold_ms = u64::try_from(self.hold.as_millis()).unwrap_or(u64::MAX);
        let options = EmulateOptions { interface: self.interface.clone(), hold_ms };
        if self.verify {
            return self.verify(&*platform, technique, &options);
        }
        output::note(&format!("{}; should report: {}", technique.what, technique.expect));
        let done = platform.emulate(name, &options).map_err(|error| Failure::sensor(&error))?;
        output::print(&format!("pid {}: {}\n", done.pid, done.did))?;
        Ok(Code::Ok)
    }

    fn verify(
        &self,
        platform: &dyn Platform,
        technique: &Technique,
        options: &EmulateOptions,
    ) -> Outcome {
        let loaded = rules::load(true, &self.rules.dirs)?;
        rules::warn(&loaded);
        let pipeline = Pipeline::new(loaded.set, Settings::default());
        let mut live = Live::start(platform, &SensorSettings::default(), pipeline)?;
        settle(&mut live);
        if let Some(failure) = live.failure() {
            return Err(failure);
        }

        let started = Instant::now();
        let (name, options) = (technique.name, options.clone());
        // A platform holds nothing, so that the thread takes one of its own.
        let thread = std::thread::spawn(move || platform::current().emulate(name, &options));
        let mut thread = Some(thread);
        let mut done: Option<(Emulated, Instant)> = None;
        let mut seen = Seen::default();
        while done.as_ref().is_none_or(|(_, ended)| ended.elapsed() < GRACE) {
            live.turn(Duration::from_millis(10), &mut |line| seen.line(started.elapsed(), line));
            seen.sessions(started.elapsed(), live.pipeline.sessions(now()));
            if let Some(ended) = thread.take_if(|thread| thread.is_finished()) {
                let result = ended.join().unwrap_or_else(|_| Err(panicked()));
                done = Some((result.map_err(|error| Failure::sensor(&error))?, Instant::now()));
            }
            if let Some((done, _)) = &done
                && seen.findings.iter().any(|(_, finding)| is_of(finding, done.pid))
            {
                break;
            }
        }
        live.stop(&mut |line| seen.line(started.elapsed(), line))?;
        let Some((done, _)) = done else { return Err(Failure::sensor(&panicked())) };
        output::note(&format!("pid {}: {}", done.pid, done.did));
        let finding = seen.findings.into_iter().find(|(_, finding)| is_of(finding, done.pid));
        let mut sessions = seen.sessions.into_values();
        let session = sessions
            .find(|(_, session)| session.holders.iter().any(|process| process.pid == done.pid));
        match (finding, session) {
            (Some((after, finding)), _) => self.reported(after, finding),
            // A handle that cannot receive is no capture: keeping quiet about it is right.
            (None, Some((after, session))) if session.session.stage == Stage::Opened => {
                let after = after.as_millis();
                output::note(&format!(
                    "seen after {after} ms; no finding, as it cannot receive packets"
                ));
                Ok(Code::Ok)
            }
            (None, Some(_)) => Err(missed("it was seen, but no rule reported it", technique)
                .next("`bpfwatch rules check` shows what is wrong with the rules")),
            (None, None) => Err(missed("it was not seen", technique)
                .next("`bpfwatch doctor` shows what cannot be seen here")),
        }
    }

    fn reported(&self, after: Duration, finding: Finding) -> Outcome {
        let mut printer = Printer::new(self.format.format, Level::Informational, false);
        let text = format!(
            "reported after {} ms: {} ({})",
            after.as_millis(),
            finding.rule.title,
            finding.rule.level.as_str()
        );
        printer.line(&Line::Finding(Box::new(finding)));
        printer.flush()?;
        output::note(&text);
        Ok(Code::Ok)
    }
}

/// What came while the technique ran, with the time from its start.
#[derive(Default)]
struct Seen {
    findings: Vec<(Duration, Finding)>,
    /// Sessions that were not there before, by id.
    sessions: BTreeMap<String, (Duration, SessionLine)>,
}

impl Seen {
    fn line(&mut self, at: Duration, line: Line) {
        if let Line::Finding(finding) = line {
            self.findings.push((at, *finding));
        }
    }

    fn sessions(&mut self, at: Duration, lines: Vec<SessionLine>) {
        for line in lines.into_iter().filter(|line| !line.session.pre_existing) {
            let id = line.session.id.clone();
            let since = self.sessions.get(&id).map_or(at, |(since, _)| *since);
            self.sessions.insert(id, (since, line));
        }
    }
}

fn missed(what: &str, technique: &Technique) -> Failure {
    Failure::new(Code::NotSeen, format!("{what}; expected: {}", technique.expect))
}

/// Whether a finding is about a handle that the process holds or held.
fn is_of(finding: &Finding, pid: u32) -> bool {
    let mut holders = finding.process.iter().chain(&finding.holders);
    finding.session.is_some() && holders.any(|process| process.pid == pid)
}

/// Lets the sensors have their first look round, so that what they find then is not taken for news.
fn settle(live: &mut Live) {
    let started = Instant::now();
    let mut last = Instant::now();
    let mut count = 0;
    while started.elapsed() < SETTLE && (count == 0 || last.elapsed() < QUIET) {
        live.turn(Duration::from_millis(20), &mut |_| {});
        let now = live.pipeline.counters().observations;
        if now != count {
            (count, last) = (now, Instant::now());
        }
    }
}

fn panicked() -> SensorError {
    SensorError {
        sensor: "emulate",
        what: "ended by an error in bpfwatch itself".to_owned(),
        mend: Some("please report it".to_owned()),
    }
}

fn list(techniques: &[Technique], shape: Shape) -> Outcome {
    let mut out = String::new();
    let width = techniques.iter().map(|technique| technique.name.len()).max().unwrap_or(0);
    for technique in techniques {
        out += &match shape {
            Shape::Json => serde_json::to_string(technique).unwrap_or_default() + "\n",
            Shape::Human => format!(
                "{:<width$}  {}\n{:width$}  reported as: {}\n",
                technique.name, technique.what, "", technique.expect
            ),
        };
    }
    if out.is_empty() {
        return Err(Failure::new(Code::Unavailable, "nothing can be emulated on this system"));
    }
    output::print(&out)?;
    Ok(Code::Ok)
}
