//! A running sensor and what it has said so far.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::platform::{Platform, SensorSettings};
use bpfwatch_core::sensor::{CHANNEL_BYTES, Inlet, Received, SensorError, channel};
use bpfwatch_linux::LinuxPlatform;

/// How long something may take to be seen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One live test at a time: each one would see the others' sockets.
static ONE: Mutex<()> = Mutex::new(());

/// See the module.
pub struct Watcher {
    /// Everything said so far.
    pub seen: Vec<Observation>,
    inlet: Inlet,
    wake: Box<dyn Fn() + Send + Sync>,
    thread: JoinHandle<Result<(), SensorError>>,
    _one: MutexGuard<'static, ()>,
}

/// Whether root's rights are there; prints the skip otherwise.
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: {test} needs root");
    }
    root
}

/// Path of a tool; prints the skip where it is missing.
pub fn tool(test: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin".into(), "/sbin".into()];
    let found = std::env::split_paths(&path)
        .chain(sbin)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: {test} needs {name}");
    }
    found
}

/// A child that is killed when the test ends.
pub struct Killed(pub Child);

impl Killed {
    /// Starts a command that says nothing.
    pub fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Python program.
pub fn python(program: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg("-c").arg(format!("import os,socket,sys,time,array\n{program}"));
    command
}

impl Watcher {
    /// A sensor that has looked once and gets events.
    pub fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (outlet, inlet) = channel(CHANNEL_BYTES);
        let sensor = LinuxPlatform.sensors(&SensorSettings::default()).unwrap().remove(0);
        let wake = sensor.waker();
        let thread = std::thread::spawn(move || sensor.run(&outlet));
        let mut watcher = Self { seen: Vec::new(), inlet, wake, thread, _one: one };
        let marker = format!("marker-{:?}", Instant::now());
        let start = Instant::now();
        // The first one may be over before the sensor listens.
        while !watcher.seen.iter().any(|o| o.kind == Kind::Executed && has_argument(o, &marker)) {
            assert!(start.elapsed() < PATIENCE, "no event came");
            Command::new("sh").args(["-c", "sleep 0.1", &marker]).status().unwrap();
            watcher.take(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_millis(300));
        watcher.take(Duration::ZERO);
        watcher
    }

    fn take(&mut self, patience: Duration) {
        if let Received::Batch(batch) = self.inlet.receive(patience) {
            self.seen.extend(batch);
        }
    }

    /// Waits until something was said, and returns the first such.
    pub fn wait(&mut self, what: &str, is: impl Fn(&Observation) -> bool) -> Observation {
        let start = Instant::now();
        let mut looked = 0;
        loop {
            if let Some(found) = self.seen[looked..].iter().find(|o| is(o)) {
                return found.clone();
            }
            looked = self.seen.len();
            assert!(start.elapsed() < PATIENCE, "not seen: {what}\n{}", self.handles());
            self.take(Duration::from_millis(100));
        }
    }

    /// What was said about handles, for a failed test.
    fn handles(&self) -> String {
        let about = self.seen.iter().filter(|o| !o.kind.is_sheddable());
        about.map(|o| format!("{o:?}\n")).collect()
    }

    /// Collects for a while.
    pub fn collect(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.take(Duration::from_millis(20));
        }
    }

    /// Stops the sensor and checks that it does so in time and without error.
    pub fn stop(self) -> Vec<Observation> {
        let start = Instant::now();
        (self.wake)();
        self.thread.join().unwrap().unwrap();
        let took = start.elapsed();
        assert!(took < Duration::from_millis(200), "took {took:?} to stop");
        self.seen
    }
}

/// Whether one of the actor's arguments contains `text`.
pub fn has_argument(observation: &Observation, text: &str) -> bool {
    let args = observation.actor.as_ref().and_then(|actor| actor.args.as_ref());
    args.is_some_and(|args| args.command_line().contains(text))
}

/// Whether it is of this kind and by the process with this pid.
pub fn by(observation: &Observation, pid: u32, kind: &str) -> bool {
    observation.kind.name() == kind
        && observation.actor.as_ref().is_some_and(|actor| actor.pid == pid)
}
