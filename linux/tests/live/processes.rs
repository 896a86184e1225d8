//! Processes: what is read of them at execution.

use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use bpfwatch_core::observation::Kind;

use crate::watcher::{Killed, Watcher, by, has_argument, is_root};

#[test]
fn two_megabytes_of_arguments() {
    if !is_root("two_megabytes_of_arguments") {
        return;
    }
    let mut watcher = Watcher::start();
    let padding = "x".repeat(100_000);
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 60"]);
    command.args(std::iter::repeat_n(&padding, 15)).arg("--the-end");
    let run = Killed::start(&mut command);
    let executed = watcher.wait("execution", |o| by(o, run.0.id(), "executed"));
    let args = executed.actor.unwrap().args.clone().unwrap();
    assert!(args.is_cut());
    assert_eq!(args.count(), 19);
    assert!(args.original_len() > 1_500_000);
    assert!(args.command_line().starts_with("sh -c sleep 60 xxx"));
    assert!(args.command_line().ends_with("x --the-end"));
    watcher.stop();
}

#[test]
fn a_deleted_image_in_a_folder_of_everybody() {
    if !is_root("a_deleted_image_in_a_folder_of_everybody") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("bpfwatch-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let image = folder.join("sleeper");
    std::fs::copy("/bin/sleep", &image).unwrap();
    let mut watcher = Watcher::start();
    let mut run = Killed::start(Command::new(&image).arg("60").current_dir(&folder));
    let executed = watcher.wait("execution", |o| by(o, run.0.id(), "executed"));
    let process = executed.actor.unwrap();
    assert_eq!(process.image.as_ref().unwrap().as_str(), image.to_str().unwrap());
    assert_eq!(process.image_writable_dir, Some(true));
    assert_eq!(process.image_deleted, Some(false));
    assert_eq!(process.cwd.as_ref().unwrap().as_str(), folder.to_str().unwrap());
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    // One that runs from memory: a descriptor of a file without a name.
    let name = c"hidden";
    let memory = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::empty()).unwrap();
    let mut memory = std::fs::File::from(memory);
    memory.write_all(&std::fs::read(&image).unwrap()).unwrap();
    memory.rewind().unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&memory);
    let run =
        Killed::start(Command::new(format!("/proc/self/fd/{fd}")).arg0("kworker/0:1").arg("60"));
    let executed = watcher.wait("execution", |o| by(o, run.0.id(), "executed"));
    let process = executed.actor.unwrap();
    assert_eq!(process.image.as_ref().unwrap().as_str(), "/memfd:hidden");
    assert_eq!(process.image_deleted, Some(true));
    assert_eq!(process.image_writable_dir, None);
    std::fs::remove_dir_all(&folder).unwrap();
    watcher.stop();
}

/// As avahi-autoipd does: the daemon's own folder is its root from then on.
#[test]
fn a_process_in_a_root_of_its_own_keeps_its_image_where_it_is() {
    if !is_root("a_process_in_a_root_of_its_own_keeps_its_image_where_it_is") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("bpfwatch-root-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter();
    let Some(python) = python.filter_map(|path| std::fs::canonicalize(path).ok()).next() else {
        println!("skipped: a_process_in_a_root_of_its_own: python3 is not installed");
        return;
    };
    let code = "import os, socket, sys, time\nos.chroot(sys.argv[1])\n\
                s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88cc))\n\
                time.sleep(60)";
    let mut watcher = Watcher::start();
    let run = Killed::start(Command::new(&python).args(["-c", code]).arg(&folder));
    let opened = watcher.wait("handle", |o| by(o, run.0.id(), "handle_opened"));
    let process = opened.actor.unwrap();
    assert_eq!(process.image.as_ref().unwrap().as_str(), python.to_str().unwrap());
    assert_eq!(process.image_writable_dir, Some(false), "{process:?}");
    drop(run);
    std::fs::remove_dir_all(&folder).unwrap();
    watcher.stop();
}

#[test]
fn every_execution_is_told_or_its_loss_is() {
    if !is_root("every_execution_is_told_or_its_loss_is") {
        return;
    }
    let mut watcher = Watcher::start();
    let before = watcher.seen.len();
    let mut pids = Vec::new();
    for number in 0..300 {
        let mut child = Command::new("true").arg(format!("number-{number}")).spawn().unwrap();
        pids.push(child.id());
        child.wait().unwrap();
    }
    watcher.collect(Duration::from_secs(1));
    let seen = watcher.stop();
    let seen = &seen[before..];
    let told = |pid: &&u32| seen.iter().any(|o| by(o, **pid, "executed"));
    let lost = seen.iter().any(|o| matches!(o.kind, Kind::Lost { .. }));
    let executed = pids.iter().filter(told).count();
    assert!(executed == pids.len() || lost, "{executed} of {}, and no loss told", pids.len());
    let ended = pids.iter().filter(|pid| seen.iter().any(|o| by(o, **pid, "exited"))).count();
    assert!(ended == pids.len() || lost);
    let whole = seen.iter().filter(|o| has_argument(o, "number-")).count();
    println!("{whole} of {} with their arguments", pids.len());
    assert!(whole > 0);
}
