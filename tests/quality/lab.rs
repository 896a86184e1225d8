//! The place where it happens: interfaces with a network behind them, control groups as systemd makes
//! them, a scratch folder, and `bpfwatch watch` that records.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::plan::Plan;
use crate::process::{end_descendants, find, must};

/// Interfaces on the host's side, one for each worker that runs daemons.
pub struct Lab {
    /// A folder that is removed at the end; others may read it, because daemons drop their rights.
    pub dir: PathBuf,
    /// Name of the namespace that is the network behind the interfaces.
    pub network: String,
    interfaces: Vec<String>,
    groups: Mutex<Vec<PathBuf>>,
    temporary: Mutex<Vec<PathBuf>>,
    _server: Option<crate::process::Running>,
}

impl Lab {
    /// Whether this machine lets namespaces and interfaces be made.
    pub fn is_possible() -> bool {
        let name = format!("bpfwatch-quality-{}-try", std::process::id());
        let ip = |arguments: &[&str]| {
            let done = Command::new("ip").args(arguments).stderr(Stdio::null()).status();
            done.is_ok_and(|status| status.success())
        };
        let made = ip(&["netns", "add", &name]);
        let linked =
            made && ip(&["-n", &name, "link", "add", "veth0", "type", "veth", "peer", "veth1"]);
        if made {
            ip(&["netns", "del", &name]);
        }
        linked
    }

    /// Builds it: `bqN` on the host's side, a bridge and a DHCP server with leases on the other.
    pub fn new(plan: &Plan) -> Self {
        let id = std::process::id();
        let dir = std::env::temp_dir().join(format!("bpfwatch-quality-{id}"));
        std::fs::create_dir_all(&dir).unwrap();
        let network = format!("bpfwatch-quality-{id}");
        must("ip", &["netns", "add", &network]);
        let mut lab = Self {
            dir,
            network,
            interfaces: Vec::new(),
            groups: Mutex::default(),
            temporary: Mutex::default(),
            _server: None,
        };
        lab.inside(&["link", "add", "br0", "type", "bridge"]);
        lab.inside(&["link", "set", "lo", "up"]);
        for n in 0..plan.ordinary_workers {
            let (name, peer) = (format!("bq{n}"), format!("port{n}"));
            let network = lab.network.clone();
            must("ip", &["link", "add", &name, "type", "veth", "peer", &peer, "netns", &network]);
            lab.interfaces.push(name.clone());
            lab.known_to_udev(&name);
            lab.inside(&["link", "set", &peer, "master", "br0", "up"]);
            must("ip", &["addr", "add", &format!("10.213.{n}.2/24"), "dev", &name]);
            must("ip", &["link", "set", &name, "up"]);
            lab.inside(&["addr", "add", &format!("10.213.{n}.1/24"), "dev", "br0"]);
        }
        lab.inside(&["link", "set", "br0", "up"]);
        if find("dnsmasq").is_some() {
            let lease = format!("--dhcp-leasefile={}/leases", lab.dir.display());
            let server = [
                "ip",
                "netns",
                "exec",
                &lab.network,
                "dnsmasq",
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--port=0",
                "--interface=br0",
                "--dhcp-authoritative",
                "--dhcp-range=10.213.0.50,10.213.0.200,2m",
                "--user=root",
                "--pid-file=",
                &lease,
            ];
            let server: Vec<String> = server.iter().map(|&word| word.to_owned()).collect();
            lab._server = Some(crate::process::Running::start(&[], &server));
        }
        lab
    }

    fn inside(&self, arguments: &[&str]) {
        let mut all = vec!["-n", &self.network];
        all.extend(arguments);
        must("ip", &all);
    }

    /// Network managers leave an interface alone until udev knows it (systemd's sd-device). Where udev
    /// does not run, its record is written here.
    fn known_to_udev(&self, interface: &str) {
        if Path::new("/run/udev/control").exists() {
            return;
        }
        let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).unwrap();
        std::fs::create_dir_all("/run/udev/data").unwrap();
        let record = self.temporary(format!("/run/udev/data/n{}", index.trim()));
        std::fs::write(record, "I:1\n").unwrap();
    }

    /// A file outside of the folder that is removed at the end.
    pub fn temporary(&self, file: String) -> PathBuf {
        let file = PathBuf::from(file);
        self.temporary.lock().unwrap().push(file.clone());
        file
    }

    /// The interface of a worker.
    pub fn interface(&self, worker: usize) -> &str {
        &self.interfaces[worker % self.interfaces.len()]
    }

    /// The control groups of a systemd unit, made as systemd makes them: below `system.slice`, of version
    /// 2, or of its own hierarchy of version 1 and, beside that, of version 2 (systemd.io/CGROUP_DELEGATION,
    /// "Three Different Tree Setups"). `None` where control groups cannot be made.
    pub fn unit(&self, name: &str) -> Option<Vec<PathBuf>> {
        let roots = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let mut of_unit = Vec::new();
        let mut groups = self.groups.lock().unwrap();
        for root in roots.map(Path::new).iter().filter(|root| root.join("cgroup.procs").is_file()) {
            let slice = root.join("system.slice");
            let group = slice.join(name);
            for dir in [slice, group.clone()] {
                match std::fs::create_dir(&dir) {
                    Ok(()) => groups.push(dir),
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(_) => return None,
                }
            }
            of_unit.push(group);
        }
        (!of_unit.is_empty()).then_some(of_unit)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self._server = None;
        end_descendants();
        for interface in &self.interfaces {
            let _ = Command::new("ip").args(["link", "del", interface]).status();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.network]).status();
        // A control group can be removed when the last of its processes is gone, the inner one first.
        for group in self.groups.lock().unwrap().iter().rev() {
            for _ in 0..50 {
                if std::fs::remove_dir(group).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        for file in self.temporary.lock().unwrap().iter() {
            let _ = std::fs::remove_file(file);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// `bpfwatch watch --record`.
pub struct Recording {
    child: Child,
    /// Where it records to.
    pub file: PathBuf,
}

impl Recording {
    /// Starts it, and waits until it watches.
    pub fn start(plan: &Plan) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bpfwatch"))
            .args(["watch", "--level", "critical", "--format", "json", "--record"])
            .arg(&plan.recording)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("watching") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "watch ended: {said}");
        }
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| println!("{line}"));
        });
        // What is there already has been read when this is over.
        std::thread::sleep(Duration::from_millis(800));
        Self { child, file: plan.recording.clone() }
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw).unwrap();
        kill(pid, Signal::SIGINT).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How far a recording has come.
pub struct Count {
    file: std::fs::File,
    rest: Vec<u8>,
    /// Lines that are observations.
    pub observations: u64,
    /// Capture handles opened.
    pub handles: u64,
}

impl Count {
    /// Nothing read yet.
    pub fn new(file: &Path) -> Self {
        let file = std::fs::File::open(file).unwrap();
        Self { file, rest: Vec::new(), observations: 0, handles: 0 }
    }

    /// Counts what came since.
    pub fn read_on(&mut self) {
        self.file.read_to_end(&mut self.rest).unwrap();
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.observations += 1;
            let head = &line[..line.len().min(200)];
            let opened = b"\"kind\":\"handle_opened\"";
            self.handles += u64::from(head.windows(opened.len()).any(|part| part == opened));
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observations, {} handles opened", self.observations, self.handles)
    }
}
