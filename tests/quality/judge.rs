//! What the shipped rules say about a recording.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::injected::{KINDS, is_skipped};
use crate::plan::Plan;

/// Levels that no ordinary activity may reach.
const LOUD: [&str; 3] = ["medium", "high", "critical"];

/// What came out.
pub struct Verdict {
    /// For people to read.
    pub report: Vec<String>,
    /// What must not be.
    pub wrong: Vec<String>,
}

/// Handles of one kind of program.
#[derive(Default)]
struct Handles {
    count: u64,
    protocols: BTreeSet<String>,
}

#[derive(Default)]
struct Recorded {
    observations: u64,
    kinds: BTreeMap<String, u64>,
    lost: u64,
    handles: BTreeMap<String, Handles>,
    origin: String,
}

/// Replays a recording through the shipped rules and judges what they find.
pub fn judge(file: &Path, plan: &Plan) -> Verdict {
    let recorded = read(file);
    let (findings, closed): (Vec<_>, Vec<_>) =
        replay(file).into_iter().partition(|line| line["type"] == "finding");
    let mut verdict = Verdict { report: Vec::new(), wrong: Vec::new() };
    let Verdict { report, wrong } = &mut verdict;

    report.push(format!("recorded on {}", recorded.origin));
    report.push(format!("observations: {} ({})", recorded.observations, counts(&recorded.kinds)));
    report.push(format!("events lost while recording: {}", recorded.lost));
    let handles: u64 = recorded.handles.values().map(|handles| handles.count).sum();
    report.push(format!(
        "capture handles of ordinary programs: {handles} of {} kinds",
        recorded.handles.len()
    ));
    for (program, handles) in &recorded.handles {
        let protocols = handles.protocols.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        report.push(format!("  {program}: {} ({protocols})", handles.count));
    }

    let mut levels: BTreeMap<String, u64> = BTreeMap::new();
    let mut found: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    let mut elsewhere = 0;
    for finding in &findings {
        let level = finding["rule"]["level"].as_str().unwrap();
        let title = finding["rule"]["title"].as_str().unwrap();
        if let Some((mark, _)) = KINDS.iter().find(|(mark, _)| is_about(finding, mark)) {
            // A capture that its tool was reported for already is told by the line that ends it.
            let id = text(&finding["id"]);
            let captured = finding["session"].is_object()
                || closed.iter().any(|line| text(&line["finding"]) == id);
            if captured && LOUD.contains(&level) {
                let best = found.entry(mark).or_insert((level, title));
                if rank(level) > rank(best.0) {
                    *best = (level, title);
                }
            }
        } else if is_elsewhere(finding, plan) {
            elsewhere += 1;
        } else {
            *levels.entry(level.to_owned()).or_default() += 1;
            if LOUD.contains(&level) {
                wrong.push(format!("false alarm: {level}: {title}: {}", about(finding)));
            }
        }
    }
    report.push(format!("findings about ordinary activity: {}", counts(&levels)));
    if elsewhere > 0 {
        report.push(format!("findings about what others did on this machine: {elsewhere}"));
    }
    report.push(format!("injected captures found: {} of {}", found.len(), KINDS.len()));
    for (mark, what) in KINDS {
        match found.get(mark) {
            Some((level, title)) => report.push(format!("  {what}: {level}, {title}")),
            None if is_skipped(mark) => report.push(format!("  {what}: skipped")),
            None => wrong.push(format!("not found: {what}")),
        }
    }

    let mut at_least = |what: &str, is: u64, want: u64| {
        if is < want {
            wrong.push(format!("{is} {what}, of {want} that it needs"));
        }
    };
    at_least("observations", recorded.observations, plan.observations);
    at_least("handles of ordinary programs", handles, plan.handles);
    at_least("kinds of programs", recorded.handles.len() as u64, plan.kinds as u64);
    verdict
}

