//! Names of the host's users, from /etc/passwd alone: NSS would load code and ask networks.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use bpfwatch_core::text::Text;

use crate::{proc, proc_text};

const PASSWD: &str = "/etc/passwd";
/// How long a look at the file holds.
const FRESH: Duration = Duration::from_secs(1);

/// The users, read again when the file changes.
#[derive(Default)]
pub struct Users {
    names: HashMap<u32, Text>,
    looked: Option<Instant>,
    version: Option<(u64, i64, i64)>,
}

impl Users {
    /// Name of a user.
    pub fn name(&mut self, uid: u32) -> Option<Text> {
        self.refresh();
        self.names.get(&uid).cloned()
    }

    fn refresh(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        self.looked = Some(Instant::now());
        let version = std::fs::metadata(PASSWD)
            .ok()
            .map(|facts| (facts.ino(), facts.mtime(), facts.mtime_nsec()));
        if version != self.version || version.is_none() {
            self.version = version;
            self.names = proc::read(PASSWD).map(|text| proc_text::users(&text)).unwrap_or_default();
        }
    }
}
