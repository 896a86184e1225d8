//! Harmless captures, so that detection can be tried from end to end.

use bpfwatch_core::platform::{EmulateOptions, Emulated, Technique};
use bpfwatch_core::sensor::SensorError;

/// What can be shown here.
pub fn techniques() -> Vec<Technique> {
    Vec::new()
}

/// Captures in the given way.
///
/// # Errors
/// When the technique is unknown here.
pub fn run(technique: &str, _options: &EmulateOptions) -> Result<Emulated, SensorError> {
    Err(SensorError {
        sensor: "emulate",
        what: format!("unknown technique `{technique}`"),
        mend: Some("see `bpfwatch emulate --list`".to_owned()),
    })
}
