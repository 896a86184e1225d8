//! What can be wrong with a sink and be found without opening it: files that are not there, that others
//! could write, or that do not hold what they should.

use std::collections::HashSet;
use std::path::Path;

use bpfwatch_core::finding::Host;
use bpfwatch_delivery::tls::{self, TlsFiles};

use super::remote;
use crate::config::{self, Http, Receiver, SecretFile, Transport, Wire};
use crate::exit::{Code, Failure};
use crate::trust;

/// Checks sinks; opens no file for writing and connects to nothing.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(sinks: &[config::Sink], host: &Host) -> Result<(), Failure> {
    spools(sinks)?;
    sinks.iter().try_for_each(|one| sink(one, host))
}

/// The names of the spools of these sinks.
///
/// # Errors
/// When two sinks have the same one.
pub fn spools(sinks: &[config::Sink]) -> Result<HashSet<&str>, Failure> {
    let mut names = HashSet::new();
    let spools = sinks.iter().filter_map(|sink| sink.transport.spool());
    for spool in spools.filter(|spool| spool.memory.is_none()) {
        if !names.insert(spool.name.as_str()) {
            let what = format!("two sinks have the same spool, \"{}\"", spool.name);
            return Err(
                Failure::new(Code::Config, what).next("give each a `spool.name` of its own")
            );
        }
    }
    Ok(names)
}

fn sink(sink: &config::Sink, host: &Host) -> Result<(), Failure> {
    match &sink.transport {
        Transport::Stdout | Transport::Syslog { .. } | Transport::Native => Ok(()),
        Transport::File { path, .. } | Transport::Pipe { path, .. } => place(path),
        Transport::Receiver(receiver) => self::receiver(receiver),
        Transport::Otlp(http) => remote::otlp(http, host, String::new()).map(drop),
        Transport::Webhook(http) => remote::webhook(http, String::new()).map(drop),
    }
}

/// The folder of a file or pipe has to be there; the rest is made.
fn place(path: &Path) -> Result<(), Failure> {
    let Some(folder) = path.parent() else { return Ok(()) };
    match folder.metadata() {
        Ok(about) if about.is_dir() => {}
        Ok(_) => {
            let what = format!("{} is no directory", folder.display());
            return Err(Failure::new(Code::Config, what).next("name another `path`"));
        }
        Err(error) => {
            return Err(Failure::file("find the folder of a sink", folder, &error)
                .next("make it, or name another `path`"));
        }
    }
    if path.is_dir() {
        let what = format!("{} is a directory", path.display());
        return Err(Failure::new(Code::Config, what).next("name a file in it as `path`"));
    }
    Ok(())
}

/// Checks the certificates of a syslog receiver.
///
/// # Errors
/// When one is wrong, or somebody else could write it.
pub fn receiver(receiver: &Receiver) -> Result<(), Failure> {
    let Wire::Tls(_, tls) = &receiver.wire else { return Ok(()) };
    trusted(&tls.files)?;
    let name = tls.name(&receiver.address);
    let checked = tls.files.client().map_err(|error| error.to_string());
    checked.and_then(|_| tls::server_name(name)).map(drop).map_err(|error| {
        Failure::new(Code::Config, format!("a sink with transport = \"tls\": {error}"))
            .next("`ca`, `certificate`, `key` and `server_name` are its keys")
    })
}

/// Checks the secrets and certificates of a receiver over HTTP: one that somebody else could change is
/// not used.
///
/// # Errors
/// As for [`receiver`], and when others could read a secret.
pub fn http(http: &Http) -> Result<(), Failure> {
    trusted(&http.setup.tls)?;
    for file in [&http.token_file, &http.signing_key_file].into_iter().flatten() {
        SecretFile::read(file)?;
    }
    Ok(())
}

/// Whoever can write the file of authorities can be the receiver.
fn trusted(files: &TlsFiles) -> Result<(), Failure> {
    for file in [&files.ca, &files.certificate, &files.key].into_iter().flatten() {
        if file.exists() {
            config::refuse_untrusted("a certificate", trust::check(file))?;
        }
    }
    Ok(())
}
