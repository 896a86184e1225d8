//! Where the threads that deliver may write, by Landlock.
//!
//! Reading is left as it is: a monitor reads everywhere, and what a compromised one could read it has
//! capabilities for. Writing and executing are what it never does elsewhere.

use std::path::PathBuf;

use bpfwatch_core::platform::{Check, CheckState, HardeningSettings};
use landlock::{
    ABI, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus,
};

use super::names;
use crate::proc;

const NAME: &str = "files";
/// The newest version whose rights are asked for; an older kernel gives what it has.
const NEWEST: ABI = ABI::V5;

/// Confines the calling thread, and those that it starts from then on.
pub fn confine(settings: &HardeningSettings) -> Vec<Check> {
    if !settings.enabled {
        return Vec::new();
    }
    let mut places = settings.writable.clone();
    places.sort();
    places.dedup();
    let (there, missing): (Vec<PathBuf>, Vec<PathBuf>) =
        places.into_iter().partition(|place| place.is_dir());
    let mut checks = vec![match restrict(&there) {
        Ok(RulesetStatus::NotEnforced) => {
            let detail =
                "written everywhere: the kernel has no Landlock (Linux 5.13, lsm=landlock)";
            Check::new(NAME, CheckState::Info, detail.to_owned())
        }
        Ok(status) => {
            let part = match status {
                RulesetStatus::PartiallyEnforced => ", as far as this kernel can tell",
                _ => "",
            };
            let detail = format!(
                "the threads that deliver write in {} alone{part}; those that watch cannot be \
                 confined, or they would not see other processes",
                names(&there)
            );
            Check::new(NAME, CheckState::Ok, detail)
        }
        Err(error) => Check::new(NAME, CheckState::Warning, format!("written everywhere: {error}")),
    }];
    if !missing.is_empty() {
        let detail = format!("not there, so not to be written in: {}", names(&missing));
        checks.push(Check::new(NAME, CheckState::Info, detail));
    }
    checks
}

fn restrict(places: &[PathBuf]) -> Result<RulesetStatus, RulesetError> {
    let writes = AccessFs::from_write(NEWEST);
    let handled: BitFlags<AccessFs> = writes | AccessFs::Execute;
    let mut rules: RulesetCreated = Ruleset::default().handle_access(handled)?.create()?;
    for place in places {
        // One that is gone by now needs no rule.
        if let Ok(place) = PathFd::new(place) {
            rules = rules.add_rule(PathBeneath::new(place, writes))?;
        }
    }
    // Writers that want nothing written open this.
    if let Ok(null) = PathFd::new("/dev/null") {
        rules = rules.add_rule(PathBeneath::new(null, AccessFs::WriteFile))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Whether the kernel has Landlock.
pub fn offered() -> Check {
    match proc::has_lsm("landlock") {
        Some(true) => Check::new(NAME, CheckState::Ok, "Landlock is there".to_owned()),
        Some(false) => Check {
            mend: Some("boot a kernel of Linux 5.13 or later with lsm=landlock,...".to_owned()),
            ..Check::new(
                NAME,
                CheckState::Warning,
                "no Landlock: delivering threads can write everywhere".to_owned(),
            )
        },
        None => {
            Check::new(NAME, CheckState::Info, "not known without /sys/kernel/security".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: it keeps its confinement to itself.
    #[test]
    fn writes_go_where_they_may_and_nowhere_else() {
        let dir = std::env::temp_dir().join(format!("bpfwatch-landlock-{}", std::process::id()));
        let (inside, outside) = (dir.join("inside"), dir.join("outside"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("old"), "old").unwrap();
        let settings = HardeningSettings {
            enabled: true,
            writable: vec![inside.clone(), dir.join("missing")],
            ..HardeningSettings::default()
        };
        let (own, other) = (inside.clone(), outside.clone());
        let ran = std::thread::spawn(move || {
            let checks = confine(&settings);
            if checks[0].state != CheckState::Ok {
                eprintln!("skipped: writes_go_where_they_may: {}", checks[0].detail);
                return;
            }
            assert!(checks[1].detail.contains("missing"));
            std::fs::write(own.join("new"), "x").unwrap();
            std::fs::rename(own.join("new"), own.join("newer")).unwrap();
            std::fs::remove_file(own.join("newer")).unwrap();
            for refused in [
                std::fs::write(other.join("new"), "x"),
                std::fs::write(other.join("old"), "x"),
                std::fs::remove_file(other.join("old")),
                std::fs::create_dir(other.join("dir")),
            ] {
                assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
            }
            assert_eq!(std::fs::read_to_string(other.join("old")).unwrap(), "old");
            assert!(std::process::Command::new("/bin/true").status().is_err());
            // The reason why sensors are not confined.
            let parent = std::os::unix::process::parent_id();
            assert!(std::fs::read_link(format!("/proc/{parent}/exe")).is_err());
        })
        .join();
        std::fs::remove_dir_all(&dir).unwrap();
        ran.unwrap();
    }
}
