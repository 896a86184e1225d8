//! A configuration profile for MDM: what an administrator must allow on a fleet of Macs, and the
//! settings that go with it.
//!
//! Keys and types of the payloads are those of Apple's device management reference:
//! TCC.configuration-profile-policy (`SystemPolicyAllFiles` is Full Disk Access), servicemanagement
//! (managed login items, macOS 13), system.logging, and a payload of our own preference domain.

use bpfwatch_core::ids;
use plist::{Dictionary, Value};

use crate::names::{BUNDLE_ID, DOMAIN, LABEL, SUBSYSTEM};

/// What the profile is made for.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Apple team that signs the bundle: ten capital letters and digits.
    pub team_id: String,
    /// Bundle identifier, [`BUNDLE_ID`] unless the bundle was built under another.
    pub bundle_id: String,
    /// Who installs it, as users see it.
    pub organization: String,
    /// Settings, with the keys of the configuration file.
    pub settings: Dictionary,
}

/// Why no profile can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not a team identifier.
    #[error("`{0}` is no team identifier: it has ten capital letters and digits")]
    Team(String),
    /// Not a bundle identifier.
    #[error("`{0}` is no bundle identifier: use letters, digits, hyphens and dots")]
    Bundle(String),
    /// The profile could not be written as XML.
    #[error("the profile cannot be written: {0}")]
    Write(String),
}

impl Profile {
    /// The profile as XML.
    ///
    /// # Errors
    /// When an identifier is none: it would end up in a code requirement.
    pub fn xml(&self) -> Result<Vec<u8>, ProfileError> {
        let is_team = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        if self.team_id.len() != 10 || !self.team_id.chars().all(is_team) {
            return Err(ProfileError::Team(self.team_id.clone()));
        }
        let is_bundle = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        if self.bundle_id.is_empty() || !self.bundle_id.chars().all(is_bundle) {
            return Err(ProfileError::Bundle(self.bundle_id.clone()));
        }
        let mut out = Vec::new();
        plist::to_writer_xml(&mut out, &self.value())
            .map_err(|error| ProfileError::Write(error.to_string()))?;
        out.push(b'\n');
        Ok(out)
    }

    fn value(&self) -> Value {
        let content =
            vec![self.full_disk_access(), self.login_items(), self.logging(), self.settings()];
        let mut profile = self.payload("Configuration", "profile", "bpfwatch");
        profile.insert("PayloadScope".to_owned(), "System".into());
        profile.insert("PayloadOrganization".to_owned(), self.organization.as_str().into());
        profile.insert(
            "PayloadDescription".to_owned(),
            "Lets bpfwatch see who captures network traffic, and sets it up.".into(),
        );
        profile.insert("PayloadContent".to_owned(), Value::Array(content));
        Value::Dictionary(profile)
    }

    /// The keys that every payload has. The UUID is derived, so that a new version of the profile takes
    /// the place of the old one instead of standing beside it.
    fn payload(&self, kind: &str, part: &str, name: &str) -> Dictionary {
        let id = format!("{}.{part}", self.bundle_id);
        let uuid = ids::derive(&[b"mdm", id.as_bytes(), self.team_id.as_bytes(), kind.as_bytes()]);
        dictionary([
            ("PayloadType", kind.into()),
            ("PayloadVersion", 1.into()),
            ("PayloadIdentifier", id.into()),
            ("PayloadUUID", uuid.to_uppercase().into()),
            ("PayloadDisplayName", name.into()),
        ])
    }

    /// Endpoint Security gives events only to a client with Full Disk Access.
    fn full_disk_access(&self) -> Value {
        let entry = dictionary([
            ("Identifier", self.bundle_id.as_str().into()),
            ("IdentifierType", "bundleID".into()),
            ("CodeRequirement", self.code_requirement().into()),
            ("StaticCode", false.into()),
            ("Allowed", true.into()),
            ("Comment", "Endpoint Security needs Full Disk Access".into()),
        ]);
        let services =
            dictionary([("SystemPolicyAllFiles", Value::Array(vec![Value::Dictionary(entry)]))]);
        let kind = "com.apple.TCC.configuration-profile-policy";
        let mut payload = self.payload(kind, "tcc", "bpfwatch: Full Disk Access");
        payload.insert("Services".to_owned(), Value::Dictionary(services));
        Value::Dictionary(payload)
    }

    /// A user must not switch the daemon off in the settings of login items.
    fn login_items(&self) -> Value {
        let rule = |kind: &str, value: &str| {
            Value::Dictionary(dictionary([
                ("RuleType", kind.into()),
                ("RuleValue", value.into()),
                ("TeamIdentifier", self.team_id.as_str().into()),
                ("Comment", "bpfwatch runs in the background".into()),
            ]))
        };
        let rules = vec![rule("BundleIdentifier", &self.bundle_id), rule("Label", LABEL)];
        let kind = "com.apple.servicemanagement";
        let mut payload = self.payload(kind, "login-items", "bpfwatch: background item");
        payload.insert("Rules".to_owned(), Value::Array(rules));
        Value::Dictionary(payload)
    }

    /// Findings of the level informational are kept too.
    fn logging(&self) -> Value {
        let level = dictionary([("Enable", "Info".into()), ("Persist", "Info".into())]);
        let options = dictionary([("Level", Value::Dictionary(level))]);
        let subsystem = dictionary([("DEFAULT-OPTIONS", Value::Dictionary(options))]);
        let subsystems = dictionary([(SUBSYSTEM, Value::Dictionary(subsystem))]);
        let mut payload =
            self.payload("com.apple.system.logging", "logging", "bpfwatch: unified log");
        payload.insert("Subsystems".to_owned(), Value::Dictionary(subsystems));
        Value::Dictionary(payload)
    }

    fn settings(&self) -> Value {
        let mut payload = self.payload(DOMAIN, "settings", "bpfwatch: settings");
        for (key, value) in &self.settings {
            payload.insert(key.clone(), value.clone());
        }
        Value::Dictionary(payload)
    }

    /// What `codesign --display --requirements -` shows of a program signed with a Developer ID
    /// (Apple, TN3127: Inside Code Signing: Requirements).
    fn code_requirement(&self) -> String {
        format!(
            "anchor apple generic and identifier \"{}\" and (certificate leaf[field.1.2.840.113635.100.6.1.9] \
             /* exists */ or certificate 1[field.1.2.840.113635.100.6.2.6] /* exists */ and certificate \
             leaf[field.1.2.840.113635.100.6.1.13] /* exists */ and certificate leaf[subject.OU] = \"{}\")",
            self.bundle_id, self.team_id
        )
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            team_id: String::new(),
            bundle_id: BUNDLE_ID.to_owned(),
            organization: "bpfwatch".to_owned(),
            settings: Dictionary::new(),
        }
    }
}

fn dictionary<const N: usize>(entries: [(&str, Value); N]) -> Dictionary {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