fn rank(level: &str) -> usize {
    LOUD.iter().position(|loud| *loud == level).map_or(0, |at| at + 1)
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// Counts what stands in the recording, handles of injected captures aside.
fn read(file: &Path) -> Recorded {
    let mut recorded = Recorded::default();
    let mut programs: BTreeMap<u64, String> = BTreeMap::new();
    for line in BufReader::new(std::fs::File::open(file).unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if line["type"] == "meta" {
            recorded.origin = format!("{} {}", text(&line["os"]), text(&line["os_version"]));
            continue;
        }
        recorded.observations += 1;
        let kind = text(&line["kind"]);
        *recorded.kinds.entry(kind.to_owned()).or_default() += 1;
        if kind == "lost" {
            recorded.lost += line["count"].as_u64().unwrap_or(1);
        }
        let arguments = line["process"]["args"].to_string().replace("\",\"", " ");
        let handle = &line["handle"];
        let id = handle["id"].as_u64();
        if kind == "handle_attached"
            && let Some(handles) = id
                .and_then(|id| programs.get(&id))
                .and_then(|program| recorded.handles.get_mut(program))
        {
            handles.protocols.insert(named(handle));
        }
        if kind != "handle_opened" || KINDS.iter().any(|(mark, _)| arguments.contains(mark)) {
            continue;
        }
        let image = text(&line["process"]["image"]);
        // What others on this machine do is not counted as ordinary activity of this test.
        let others = ["/python", "/tshark", "/dumpcap", "/tcpdump", "/bpfwatch", "/deps/"];
        let Some(id) = id.filter(|id| !programs.contains_key(id)) else { continue };
        if image.is_empty() || others.iter().any(|tool| image.contains(tool)) {
            continue;
        }
        let program = image.rsplit('/').next().unwrap_or(image).to_owned();
        programs.insert(id, program.clone());
        let handles = recorded.handles.entry(program).or_default();
        handles.count += 1;
        // Where it receives, `handle_attached` says so.
        if handle["kind"] == "raw_socket" {
            handles.protocols.insert(named(handle));
        }
    }
    recorded
}

/// A handle's kind and protocol.
fn named(handle: &Value) -> String {
    let protocol = handle["protocol"].as_str().unwrap_or("sends only");
    format!("{} {protocol}", text(&handle["kind"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The findings of `bpfwatch replay`, and the lines that end a capture.
fn replay(file: &Path) -> Vec<Value> {
    let out = Command::new(env!("CARGO_BIN_EXE_bpfwatch"))
        .args(["replay", "--format", "json", "--level", "informational"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&out.stderr));
    let lines = String::from_utf8(out.stdout).unwrap();
    let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    values.filter(|line| line["type"] == "finding" || line["type"] == "closed").collect()
}

/// Command lines of the process that a finding is about, of its ancestors, and of other holders.
fn command_lines(finding: &Value) -> impl Iterator<Item = &str> {
    let ancestors = finding["process"]["ancestors"].as_array().into_iter().flatten();
    let holders = finding["holders"].as_array().into_iter().flatten();
    std::iter::once(&finding["process"])
        .chain(ancestors)
        .chain(holders)
        .filter_map(|process| process["command_line"].as_str())
}

fn is_about(finding: &Value, mark: &str) -> bool {
    command_lines(finding).any(|command_line| {
        command_line.contains(mark.trim_end_matches('.')) && {
            // `injected-raw` is the beginning of `injected-raw6`.
            !mark.ends_with('.') || command_line.contains(&format!("{mark}py"))
        }
    })
}

/// Whether it is about a process that is known not to descend from this test: its ancestors are known
/// up to init, and the test's process, which all descendants of it stay below, is not among them.
fn is_elsewhere(finding: &Value, plan: &Plan) -> bool {
    if !finding["process"].is_object() {
        let interface = text(&finding["session"]["handle"]["interface"]);
        return plan.shared && !interface.starts_with("bq");
    }
    let ancestors = finding["process"]["ancestors"].as_array().into_iter().flatten();
    let ancestors: Vec<&Value> = ancestors.collect();
    let ours = |ancestor: &&&Value| text(&ancestor["command_line"]).contains("--exact inside");
    ancestors.iter().any(|ancestor| ancestor["pid"] == 1) && ancestors.iter().find(ours).is_none()
}

fn about(finding: &Value) -> String {
    let mut out = command_lines(finding).next().unwrap_or("no process").to_owned();
    let _ = write!(
        out,
        " ({}, unit {}, scope {}, handle {})",
        text(&finding["process"]["image"]),
        text(&finding["process"]["unit"]),
        finding["scope"]["kind"],
        finding["session"]["handle"]
    );
    out
}
