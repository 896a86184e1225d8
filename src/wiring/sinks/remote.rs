//! Sinks that send over the network: transport, format, and the spool between them.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpfwatch_core::finding::Host;
use bpfwatch_delivery::backoff::Pace;
use bpfwatch_delivery::http::SetupError;
use bpfwatch_delivery::spool::Spool;
use bpfwatch_delivery::transport::{MemorySink, SpooledSink, SyslogTcp, SyslogUdp};
use bpfwatch_delivery::{Format, Otlp, Remote, Webhook};

use super::check;
use super::open::Ready;
use crate::config::{self, Http, Receiver, Wire};
use crate::exit::{Code, Failure};
use crate::output;

/// Where the daemon is: what sinks need to know beside their own keys.
#[derive(Debug, Clone)]
pub struct Place {
    /// The state directory.
    pub state_dir: PathBuf,
    /// How output names the machine.
    pub host: Arc<Host>,
}

impl Place {
    /// The directory of the spools.
    fn spools(&self) -> PathBuf {
        self.state_dir.join("spool")
    }
}

/// Opens a sink whose lines wait in a spool; `remote` makes its transport for the spool's stream.
///
/// # Errors
/// When the spool is not to be had, or the transport is set up wrongly.
pub fn spooled(
    place: &Place,
    spool: &config::Spool,
    format: Box<dyn Format>,
    remote: impl FnOnce(String) -> Result<Box<dyn Remote>, Failure>,
) -> Result<Ready, Failure> {
    let dir = place.spools().join(&spool.name);
    let (seed, pace) = (seed(), Pace::default());
    if let Some(bytes) = spool.memory {
        let remote = remote(format!("{seed:016x}"))?;
        return Ok(Box::new(move || {
            Ok(Box::new(MemorySink::start(format, remote, bytes, pace, seed)?))
        }));
    }
    let settings = spool.settings;
    let opened = Spool::open(&dir, settings, seed)
        .map_err(|error| Failure::file("open the spool", &dir, &error))?;
    let remote = remote(opened.stream())?;
    // Until then the one that uses the spool now goes on with it as it was.
    Ok(Box::new(move || {
        opened.set(settings);
        Ok(Box::new(SpooledSink::with(opened, format, remote, pace, seed)?))
    }))
}

/// The transport of an OTLP sink.
///
/// # Errors
/// When its address, token or certificates are wrong.
pub fn otlp(http: &Http, host: &Host, stream: String) -> Result<Box<dyn Remote>, Failure> {
    check::http(http)?;
    let remote = Otlp::open(&http.setup, host, stream).map_err(|error| failure("otlp", &error))?;
    Ok(Box::new(remote))
}

/// The transport of a webhook sink.
///
/// # Errors
/// As for [`otlp`].
pub fn webhook(http: &Http, stream: String) -> Result<Box<dyn Remote>, Failure> {
    check::http(http)?;
    let key = http.signing_key_file.as_ref().map(|file| file.path().to_owned());
    let remote = Webhook::open(&http.setup, key.as_ref(), stream);
    Ok(Box::new(remote.map_err(|error| failure("webhook", &error))?))
}

/// The transport of a syslog receiver.
///
/// # Errors
/// When its certificates are wrong.
pub fn syslog(receiver: &Receiver) -> Result<Box<dyn Remote>, Failure> {
    check::receiver(receiver)?;
    let address = &receiver.address;
    Ok(match &receiver.wire {
        Wire::Udp => Box::new(SyslogUdp::new(address)),
        Wire::Tcp(framing) => Box::new(SyslogTcp::new(address, *framing, None)),
        Wire::Tls(framing, tls) => Box::new(SyslogTcp::new(address, *framing, Some(tls.clone()))),
    })
}

fn failure(kind: &str, error: &SetupError) -> Failure {
    Failure::new(Code::Config, format!("a sink with transport = \"{kind}\": {error}"))
        .next("`bpfwatch config default` shows the keys of every sink")
}

/// Names spools of sinks that are gone: what waits in them waits for nobody.
///
/// # Errors
/// When two sinks have the same spool.
pub fn check_spools(sinks: &[config::Sink], place: &Place) -> Result<(), Failure> {
    let names = check::spools(sinks)?;
    let Ok(entries) = fs::read_dir(place.spools()) else { return Ok(()) };
    for entry in entries.flatten() {
        let known = entry.file_name().to_str().is_some_and(|name| names.contains(name));
        if !known && has_segments(&entry.path()) {
            output::warn(&format!(
                "{} holds lines of a sink that is not configured any more: remove it, or give its name \
                 to a sink as `spool.name` to send them",
                entry.path().display()
            ));
        }
    }
    Ok(())
}

/// Whether there is anything but an empty segment: whoever sent everything leaves one.
fn has_segments(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|end| end == "seg"))
}

/// Another number each time: std seeds its hash tables from the system's randomness.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
