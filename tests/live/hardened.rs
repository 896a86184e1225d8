//! The daemon after it gave up what it does not need: really reduced, every thread of it, and all that
//! it is for still works.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::container::bundle;
use crate::harness::{
    Running, Scratch, Traffic, Watch, about, alone, find, python, python_command, signal,
};

/// CAP_DAC_READ_SEARCH, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN
/// (linux/capability.h).
const NEEDED: u64 = 1 << 2 | 1 << 11 | 1 << 12 | 1 << 19 | 1 << 21;
/// What may stay beside them on some systems: CAP_SYS_NICE where the limit of nice values cannot be
/// set, CAP_BPF before Linux 5.19.
const MAY_STAY: u64 = 1 << 23 | 1 << 39;
const LIMIT: Duration = Duration::from_secs(5);

/// A directory whose parents nobody else can write.
fn directory(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("live-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("rules")).unwrap();
    for dir in [&dir, &dir.join("rules")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

fn configure(dir: &Path, more: &str) -> PathBuf {
    let file = dir.join("bpfwatch.toml");
    let dir = dir.display();
    let text = format!(
        "state_dir = \"{dir}/state\"\n{more}\n[status]\nsocket = \"{dir}/run/status.sock\"\n\
         [rules]\ndirs = [\"{dir}/rules\"]\n\
         [[sink]]\nformat = \"json\"\ntransport = \"stdout\"\n\
         [[sink]]\nformat = \"json\"\ntransport = \"file\"\npath = \"{dir}/out.jsonl\"\n"
    );
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    file
}

fn status(dir: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_bpfwatch"))
        .args(["status", "--format", "json", "--socket"])
        .arg(dir.join("run/status.sock"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each thread's name and what its status file says.
fn threads(pid: u32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .map(|task| {
            let path = task.unwrap().path();
            let name = fs::read_to_string(path.join("comm")).unwrap();
            (name.trim().to_owned(), fs::read_to_string(path.join("status")).unwrap())
        })
        .collect()
}

fn field<'a>(status: &'a str, key: &str) -> &'a str {
    let line = status.lines().find(|line| line.starts_with(&format!("{key}:"))).unwrap();
    line.split_once(':').unwrap().1.trim()
}

fn found(watch: &mut Watch, mark: &str, command: &mut Command) -> Value {
    let since = Instant::now();
    let running = Running::start(command);
    let found =
        watch.wait_for(since, LIMIT, |line| about(line, mark) && line["session"] != Value::Null);
    drop(running);
    let Some((finding, took)) = found else {
        panic!("{mark}: no finding; {:#?}", watch.seen(|line| about(line, mark)))
    };
    eprintln!("{mark}: {took:?} {}", finding["rule"]["title"]);
    finding
}

#[test]
fn a_reduced_daemon_still_sees_everything() {
    let tools = ["tcpdump", "ip", "python3", "runc"];
    let Some(_alone) = alone("a_reduced_daemon_still_sees_everything", &tools) else { return };
    let dir = directory("hardened");
    let mut watch = Watch::daemon(&configure(&dir, ""));

    let all = threads(watch.pid());
    assert!(all.len() >= 5, "{all:#?}");
    for (name, status) in &all {
        let set = |key| u64::from_str_radix(field(status, key), 16).unwrap();
        for key in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(set(key) & !MAY_STAY, NEEDED, "{key} of {name}");
        }
        assert_eq!((set("CapInh"), set("CapAmb")), (0, 0), "{name}");
        assert_eq!(field(status, "NoNewPrivs"), "1", "{name}");
        assert_eq!(field(status, "Seccomp"), "2", "{name}");
    }
    let shown = status(&dir);
    let hardening = shown["hardening"].as_array().unwrap();
    assert!(hardening.len() >= 4, "{shown:#}");
    assert!(hardening.iter().all(|check| check["state"] == "ok" || check["state"] == "info"));
    // What it sees now is what it saw as root.
    let blind: Vec<_> = shown["sources"].as_array().unwrap().iter().collect();
    assert!(blind.iter().all(|check| check["state"] != "blind"), "{blind:#?}");

    // On the host.
    let traffic = Traffic::start();
    let mut tcpdump = Command::new("tcpdump");
    let finding = found(&mut watch, "port 41001", tcpdump.args(["-n", "-i", "lo", "port 41001"]));
    assert_eq!(finding["session"]["promiscuous"], true);
    drop(traffic);

    // In a network namespace.
    let scratch = Scratch::new("hardened");
    let netns = format!("bpfw-h{}", std::process::id());
    assert!(Command::new("ip").args(["netns", "add", &netns]).status().unwrap().success());
    let open = "s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3))";
    let program = python(&scratch, "live-hardened-netns", open);
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", &netns, "python3"]).arg(&program);
    let finding = found(&mut watch, "live-hardened-netns", &mut inside);
    assert!(Command::new("ip").args(["netns", "del", &netns]).status().unwrap().success());
    assert!(finding["scope"]["kind"] != "host", "{finding:#}");

    // In a container.
    let interpreter = fs::canonicalize(find("python3").unwrap()).unwrap();
    let packet = "import socket,time; s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3)); time.sleep(4) # live-hardened-runc";
    let command = [interpreter.to_str().unwrap(), "-c", packet];
    let bundle = bundle(&scratch, &command, false);
    let id = format!("bpfwatch-hardened-{}", std::process::id());
    let mut run = Command::new("runc");
    run.args(["run", "-b"]).arg(&bundle).arg(&id);
    let since = Instant::now();
    let running = Running::start(&mut run);
    let seen = watch.wait_for(since, LIMIT, |line| {
        about(line, "live-hardened-runc") && line["session"] != Value::Null
    });
    let _ = Command::new("runc").args(["kill", &id, "KILL"]).output().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    drop(running);
    let _ = Command::new("runc").args(["delete", "-f", &id]).output().unwrap();
    let (finding, _) = seen.expect("a finding in the container");
    assert_eq!(finding["scope"]["kind"], "container", "{finding:#}");

    // It can still be told to read again, with a sink that is new, and to write what it remembers.
    let more = format!(
        "[[sink]]\nformat = \"json\"\ntransport = \"file\"\npath = \"{}/more.jsonl\"\n",
        dir.display()
    );
    configure(&dir, &more);
    signal(watch.pid(), "HUP");
    let deadline = Instant::now() + Duration::from_secs(20);
    while status(&dir)["reloads_taken"] != 1 {
        assert!(Instant::now() < deadline, "{:#}", status(&dir));
        std::thread::sleep(Duration::from_millis(100));
    }
    let program = python(&scratch, "live-hardened-after", open);
    found(&mut watch, "live-hardened-after", &mut python_command(&program));
    std::thread::sleep(Duration::from_millis(500));
    for file in ["out.jsonl", "more.jsonl"] {
        let text = fs::read_to_string(dir.join(file)).unwrap();
        assert!(text.contains("live-hardened-after"), "{file}");
    }
    // Nowhere else, though: that takes a restart, and is said.
    let outside = scratch.0.join("outside.jsonl");
    let more = format!(
        "[[sink]]\nformat = \"json\"\ntransport = \"file\"\npath = \"{}\"\n",
        outside.display()
    );
    configure(&dir, &more);
    signal(watch.pid(), "HUP");
    let confined = hardening.iter().any(|check| {
        check["name"] == "files" && check["detail"].as_str().unwrap().contains("alone")
    });
    while confined && status(&dir)["reloads_refused"] != 1 {
        assert!(Instant::now() < deadline, "{:#}", status(&dir));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!confined || !outside.exists());
    let all = threads(watch.pid());
    assert!(all.iter().all(|(_, status)| field(status, "Seccomp") == "2"));
    let (took, _) = watch.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(dir.join("state/state.json").is_file());
}

/// The capabilities that a node's pod is given.
fn pod() -> Vec<String> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/linux/kubernetes/daemonset.yaml");
    let text = fs::read_to_string(manifest).unwrap();
    for line in ["hostPID: true", "hostNetwork: true", "readOnlyRootFilesystem: true"] {
        assert!(text.contains(line), "the test follows the manifest: {line}");
    }
    let list = text.lines().find_map(|line| line.trim().strip_prefix("add: ")).unwrap();
    let names = list.split([' ', ',', '[', ']', '"']).filter(|word| !word.is_empty());
    names.map(|name| format!("CAP_{name}")).collect()
}

/// What the container may have of them: one that the test's own machine lacks, runc cannot give.
fn at_hand(wanted: Vec<String>) -> Vec<String> {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let has_resource = u64::from_str_radix(field(&own, "CapBnd"), 16).unwrap() & (1 << 24) != 0;
    wanted.into_iter().filter(|name| has_resource || name != "CAP_SYS_RESOURCE").collect()
}

#[test]
fn what_the_pod_is_given_is_enough() {
    let Some(_alone) = alone("what_the_pod_is_given_is_enough", &["runc", "tcpdump"]) else {
        return;
    };
    let dir = directory("pod");
    let config = configure(&dir, "");
    let scratch = Scratch::new("pod");
    let program = env!("CARGO_BIN_EXE_bpfwatch");
    let bundle = bundle(&scratch, &[program, "run", "--config", config.to_str().unwrap()], true);
    let path = bundle.join("config.json");
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let given = at_hand(pod());
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(given);
    }
    spec["process"]["capabilities"]["inheritable"] = json!([]);
    spec["process"]["capabilities"]["ambient"] = json!([]);
    // As a pod: the API gives none with CAP_SYS_ADMIN, the program sets it by itself.
    spec["process"]["noNewPrivileges"] = json!(false);
    spec["root"]["readonly"] = json!(true);
    spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "pid" && namespace["type"] != "network");
    let mounts = spec["mounts"].as_array_mut().unwrap();
    let workspace = Path::new(program).parent().unwrap();
    for (place, access) in [(workspace, "ro"), (dir.as_path(), "rw")] {
        let target = bundle.join("rootfs").join(place.strip_prefix("/").unwrap());
        fs::create_dir_all(target).unwrap();
        mounts.push(json!({"destination": place, "type": "bind", "source": place,
            "options": ["rbind", access]}));
    }
    fs::write(&path, spec.to_string()).unwrap();
    let id = format!("bpfwatch-pod-{}", std::process::id());
    let mut run = Command::new("runc");
    let log = fs::File::create(dir.join("log")).unwrap();
    run.args(["run", "-b"]).arg(&bundle).arg(&id).stderr(log);
    let none = std::process::Stdio::null;
    let mut child = run.stdin(none()).stdout(none()).spawn().unwrap();
    let end = |child: &mut std::process::Child| {
        let _ = Command::new("runc").args(["kill", &id, "TERM"]).output().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let _ = Command::new("runc").args(["delete", "-f", &id]).output().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
    while !log().contains("started: ") && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(600));
    let started = log().contains("started: ");
    let mut seen = false;
    let mut shown = Value::Null;
    if started {
        let _traffic = Traffic::start();
        let mut tcpdump = Command::new("tcpdump");
        let running = Running::start(tcpdump.args(["-n", "-i", "lo", "port 41002"]));
        while !seen && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            let text = fs::read_to_string(dir.join("out.jsonl")).unwrap_or_default();
            let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            seen = lines
                .any(|line: Value| about(&line, "port 41002") && line["session"] != Value::Null);
        }
        drop(running);
        shown = status(&dir);
    }
    end(&mut child);
    assert!(started, "{}", log());
    assert!(seen, "a capture on the node is not seen: {shown:#}");
    let sources = shown["sources"].as_array().unwrap();
    let blind: Vec<_> = sources.iter().filter(|check| check["state"] == "blind").collect();
    assert!(blind.is_empty(), "{blind:#?}");
}

