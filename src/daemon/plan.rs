//! What a configuration asks for, read and checked, but not yet in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpfwatch_core::pipeline::{Pipeline, Settings};
use bpfwatch_core::platform::{HardeningSettings, Platform};

use crate::config::{self, Config};
use crate::exit::{Code, Failure};
use crate::platform;
use crate::wiring::rules::{self, Loaded};
use crate::wiring::sinks::{self, Place, Sinks};
use crate::wiring::{follow, host};

/// Where to find the configuration, and how strictly to take it.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file, instead of the system's own.
    pub file: Option<PathBuf>,
    /// A refused rule is an error.
    pub strict_rules: bool,
}

/// See the module.
pub struct Plan {
    /// The configuration.
    pub config: Config,
    /// The files that it was read from.
    pub files: Vec<PathBuf>,
    /// Its rules.
    pub rules: Loaded,
}

/// A plan that is to replace the one in force, with what it needs opened.
pub struct Next {
    /// The plan.
    pub plan: Plan,
    /// The sinks that do not run yet.
    pub opened: Sinks,
}

impl Plan {
    /// Reads configuration and rules, and checks that they may be believed.
    ///
    /// # Errors
    /// When something is wrong with them.
    pub fn read(source: &Source) -> Result<Self, Failure> {
        let (config, files) = Config::load_trusted(source.file.as_deref())?;
        // Followed files may be of other systems.
        let only = config.inputs.is_empty().then(|| platform::current().origin().os);
        let rules = rules::load_trusted(&config.rules, only)?;
        if source.strict_rules {
            rules::warn(&rules);
            rules::strict(&rules)?;
        }
        Ok(Self { config, files, rules })
    }

    /// What the pipeline is to do.
    pub fn settings(&self) -> Settings {
        Settings { redact: self.config.redact }
    }

    /// A pipeline with these rules.
    pub fn pipeline(&self) -> Pipeline {
        Pipeline::new(Arc::clone(&self.rules.set), self.settings())
    }

    /// Whether the daemon could start with it, as far as that can be told without opening anything.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, platform: &dyn Platform) -> Result<(), Failure> {
        let origin = platform.origin();
        sinks::check(&self.config.sinks, &host(&origin))?;
        follow::check(&self.config.inputs, &origin)?;
        platform.check_hardening(&self.hardening()).map_err(|error| refused_hardening(&error))
    }

    /// What the daemon is to give up.
    pub fn hardening(&self) -> HardeningSettings {
        let config = &self.config;
        let folder =
            |path: Option<&PathBuf>| path.and_then(|path| path.parent().map(Path::to_owned));
        let mut writable = vec![config.state_dir.clone()];
        writable.extend(folder(config.status.socket.as_ref()));
        writable.extend(folder(config.metrics.textfile.as_ref()));
        writable
            .extend(config.sinks.iter().filter_map(config::Sink::directory).map(Path::to_owned));
        // Packages make it, so that a sink can be added without a restart.
        writable.extend(Some(PathBuf::from(platform::LOG_DIR)).filter(|folder| folder.is_dir()));
        config.hardening.settings(writable)
    }
}

/// What is wrong with `[hardening]`.
pub fn refused_hardening(error: &str) -> Failure {
    Failure::new(Code::Config, format!("[hardening] {error}"))
        .next("mend it in the configuration, or set enabled = false there")
}

impl Next {
    /// Reads what is to replace the plan of `running`, and opens what it needs: all of it, or nothing is
    /// changed. Takes as long as reading rules does, so it is not for the thread that watches.
    ///
    /// # Errors
    /// When something is wrong with it, or it changes what takes a restart.
    pub fn prepare(source: &Source, running: &Config, place: &Place) -> Result<Self, Failure> {
        let plan = Plan::read(source)?;
        let fixed = fixed(running, &plan.config);
        if !fixed.is_empty() {
            let what = format!("{} cannot change while running", fixed.join(" and "));
            return Err(Failure::new(Code::Config, what).next("restart the daemon for that"));
        }
        let opened = Sinks::open(&plan.config.sinks, &running.sinks, place)
            .map_err(|failure| elsewhere(failure, running))?;
        Ok(Self { plan, opened })
    }
}

/// What could be written before the daemon confined itself needs a hint.
fn elsewhere(failure: Failure, running: &Config) -> Failure {
    if failure.code != Code::NoPermission || !running.hardening.enabled {
        return failure;
    }
    failure.next(
        "a running daemon writes only in directories that it knew at its start: restart it, or name this one \
         in [hardening] writable before",
    )
}

/// What differs of what is settled at the start: privileges to change it are gone by then.
fn fixed(running: &Config, new: &Config) -> Vec<&'static str> {
    [
        ("state_dir", running.state_dir != new.state_dir),
        ("[sensors]", running.sensors != new.sensors),
        ("[[input]]", running.inputs != new.inputs),
        ("[status]", running.status != new.status),
        ("[metrics]", running.metrics != new.metrics),
        ("[hardening]", running.hardening != new.hardening),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}
