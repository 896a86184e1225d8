//! A progress bar on standard error, where that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

const WIDTH: usize = 24;
const INTERVAL: Duration = Duration::from_millis(100);

/// A bar that shows how far a long read has come. It stays away where standard error is no terminal.
pub struct Progress {
    started: Instant,
    drawn: Option<Instant>,
    enabled: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { started: Instant::now(), drawn: None, enabled: io::stderr().is_terminal() }
    }
}

impl Progress {
    /// `done` bytes have been read of `total`; without a total only the amount is shown.
    pub fn at(&mut self, done: u64, total: Option<u64>) {
        if self.enabled && self.drawn.is_none_or(|drawn| drawn.elapsed() >= INTERVAL) {
            self.drawn = Some(Instant::now());
            let line = render(done, total, self.started.elapsed());
            // Nobody can be told that the terminal is gone.
            let _ = write!(io::stderr(), "\r{line}\x1b[K");
        }
    }

    /// Takes the bar away, so that something else can be written.
    pub fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn render(done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let mib = |bytes: f64| bytes / 1_048_576.0;
    let rate = mib(done as f64) / elapsed.as_secs_f64().max(0.001);
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let part = (done as f64 / total as f64).min(1.0);
            let filled = (part * WIDTH as f64) as usize;
            format!(
                "[{}{}] {:3.0} %  {:.1} of {:.1} MiB  {rate:.1} MiB/s",
                "#".repeat(filled),
                "-".repeat(WIDTH - filled),
                part * 100.0,
                mib(done as f64),
                mib(total as f64),
            )
        }
        None => format!("{:.1} MiB  {rate:.1} MiB/s", mib(done as f64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_part_and_rate() {
        let second = Duration::from_secs(1);
        assert_eq!(
            render(1_048_576, Some(2_097_152), second),
            "[############------------]  50 %  1.0 of 2.0 MiB  1.0 MiB/s"
        );
        assert_eq!(render(3_145_728, None, second), "3.0 MiB  3.0 MiB/s");
        // A file that grows while it is read.
        assert!(render(9, Some(4), second).contains("100 %"));
    }
}
