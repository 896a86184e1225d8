//! How much is recorded: the short form, or the full one.

use std::path::PathBuf;
use std::time::Duration;

/// One form of the recording.
pub struct Plan {
    /// At least so many observations ...
    pub observations: u64,
    /// ... and so many capture handles of ordinary programs ...
    pub handles: u64,
    /// ... of so many kinds, where their packages are there.
    pub kinds: usize,
    /// Recording ends then, whether that is reached or not.
    pub limit: Duration,
    /// Threads that start programs which hold handles.
    pub ordinary_workers: usize,
    /// Threads that compile, install, and run shells and containers.
    pub volume_workers: usize,
    /// Pause between two injected captures.
    pub pause: Duration,
    /// Whether packages are really installed and removed on this machine.
    pub install: bool,
    /// Whether others may work on the machine at the same time: a handle of a process that ended before
    /// anybody could look is theirs then, unless its interface is one of this test's.
    pub shared: bool,
    /// Where the recording goes.
    pub recording: PathBuf,
    /// Whether it is kept.
    pub keep: bool,
    /// A recording to judge instead of making one.
    pub judge: Option<PathBuf>,
}

impl Plan {
    /// From `BPFWATCH_QUALITY` (`full`, else short), `BPFWATCH_QUALITY_KEEP` (a file to keep the
    /// recording in), `BPFWATCH_QUALITY_JUDGE` (a recording to judge) and `BPFWATCH_QUALITY_SHARED`
    /// (others work on the machine; the short form takes that for granted).
    pub fn from_environment() -> Self {
        let keep = std::env::var_os("BPFWATCH_QUALITY_KEEP").map(PathBuf::from);
        let recording = keep.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("bpfwatch-quality-{}.jsonl", std::process::id()))
        });
        let short = Self {
            observations: 20_000,
            handles: 30,
            kinds: 5,
            limit: Duration::from_secs(180),
            ordinary_workers: 4,
            volume_workers: 1,
            pause: Duration::from_millis(300),
            install: false,
            shared: true,
            recording,
            keep: keep.is_some(),
            judge: std::env::var_os("BPFWATCH_QUALITY_JUDGE").map(PathBuf::from),
        };
        if std::env::var_os("BPFWATCH_QUALITY").is_none_or(|form| form != "full") {
            return short;
        }
        Self {
            observations: 500_000,
            handles: 300,
            kinds: 12,
            limit: Duration::from_secs(45 * 60),
            volume_workers: 3,
            pause: Duration::from_secs(10),
            install: true,
            shared: std::env::var_os("BPFWATCH_QUALITY_SHARED").is_some(),
            ..short
        }
    }
}
