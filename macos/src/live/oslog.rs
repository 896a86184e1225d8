//! The unified log, the first place where administrators of Macs look.
//!
//! The public way in is a C macro, `os_log_with_type`. The crate `oslog` compiles a C file against Apple's
//! headers for it, so that nothing could be checked or linked elsewhere than on a Mac; here the function behind
//! the macro, `_os_log_impl`, is called as the compiler's builtin does: a buffer with one item, `%{public}s`.
//! Apple documents neither. It is ABI all the same, compiled into every program that logs; but this binding has
//! not been seen to work on a Mac yet, so that the default configuration writes elsewhere too, and `doctor`
//! writes a probe and says how to read it back.
//!
//! What is written is public: it went through the redactor as every line does.

use std::ffi::CString;
use std::io;

use bpfwatch_core::finding::Line;
use bpfwatch_core::sink::Sink;

use super::ffi::Log;
use crate::names::SUBSYSTEM;
use crate::unified::{self, Category};

/// The sink.
pub struct UnifiedLog {
    findings: Log,
    sensor: Log,
    delivery: Log,
    serial: u64,
}

impl UnifiedLog {
    /// Opens the subsystem's categories; `None` where the system gives no log.
    pub fn open() -> Option<Self> {
        let subsystem = CString::new(SUBSYSTEM).ok()?;
        let log = |category: Category| Log::new(&subsystem, &CString::new(category.as_str()).ok()?);
        Some(Self {
            findings: log(Category::Findings)?,
            sensor: log(Category::Sensor)?,
            delivery: log(Category::Delivery)?,
            serial: 0,
        })
    }

    fn log(&self, category: Category) -> &Log {
        match category {
            Category::Findings => &self.findings,
            Category::Sensor => &self.sensor,
            Category::Delivery => &self.delivery,
        }
    }

    fn say(&mut self, category: Category, kind: u8, text: &str) -> io::Result<()> {
        self.serial = self.serial.wrapping_add(1);
        for part in unified::parts(text, self.serial) {
            let part = CString::new(part).map_err(|_| io::ErrorKind::InvalidData)?;
            self.log(category).write(kind, &part);
        }
        Ok(())
    }
}

impl Sink for UnifiedLog {
    fn name(&self) -> &'static str {
        "unified log"
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let (category, kind) = unified::place(line);
        let text = serde_json::to_string(line).map_err(io::Error::other)?;
        self.say(category, kind, &text)
    }
}

/// Writes a probe and returns the command that reads it back.
///
/// # Errors
/// When the system gives no log.
pub fn probe() -> io::Result<String> {
    let mut log =
        UnifiedLog::open().ok_or_else(|| io::Error::other("os_log_create gave no log"))?;
    let text = format!("bpfwatch probe {}", std::process::id());
    log.say(Category::Sensor, unified::DEFAULT, &text)?;
    Ok(unified::read_back(&text))
}
