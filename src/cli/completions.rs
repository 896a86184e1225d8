//! `completions`: scripts for shells, from the command line's own definition (clap_complete), so that
//! they cannot differ from it.

use clap::Args;
use clap_complete::Shell;

use super::command;
use crate::exit::{Code, Outcome};
use crate::output;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bpfwatch completions bash > /etc/bash_completion.d/bpfwatch
  bpfwatch completions zsh > /usr/share/zsh/site-functions/_bpfwatch
  bpfwatch completions fish > ~/.config/fish/completions/bpfwatch.fish")]
pub struct Completions {
    /// Which shell.
    shell: Shell,
}

impl Completions {
    /// Prints it.
    pub fn run(&self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "bpfwatch", &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(Code::Ok)
    }
}
