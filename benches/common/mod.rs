//! Observations as a busy Linux host with containers gives them, made up: the same ones in every run.
// Each bench uses its part.
#![allow(dead_code)]

pub mod packs;
pub mod usage;

use std::sync::Arc;
use std::time::Duration;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::handle::{Handle, HandleKind, SocketType};
use bpfwatch_core::observation::{Kind, Observation, Origin, Os};
use bpfwatch_core::process::Process;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::time::Timestamp;

/// Where the observations pretend to come from.
pub fn origin() -> Origin {
    Origin {
        host: "bench-1".into(),
        os: Os::Linux,
        os_version: Some("6.12.8".into()),
        boot_id: Some("7c5b6f0e-2d2b-4a43-9d9e-4d8c1d1f4b0a".into()),
    }
}

/// Numbers without order that are the same in every run (splitmix64).
pub struct Numbers(u64);

impl Numbers {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next one below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[usize::try_from(self.below(list.len() as u64)).unwrap_or(0)]
    }
}

/// Images that are executed, with their short names.
const IMAGES: &[(&str, &str)] = &[
    ("/usr/bin/cc1plus", "cc1plus"),
    ("/usr/lib/jvm/java-21-openjdk-amd64/bin/java", "java"),
    ("/usr/bin/python3.12", "python3.12"),
    ("/usr/bin/dash", "sh"),
    ("/usr/bin/node", "node"),
    ("/usr/bin/grep", "grep"),
    ("/usr/local/bin/kubectl", "kubectl"),
    ("/usr/bin/git", "git"),
    ("/opt/build/bin/rustc", "rustc"),
    ("/usr/sbin/nginx", "nginx"),
];
const WORDS: &[&str] = &[
    "-O2",
    "-fPIC",
    "--config=/etc/service/config.yaml",
    "-I/usr/include/x86_64-linux-gnu",
    "-DNDEBUG",
    "--output",
    "/srv/build/workspace/target/release/deps/libexample-3f2a91c0.rlib",
    "-Wl,--as-needed",
    "-Xmx2048m",
    "-cp",
    "/opt/app/lib/commons-lang3-3.14.0.jar",
    "--verbose",
    "src/main/java/org/example/service/Handler.java",
    "https://registry.example.org/v2/",
    "-c",
    "import sys; print(sys.argv)",
    "\"quoted value\"",
    "--extern",
    "serde=/srv/build/libserde.rlib",
];

/// An endless stream of observations, in order of time.
pub struct Observations {
    numbers: Numbers,
    seq: u64,
    at: Timestamp,
    sensor: Arc<str>,
    scopes: Vec<Arc<Scope>>,
    /// Processes that have been forked and not yet executed anything, or not ended.
    forked: Vec<Process>,
    executed: Vec<Process>,
    /// Handles that are open.
    open: Vec<(Handle, Arc<Process>)>,
    /// What comes next without chance.
    queue: std::collections::VecDeque<(Option<Arc<Process>>, Kind)>,
}

