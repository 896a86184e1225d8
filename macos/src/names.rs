//! Names that the bundle, the daemon, its logging and its managed settings share. The files beside this
//! package repeat them; a test compares.

/// Bundle identifier of `bpfwatch.app`, and signing identifier of the program in it.
pub const BUNDLE_ID: &str = "io.github.bpfwatch";
/// launchd label of the daemon.
pub const LABEL: &str = "io.github.bpfwatch.daemon";
/// Preference domain of managed settings: what MDM installs lands in [`MANAGED`].
pub const DOMAIN: &str = BUNDLE_ID;
/// Subsystem in the unified log.
pub const SUBSYSTEM: &str = BUNDLE_ID;
/// Where the program is.
pub const PROGRAM: &str = "/Applications/bpfwatch.app/Contents/MacOS/bpfwatch";
/// Where the default configuration writes beside the unified log, and what is rotated.
pub const LOG_FILE: &str = "/var/log/bpfwatch.json";
/// Managed preferences of the machine (CFPreferences: kCFPreferencesAnyUser, forced).
pub const MANAGED: &str = "/Library/Managed Preferences/io.github.bpfwatch.plist";