#[test]
fn what_is_to_be_kept_is_kept_and_all_can_be() {
    let Some(_alone) = alone("what_is_to_be_kept_is_kept_and_all_can_be", &[]) else { return };
    let dir = directory("hardened-kept");
    let more = "[hardening]\nkeep_capabilities = [\"CAP_DAC_OVERRIDE\"]";
    let watch = Watch::daemon(&configure(&dir, more));
    let set = |pid| u64::from_str_radix(field(&threads(pid)[0].1, "CapEff"), 16).unwrap();
    assert_eq!(set(watch.pid()) & !MAY_STAY, NEEDED | 1 << 1);
    watch.stop();

    let watch = Watch::daemon(&configure(&dir, "[hardening]\nenabled = false"));
    assert!(set(watch.pid()) & (1 << 7) != 0, "CAP_SETUID is still there");
    let (_, status_lines) = &threads(watch.pid())[0];
    assert_eq!((field(status_lines, "NoNewPrivs"), field(status_lines, "Seccomp")), ("0", "0"));
    assert_eq!(status(&dir)["hardening"][0]["state"], "warning");
    watch.stop();

    configure(&dir, "[hardening]\nkeep_capabilities = [\"CAP_FLY\"]");
    let refused = Command::new(env!("CARGO_BIN_EXE_bpfwatch"))
        .args(["run", "--config"])
        .arg(dir.join("bpfwatch.toml"))
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`CAP_FLY`"));
}
