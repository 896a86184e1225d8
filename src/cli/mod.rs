//! The command line: what there is to ask, and one file for each command.

mod baseline;
mod completions;
mod config;
mod doctor;
mod emulate;
mod man;
mod mdm_profile;
mod replay;
mod rules;
mod run;
mod scan;
mod status;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use bpfwatch_core::finding::Level;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::exit::{self, Code, Failure, Outcome};
use crate::output::{self, Color, Shape};

/// Who is capturing network traffic on this machine, through what, and should they be?
#[derive(Debug, Parser)]
#[command(
    name = "bpfwatch",
    version,
    about,
    after_help = EXAMPLES,
    after_long_help = long_help(),
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Cli {
    /// When to use colours.
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true
    )]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bpfwatch scan                     who holds a capture handle now
  bpfwatch watch --for 30s          findings as they happen
  bpfwatch replay night.jsonl       a recording through the same rules
  bpfwatch doctor                   what can be seen here, and what cannot
  bpfwatch status                   how the running daemon fares
  bpfwatch emulate promiscuous --verify

`bpfwatch COMMAND --help` has examples for each command; --help lists the exit codes too.";

fn long_help() -> String {
    format!("{EXAMPLES}\n\n{}", exit::HELP)
}

#[derive(Debug, Subcommand)]
enum Command {
    Scan(scan::Scan),
    Watch(watch::Watch),
    Run(run::Run),
    Status(status::Status),
    Replay(replay::Replay),
    Rules(rules::Rules),
    Doctor(doctor::Doctor),
    Emulate(emulate::Emulate),
    Baseline(baseline::Baseline),
    Config(config::Config),
    MdmProfile(mdm_profile::MdmProfile),
    Completions(completions::Completions),
    Man(man::Man),
}

/// Which rules, beside the shipped ones.
#[derive(Debug, Args)]
struct RuleArgs {
    /// Load the Sigma rules in DIR as well; may be given more than once.
    #[arg(long = "rules", value_name = "DIR")]
    dirs: Vec<PathBuf>,
}

/// How output looks.
#[derive(Debug, Args)]
struct FormatArgs {
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    format: Shape,
}

/// How much of it.
#[derive(Debug, Clone, Copy, Args)]
struct VerboseArgs {
    /// Show whole command lines and every response step.
    #[arg(long, short)]
    verbose: bool,
}

/// Parses the command line and runs the command.
///
/// # Errors
/// When the command could not do what was asked.
pub fn run() -> Outcome {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return stopped(&error),
    };
    output::set_color(cli.color);
    match cli.command {
        Command::Scan(command) => command.run(),
        Command::Watch(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Replay(command) => command.run(),
        Command::Rules(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Emulate(command) => command.run(),
        Command::Baseline(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::MdmProfile(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}

/// Help and version were asked for, or the command line is wrong. clap would exit with 2 then.
fn stopped(error: &clap::Error) -> Outcome {
    error.print().map_err(|error| Failure::output(&error))?;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Code::Ok),
        _ => Ok(Code::Usage),
    }
}

/// The whole command line, for completions and manual pages.
fn command() -> clap::Command {
    Cli::command()
}

/// A level by name.
fn level(text: &str) -> Result<Level, String> {
    text.parse()
}

/// A time with its unit: `250ms`, `30s`, `5m`, `1h`; a bare number is seconds.
fn span(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("no unit `{unit}`: use ms, s, m or h, as in 30s")),
    };
    let number: u64 = digits.parse().map_err(|_| "write a whole number, as in 30s".to_owned())?;
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(|| "that is longer than time can be counted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn spans() {
        assert_eq!(span("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(span("30"), Ok(Duration::from_secs(30)));
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(span("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(span("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "s", "-1s", "1.5s", "3d", "99999999999999999999s", "9999999999999999999h"]
        {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
