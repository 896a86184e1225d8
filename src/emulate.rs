//! `emulate`: what can be shown here, and doing it.
//!
//! A platform opens a capture handle in the ways that its system has ([`Platform::open_handle`]); what a
//! process does with one is the same everywhere and stands here. Nothing is captured: no packet is ever
//! read. Everything is bounded in time, stays on this machine, and is gone at the end, also when a
//! signal ends it.
//!
//! | module | duty |
//! |---|---|
//! | [`run`] | how long, on which interface, and what has been reported meanwhile |
//! | [`stage`] | a temporary directory, and other processes of this program |
//! | [`part`] | what such a process does |
//! | [`copies`], [`handover`], [`upload`] | the techniques |
//! | [`verify`] | the same with sensors and rules running |

mod copies;
mod handover;
mod part;
mod run;
mod stage;
mod upload;
pub mod verify;

use std::time::Duration;

use bpfwatch_core::platform::{Platform, Technique, reported};
use bpfwatch_core::sensor::SensorError;

pub use part::play;
pub use run::Run;

/// Longest time that a handle is held.
pub const LONGEST: Duration = Duration::from_secs(60);
/// How long `short` holds its handle.
const SHORT: Duration = Duration::from_millis(3);
/// The technique that may be over before more than its open is seen.
const BRIEF: &str = "short";
/// BPF device opened by an unknown process, and the same beside a known descriptor.
const UNKNOWN_OPENER: [&str; 2] =
    ["3c1e5f0d-7a64-4f0b-8b57-2d8a1c9e6b13", "b1f0c2a7-95d3-4c7e-8e0a-6f4b7d21c5e8"];
/// The platform's technique that the others build on.
const ATTACH: &str = "attach";

/// Packet capture by a program in a writable directory.
const WRITABLE: &str = "9019eb4a-4963-4302-940d-163eaae7fc07";
/// Packet capture by a renamed tool.
const RENAMED: &str = "c512264d-ef82-4463-aac5-c5e02aefdb3b";
/// Packet capture by a deleted or memory-only program.
const DELETED: &str = "e573e280-5d7c-402c-b7e6-69fd7204e2d4";
/// Packet capture by a hidden program.
const HIDDEN: &str = "16f7ce3d-a38f-4f3c-ac1f-e74b988ae839";
/// Capture handle without a holder.
const IN_FLIGHT: &str = "7553f785-58b8-481e-b0cb-5bf9f586df4b";
/// Capture file handed to a transfer program.
const FILE_MOVED: &str = "7693b855-62f4-4d8d-90fe-7fff5691e7b2";

/// Something that `emulate` can do here.
#[derive(Debug)]
pub struct Entry {
    /// What it is, and which rules report it.
    pub technique: Technique,
    act: Act,
}

#[derive(Debug)]
enum Act {
    /// Hold a handle that the platform opens in this way.
    Hold,
    /// What it did, in words.
    Staged(fn(&Run) -> Result<String, SensorError>),
}

type Staged =
    (&'static str, &'static str, &'static [&'static str], fn(&Run) -> Result<String, SensorError>);

const STAGED: [Staged; 9] = [
    (
        BRIEF,
        "attaches a handle for 3 milliseconds, whatever hold time is asked for; a sensor that looks \
         from time to time may miss it, or see no more than that the device was opened",
        &[reported::UNEXPECTED],
        short,
    ),
    (
        "temp-dir",
        "captures with a copy of this program in a temporary directory",
        &[reported::UNEXPECTED, WRITABLE],
        copies::temporary,
    ),
    (
        "renamed",
        "captures with a copy of this program that is called otherwise and has tcpdump's arguments",
        &[reported::UNEXPECTED, RENAMED],
        copies::renamed,
    ),
    (
        "hidden",
        "captures with a copy of this program whose name begins with a dot",
        &[reported::UNEXPECTED, HIDDEN],
        copies::hidden,
    ),
    (
        "deleted",
        "captures with a copy of this program that is deleted as soon as it runs",
        &[reported::UNEXPECTED, DELETED],
        copies::deleted,
    ),
    (
        "inherited",
        "opens a handle, forks, and closes its own: only the child holds it then",
        &[reported::UNEXPECTED],
        handover::inherited,
    ),
    (
        "passed",
        "opens a handle, passes it to another process (SCM_RIGHTS), and closes its own",
        &[reported::UNEXPECTED],
        handover::passed,
    ),
    (
        "in-flight",
        "puts a handle into a message that nobody reads, for 6 s at least, and closes its own: no \
         process holds it",
        &[reported::UNEXPECTED, IN_FLIGHT],
        handover::in_flight,
    ),
    (
        "upload",
        "holds a handle, writes a capture file with a packet made up, and sends it to a port of \
         loopback with a copy of this program that is called curl",
        &[reported::UNEXPECTED, FILE_MOVED],
        upload::upload,
    ),
];

/// All that can be shown here.
pub fn entries(platform: &dyn Platform) -> Vec<Entry> {
    let handles = platform.techniques();
    let attaches = handles.iter().any(|technique| technique.name == ATTACH);
    let handles = handles.into_iter().map(|technique| Entry { technique, act: Act::Hold });
    let staged = STAGED.iter().filter(|_| attaches).map(|&(name, what, rules, act)| Entry {
        technique: Technique { name, what, rules },
        act: Act::Staged(act),
    });
    handles.chain(staged).collect()
}

impl Entry {
    /// Does it, and tells in words what it did.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn act(&self, run: &Run) -> Result<String, SensorError> {
        match self.act {
            Act::Staged(act) => act(run),
            Act::Hold => {
                run.involve(std::process::id());
                let open = run.open(self.technique.name)?;
                let held = run.hold(|known| self.is_reported(known));
                Ok(format!("pid {} held {}, for {held}", std::process::id(), open.held))
            }
        }
    }

    /// Rules whose report is enough although it names no process: that somebody opened the device.
    pub fn reported_without_process(&self) -> &'static [&'static str] {
        if self.technique.name == BRIEF { &UNKNOWN_OPENER } else { &[] }
    }

    fn is_reported(&self, known: &run::Known) -> bool {
        // That it is kept quiet about shows at the end alone.
        !self.technique.rules.is_empty() && known.has(self.technique.rules)
    }
}

fn short(run: &Run) -> Result<String, SensorError> {
    run.involve(std::process::id());
    let open = run.open(ATTACH)?;
    std::thread::sleep(SHORT);
    Ok(format!("pid {} held {}, for {} ms", std::process::id(), open.held, SHORT.as_millis()))
}

/// A failure of this command, with what to do about it.
fn failed(what: impl Into<String>, mend: &str) -> SensorError {
    SensorError { sensor: "emulate", what: what.into(), mend: Some(mend.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_technique_is_reported_by_rules_that_are_shipped() {
        let (set, _) = bpfwatch_core::rules::RuleSet::load(&crate::shipped::files());
        let entries = entries(&*crate::platform::current());
        let names: BTreeSet<&str> = entries.iter().map(|entry| entry.technique.name).collect();
        assert_eq!(names.len(), entries.len(), "names are unlike each other");
        for entry in &entries {
            for id in entry.technique.rules.iter().chain(entry.reported_without_process()) {
                assert!(set.rules().iter().any(|rule| rule.shown.id == *id), "{entry:?}: {id}");
            }
        }
    }
}
