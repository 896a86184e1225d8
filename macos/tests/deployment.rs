//! The files of the deployment parse, and agree with each other and with the program.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a file that is wrong is a test that fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use bpfwatch_macos::names::{BUNDLE_ID, DOMAIN, LABEL, LOG_FILE, MANAGED, PROGRAM, SUBSYSTEM};
use bpfwatch_macos::profile::{Profile, ProfileError};
use bpfwatch_macos::unified::Category;
use plist::{Dictionary, Value};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> Value {
    Value::from_file(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn dictionary(path: &str) -> Dictionary {
    read(path).into_dictionary().unwrap()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn string<'a>(dictionary: &'a Dictionary, key: &str) -> &'a str {
    dictionary.get(key).and_then(Value::as_string).unwrap_or_else(|| panic!("no string {key}"))
}

fn flag(dictionary: &Dictionary, key: &str) -> Option<bool> {
    dictionary.get(key).and_then(Value::as_boolean)
}

fn list<'a>(dictionary: &'a Dictionary, key: &str) -> &'a [Value] {
    dictionary.get(key).and_then(Value::as_array).unwrap_or_else(|| panic!("no list {key}"))
}

fn inner<'a>(dictionary: &'a Dictionary, key: &str) -> &'a Dictionary {
    dictionary.get(key).and_then(Value::as_dictionary).unwrap_or_else(|| panic!("no keys {key}"))
}

