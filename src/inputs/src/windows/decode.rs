//! A Windows event to observations, in the names of Sigma's taxonomy.
//!
//! | event | becomes |
//! |---|---|
//! | Sysmon 1, Security 4688 | a process was executed |
//! | Sysmon 5, Security 4689 | a process ended |
//! | PowerShell 4104 | a script block (`ps_script`) |
//! | any other of the System or Security log | a record of that log; 7045 and 4697 are service installs |
//! | any other | nothing |

use std::sync::Arc;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::decoder::{Decoded, LineError};
use bpfwatch_core::logged::{Fields, Log, Logged, Value};
use bpfwatch_core::observation::{Kind, Observation, Origin, Os};
use bpfwatch_core::process::{Ancestor, Process};
use bpfwatch_core::rules::fields;
use bpfwatch_core::text::Text;

use super::event::Event;
use crate::text::first_line;

const SYSMON: &str = "Microsoft-Windows-Sysmon";
/// Bytes of a script's first line that its message shows.
const SCRIPT_SHOWN: usize = 160;

/// Decodes a record and appends what it says.
pub(super) fn decode(
    record: &serde_json::Value,
    sensor: &Arc<str>,
    out: &mut Vec<Observation>,
) -> Result<Decoded, LineError> {
    let event = Event::of(record)?;
    let Some((actor, kind)) = what(&event) else { return Ok(Decoded::Skipped) };
    let sensor = Arc::clone(sensor);
    out.push(Observation { at: event.at, seq: 0, sensor, actor: actor.map(Arc::new), kind });
    let Some(computer) = event.computer else { return Ok(Decoded::Observed) };
    Ok(Decoded::From(Box::new(Origin {
        host: Text::from_bytes_limited(computer.as_bytes(), 255),
        os: Os::Windows,
        os_version: None,
        boot_id: None,
    })))
}

fn what(event: &Event<'_>) -> Option<(Option<Process>, Kind)> {
    let sysmon = event.provider == SYSMON || event.channel.starts_with("Microsoft-Windows-Sysmon/");
    let powershell = || {
        event.channel.starts_with("Microsoft-Windows-PowerShell/")
            || event.channel.starts_with("PowerShellCore/")
            || event.provider.contains("PowerShell")
    };
    match event.id {
        1 if sysmon => Some((Some(sysmon_process(event)?), Kind::Executed)),
        5 if sysmon => {
            let mut process = Process::from_pid(event.number("ProcessId")?);
            process.start = event.text("ProcessGuid").map(start);
            Some((Some(process), Kind::Exited))
        }
        _ if sysmon => None,
        4104 if powershell() => Some(script(event)),
        4688 if event.channel == "Security" => {
            Some((Some(audited_process(event)?), Kind::Executed))
        }
        4689 if event.channel == "Security" => {
            Some((Some(Process::from_pid(event.number("ProcessId")?)), Kind::Exited))
        }
        _ if event.channel == "Security" => Some((None, record(Log::WindowsSecurity, event))),
        _ if event.channel == "System" => Some((None, record(Log::WindowsSystem, event))),
        _ => None,
    }
}

/// Sysmon event 1. (Sysmon's schema, `sysmon -s`.)
fn sysmon_process(event: &Event<'_>) -> Option<Process> {
    let parent = event.number("ParentProcessId").map(|pid| {
        Arc::new(Ancestor {
            pid,
            start: event.text("ParentProcessGuid").map(start),
            image: event.text("ParentImage").map(path),
            args: event.text("ParentCommandLine").map(command_line),
        })
    });
    Some(Process {
        pid: event.number("ProcessId")?,
        start: event.text("ProcessGuid").map(start),
        ppid: event.number("ParentProcessId"),
        user: event.text("User").map(path),
        image: event.text("Image").map(path),
        args: event.text("CommandLine").map(command_line),
        cwd: event.text("CurrentDirectory").map(path),
        details: Some(Box::new(details(event))),
        ancestors: parent.into_iter().collect(),
        ..Process::default()
    })
}

/// Security event 4688, by the names that Sysmon gives the same things.
fn audited_process(event: &Event<'_>) -> Option<Process> {
    let mut details = details(event);
    if let Some(logon) = event.get("SubjectLogonId").and_then(serde_json::Value::as_str) {
        details.push("LogonId", Value::text(logon));
    }
    // The mandatory label's relative identifier (winnt.h, SECURITY_MANDATORY_*_RID).
    let level = event.text("MandatoryLabel").and_then(|label| match label {
        "S-1-16-0" => Some("Untrusted"),
        "S-1-16-4096" => Some("Low"),
        "S-1-16-8192" => Some("Medium"),
        "S-1-16-12288" => Some("High"),
        "S-1-16-16384" => Some("System"),
        _ => None,
    });
    if let Some(level) = level {
        details.push("IntegrityLevel", Value::text(level));
    }
    let ppid = event.number("ProcessId");
    let parent = ppid.map(|pid| {
        let image = event.text("ParentProcessName").map(path);
        Arc::new(Ancestor { pid, start: None, image, args: None })
    });
    let line = event.text("CommandLine").or_else(|| event.text("ProcessCommandLine"));
    Some(Process {
        pid: event.number("NewProcessId")?,
        ppid,
        user: account(event, "Target")
            .or_else(|| account(event, "Subject"))
            .map(|user| path(&user)),
        image: event.text("NewProcessName").map(path),
        args: line.map(command_line),
        details: Some(Box::new(details)),
        ancestors: parent.into_iter().collect(),
        ..Process::default()
    })
}

