//! `mdm-profile`: what an administrator installs on a fleet of Macs through MDM.

use std::io::Write;
use std::path::PathBuf;

use bpfwatch_macos::names::BUNDLE_ID;
use bpfwatch_macos::profile::{Profile, ProfileError};
use clap::Args;

use crate::config::{self, Config};
use crate::exit::{Code, Failure, Outcome};

/// Print a configuration profile for a fleet of Macs
#[derive(Debug, Args)]
#[command(after_help = "\
The profile gives bpfwatch Full Disk Access (which Endpoint Security needs), keeps its daemon from
being switched off as a login item, keeps its records of the level info in the unified log, and
carries settings: those of the configuration file that is named, in the preference domain of the
bundle. It can be made on any system.

Examples:
  bpfwatch mdm-profile --team-id ABCDE12345 > bpfwatch.mobileconfig
  bpfwatch mdm-profile --team-id ABCDE12345 --config fleet.toml > bpfwatch.mobileconfig")]
pub struct MdmProfile {
    /// Apple team that signs the bundle.
    #[arg(long, value_name = "TEAM")]
    team_id: String,
    /// Bundle identifier, if the bundle was built under another.
    #[arg(long, value_name = "ID", default_value = BUNDLE_ID)]
    bundle_id: String,
    /// Whose profile it is, as users see it.
    #[arg(long, value_name = "NAME", default_value = "bpfwatch")]
    organization: String,
    /// Settings to put in, as a configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl MdmProfile {
    /// Prints it.
    pub fn run(self) -> Outcome {
        let settings = match &self.config {
            Some(file) => config::managed::to_plist(Config::keys(file)?),
            None => Default::default(),
        };
        let profile = Profile {
            team_id: self.team_id,
            bundle_id: self.bundle_id,
            organization: self.organization,
            settings,
        };
        let xml = profile.xml().map_err(|error| {
            let code = match error {
                ProfileError::Write(_) => Code::Software,
                ProfileError::Team(_) | ProfileError::Bundle(_) => Code::Usage,
            };
            Failure::new(code, error.to_string())
        })?;
        std::io::stdout().write_all(&xml).map_err(|error| Failure::output(&error))?;
        Ok(Code::Ok)
    }
}
