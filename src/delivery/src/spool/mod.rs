//! The spool: what is to be sent over the network waits here, on disk, until the receiver has taken it.
//!
//! A spool is a directory (mode 0700) of segments, files of numbered and checksummed records that are
//! only appended to; a file that says up to where the receiver took everything; and a lock, so that it
//! has one owner. Once [`Spool::append`] returns, a killed program loses the record no more. It goes to
//! the receiver at least once: after a crash some records may be sent again, under the same id and
//! number.
//!
//! Bounded by size and age: the oldest segment is dropped first. What is dropped, refused by a full
//! disk or found damaged is counted, each record once, in [`Counts`]. Memory holds one batch, whatever
//! the size on disk.
//!
//! | module | duty |
//! |---|---|
//! | [`record`] | the bytes of a record and of a segment's header |
//! | [`segment`] | one file |
//! | [`position`] | up to where all was taken |
//! | [`settings`] | limits |
//! | [`store`], `open`, `read` | the whole: appending and dropping; recovery; reading |
//! | [`poison`] | what the receiver refused for good |

mod open;
pub mod poison;
pub mod position;
mod read;
pub mod record;
pub mod segment;
pub mod settings;
pub mod store;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use bpfwatch_core::time::Timestamp;

pub use read::{Batch, Done};
pub use settings::{LEAST_BYTES, Settings, Sync};
pub use store::{Counts, Store};

/// A spool that a writer and a courier share. Clones are the same spool.
#[derive(Clone)]
pub struct Spool(Arc<Shared>);

struct Shared {
    store: Mutex<Store>,
    /// Something was appended, or somebody is to look up.
    changed: Condvar,
}

/// How a spool fares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// Records that wait.
    pub waiting: u64,
    /// Bytes of what waits, on disk.
    pub waiting_bytes: u64,
    /// What became of the others since it was opened.
    pub counts: Counts,
}

/// The spools that this process has open. A reload opens a sink anew while its courier may still wait
/// for a receiver: both then work on the same spool, instead of one locking the other out.
static OPEN: OnceLock<Mutex<HashMap<PathBuf, Weak<Shared>>>> = OnceLock::new();

impl Spool {
    /// Opens the spool in a directory, or takes the one that this process already has open there, whose
    /// settings stay as they are until [`Spool::set`].
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open(dir: &Path, settings: Settings, seed: u64) -> io::Result<Self> {
        let open = OPEN.get_or_init(Mutex::default);
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, spool| spool.strong_count() > 0);
        let dir = std::path::absolute(dir)?;
        if let Some(shared) = open.get(&dir).and_then(Weak::upgrade) {
            return Ok(Self(shared));
        }
        let store = Store::open(&dir, settings, now(), seed)?;
        let shared = Arc::new(Shared { store: Mutex::new(store), changed: Condvar::new() });
        open.insert(dir, Arc::downgrade(&shared));
        Ok(Self(shared))
    }

    /// Other settings from now on.
    pub fn set(&self, settings: Settings) {
        self.lock().settings = settings;
    }

    /// The state behind it, for as long as the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record and wakes the courier; its number.
    ///
    /// # Errors
    /// As for [`Store::append`].
    pub fn append(&self, id: &str, time: Timestamp, payload: &[u8]) -> io::Result<u64> {
        let result = self.lock().append(steady(), id, time, payload);
        self.0.changed.notify_all();
        result
    }

    /// Wakes whoever waits in [`Spool::wait`].
    pub fn wake(&self) {
        // Taken, so that nobody is between looking and waiting.
        drop(self.lock());
        self.0.changed.notify_all();
    }

    /// Waits until something changed, at most this long.
    pub fn wait<'a>(
        &'a self,
        store: MutexGuard<'a, Store>,
        limit: Duration,
    ) -> MutexGuard<'a, Store> {
        let waited = self.0.changed.wait_timeout(store, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// How it fares.
    pub fn state(&self) -> State {
        let store = self.lock();
        State {
            waiting: store.waiting(),
            waiting_bytes: store.waiting_bytes(),
            counts: store.counts,
        }
    }

    /// Its stream's id, as a UUID: a receiver tells the numbers of one spool from those of another by it.
    pub fn stream(&self) -> String {
        self.lock().stream_id()
    }
}

impl Store {
    /// As [`Spool::stream`].
    pub fn stream_id(&self) -> String {
        let hex: String = self.stream.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// What became of records since it was opened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Number of the last record; 0 before the first.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Everything up to this number is done with.
    pub fn acked(&self) -> u64 {
        self.acked
    }
}

/// How files of a spool are opened for writing: made for their owner alone, and never through a link.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}

/// The clock for the age of what waits: the time of day at the first call, and from then on what has
/// passed since. A machine whose clock is set right long after its start drops nothing for that.
pub(crate) fn steady() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
    let (at, since) = START.get_or_init(|| (now(), Instant::now()));
    *at + since.elapsed()
}

/// The time of day.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::default() + since_epoch
}
