//! What the tests of every format need: a directory, and what a follower gives.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bpfwatch_core::observation::Kind;
use bpfwatch_core::time::Timestamp;
use bpfwatch_inputs::follow::{Follower, Turn};
use bpfwatch_inputs::reader::Delivery;

/// A directory of one test, removed when dropped.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bpfwatch-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("audit.log")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Pids that were executed, `lost` for losses and `bad` for problems, until `idle` turns bring nothing.
pub fn drain(follower: &mut Follower<'_>, seen: &mut Vec<String>) {
    loop {
        let turn = follower.turn(Timestamp::from_secs(1), &mut |delivery| {
            match delivery {
                Delivery::Batch(batch) => {
                    for observation in batch.observations {
                        seen.push(match observation.kind {
                            Kind::Executed => observation.actor.unwrap().pid.to_string(),
                            Kind::Lost { .. } => "lost".to_owned(),
                            other => other.name().to_owned(),
                        });
                    }
                }
                Delivery::Problem(_) => seen.push("bad".to_owned()),
                Delivery::Progress(_) => {}
            }
            ControlFlow::Continue(())
        });
        match turn.unwrap() {
            Turn::More => {}
            Turn::Idle | Turn::Stopped => return,
        }
    }
}

/// Drains until `count` things were seen, or for ten seconds.
pub fn wait(follower: &mut Follower<'_>, seen: &mut Vec<String>, count: usize) {
    let end = Instant::now() + Duration::from_secs(10);
    while seen.len() < count && Instant::now() < end {
        drain(follower, seen);
        std::thread::sleep(Duration::from_millis(10));
    }
}
