//! SIGINT, SIGTERM and SIGHUP as flags that the main loop reads.
//!
//! Through signal-hook: its self-pipe works alike on all three systems, where signalfd(2) is Linux's
//! own and a handler of ours would need unsafe code.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Incoming;

/// What SIGHUP means to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// The terminal is gone: stop.
    Stops,
    /// Read the configuration again.
    Reloads,
}

/// Signals that came.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Catches the signals from now on; `wake` is called when one came that stops. A second one ends
    /// the program at once, whatever it is doing.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn catch(hangup: Hangup, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let signals = Self::default();
        let mut incoming = Incoming::new([SIGINT, SIGTERM, SIGHUP])?;
        let flags = signals.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in incoming.forever() {
                if signal == SIGHUP && hangup == Hangup::Reloads {
                    flags.reload.store(true, Ordering::Release);
                } else if flags.stop.swap(true, Ordering::AcqRel) {
                    // The shell's convention for a program that a signal ended.
                    std::process::exit(128 + signal);
                } else {
                    wake();
                }
            }
        })?;
        Ok(signals)
    }

    /// Whether the program is to stop.
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether the configuration is to be read again; asking resets it.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::AcqRel)
    }
}