/// `DOMAIN\name`.
fn account(event: &Event<'_>, prefix: &str) -> Option<String> {
    let user = event.text(&format!("{prefix}UserName"))?;
    Some(match event.text(&format!("{prefix}DomainName")) {
        Some(domain) => format!(r"{domain}\{user}"),
        None => user.to_owned(),
    })
}

/// What rules can ask of a process beyond what every system tells.
fn details(event: &Event<'_>) -> Fields {
    let mut all = Fields::default();
    all.push("EventID", Value::Number(event.id));
    common(event, &mut all);
    event.each(|name, value| {
        if let Some(known) = fields::details().find(|known| *known == name) {
            all.push(known, value);
        }
    });
    // `SHA256=…,IMPHASH=…`: each also by its own name, as older rules ask for it.
    if let Some(hashes) = event.text("Hashes") {
        for (name, value) in hashes.split(',').filter_map(|hash| hash.split_once('=')) {
            let name = match name.trim() {
                "MD5" => "md5",
                "SHA1" => "sha1",
                "SHA256" => "sha256",
                "IMPHASH" => "Imphash",
                _ => continue,
            };
            all.push(name, Value::text(value));
            if name == "Imphash" {
                all.push("imphash", Value::text(value));
            }
        }
    }
    all
}

fn common(event: &Event<'_>, fields: &mut Fields) {
    let named = [("Provider_Name", &*event.provider), ("Channel", &*event.channel)];
    for (name, value) in named {
        if !value.is_empty() {
            fields.push(name, Value::text(value));
        }
    }
    if let Some(computer) = event.computer {
        fields.push("Computer", Value::text(computer));
    }
}

/// PowerShell event 4104. The process is the one that wrote it, which is the one that ran the script.
fn script(event: &Event<'_>) -> (Option<Process>, Kind) {
    let user = event.text("User").or(event.sid);
    let mut record = Logged::new(Log::PsScript, user.map(path), Text::from(""));
    fill(event, &mut record);
    record.message = script_message(&record);
    let process = event.pid.map(|pid| Process { user: user.map(path), ..Process::from_pid(pid) });
    (process, Kind::Logged { record: Arc::new(record) })
}

/// `PowerShell script C:\x.ps1: New-NetEventSession -Name "x" ...`.
pub(super) fn script_message(record: &Logged) -> Text {
    let text = |name| record.fields.get(name).and_then(Value::as_text).map_or("", Text::as_str);
    let of = match text("Path") {
        "" => String::new(),
        path => format!(" {path}"),
    };
    let line = first_line(text("ScriptBlockText"), SCRIPT_SHOWN);
    Text::from(format!("PowerShell script{of}: {line}"))
}

fn record(log: Log, event: &Event<'_>) -> Kind {
    let text = |name| event.text(name).unwrap_or("unknown");
    let subject = match event.id {
        7045 => event.sid.map(str::to_owned),
        _ => account(event, "Subject").or_else(|| event.sid.map(str::to_owned)),
    };
    let message = match (log, event.id) {
        (Log::WindowsSystem, 7045) => {
            format!("service {} installed: {}", text("ServiceName"), text("ImagePath"))
        }
        (Log::WindowsSecurity, 4697) => {
            format!("service {} installed: {}", text("ServiceName"), text("ServiceFileName"))
        }
        _ => format!("event {} of {}", event.id, event.provider),
    };
    let mut record = Logged::new(log, subject.as_deref().map(path), path(&message));
    fill(event, &mut record);
    Kind::Logged { record: Arc::new(record) }
}

fn fill(event: &Event<'_>, record: &mut Logged) {
    record.fields.push("EventID", Value::Number(event.id));
    common(event, &mut record.fields);
    event.each(|name, value| record.fields.push(name.to_owned(), value));
    if let Some(sid) = event.sid {
        record.fields.push("UserID", Value::text(sid));
    }
}

/// Names, paths and users: the longest path that Windows takes has 32,767 characters.
fn path(text: &str) -> Text {
    Text::from_bytes_limited(text.as_bytes(), 32 * 1024)
}

/// Windows hands a program one line, not a list: it stays as it is.
fn command_line(line: &str) -> Arguments {
    Arguments::from_list([line])
}

/// A process's GUID in 64 bits (FNV-1a): what tells it from another one with the same pid.
fn start(guid: &str) -> u64 {
    guid.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    })
}
