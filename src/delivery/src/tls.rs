//! TLS for every transport that has it: one provider of cryptography, one way to name authority and
//! certificate, and errors that say whose certificate is wrong, and why.
//!
//! The provider is *ring*: it builds for every system with a C compiler alone, without cmake or an
//! assembler of its own, and is the smaller of the two that rustls knows. TLS 1.2 and 1.3.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// The provider that every TLS connection of bpfwatch uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Whom to trust, and who we are; as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// PEM file of the authorities that the server's certificate must come from; the system's own
    /// authorities where `None`.
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate, the ones between it and its authority behind it.
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    pub key: Option<PathBuf>,
}

/// What was read from [`TlsFiles`].
#[derive(Debug)]
pub struct TlsParts {
    /// Authorities, one or more.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Our certificate with its chain, and its key.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file has no such thing in it.
    #[error("{} holds no {what} in PEM form (-----BEGIN ...-----)", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A private key that everybody on the machine can read is none.
    #[error("{} is a private key and may be read by everybody (mode {mode:04o}): chmod 0600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A certificate without its key, or the other way round.
    #[error("`certificate` and `key` go together: only one of them is given")]
    Half,
    /// No authority is known at all.
    #[error("this system has no certificate authorities: name a file of them with `ca`")]
    NoAuthority,
    /// Certificate, key or authority do not fit.
    #[error("{}: {error}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        error: rustls::Error,
    },
    /// The provider has none of the wanted versions.
    #[error("TLS cannot be used: {0}")]
    Setup(rustls::Error),
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, does not hold what it should, or is a key that everybody can read.
    pub fn read(&self) -> Result<TlsParts, TlsError> {
        let authorities = match &self.ca {
            Some(path) => certificates(path)?,
            None => system_authorities()?,
        };
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((certificates(certificate)?, private_key(key)?)),
            (None, None) => None,
            _ => return Err(TlsError::Half),
        };
        Ok(TlsParts { authorities, identity })
    }

    /// A client that trusts and shows what these files say.
    ///
    /// # Errors
    /// As for [`TlsFiles::read`], and when certificate and key do not fit each other.
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let parts = self.read()?;
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for authority in parts.authorities {
                    roots.add(authority).map_err(|error| unfit(path, error))?;
                }
            }
            // One that the system has and rustls cannot read is no reason to distrust the others.
            None => {
                roots.add_parsable_certificates(parts.authorities);
            }
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots);
        let config = match (parts.identity, &self.certificate) {
            (Some((chain, key)), Some(path)) => {
                builder.with_client_auth_cert(chain, key).map_err(|error| unfit(path, error))?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

fn unfit(path: &Path, error: rustls::Error) -> TlsError {
    TlsError::Unfit { path: path.to_owned(), error }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |path: &Path| TlsError::Pem { path: path.to_owned(), what: "certificate" };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(pem(path)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    let mode =
        fs::metadata(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })?.mode();
    if mode & 0o007 != 0 {
        return Err(TlsError::Exposed { path: path.to_owned(), mode: mode & 0o7777 });
    }
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| TlsError::Pem { path: path.to_owned(), what: "private key" })
}

fn system_authorities() -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() { Err(TlsError::NoAuthority) } else { Ok(found) }
}

/// A name or address that a server's certificate can be for.
///
/// # Errors
/// When it is none, in one line.
pub fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("\"{name}\" is no name that a certificate can be for"))
}

/// What a failed handshake means, and what to do, in words for whoever runs it; `None` where the error
/// has nothing to do with certificates.
pub fn explain(error: &rustls::Error, server: &str, ca: Option<&Path>) -> Option<String> {
    let authority = match ca {
        Some(path) => format!("in {}", path.display()),
        None => "that this system knows; name your own with `ca`".to_owned(),
    };
    Some(match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                format!("the certificate of {server} is not from an authority {authority}")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "the certificate of the server is not for the name {server}: `server_name` sets the one to expect"
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of {server} has expired")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("the certificate of {server} is not valid yet: is the clock right?")
            }
            other => format!("the certificate of {server} is not good: {other}"),
        },
        rustls::Error::AlertReceived(alert) => {
            use rustls::AlertDescription as Alert;
            match alert {
                Alert::CertificateRequired | Alert::HandshakeFailure | Alert::NoCertificate => {
                    format!(
                        "{server} refuses us ({alert:?}): does it want a client certificate? `certificate` and `key` name one"
                    )
                }
                Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::UnsupportedCertificate
                | Alert::AccessDenied => {
                    format!("{server} does not take our client certificate ({alert:?})")
                }
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// The TLS error within an I/O error, where there is one.
pub fn within(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
