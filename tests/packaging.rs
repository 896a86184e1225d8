//! What packages the program, held against the program and the tree: units, manifests and recipes are
//! read by nobody until they fail on somebody else's machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails is a test that fails; the exemption covers only test functions"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

const UNIT: &str = "linux/systemd/bpfwatch.service";

/// The values of a key of the unit.
fn unit(key: &str) -> Vec<String> {
    let text = read(UNIT);
    let value = |line: &str| line.strip_prefix(&format!("{key}=")).map(str::to_owned);
    text.lines().filter_map(value).collect()
}

fn names(text: &str) -> BTreeSet<String> {
    let words = text.split([' ', ',', '[', ']', '"']).filter(|word| !word.is_empty());
    words.map(|word| word.trim_start_matches("CAP_").to_owned()).collect()
}

/// The capabilities of the manifest.
fn pod() -> BTreeSet<String> {
    let text = read("linux/kubernetes/daemonset.yaml");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("add: ")).unwrap();
    names(line)
}

#[test]
fn unit_and_manifest_give_the_same_capabilities() {
    let bounding = names(&unit("CapabilityBoundingSet")[0]);
    assert_eq!(bounding, pod());
    // Each with its reason.
    for file in [UNIT, "linux/kubernetes/daemonset.yaml"] {
        let text = read(file);
        let comments: String = text.lines().filter(|line| line.trim().starts_with('#')).collect();
        for name in &bounding {
            assert!(comments.contains(name.as_str()), "{name} has no reason in {file}");
        }
    }
}

#[test]
fn the_unit_says_what_the_program_does() {
    assert_eq!(unit("Type"), ["notify"]);
    assert_eq!(unit("ExecStart"), ["/usr/bin/bpfwatch run"]);
    assert_eq!(unit("ExecReload"), ["/bin/sh -c 'kill -HUP $$MAINPID'"]);
    assert_eq!(unit("StateDirectory"), ["bpfwatch"]);
    assert_eq!(unit("RuntimeDirectory"), ["bpfwatch"]);
    assert!(!unit("WatchdogSec").is_empty());
    for never in ["ProtectProc", "ProcSubset", "PrivateNetwork", "PrivateUsers", "DynamicUser"] {
        assert!(unit(never).is_empty(), "{never} blinds a sensor");
    }
    assert_eq!(unit("RestrictNamespaces"), ["net"]);
}

#[test]
fn systemd_takes_the_unit() {
    let test = "systemd_takes_the_unit";
    let analyze =
        |args: &[&str]| Command::new("systemd-analyze").args(args).arg(root().join(UNIT)).output();
    let Ok(verified) = analyze(&["verify", "--man=no"]) else {
        return eprintln!("skipped: {test}: systemd-analyze is not installed");
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    // The program need not be installed here; anything else said about our unit is a fault.
    let ours = |line: &&str| line.contains("bpfwatch.service") && !line.contains("not executable");
    let faults: Vec<&str> = said.lines().filter(ours).collect();
    assert!(faults.is_empty(), "{faults:#?}");

    // Since systemd 250. Its measure goes from 0 to 10; what is left is what the sensors need.
    let scored = analyze(&["security", "--offline=true", "--no-pager", "--threshold=40"]).unwrap();
    let out = String::from_utf8_lossy(&scored.stdout).into_owned();
    if !out.contains("Overall exposure level") {
        return eprintln!("skipped: {test}: this systemd-analyze has no offline score");
    }
    assert!(scored.status.success(), "{out}");
}

#[test]
fn the_container_recipe_copies_what_the_build_needs() {
    let text = read("linux/container/Containerfile");
    let mut copied = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        if line.starts_with("--from=") {
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "{source} is not in the tree");
            copied.insert((*source).to_owned());
        }
    }
    // All members of the workspace, and what the build script and the manifest name.
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    for member in names(members) {
        let top = Path::new(&member).components().next().unwrap();
        let top = top.as_os_str().to_str().unwrap();
        assert!(copied.contains(top), "{member} is not copied");
    }
    for needed in ["Cargo.toml", "Cargo.lock", "build.rs", "rules", "benches"] {
        assert!(copied.contains(needed), "{needed} is not copied");
    }
    let ignored = read("linux/container/Containerfile.dockerignore");
    for line in ignored.lines() {
        assert!(!copied.contains(line), "{line} is copied and ignored");
    }
}

#[test]
fn the_debian_package_names_files_that_are_there() {
    let manifest = read("Cargo.toml");
    let (_, deb) = manifest.split_once("\nassets = [").unwrap();
    let (assets, _) = deb.split_once("\n]").unwrap();
    let script = read("linux/debian/build");
    let mut count = 0;
    for line in assets.lines().map(str::trim).filter(|line| line.starts_with('[')) {
        let source = line.split('"').nth(1).unwrap();
        count += 1;
        match source.strip_prefix("target/release/package/") {
            // Made by the script.
            Some(made) => {
                let stem = made.rsplit_once('.').map_or(made, |(stem, _)| stem);
                let stem = stem.split('/').next().unwrap();
                assert!(script.contains(&format!("$made/{stem}")), "{made} is not made");
            }
            None if source.starts_with("target/release/") => {}
            None => assert!(root().join(source).exists(), "{source} is not in the tree"),
        }
    }
    assert!(count > 8);
    // The section of the manual, as the program writes it and as the unit and the package name it.
    let pages = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("packaging-man");
    fs::create_dir_all(&pages).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_bpfwatch")).arg("man").arg(&pages).status();
    assert!(made.unwrap().success());
    assert!(pages.join("bpfwatch-status.8").is_file());
    assert!(assets.contains("man/*.8\", \"usr/share/man/man8/\""));
    assert_eq!(unit("Documentation"), ["man:bpfwatch(8)"]);
    for script in ["build", "postinst", "postrm"] {
        let path = root().join("linux/debian").join(script);
        let checked = Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }
    for script in ["postinst", "postrm"] {
        assert!(read(&format!("linux/debian/{script}")).contains("#DEBHELPER#"));
    }
}
