//! Captures that no packet socket shows, by a small program in C: each is seen by `scan` where it was there
//! before, and is one finding of `watch` where it comes.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Scratch, Watch, alone, find, signal};

/// Looks come each second, those at traffic control at least each five.
const LIMIT: Duration = Duration::from_secs(7);
/// What the program says where the kernel cannot do it.
const UNSUPPORTED: i32 = 77;

/// The program, at a path that no rule finds fault with.
struct Programs {
    folder: PathBuf,
    image: PathBuf,
}

impl Programs {
    fn build(test: &str) -> Option<Self> {
        // Not below /tmp: a program that anyone may replace is a finding of its own.
        let folder =
            PathBuf::from(format!("/usr/local/lib/bpfwatch-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let image = folder.join("beyond");
        let programs = Self { folder, image };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/programs/beyond.c");
        let built = Command::new("cc")
            .args(["-O1", "-o"])
            .arg(&programs.image)
            .arg(source)
            .output()
            .unwrap();
        if !built.status.success() {
            let why = String::from_utf8_lossy(&built.stderr);
            eprintln!("skipped: {test}: the program is not built: {why}");
            return None;
        }
        Some(programs)
    }

    /// Starts one kind of capture, and waits until it is there; `None` where the kernel cannot.
    fn start(&self, arguments: &[&str]) -> Option<Capture> {
        let mut child = Command::new(&self.image)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said == "ready\n" {
            return Some(Capture(child));
        }
        let mut why = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut why).unwrap();
        let status = child.wait().unwrap();
        if status.success() {
            return Some(Capture(child));
        }
        assert_eq!(status.code(), Some(UNSUPPORTED), "{arguments:?}: {why}");
        eprintln!("skipped: {}: the kernel cannot: {}", arguments[0], why.trim());
        None
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Capture(Child);

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A veth pair and a bridge, gone at the end with all that is attached to them.
struct Links;

const ONE: &str = "bwbeyond0";
const OTHER: &str = "bwbeyond1";
const BRIDGE: &str = "bwbeyondbr";

impl Links {
    fn make() -> Self {
        let links = Self;
        ip(&format!("link add {ONE} type veth peer name {OTHER}"));
        for link in [ONE, OTHER] {
            ip(&format!("link set {link} up"));
        }
        ip(&format!("link add {BRIDGE} type bridge"));
        links
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for link in [ONE, BRIDGE] {
            let _ = Command::new("ip").args(["link", "del", link]).status();
        }
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "ip {arguments}");
}

/// A control group, gone at the end.
struct Group(PathBuf);

impl Group {
    fn make() -> Option<Self> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").is_file())?;
        let path = root.join(format!("bpfwatch-beyond-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// What is expected of one kind of capture.
struct Want<'a> {
    arguments: Vec<&'a str>,
    kind: &'a str,
    interface: Option<String>,
    rule: &'a str,
    /// What the handle has besides.
    more: Value,
}

fn wants<'a>(group: Option<&'a str>) -> Vec<Want<'a>> {
    const EBPF: &str = "eBPF program on packets by an unexpected loader";
    let want = |arguments: &[&'a str], kind, interface: Option<&str>, rule, more| Want {
        arguments: arguments.to_vec(),
        kind,
        interface: interface.map(str::to_owned),
        rule,
        more,
    };
    let program =
        |place: &str, map: &str| json!({"name": "sniff", "attached": [place], "maps": [map]});
    let reader = "Packets read through NFLOG or NFQUEUE";
    let mut wants = vec![
        want(&["tcx", ONE], "tc_program", Some(ONE), EBPF, program("tcx/ingress", "ringbuf")),
        want(&["clsact", ONE], "tc_program", Some(ONE), EBPF, program("clsact/ingress", "ringbuf")),
        want(&["xdp", OTHER], "xdp_program", Some(OTHER), EBPF, program("xdp/generic", "array")),
        want(&["filter"], "socket_filter", None, EBPF, program("socket", "array")),
        want(&["nflog", "4243"], "nflog_socket", Some("nflog:4243"), reader, Value::Null),
        want(&["nfqueue", "4242"], "nfqueue_socket", Some("nfqueue:4242"), reader, Value::Null),
        want(
            &["tap", "bwbeyondtap", BRIDGE],
            "tap_port",
            Some("bwbeyondtap"),
            "TAP device on a bridge read by an unexpected process",
            Value::Null,
        ),
    ];
    if let Some(group) = group {
        let more = program("cgroup/egress", "ringbuf");
        wants.push(want(&["cgroup", group, "ringbuf"], "cgroup_program", None, EBPF, more));
    }
    wants
}

fn check(line: &Value, want: &Want<'_>) {
    let handle = &line["session"]["handle"];
    assert_eq!(handle["kind"], want.kind, "{line:#}");
    assert_eq!(handle["interface"].as_str(), want.interface.as_deref(), "{line:#}");
    assert_eq!(line["session"]["stage"], "attached", "{line:#}");
    let program = &handle["program"];
    for (key, value) in want.more.as_object().into_iter().flatten() {
        assert_eq!(program[key], *value, "{line:#}");
    }
    if want.more != Value::Null {
        assert_eq!(program["tag"].as_str().map(str::len), Some(16), "{line:#}");
        assert_eq!(program["uid"], 0, "{line:#}");
        assert!(program["loaded_at"].is_string(), "{line:#}");
    }
}

fn scan() -> Vec<Value> {
    let out = Command::new(env!("CARGO_BIN_EXE_bpfwatch"))
        .args(["scan", "--format", "json"])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn is_of(line: &Value, pid: u32) -> bool {
    line["process"]["pid"] == pid || line["holders"][0]["pid"] == pid
}

#[test]
fn each_kind_is_one_finding_and_stands_in_the_scan() {
    let test = "each_kind_is_one_finding_and_stands_in_the_scan";
    let Some(_alone) = alone(test, &["cc", "ip"]) else { return };
    let Some(programs) = Programs::build("kinds") else { return };
    let _links = Links::make();
    let group = Group::make();
    if group.is_none() {
        eprintln!("skipped: cgroup: no control groups of version 2");
    }
    let path = group.as_ref().map(|group| group.0.to_str().unwrap());
    let mut watch = Watch::start(&[]);
    for want in wants(path) {
        let since = Instant::now();
        let Some(capture) = programs.start(&want.arguments) else { continue };
        let pid = capture.0.id();
        let is_finding = |line: &Value| line["type"] == "finding" && line["process"]["pid"] == pid;
        let found = watch.wait_for(since, LIMIT, |line| {
            is_finding(line) && line["session"]["handle"]["kind"] == want.kind
        });
        let Some((finding, took)) = found else { panic!("{:?}: no finding", want.arguments) };
        eprintln!("{:?}: {took:?} {}", want.arguments, finding["rule"]["title"]);
        check(&finding, &want);
        assert_eq!(finding["rule"]["title"], want.rule, "{finding:#}");
        assert_eq!(finding["rule"]["level"], "medium", "{finding:#}");
        assert_eq!(finding["process"]["image"], json!(programs.image), "{finding:#}");
        assert_eq!(finding["scope"]["kind"], "host", "{finding:#}");

        let lines = scan();
        let mine: Vec<&Value> = lines.iter().filter(|line| is_of(line, pid)).collect();
        assert_eq!(mine.len(), 1, "{mine:#?}");
        check(mine[0], &want);
        assert_eq!(mine[0]["verdict"], "unexpected");

        watch.read_for(Duration::from_millis(1500));
        assert_eq!(watch.seen(is_finding).len(), 1, "{:?}: one finding", want.arguments);
        drop(capture);
        // What ends with its holder is reported as ended; what is attached without a link stays.
        if !["clsact", "cgroup"].contains(&want.arguments[0]) {
            let session = finding["session"]["id"].clone();
            let ended = watch.wait_for(Instant::now(), LIMIT, |line| {
                line["type"] == "closed" && line["session"]["id"] == session
            });
            assert!(ended.is_some(), "{:?}: not closed", want.arguments);
        }
    }
}

#[test]
fn what_is_attached_needs_no_holder() {
    let test = "what_is_attached_needs_no_holder";
    let Some(_alone) = alone(test, &["cc", "ip", "tc"]) else { return };
    let Some(programs) = Programs::build("orphans") else { return };
    let links = Links::make();
    let mut watch = Watch::start(&[]);
    let on = |kind: &'static str, interface: &'static str| {
        move |line: &Value| {
            let handle = &line["session"]["handle"];
            line["type"] == "finding" && handle["kind"] == kind && handle["interface"] == interface
        }
    };
    let since = Instant::now();
    if programs.start(&["orphan", ONE]).is_some() {
        let (finding, took) = watch.wait_for(since, LIMIT, on("tc_program", ONE)).unwrap();
        eprintln!("a program whose loader ended: {took:?}");
        assert_eq!(finding["session"]["handle"]["program"]["attached"], json!(["tcx/ingress"]));
        watch.read_for(Duration::from_millis(2500));
        assert_eq!(watch.seen(on("tc_program", ONE)).len(), 1);
        let is_closed = |line: &Value| {
            line["type"] == "closed" && line["session"]["id"] == finding["session"]["id"]
        };
        assert_eq!(watch.seen(is_closed).len(), 0, "it is attached still");
    }

    for arguments in [
        format!("qdisc add dev {OTHER} clsact"),
        format!(
            "filter add dev {OTHER} ingress protocol all u32 match u32 0 0 action mirred egress \
             mirror dev {ONE}"
        ),
    ] {
        let done = Command::new("tc").args(arguments.split(' ')).output().unwrap();
        if !done.status.success() {
            eprintln!("skipped: a mirror: {}", String::from_utf8_lossy(&done.stderr).trim());
            return;
        }
    }
    let (finding, took) = watch.wait_for(Instant::now(), LIMIT, on("tc_mirror", OTHER)).unwrap();
    eprintln!("a mirror: {took:?}");
    assert_eq!(finding["session"]["handle"]["peer"], ONE);
    assert_eq!(finding["process"], Value::Null, "nobody holds it");
    let lines = scan();
    let is_mirror = |line: &&Value| {
        let handle = &line["session"]["handle"];
        handle["kind"] == "tc_mirror" && handle["interface"] == OTHER
    };
    let mirror = lines.iter().find(is_mirror).unwrap();
    assert_eq!((&mirror["verdict"], &mirror["holders"]), (&json!("unexpected"), &json!([])));
    watch.read_for(Duration::from_millis(1500));
    assert_eq!(watch.seen(on("tc_mirror", OTHER)).len(), 1);
    // All of it goes with its interfaces.
    drop(links);
    let ended = watch.wait_for(Instant::now(), LIMIT, |line| {
        line["type"] == "closed" && line["session"]["id"] == finding["session"]["id"]
    });
    assert!(ended.is_some(), "not closed");
}

#[test]
fn what_was_there_before_is_found() {
    let test = "what_was_there_before_is_found";
    let Some(_alone) = alone(test, &["cc", "ip"]) else { return };
    let Some(programs) = Programs::build("before") else { return };
    let _links = Links::make();
    let mut captures = Vec::new();
    for (arguments, kind) in [
        (["xsk", OTHER], "xdp_socket"),
        (["tcx", ONE], "tc_program"),
        (["nflog", "4244"], "nflog_socket"),
    ] {
        captures.extend(programs.start(&arguments).map(|capture| (capture, kind)));
    }
    std::thread::sleep(Duration::from_millis(300));
    let lines = scan();
    let mut watch = Watch::start(&[]);
    watch.read_for(Duration::from_millis(1500));
    for (capture, kind) in &captures {
        let pid = capture.0.id();
        let mine: Vec<&Value> = lines.iter().filter(|line| is_of(line, pid)).collect();
        assert_eq!(mine.len(), 1, "{kind}: {mine:#?}");
        assert_eq!(mine[0]["session"]["handle"]["kind"], *kind, "{:#}", mine[0]);
        let found = watch.seen(|line| line["type"] == "finding" && line["process"]["pid"] == pid);
        assert_eq!(found.len(), 1, "{kind}: {found:#?}");
        assert_eq!(found[0]["session"]["pre_existing"], true, "{:#}", found[0]);
        assert_eq!(found[0]["session"]["stage"], "attached", "{:#}", found[0]);
    }
    drop(captures);
    let (_, lines) = watch.stop();
    drop(lines);
}

#[test]
fn tcpdump_reads_a_group() {
    let Some(_alone) = alone("tcpdump_reads_a_group", &["tcpdump"]) else { return };
    if !Path::new("/proc/net/netfilter/nfnetlink_log").exists() {
        eprintln!("skipped: tcpdump_reads_a_group: the kernel has no NFLOG");
        return;
    }
    let mut watch = Watch::start(&[]);
    let since = Instant::now();
    let mut command = Command::new(find("tcpdump").unwrap());
    let mut child = command
        .args(["-n", "-i", "nflog:4245"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let is_mine = |line: &Value| {
        line["type"] == "finding"
            && line["process"]["pid"] == pid
            && line["session"]["handle"]["kind"] == "nflog_socket"
    };
    let found = watch.wait_for(since, LIMIT, is_mine);
    signal(pid, "KILL");
    child.wait().unwrap();
    let (finding, took) = found.unwrap();
    eprintln!("tcpdump -i nflog:4245: {took:?}");
    assert_eq!(finding["session"]["handle"]["interface"], "nflog:4245");
    watch.read_for(Duration::from_millis(1500));
    assert_eq!(watch.seen(is_mine).len(), 1);
}

#[test]
fn a_usb_monitor() {
    let Some(_alone) = alone("a_usb_monitor", &[]) else { return };
    let Some(device) =
        ["/dev/usbmon0", "/dev/usbmon1"].into_iter().find(|path| Path::new(path).exists())
    else {
        eprintln!("skipped: a_usb_monitor: no /dev/usbmon: the module usbmon is not loaded");
        return;
    };
    let _open = std::fs::File::open(device).unwrap();
    let kind = |line: &&Value| line["session"]["handle"]["kind"] == "usbmon";
    let lines = scan();
    let mine = lines.iter().find(kind).expect("it is not in the scan");
    assert_eq!(mine["session"]["handle"]["device"], device);
    assert_eq!(mine["holders"][0]["pid"], std::process::id());
}

/// systemd's programs with a service that is accounted, where systemd runs this machine; and those that this
/// program loads itself.
#[test]
fn ordinary_programs_are_quiet() {
    let Some(_alone) = alone("ordinary_programs_are_quiet", &[]) else { return };
    let mut watch = Watch::start(&[]);
    watch.read_for(Duration::from_secs(3));
    let me = watch.pid();
    let about_me = |line: &Value| line["type"] == "finding" && line["process"]["pid"] == me;
    assert_eq!(watch.seen(about_me), Vec::<&Value>::new());
    let lines = scan();
    assert!(lines.iter().all(|line| !is_of(line, me)), "{lines:#?}");
    let scratch = Scratch::new("quiet-programs");
    let unit = format!("bpfwatch-beyond-{}", std::process::id());
    let is_systemd =
        std::fs::read_link("/proc/1/exe").is_ok_and(|image| image.ends_with("systemd"));
    if !is_systemd || find("systemd-run").is_none() {
        eprintln!("skipped: systemd's programs: systemd does not run this machine");
        return;
    }
    let started = Command::new("systemd-run")
        .args(["--unit", &unit, "-p", "IPAccounting=yes", "sleep", "30"])
        .current_dir(&scratch.0)
        .status()
        .unwrap();
    assert!(started.success());
    watch.read_for(Duration::from_secs(3));
    let lines = scan();
    let _ = Command::new("systemctl").args(["stop", &unit]).status();
    let is_program = |line: &&Value| line["session"]["handle"]["kind"] == "cgroup_program";
    let programs: Vec<&Value> = lines.iter().filter(is_program).collect();
    assert!(!programs.is_empty(), "systemd attaches none");
    assert!(programs.iter().all(|line| line["verdict"] == "expected"), "{programs:#?}");
    let found = watch.seen(|line| {
        line["type"] == "finding" && line["session"]["handle"]["kind"] == "cgroup_program"
    });
    assert_eq!(found, Vec::<&Value>::new());
}
