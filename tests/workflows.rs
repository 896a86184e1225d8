//! Workflows run code of others: only what was looked at, by commit.
#![allow(clippy::unwrap_used, reason = "a file that cannot be read is a test that fails")]

use std::fs;
use std::path::Path;

#[test]
fn actions_are_pinned_by_commit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows");
    let mut uses = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines() {
            let Some((_, action)) = line.split_once("uses:") else { continue };
            uses += 1;
            let (action, version) = action.split_once('#').unwrap_or((action, ""));
            let (_, commit) = action.trim().split_once('@').unwrap_or_default();
            let is_commit = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(is_commit, "not pinned by commit: {line}");
            assert!(!version.trim().is_empty(), "which version that is stands behind it: {line}");
        }
        assert!(text.contains("permissions:\n  contents: read\n"), "no more than it needs");
    }
    assert!(uses > 0);
}

#[test]
fn every_system_is_built_tested_and_macos_signed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows/ci.yml");
    let text = fs::read_to_string(file).unwrap();
    let job = |name: &str| {
        let (_, rest) = text.split_once(&format!("\n  {name}:\n")).unwrap();
        // The next key of the same depth ends it.
        let ends = |line: &&str| !line.starts_with("  ") || line.as_bytes().get(2) != Some(&b' ');
        rest.lines()
            .take_while(|line| line.is_empty() || !ends(line))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let macos = job("macos");
    for part in [
        "runs-on: macos-",
        "cargo test --workspace --locked",
        "codesign --force --sign - --entitlements entitlements/adhoc.entitlements",
        "codesign --verify --strict",
        "macos/pkg/build.sh --ad-hoc",
        "log show ",
    ] {
        assert!(macos.contains(part), "{part}:\n{macos}");
    }
    assert!(job("linux").contains(".ci/run"));
    let freebsd = job("freebsd");
    assert!(
        freebsd.contains("vmactions/freebsd-vm@") && freebsd.contains("cargo test --workspace")
    );
    assert!(!freebsd.contains("macos"), "one job ends before the next");
}