impl Observations {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let host = Arc::new(Scope::Host);
        let mut scopes = vec![host; 3];
        for _ in 0..5 {
            let id: String = (0..8).map(|_| format!("{:08x}", numbers.below(1 << 32))).collect();
            scopes.push(Arc::new(Scope::Container {
                id: id.as_str().into(),
                runtime: Some("containerd".into()),
                image: None,
                pod: Some("8c5b6f0e-2d2b-4a43-9d9e-4d8c1d1f4b0a".into()),
                netns: Some(4_026_532_000 + numbers.below(1000)),
            }));
        }
        Self {
            numbers,
            seq: 0,
            at: Timestamp::from_secs(1_795_000_000),
            sensor: Arc::from("linux.proc"),
            scopes,
            forked: Vec::new(),
            executed: Vec::new(),
            open: Vec::new(),
            queue: std::collections::VecDeque::new(),
        }
    }

    fn fork(&mut self) -> Kind {
        let pid = 1000 + u32::try_from(self.numbers.below(60_000)).unwrap_or(0);
        let parent = match self.executed.len() as u64 {
            0 => 1,
            n => self.executed[usize::try_from(self.numbers.below(n)).unwrap_or(0)].pid,
        };
        let scope = usize::try_from(self.numbers.below(self.scopes.len() as u64)).unwrap_or(0);
        let (image, name) = IMAGES[usize::try_from(self.numbers.below(3)).unwrap_or(0)];
        self.forked.push(Process {
            start: Some(100_000 + self.seq),
            ppid: Some(parent),
            sid: Some(parent),
            uid: Some(1000),
            user: Some("builder".into()),
            name: Some(name.into()),
            image: Some(image.into()),
            cwd: Some("/srv/build/workspace/example-project".into()),
            scope: Some(Arc::clone(&self.scopes[scope])),
            ..Process::from_pid(pid)
        });
        Kind::Forked
    }

    fn execute(&mut self, mut process: Process) -> Process {
        let index = usize::try_from(self.numbers.below(IMAGES.len() as u64)).unwrap_or(0);
        let (image, name) = IMAGES[index];
        // Short for most, long for compilers: about 1.4 KB a line over all.
        let length = match self.numbers.below(10) {
            0..=4 => 100 + self.numbers.below(700),
            5..=8 => 900 + self.numbers.below(1500),
            _ => 2500 + self.numbers.below(3500),
        };
        let mut args = vec![image.to_owned()];
        let mut total = 0;
        while total < length {
            let word = self.numbers.pick(WORDS);
            total += word.len() as u64 + 1;
            args.push(word.to_owned());
        }
        process.image = Some(image.into());
        process.name = Some(name.into());
        process.args = Some(Arguments::from_list(&args));
        process.image_owner = Some(0);
        process.image_writable_dir = Some(false);
        process.image_deleted = Some(false);
        process.unit = Some("build-agent.service".into());
        process
    }

    /// A capture from its execution to its attach.
    fn capture(&mut self) {
        let pid = 70_000 + u32::try_from(self.numbers.below(20_000)).unwrap_or(0);
        let scope = usize::try_from(self.numbers.below(self.scopes.len() as u64)).unwrap_or(0);
        let process = Arc::new(Process {
            start: Some(100_000 + self.seq),
            ppid: Some(1),
            uid: Some(0),
            user: Some("root".into()),
            name: Some("tcpdump".into()),
            image: Some("/usr/bin/tcpdump".into()),
            args: Some(Arguments::from_list(["tcpdump", "-ni", "eth0", "-w", "/tmp/out.pcap"])),
            scope: Some(Arc::clone(&self.scopes[scope])),
            ..Process::from_pid(pid)
        });
        let handle = Handle {
            interface: Some("eth0".into()),
            protocol: Some("ETH_P_ALL".into()),
            socket_type: Some(SocketType::Raw),
            filter: Some(true),
            ring: Some(true),
            ..Handle::new(HandleKind::PacketSocket, 1_000_000 + self.seq)
        };
        let opened = Kind::HandleOpened { handle: handle.clone(), pre_existing: false };
        let attached = Kind::HandleAttached { handle: handle.clone() };
        let promiscuous = Kind::Promiscuous { handle: handle.clone(), on: true };
        for kind in [Kind::Executed, opened, attached, promiscuous] {
            self.queue.push_back((Some(Arc::clone(&process)), kind));
        }
        self.open.push((handle, process));
        if self.open.len() > 20 {
            let (handle, process) = self.open.remove(0);
            self.queue.push_back((None, Kind::HandleClosed { handle }));
            self.queue.push_back((Some(process), Kind::Exited));
        }
    }

    fn step(&mut self) -> (Option<Arc<Process>>, Kind) {
        if let Some(next) = self.queue.pop_front() {
            return next;
        }
        match self.numbers.below(2000) {
            0 => {
                self.capture();
                self.step()
            }
            1..=500 => {
                let kind = self.fork();
                (self.forked.last().cloned().map(Arc::new), kind)
            }
            501..=700 if self.executed.len() > 500 => {
                let ended = self.executed.remove(0);
                let ended = Process { args: None, cwd: None, ..ended };
                (Some(Arc::new(ended)), Kind::Exited)
            }
            _ => {
                if self.forked.is_empty() {
                    self.fork();
                }
                let process = self.forked.swap_remove(0);
                let process = self.execute(process);
                self.executed.push(process.clone());
                (Some(Arc::new(process)), Kind::Executed)
            }
        }
    }
}

impl Iterator for Observations {
    type Item = Observation;

    fn next(&mut self) -> Option<Observation> {
        let (actor, kind) = self.step();
        self.at = self.at + Duration::from_micros(50 + self.numbers.below(2000));
        let seq = self.seq;
        self.seq += 1;
        Some(Observation { at: self.at, seq, sensor: Arc::clone(&self.sensor), actor, kind })
    }
}
