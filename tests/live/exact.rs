//! Captures that last a moment: a thousand in a row in each scope, and one by each way into the kernel.
//! Each is a session with its process, arguments and scope in the recording; findings about them fold.
//!
//! Looks alone would miss them, so without eBPF these tests skip themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::container::bundle;
use crate::harness::{Scratch, Watch, about, alone, find};

/// Captures in a row.
const TIMES: usize = 1000;
/// Exit status of `programs/capture.c` where the kernel has no such way.
const CANNOT: i32 = 77;

/// Compiles a program of this folder; `None`, with a message, where that cannot be done.
fn compile(test: &str, scratch: &Scratch, name: &str, flags: &[&str]) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/programs").join(name);
    let program = scratch.0.join(name.trim_end_matches(".c"));
    let Some(compiler) = find("gcc").or_else(|| find("cc")) else {
        eprintln!("skipped: {test}: needs gcc or cc");
        return None;
    };
    let built = Command::new(compiler)
        .args(["-O2", "-static", "-no-pie", "-fno-pic"])
        .args(flags)
        .arg("-o")
        .args([&program, &source])
        .output()
        .unwrap();
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        eprintln!("skipped: {test}: {name} cannot be compiled here: {said}");
        return None;
    }
    Some(program)
}

/// A watch that records, unless it has no events of the kernel.
fn recording(test: &str, scratch: &Scratch) -> Option<(Watch, PathBuf)> {
    let path = scratch.0.join("recording.jsonl");
    let watch = Watch::start(&["--record", path.to_str().unwrap()]);
    if !watch.said.contains("eBPF on") {
        eprintln!("skipped: {test}: needs eBPF: {}", watch.said.trim());
        return None;
    }
    Some((watch, path))
}

/// What a recording has of kind `kind` by processes with `mark` among their arguments.
fn of_kind<'a>(all: &'a [Value], kind: &'a str, mark: &'a str) -> impl Iterator<Item = &'a Value> {
    all.iter().filter(move |line| {
        let args = line["process"]["args"].as_array();
        line["kind"] == kind && args.is_some_and(|args| args.iter().any(|arg| arg == mark))
    })
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{output:?}");
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
}

/// A thousand by `run`, which is given the arguments of `programs/capture.c`.
fn a_thousand(test: &str, scope: &str, run: impl FnOnce(&Scratch, &[&str]) -> Output) {
    let Some(_alone) = alone(test, &["runc", "unshare"]) else { return };
    let scratch = Scratch::new(test);
    let Some(program) = compile(test, &scratch, "capture.c", &[]) else { return };
    let Some((mut watch, path)) = recording(test, &scratch) else { return };
    let mark = format!("live-{test}");
    let times = TIMES.to_string();
    let ended = run(&scratch, &[program.to_str().unwrap(), "times", &times, "packet", &mark]);
    succeeded(&ended);
    watch.read_for(Duration::from_secs(4));
    let (_, lines) = watch.stop();

    // Processes are shed first, and what else this machine does may be a flood.
    let lost: Vec<&Value> = lines
        .iter()
        .filter(|line| line["why"].as_str().is_some_and(|why| why.contains("handles")))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    let all = read(&path);
    for kind in ["handle_opened", "handle_attached", "handle_closed"] {
        let (mut processes, mut handles) = (BTreeSet::new(), BTreeSet::new());
        for line in of_kind(&all, kind, &mark) {
            assert_eq!(line["process"]["scope"]["kind"], scope, "{line:#}");
            assert_eq!(line["process"]["image"], program.to_str().unwrap(), "{line:#}");
            assert_eq!(line["handle"]["kind"], "packet_socket", "{line:#}");
            // A look in the midst of a bind may see it with its protocol, and without its interface yet.
            if kind == "handle_opened" || line["handle"]["interface"] == "lo" {
                processes.insert(line["process"]["pid"].as_u64().unwrap());
                handles.insert(line["handle"]["id"].as_u64().unwrap());
            }
        }
        assert_eq!((processes.len(), handles.len()), (TIMES, TIMES), "{kind}");
    }
    let findings: Vec<&Value> = lines.iter().filter(|line| about(line, &mark)).collect();
    assert!((1..=5).contains(&findings.len()), "{} lines: {findings:#?}", findings.len());
}

#[test]
fn a_thousand_captures_of_a_moment_on_the_host() {
    a_thousand("exact-host", "host", |_, arguments| {
        Command::new(arguments[0]).args(&arguments[1..]).output().unwrap()
    });
}

#[test]
fn a_thousand_captures_of_a_moment_in_a_namespace() {
    a_thousand("exact-namespace", "namespace", |_, arguments| {
        Command::new("unshare").arg("-rn").args(arguments).output().unwrap()
    });
}

