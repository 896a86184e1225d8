//! Commands on network devices, as their syslog and accounting tell them: Cisco IOS, IOS-XE and NX-OS,
//! TACACS+ accounting files, and Junos.
//!
//! Such lines have no year, and many no zone: the year is the one that makes them the past, the zone is
//! UTC. (RFC 3164, section 4.1.2, leaves both out.)

mod commands;
mod syslog;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bpfwatch_core::decoder::{Decoded, LineDecoder, LineError};
use bpfwatch_core::logged::{Log, Logged, Value};
use bpfwatch_core::observation::{Kind, Observation, Origin, Os};
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;

use crate::text::shortened;
use commands::Command;

/// Bytes of a command that a message shows.
const SHOWN: usize = 240;

/// The format `network-syslog`.
#[derive(Debug, Clone)]
pub struct NetworkSyslog {
    sensor: Arc<str>,
    /// The present, for times without a year.
    now: Timestamp,
}

impl NetworkSyslog {
    /// `now` tells which year a time without one is of.
    pub fn new(now: Timestamp) -> Self {
        Self { sensor: Arc::from("network.syslog"), now }
    }
}

impl LineDecoder for NetworkSyslog {
    fn name(&self) -> &'static str {
        "network-syslog"
    }

    fn sniff(&self, line: &[u8]) -> bool {
        let Ok(line) = std::str::from_utf8(line) else { return false };
        commands::is_of_a_device(line)
    }

    fn os(&self) -> Option<Os> {
        Some(Os::Cisco)
    }

    fn decode(&self, line: &[u8], out: &mut Vec<Observation>) -> Result<Decoded, LineError> {
        let line = String::from_utf8_lossy(line);
        let header = syslog::Header::of(line.trim_end(), self.now);
        let Some(command) = Command::of(header.rest) else { return Ok(Decoded::Skipped) };
        let at = header.at.ok_or_else(|| LineError::new("no time that can be read"))?;
        let (log, os) = match command.juniper {
            true => (Log::JuniperMgd, Os::Juniper),
            false => (Log::CiscoAaa, Os::Cisco),
        };
        let user = command.user.map(|user| Text::from_bytes_limited(user.as_bytes(), 255));
        let message = Text::from(shortened(command.text, SHOWN));
        let mut record = Logged::new(log, user, message);
        let texts = [
            ("CmdSet", Some(command.text)),
            ("User", command.user),
            ("src", command.source),
            ("line", command.line),
            ("mnemonic", command.mnemonic),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                record.fields.push(name, Value::text(value));
            }
        }
        out.push(Observation {
            at,
            seq: 0,
            sensor: Arc::clone(&self.sensor),
            actor: None,
            kind: Kind::Logged { record: Arc::new(record) },
        });
        let host = header.host.map_or_else(
            || Text::from("unknown"),
            |host| Text::from_bytes_limited(host.as_bytes(), 255),
        );
        Ok(Decoded::From(Box::new(Origin { host, os, os_version: None, boot_id: None })))
    }
}
