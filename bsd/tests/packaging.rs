//! What packages the program for FreeBSD, held against the program: scripts and paths that nobody reads
//! until they fail on somebody else's machine.
#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails; the exemption covers only test functions"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The value that FreeBSD has of a constant of src/platform.rs: the first one under its own `cfg!`, else that
/// of all systems but Linux.
fn platform(name: &str) -> String {
    let text = read("../src/platform.rs");
    let (_, rest) = text.split_once(&format!("pub const {name}:")).unwrap();
    let (definition, _) = rest.split_once(';').unwrap();
    let values: Vec<&str> = definition.split('"').skip(1).step_by(2).collect();
    let own = "cfg!(target_os = \"freebsd\")";
    let value = match definition.split_once(own) {
        Some((_, after)) => after.split('"').nth(1),
        None => values.last().copied(),
    };
    value.unwrap().to_owned()
}

/// The script as the port installs it, but for what it runs at its end.
fn script(settings: &str, last: &str) -> String {
    let stub = format!("load_rc_config() {{ :; }}\nrun_rc_command() {{ {last}; }}\n{settings}\n");
    read("rc.d/bpfwatch").replace("%%PREFIX%%", "/usr/local").replace(". /etc/rc.subr", &stub)
}

fn sh(script: &str) -> String {
    let output =
        Command::new("sh").args(["-eu", "-c", script, "bpfwatch", "start"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn the_script_starts_the_daemon_under_a_supervisor() {
    // A variable of this name would be started instead of the command (rc.subr(8)).
    let run = "echo \"${bpfwatch_program:-$command} $command_args\"";
    let plain = sh(&script("", run));
    assert!(plain.starts_with("/usr/sbin/daemon "), "{plain}");
    assert!(plain.contains(" -p /var/run/bpfwatch/bpfwatch.pid "), "{plain}");
    assert!(plain.trim_end().ends_with(" -T bpfwatch -- /usr/local/bin/bpfwatch run"), "{plain}");
    let set = "bpfwatch_config=/tmp/x.toml bpfwatch_args=--strict-rules";
    let set = sh(&script(set, run));
    assert!(set.ends_with(" run --config /tmp/x.toml --strict-rules"), "{set}");
    assert_eq!(
        sh(&script("", "echo \"$bpfwatch_enable $extra_commands\"")),
        "NO reload configtest"
    );
    for line in [
        "# PROVIDE: bpfwatch",
        "# REQUIRE: FILESYSTEMS syslogd auditd",
        "# BEFORE: jail",
        "# KEYWORD: nojail shutdown",
    ] {
        assert!(read("rc.d/bpfwatch").lines().any(|other| other == line), "{line}");
    }
}

#[test]
fn paths_are_those_of_the_program() {
    let rc = read("rc.d/bpfwatch").replace("%%PREFIX%%", "/usr/local");
    let config = platform("CONFIG");
    assert!(rc.contains(&config), "{config}");
    assert!(rc.contains(&platform("STATE_DIR")));
    let socket = platform("STATUS_SOCKET");
    let directory = Path::new(&socket).parent().unwrap().display().to_string();
    assert!(rc.contains(&format!("bpfwatch_directory=\"{directory}\"")), "{directory}");
    let plist = read("port/pkg-plist");
    let sample = config.strip_prefix("/usr/local/").unwrap();
    assert!(plist.contains(&format!("@sample {sample}.sample")), "{sample}");
    assert!(plist.contains(&format!("@dir(root,wheel,700) {}", platform("STATE_DIR"))));
    let message = read("port/files/pkg-message.in").replace("%%PREFIX%%", "/usr/local");
    assert!(message.contains(&config));
}

#[test]
fn what_syslogd_writes_is_rotated() {
    let syslog = read("syslog.d/bpfwatch.conf");
    let written = syslog.lines().find_map(|line| line.strip_prefix("*.*")).unwrap().trim();
    let rotation = read("newsyslog.conf.d/bpfwatch.conf");
    let rotated = rotation.lines().find(|line| !line.starts_with('#')).unwrap();
    assert_eq!(rotated.split_whitespace().next(), Some(written));
    assert_eq!(rotated.split_whitespace().count(), 7, "newsyslog.conf(5)");
    // The filter names the program as the script and the sinks tag it, and ends.
    assert!(syslog.contains("\n!bpfwatch\n") && syslog.ends_with("\n!*\n"));
}

#[test]
fn the_port_installs_what_its_list_names() {
    let makefile = read("port/Makefile");
    for line in read("port/pkg-plist").lines() {
        let file = line.trim_start_matches("@sample ");
        if file.starts_with('@') || file == "bin/bpfwatch" {
            continue;
        }
        let name = Path::new(file.trim_end_matches(".gz")).file_name().unwrap().to_str().unwrap();
        assert!(makefile.contains(name), "{name} is not installed");
    }
    for source in ["newsyslog.conf.d/bpfwatch.conf", "syslog.d/bpfwatch.conf"] {
        assert!(makefile.contains(&format!("/bsd/{source}")) && root().join(source).exists());
    }
    assert_eq!(read("port/files/bpfwatch.in"), read("rc.d/bpfwatch"));
    let version = format!("DISTVERSION=\t{}\n", env!("CARGO_PKG_VERSION"));
    assert!(makefile.contains(&version), "{version}");
}

#[test]
fn shellcheck_has_nothing_to_say() {
    let file = root().join("rc.d/bpfwatch");
    // rc.subr's own variables are set here and read there.
    let checked = Command::new("shellcheck")
        .args(["--shell=dash", "--exclude=SC1091,SC2034,SC2086,SC2223,SC3043"])
        .arg(file)
        .output();
    let Ok(checked) = checked else {
        return eprintln!("skipped: shellcheck_has_nothing_to_say: shellcheck is not installed");
    };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
