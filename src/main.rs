//! Parses the command line, runs one command and turns its result into an exit code.
//!
//! | module | duty |
//! |---|---|
//! | [`cli`] | the command line: one file for each command |
//! | [`wiring`] | composition root: rules, sensors, pipeline, sinks |
//! | [`daemon`] | the daemon behind `run` |
//! | [`emulate`] | captures that are done to try detection |
//! | [`baseline`] | expected filters, learnt from findings |
//! | [`config`], [`trust`] | the configuration file, and whether it may be believed |
//! | [`platform`] | picks the operating system |
//! | [`shipped`] | the embedded rules |
//! | [`signals`] | SIGINT, SIGTERM, SIGHUP |
//! | [`output`], [`page`], [`progress`], [`exit`] | what the user sees |

mod baseline;
mod cli;
mod config;
mod daemon;
mod emulate;
mod exit;
mod output;
mod page;
mod platform;
mod progress;
mod shipped;
mod signals;
mod trust;
mod wiring;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = emulate::play() {
        return code;
    }
    match cli::run() {
        Ok(code) => code.into(),
        Err(failure) => {
            if !failure.is_quiet() {
                output::error(&failure);
            }
            failure.code.into()
        }
    }
}