#[test]
fn a_thousand_captures_of_a_moment_in_a_container() {
    a_thousand("exact-container", "container", |scratch, arguments| {
        let bundle = bundle(scratch, arguments, false);
        let id = format!("bpfwatch-exact-{}", std::process::id());
        let ended =
            Command::new("runc").args(["run", "-b"]).arg(&bundle).arg(&id).output().unwrap();
        let _ = Command::new("runc").args(["delete", "-f", &id]).output().unwrap();
        ended
    });
}

/// A way into the kernel: its name in `programs/capture.c`, the handle that it gives, who holds that then.
struct Way {
    name: &'static str,
    kind: &'static str,
    interface: &'static str,
    /// Their first arguments.
    holders: &'static [&'static str],
}

const fn way(name: &'static str, kind: &'static str, holders: &'static [&'static str]) -> Way {
    Way { name, kind, interface: "lo", holders }
}

const WAYS: [Way; 10] = [
    way("packet", "packet_socket", &["packet"]),
    way("promiscuous", "packet_socket", &["promiscuous"]),
    way("ring", "packet_socket", &["ring"]),
    way("sock_packet", "sock_packet", &["sock_packet"]),
    Way { interface: "", ..way("raw", "raw_socket", &["raw"]) },
    way("xdp", "xdp_socket", &["xdp"]),
    way("uring", "packet_socket", &["uring"]),
    way("int80", "packet_socket", &["int80"]),
    way("give", "packet_socket", &["give", "receive"]),
    way("lend", "packet_socket", &["lend", "steal"]),
];

/// What a recording says of one way.
fn check(all: &[Value], way: &Way, mark: &str, scope: &str) {
    let opened: Vec<&Value> = of_kind(all, "handle_opened", mark).collect();
    let holders: Vec<&str> =
        opened.iter().map(|line| line["process"]["args"][1].as_str().unwrap()).collect();
    assert_eq!(holders, way.holders, "{mark}: {opened:#?}");
    let handles: BTreeSet<u64> =
        opened.iter().map(|line| line["handle"]["id"].as_u64().unwrap()).collect();
    assert_eq!(handles.len(), 1, "{mark}: {opened:#?}");
    for line in &opened {
        assert_eq!(line["handle"]["kind"], way.kind, "{line:#}");
        assert_eq!(line["process"]["scope"]["kind"], scope, "{line:#}");
    }
    let attached: Vec<&Value> = of_kind(all, "handle_attached", mark).collect();
    let interface = attached.last().unwrap()["handle"]["interface"].as_str().unwrap_or_default();
    assert_eq!(interface, way.interface, "{mark}: {attached:#?}");
    assert_eq!(of_kind(all, "handle_closed", mark).count(), 1, "{mark}");
    let promiscuous = of_kind(all, "promiscuous", mark).count();
    assert_eq!(promiscuous > 0, way.name == "promiscuous", "{mark}");
}

#[test]
fn every_way_into_the_kernel_is_a_session_with_its_process() {
    let test = "every_way_into_the_kernel";
    let Some(_alone) = alone(test, &["unshare"]) else { return };
    let scratch = Scratch::new("ways");
    let Some(program) = compile(test, &scratch, "capture.c", &[]) else { return };
    let Some((mut watch, path)) = recording(test, &scratch) else { return };
    let mut seen = Vec::new();
    for way in &WAYS {
        let mark = format!("live-way-{}", way.name);
        let ended = Command::new(&program).args([way.name, &mark]).output().unwrap();
        if ended.status.code() == Some(CANNOT) {
            eprintln!("skipped in part: {test}: this kernel has no way {}: {ended:?}", way.name);
            continue;
        }
        succeeded(&ended);
        seen.push((way, mark, "host"));
    }
    // Without any right on the host.
    let mut unshare = Command::new("unshare");
    unshare.arg("-rn").arg(&program).args(["times", "1", "packet", "live-way-unshare"]);
    succeeded(&unshare.output().unwrap());
    seen.push((&WAYS[0], "live-way-unshare".to_owned(), "namespace"));
    let flags = ["-m32", "-nostdlib", "-ffreestanding"];
    let i386 = Way { holders: &["live-way-i386"], ..way("", "packet_socket", &[]) };
    if let Some(program) = compile(&format!("{test}, in part"), &scratch, "i386.c", &flags) {
        match Command::new(&program).arg("live-way-i386").status() {
            Ok(status) if status.success() => {
                seen.push((&i386, "live-way-i386".to_owned(), "host"));
            }
            other => eprintln!("skipped in part: {test}: no 32-bit programs: {other:?}"),
        }
    }
    watch.read_for(Duration::from_secs(4));
    watch.stop();
    let all = read(&path);
    for (way, mark, scope) in seen {
        check(&all, way, &mark, scope);
    }
}
