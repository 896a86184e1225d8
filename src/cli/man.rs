//! `man`: manual pages, from the command line's own definition (clap_mangen), so that packages need
//! not carry pages that age.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man as Page;

use super::command;
use crate::exit::{Code, Failure, Outcome};
use crate::output;

/// Print the manual page, or write one for each command into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bpfwatch man | man -l -
  bpfwatch man /usr/local/share/man/man8")]
pub struct Man {
    /// Directory for one page for each command.
    dir: Option<PathBuf>,
}

impl Man {
    /// Prints or writes it.
    pub fn run(&self) -> Outcome {
        let mut program = command();
        program.build();
        match &self.dir {
            Some(dir) => {
                write(&program, "bpfwatch", dir)?;
                Ok(Code::Ok)
            }
            None => {
                let page = render(&program, "bpfwatch").map_err(|error| Failure::output(&error))?;
                output::print(&String::from_utf8_lossy(&page))?;
                Ok(Code::Ok)
            }
        }
    }
}

fn write(command: &Command, name: &str, dir: &Path) -> Result<(), Failure> {
    let file = dir.join(format!("{name}.8"));
    render(command, name)
        .and_then(|page| fs::write(&file, page))
        .map_err(|error| Failure::file("write", &file, &error))?;
    for child in command.get_subcommands() {
        write(child, &format!("{name}-{}", child.get_name()), dir)?;
    }
    Ok(())
}

fn render(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    // Section 8: commands for those who run the system.
    Page::new(command.clone()).title(name.to_uppercase()).section("8").render(&mut page)?;
    Ok(page)
}
