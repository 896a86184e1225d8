//! The object that is committed is what its source gives, and the kernel's verifier takes all of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test is a failed test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ebpf");
/// Major version of the clang that built the object: others choose other instructions.
const CLANG: &str = "14";

/// Version of clang; `None`, with a message, where there is none.
fn clang(test: &str) -> Option<String> {
    let run = |tool: &str| Command::new(tool).arg("--version").output().ok();
    let (Some(clang), Some(_)) = (run("clang"), run("llvm-strip")) else {
        println!("skipped: {test}: needs clang and llvm-strip");
        return None;
    };
    let said = String::from_utf8_lossy(&clang.stdout).into_owned();
    let version = said.split("clang version ").nth(1)?;
    Some(version.split('.').next()?.to_owned())
}

/// Builds a copy of the source elsewhere, so that no path may matter.
fn build(name: &str, flags: &[&str]) -> (PathBuf, Vec<u8>) {
    let dir = std::env::temp_dir().join(format!("bpfwatch-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let built =
        Command::new(dir.join("build")).arg(dir.join("new.o")).args(flags).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let object = std::fs::read(dir.join("new.o")).unwrap();
    (dir, object)
}

#[test]
fn nothing_was_changed_since_the_object_was_built() {
    let sums = std::fs::read_to_string(Path::new(FOLDER).join("SHA256SUMS")).unwrap();
    assert!(sums.lines().count() >= 5, "{sums}");
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let bytes = std::fs::read(Path::new(FOLDER).join(name)).unwrap();
        let mut found = String::new();
        Sha256::digest(bytes).iter().for_each(|byte| write!(found, "{byte:02x}").unwrap());
        assert_eq!(found, sum, "{name} changed: run linux/ebpf/build and commit what it gives");
    }
}

#[test]
fn the_source_gives_the_object() {
    let Some(version) = clang("the_source_gives_the_object") else { return };
    let (dir, object) = build("object", &[]);
    std::fs::remove_dir_all(dir).unwrap();
    if version != CLANG {
        println!(
            "skipped: the_source_gives_the_object: it builds, but clang {version} cannot give what \
             clang {CLANG} gave"
        );
        return;
    }
    let committed = std::fs::read(Path::new(FOLDER).join("bpfwatch.bpf.o")).unwrap();
    assert!(object == committed, "run linux/ebpf/build and commit what it gives");
}

/// Programs on functions cannot be loaded where the kernel lets no function be hooked, so they are loaded
/// as raw tracepoints, which the verifier looks at with the same eyes.
#[cfg(target_os = "linux")]
#[test]
fn the_verifier_takes_every_program() {
    use aya::programs::{Program, RawTracePoint};
    let test = "the_verifier_takes_every_program";
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: {test}: needs root");
        return;
    }
    let Ok(btf) = aya::Btf::from_sys_fs() else {
        println!("skipped: {test}: the kernel has no BTF");
        return;
    };
    if clang(test).is_none() {
        return;
    }
    let (dir, object) = build("verify", &["-DVERIFY_ONLY"]);
    std::fs::remove_dir_all(dir).unwrap();
    let mut programs = aya::EbpfLoader::new().btf(Some(&btf)).load(&object).unwrap();
    let mut loaded = 0;
    for (name, program) in programs.programs_mut() {
        if matches!(program, Program::RawTracePoint(_)) {
            let program: &mut RawTracePoint = program.try_into().unwrap();
            if let Err(error) = program.load() {
                panic!("{name}: {error}");
            }
            loaded += 1;
        }
    }
    assert_eq!(loaded, 20, "programs on functions and raw tracepoints");
}
