//! Captures by a copy of this program: in a temporary directory, under another name, hidden, deleted.

use std::fs;

use bpfwatch_core::platform::reported::UNEXPECTED;
use bpfwatch_core::sensor::SensorError;

use super::part::Duty;
use super::run::Run;
use super::{DELETED, HIDDEN, RENAMED, WRITABLE, failed, stage};

/// In a temporary directory.
pub fn temporary(run: &Run) -> Result<String, SensorError> {
    capture(
        run,
        &Copy { name: "collect", arg0: "collect", arguments: &[], rule: WRITABLE, delete: false },
    )
}

/// Under another name, with tcpdump's arguments: the name that it shows in process listings.
pub fn renamed(run: &Run) -> Result<String, SensorError> {
    let arguments = &["-n", "-i", "any", "-w", "{}/out.pcap"];
    let copy = Copy { name: "updater", arg0: "updater", arguments, rule: RENAMED, delete: false };
    capture(run, &copy)
}

/// With a name that listings do not show.
pub fn hidden(run: &Run) -> Result<String, SensorError> {
    capture(
        run,
        &Copy { name: ".cache", arg0: ".cache", arguments: &[], rule: HIDDEN, delete: false },
    )
}

/// Without a file.
pub fn deleted(run: &Run) -> Result<String, SensorError> {
    capture(
        run,
        &Copy { name: "worker", arg0: "worker", arguments: &[], rule: DELETED, delete: true },
    )
}

struct Copy {
    name: &'static str,
    arg0: &'static str,
    arguments: &'static [&'static str],
    /// The rule that reports this of it.
    rule: &'static str,
    /// Whether the file goes before the handle comes.
    delete: bool,
}

fn capture(run: &Run, copy: &Copy) -> Result<String, SensorError> {
    let duty = |_: &stage::Stage| Duty::Capture(run.interface().to_owned());
    let (stage, mut part) = stage::copy(copy.name, copy.arg0, copy.arguments, duty)?;
    run.involve(part.pid());
    let file = stage.file(copy.name);
    if copy.delete {
        fs::remove_file(&file).map_err(|error| {
            failed(format!("cannot delete {}: {error}", file.display()), "try again")
        })?;
    }
    part.perform()?;
    let held = run.hold(|known| known.has(&[UNEXPECTED, copy.rule]));
    let gone = if copy.delete { ", which was deleted before," } else { "" };
    Ok(format!(
        "pid {} ran {}{gone} and held a handle on {}, for {held}",
        part.pid(),
        file.display(),
        run.interface()
    ))
}
