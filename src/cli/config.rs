//! `config`: check the configuration, or print the default one.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::daemon::plan::{Plan, Source};
use crate::exit::{Code, Outcome};
use crate::wiring::rules;
use crate::{config, output, platform};

/// Check the configuration file, or print the default one
#[derive(Debug, Args)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read the configuration and its rules as the daemon would, and say what is wrong
    #[command(after_help = "\
Exits with 78 if the daemon would not take it, with 65 if a rule is refused.

Examples:
  bpfwatch config check
  bpfwatch config check --config ./bpfwatch.toml && systemctl reload bpfwatch")]
    Check {
        /// The file, instead of the system's own.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the default configuration, commented
    #[command(after_help = "\
Example:
  bpfwatch config default > /etc/bpfwatch/bpfwatch.toml")]
    Default,
}

impl Config {
    /// Does it.
    pub fn run(self) -> Outcome {
        match self.action {
            Action::Check { config } => check(config),
            Action::Default => {
                output::print(&config::default_text())?;
                Ok(Code::Ok)
            }
        }
    }
}

fn check(path: Option<PathBuf>) -> Outcome {
    let plan = Plan::read(&Source { file: path, strict_rules: false })?;
    let Plan { config, files, rules } = &plan;
    rules::warn(rules);
    plan.check(&*platform::current())?;
    let count = config.sinks.len();
    let loaded = rules.set.rules().len();
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let name = match names.as_slice() {
        [] => format!("no {}: the defaults", crate::platform::CONFIG),
        names => names.join(", "),
    };
    let s = if count == 1 { "" } else { "s" };
    output::print(&format!("{name}: good; {loaded} rules, {count} sink{s}\n"))?;
    rules::strict(rules)?;
    Ok(Code::Ok)
}
