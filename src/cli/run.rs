//! `run`: the daemon.

use std::path::PathBuf;

use clap::Args;

use crate::daemon::Daemon;
use crate::daemon::plan::{Plan, Source};
use crate::exit::Outcome;
use crate::platform;
use crate::wiring::warn_unprivileged;

/// Run as a daemon: findings go to the sinks of the configuration
#[derive(Debug, Args)]
#[command(after_help = "\
It stays in the foreground, as service managers want it. SIGHUP makes it read the
configuration and the rules again; if something is wrong with them it says so and goes on
with the old ones. SIGTERM and SIGINT end it. `bpfwatch status` asks it how it fares.
Configuration and rules are taken only from files that nobody but root and the user it
runs as can write.

Examples:
  bpfwatch run
  bpfwatch run --config /etc/bpfwatch/bpfwatch.toml --strict-rules
  kill -HUP $(pidof bpfwatch)")]
pub struct Run {
    /// The configuration, instead of the system's own.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not start, with exit code 65, if a rule is refused.
    #[arg(long)]
    strict_rules: bool,
}

impl Run {
    /// Runs until told to stop.
    pub fn run(self) -> Outcome {
        let source = Source { file: self.config, strict_rules: self.strict_rules };
        let plan = Plan::read(&source)?;
        warn_unprivileged();
        let platform = platform::current();
        Daemon::start(source, plan, &*platform)?.serve()
    }
}
