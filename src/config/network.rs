//! Keys of sinks that send over the network: the receiver over HTTP, and the spool in which lines wait
//! for it.

use std::path::PathBuf;
use std::time::Duration;

use bpfwatch_delivery::http::{Proxy, Setup};
use bpfwatch_delivery::spool::{self, LEAST_BYTES, Settings, Sync};
use bpfwatch_delivery::tls::TlsFiles;
use bpfwatch_delivery::transport::MEMORY_BYTES;
use serde::Deserialize;

use super::secret::SecretFile;

/// A receiver over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// How to reach it.
    pub setup: Setup,
    /// The bearer token, where it wants one.
    pub token_file: Option<SecretFile>,
    /// The key of the signature (webhook).
    pub signing_key_file: Option<SecretFile>,
    /// Where lines wait for it.
    pub spool: Spool,
}

/// The keys of HTTP, as written.
#[derive(Debug, Default, Deserialize)]
pub struct HttpKeys {
    pub url: Option<String>,
    pub proxy: Option<String>,
    pub compression: Option<Compression>,
    pub token_file: Option<SecretFile>,
    pub signing_key_file: Option<SecretFile>,
}

/// How bodies are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    Gzip,
}

impl HttpKeys {
    /// A receiver; `gzip` where nothing is said of compression.
    pub fn receiver(
        self,
        kind: &str,
        tls: TlsFiles,
        spool: SpoolKeys,
        gzip: bool,
    ) -> Result<Http, String> {
        let url =
            self.url.ok_or_else(|| format!("a sink with transport = \"{kind}\" needs a `url`"))?;
        let proxy = match self.proxy {
            None => Proxy::Environment,
            Some(none) if none == "none" => Proxy::None,
            Some(url) => Proxy::Url(url),
        };
        let gzip = self.compression.map_or(gzip, |compression| compression == Compression::Gzip);
        let token_file = self.token_file.as_ref().map(|file| file.path().to_owned());
        let spool = spool.spool(kind, &url)?;
        Ok(Http {
            setup: Setup { url, proxy, tls, token_file, gzip },
            token_file: self.token_file,
            signing_key_file: self.signing_key_file,
            spool,
        })
    }
}

/// Where lines wait on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Spool {
    /// Its directory under the state directory's `spool`.
    pub name: String,
    /// Its limits.
    pub settings: Settings,
    /// No spool on disk: lines wait in memory, in so many bytes at most.
    pub memory: Option<usize>,
}

/// `spool`, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolKeys {
    name: Option<String>,
    max_mib: Option<u64>,
    max_age_h: Option<u64>,
    sync: Option<SyncKey>,
    memory: bool,
}

/// The value of `spool.sync`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SyncKey {
    Always,
    Interval,
    Never,
}

impl SpoolKeys {
    /// The spool of a sink; by default it is named after transport and address.
    pub fn spool(&self, kind: &str, address: &str) -> Result<Spool, String> {
        let name = match &self.name {
            None => default_name(kind, address),
            Some(name) if is_name(name) => name.clone(),
            Some(name) => {
                return Err(format!(
                    "`spool.name` is a directory: letters, digits, `.`, `_` and `-`, not \"{name}\""
                ));
            }
        };
        let mut settings = Settings::default();
        if let Some(mib) = self.max_mib {
            settings.max_bytes = mib.saturating_mul(1024 * 1024);
            if settings.max_bytes < LEAST_BYTES || mib > 1024 * 1024 {
                return Err(format!("`spool.max_mib` must be 1 to 1048576, not {mib}"));
            }
        }
        if let Some(hours) = self.max_age_h {
            if !(1..=24 * 365).contains(&hours) {
                return Err(format!("`spool.max_age_h` must be 1 to 8760, not {hours}"));
            }
            settings.max_age = Duration::from_secs(hours * 3600);
        }
        settings.sync = match self.sync {
            None => settings.sync,
            Some(SyncKey::Always) => Sync::Always,
            Some(SyncKey::Interval) => spool::Settings::default().sync,
            Some(SyncKey::Never) => Sync::Never,
        };
        let memory = match self.max_mib {
            _ if !self.memory => None,
            _ if self.max_age_h.is_some() || self.sync.is_some() || self.name.is_some() => {
                return Err(
                    "`spool.memory` goes with `spool.max_mib` alone: what waits in memory \
                            has no name, age or sync"
                        .to_owned(),
                );
            }
            Some(_) => Some(usize::try_from(settings.max_bytes).unwrap_or(usize::MAX)),
            None => Some(MEMORY_BYTES),
        };
        Ok(Spool { name, settings, memory })
    }
}

/// Transport and address, with `_` for what a file name had better not have. Without a query, which may
/// hold a secret.
fn default_name(kind: &str, address: &str) -> String {
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    let address = address.split(['?', '#']).next().unwrap_or_default();
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    let address: String = address.trim_end_matches('/').chars().map(safe).take(150).collect();
    format!("{kind}-{address}")
}

fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(good)
}

/// The files of TLS from their keys, each by its whole path.
pub fn tls_files(
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<TlsFiles, String> {
    for (name, path) in [("ca", &ca), ("certificate", &certificate), ("key", &key)] {
        if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
            return Err(format!("`{name}` must be absolute: {}", path.display()));
        }
    }
    if certificate.is_some() != key.is_some() {
        return Err("`certificate` and `key` go together: only one of them is given".to_owned());
    }
    Ok(TlsFiles { ca, certificate, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_is_named_after_its_receiver_unless_told() {
        let named = |name: Option<&str>| SpoolKeys {
            name: name.map(str::to_owned),
            ..SpoolKeys::default()
        };
        let name = |given, url: &str| named(given).spool("otlp", url).map(|spool| spool.name);
        assert_eq!(name(None, "https://c:4318/v1/logs?k=s").unwrap(), "otlp-c_4318_v1_logs");
        assert_eq!(name(None, "http://[::1]:1/").unwrap(), "otlp-___1__1");
        assert_eq!(name(Some("soc"), "https://c").unwrap(), "soc");
        for wrong in ["", "..", ".x", "a/b", "a b"] {
            assert!(name(Some(wrong), "https://c").is_err(), "{wrong}");
        }
    }
}
