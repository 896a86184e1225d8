//! Looks now and then at what the sensors can see: a source may come and go while the daemon runs.
//!
//! A thread of its own, for a look takes milliseconds, and started before the others are confined: it
//! looks at other processes as the sensors do.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bpfwatch_core::finding::Coverage;
use bpfwatch_core::platform::{Check, CheckState};

use crate::platform;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(300);

/// What the last look showed.
#[derive(Debug, Clone)]
pub struct Sources(Arc<Mutex<Arc<[Check]>>>);

impl Sources {
    /// Begins with what was seen at the start and looks again by itself.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn watch(first: Vec<Check>) -> io::Result<Self> {
        let sources = Self(Arc::new(Mutex::new(first.into())));
        let own = sources.clone();
        thread::Builder::new().name("sources".to_owned()).spawn(move || {
            loop {
                thread::sleep(EVERY);
                let checks = platform::current().coverage().into();
                *own.0.lock().unwrap_or_else(PoisonError::into_inner) = checks;
            }
        })?;
        Ok(sources)
    }

    /// What each source sees.
    pub fn checks(&self) -> Arc<[Check]> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same in short.
    pub fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::default();
        for check in &*self.checks() {
            match check.state {
                CheckState::Ok => coverage.ok += 1,
                CheckState::Info => continue,
                CheckState::Warning => coverage.partial += 1,
                CheckState::Blind => coverage.blind += 1,
            }
            if check.state > CheckState::Info {
                coverage.gaps.push(check.name.clone());
            }
        }
        coverage
    }
}