fn keys(dictionary: &Dictionary) -> Vec<&str> {
    let mut keys: Vec<&str> = dictionary.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn launchd_starts_the_program_of_the_bundle() {
    let daemon = dictionary(&format!("LaunchDaemons/{LABEL}.plist"));
    assert_eq!(string(&daemon, "Label"), LABEL);
    assert_eq!(list(&daemon, "ProgramArguments"), [Value::from(PROGRAM), Value::from("run")]);
    assert_eq!(list(&daemon, "AssociatedBundleIdentifiers"), [Value::from(BUNDLE_ID)]);
    for on in ["RunAtLoad", "KeepAlive"] {
        assert_eq!(flag(&daemon, on), Some(true), "{on}");
    }
    // Either would throttle a consumer of Endpoint Security.
    assert!(!daemon.contains_key("ProcessType") && !daemon.contains_key("LowPriorityIO"));
    // The file that is rotated has one writer, which opens it anew: launchd would hold it.
    for stream in ["StandardOutPath", "StandardErrorPath"] {
        assert_ne!(string(&daemon, stream), LOG_FILE, "{stream}");
    }
    // Octal 077, in the decimal that launchd.plist(5) wants.
    assert_eq!(daemon.get("Umask").and_then(Value::as_signed_integer), Some(0o077));
}

#[test]
fn the_bundle_is_the_one_that_is_signed() {
    let info = dictionary("macos/bundle/Info.plist");
    assert_eq!(string(&info, "CFBundleIdentifier"), BUNDLE_ID);
    let executable = format!("Contents/MacOS/{}", string(&info, "CFBundleExecutable"));
    assert!(PROGRAM.ends_with(&executable), "{PROGRAM}");
    assert_eq!(string(&info, "CFBundleShortVersionString"), env!("CARGO_PKG_VERSION"));
    assert_eq!(keys(inner(&info, "OSLogPreferences")), [SUBSYSTEM]);

    let release = dictionary("entitlements/release.entitlements");
    let client = "com.apple.developer.endpoint-security.client";
    assert_eq!(flag(&release, client), Some(true));
    let application = string(&release, "com.apple.application-identifier");
    let team = string(&release, "com.apple.developer.team-identifier");
    assert_eq!(application, format!("{team}.{BUNDLE_ID}"));
    // build.sh replaces it, and would sign with a team of that name if it did not.
    assert!(text("macos/pkg/build.sh").contains(&format!("s/{team}/$TEAM_ID/g")));
    let adhoc = dictionary("entitlements/adhoc.entitlements");
    assert_eq!(keys(&adhoc), [client]);
}

#[test]
fn the_package_puts_things_where_launchd_looks() {
    let components = read("macos/pkg/component.plist");
    let [Value::Dictionary(component)] = components.as_array().unwrap().as_slice() else {
        panic!("one component");
    };
    let bundle = string(component, "RootRelativeBundlePath");
    assert!(PROGRAM.starts_with(&format!("/{bundle}/")), "{bundle}");
    assert_eq!(flag(component, "BundleIsRelocatable"), Some(false));
    let build = text("macos/pkg/build.sh");
    assert!(build.contains(&format!("--identifier {BUNDLE_ID} ")));
    assert!(build.contains(&format!("LaunchDaemons/{LABEL}.plist")));
    let info = dictionary("macos/bundle/Info.plist");
    let oldest = string(&info, "LSMinimumSystemVersion");
    assert!(build.contains(&format!("MACOSX_DEPLOYMENT_TARGET={oldest} ")));
    let distribution = text("macos/pkg/distribution.xml");
    assert!(distribution.contains(&format!("<os-version min=\"{oldest}\"/>")));
    assert!(distribution.contains(&format!("<pkg-ref id=\"{BUNDLE_ID}\">")));
    for script in ["preinstall", "postinstall", "uninstall"] {
        let script = text(&format!("macos/pkg/scripts/{script}"));
        assert!(script.starts_with("#!/bin/sh\n"));
        assert!(script.contains(&format!("label={LABEL}\n")));
    }
    assert_eq!(MANAGED, format!("/Library/Managed Preferences/{DOMAIN}.plist"));
}

#[test]
fn what_the_default_configuration_writes_is_rotated() {
    let rotation = text("macos/newsyslog.d/bpfwatch.conf");
    let mut lines = rotation.lines().filter(|line| !line.starts_with('#'));
    let fields: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let [file, "root:wheel", "640", _count, _size, "*", "BN"] = fields[..] else {
        panic!("{fields:?}")
    };
    assert_eq!((file, lines.next()), (LOG_FILE, None));
    let build = text("macos/pkg/build.sh");
    assert!(build.contains("rotation=$out/root/private/etc/newsyslog.d\n"));
    assert!(build.contains("/macos/newsyslog.d/bpfwatch.conf\" \"$rotation/\"\n"));
    assert!(text("macos/pkg/scripts/uninstall").contains(" /etc/newsyslog.d/bpfwatch.conf\n"));
}

/// The commands of README that read the unified log.
fn predicates() -> Vec<String> {
    let readme = text("README.md");
    let commands = readme.lines().filter(|line| {
        let line = line.trim_start_matches("sudo ");
        line.starts_with("log stream ") || line.starts_with("log show ")
    });
    commands.map(|line| line.split('\'').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn predicates_of_the_readme_name_what_is_written() {
    let predicates = predicates();
    assert!(predicates.len() >= 3, "{predicates:?}");
    let quoted = |text: &str| text.split_once('"').unwrap().1.split_once('"').unwrap().0.to_owned();
    for predicate in predicates {
        for term in predicate.split(" AND ").flat_map(|term| term.split(" OR ")) {
            let (key, value) = term.trim_matches(['(', ')']).split_once(' ').unwrap();
            match key {
                "subsystem" => assert_eq!(quoted(value), SUBSYSTEM),
                "category" => {
                    let all = [Category::Findings, Category::Sensor, Category::Delivery];
                    assert!(all.iter().any(|known| known.as_str() == quoted(value)), "{term}");
                }
                "messageType" => {
                    assert!(["== error", "== fault", "== default", "== info"].contains(&value));
                }
                "eventMessage" => {
                    // A field as JSON has it, its quotation marks escaped for the predicate.
                    let field =
                        value.strip_prefix("CONTAINS \"").unwrap().strip_suffix('"').unwrap();
                    let object = format!("{{{}}}", field.replace("\\\"", "\""));
                    let object: serde_json::Value = serde_json::from_str(&object).unwrap();
                    let written = object.to_string();
                    assert_eq!(&written[1..written.len() - 1], field.replace("\\\"", "\""));
                }
                _ => panic!("{term}"),
            }
        }
    }
}

fn profile() -> Profile {
    let settings = Dictionary::from_iter([("level".to_owned(), Value::from("high"))]);
    Profile { team_id: "ABCDE12345".to_owned(), settings, ..Profile::default() }
}

/// Types of the keys of a payload, by Apple's device management reference.
#[derive(Clone, Copy)]
enum Type {
    Text,
    Flag,
    Number,
    List,
    Keys,
}

use Type::{Flag, Keys, List, Number, Text};

/// Keys that every payload may have.
const COMMON: [(&str, Type); 7] = [
    ("PayloadType", Text),
    ("PayloadVersion", Number),
    ("PayloadIdentifier", Text),
    ("PayloadUUID", Text),
    ("PayloadDisplayName", Text),
    ("PayloadDescription", Text),
    ("PayloadOrganization", Text),
];

/// Every key is one of `known` and has its type.
fn check(dictionary: &Dictionary, known: &[(&str, Type)]) {
    for (key, value) in dictionary {
        let kind = known.iter().find(|(name, _)| name == key).map(|(_, kind)| kind);
        let fits = match kind.unwrap_or_else(|| panic!("`{key}` is no key of Apple's")) {
            Text => value.as_string().is_some_and(|text| !text.is_empty()),
            Flag => value.as_boolean().is_some(),
            Number => value.as_signed_integer().is_some(),
            List => value.as_array().is_some_and(|list| !list.is_empty()),
            Keys => value.as_dictionary().is_some(),
        };
        assert!(fits, "`{key}` is of another type: {value:?}");
    }
}

fn check_payload(payload: &Dictionary, kind: &str, own: &[(&str, Type)]) {
    assert_eq!(string(payload, "PayloadType"), kind);
    check(payload, &[&COMMON, own].concat());
}

#[test]
fn the_profile_has_apples_keys_and_types() {
    let xml = profile().xml().unwrap();
    let top = Value::from_reader_xml(xml.as_slice()).unwrap().into_dictionary().unwrap();
    check_payload(&top, "Configuration", &[("PayloadScope", Text), ("PayloadContent", List)]);
    assert_eq!(string(&top, "PayloadScope"), "System");
    let payloads: Vec<&Dictionary> =
        list(&top, "PayloadContent").iter().map(|value| value.as_dictionary().unwrap()).collect();
    let [tcc, login, logging, settings] = payloads[..] else { panic!("{}", payloads.len()) };

    check_payload(tcc, "com.apple.TCC.configuration-profile-policy", &[("Services", Keys)]);
    check(inner(tcc, "Services"), &[("SystemPolicyAllFiles", List)]);
    let access = list(inner(tcc, "Services"), "SystemPolicyAllFiles")[0].as_dictionary().unwrap();
    let own = [
        ("Identifier", Text),
        ("IdentifierType", Text),
        ("CodeRequirement", Text),
        ("StaticCode", Flag),
        ("Allowed", Flag),
        ("Comment", Text),
    ];
    check(access, &own);
    assert_eq!(string(access, "IdentifierType"), "bundleID");
    assert_eq!(string(access, "Identifier"), BUNDLE_ID);
    let requirement = string(access, "CodeRequirement");
    assert!(requirement.contains("\"ABCDE12345\"") && requirement.contains(BUNDLE_ID));

    check_payload(login, "com.apple.servicemanagement", &[("Rules", List)]);
    for rule in list(login, "Rules") {
        let rule = rule.as_dictionary().unwrap();
        let own =
            [("RuleType", Text), ("RuleValue", Text), ("TeamIdentifier", Text), ("Comment", Text)];
        check(rule, &own);
        let kinds = ["BundleIdentifier", "BundleIdentifierPrefix", "Label", "LabelPrefix"];
        assert!(kinds.contains(&string(rule, "RuleType")));
    }
    check_payload(logging, "com.apple.system.logging", &[("Subsystems", Keys), ("System", Keys)]);
    assert_eq!(keys(inner(logging, "Subsystems")), [SUBSYSTEM]);
    // The bundle asks for the same, for Macs without the profile.
    let info = dictionary("macos/bundle/Info.plist");
    assert_eq!(inner(logging, "Subsystems"), inner(&info, "OSLogPreferences"));
    let options = inner(inner(inner(logging, "Subsystems"), SUBSYSTEM), "DEFAULT-OPTIONS");
    check(options, &[("Level", Keys)]);
    check(inner(options, "Level"), &[("Enable", Text), ("Persist", Text)]);
    check_payload(settings, DOMAIN, &[("level", Text)]);
    assert_eq!(string(settings, "level"), "high");

    let every = payloads.iter().copied().chain([&top]);
    let mut ids: Vec<&str> = every.map(|payload| string(payload, "PayloadUUID")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "each payload has a UUID of its own");
    assert_eq!(xml, profile().xml().unwrap(), "a new one must take the place of the old one");
}

#[test]
fn no_identifier_breaks_out_of_the_code_requirement() {
    for team in ["", "abcde12345", "ABCDE1234", "ABCDE123456", "ABCDE\"1234"] {
        let wrong = Profile { team_id: team.to_owned(), ..profile() };
        assert_eq!(wrong.xml(), Err(ProfileError::Team(team.to_owned())));
    }
    for bundle in ["", "a b", "x\" or anchor apple", "x\n"] {
        let wrong = Profile { bundle_id: bundle.to_owned(), ..profile() };
        assert_eq!(wrong.xml(), Err(ProfileError::Bundle(bundle.to_owned())));
    }
}

#[test]
fn shellcheck_has_nothing_to_say() {
    let scripts = ["build.sh", "scripts/preinstall", "scripts/postinstall", "scripts/uninstall"];
    let files = scripts.map(|script| root().join("macos/pkg").join(script));
    let Ok(checked) = Command::new("shellcheck").arg("--shell=sh").args(files).output() else {
        return eprintln!("skipped: shellcheck_has_nothing_to_say: shellcheck is not installed");
    };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
