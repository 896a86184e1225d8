//! The way to a receiver: straight or through a proxy, and with which certificates.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use rustls::CertificateError;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::client::{Setup, SetupError};
use super::stamp::Stamp;
use crate::tls::{self, TlsError, TlsFiles};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the whole of a request may take, its answer included.
const WHOLE: Duration = Duration::from_secs(20);

/// Which way requests go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proxy {
    /// As the environment of bpfwatch itself says: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
    /// `NO_PROXY`, in either case. A receiver on this machine is reached straight.
    #[default]
    Environment,
    /// Straight to the receiver.
    None,
    /// Through this proxy: `http://[user:password@]host:port`.
    Url(String),
}

impl Proxy {
    /// The proxy to `uri`, if one is to be used.
    fn to(&self, uri: &Uri) -> Result<Option<ureq::Proxy>, SetupError> {
        match self {
            Self::None => Ok(None),
            // What is meant for this machine must not be sent to the proxy's own.
            Self::Environment if is_local(uri) => Ok(None),
            Self::Environment => {
                Ok(ureq::Proxy::try_from_env().filter(|proxy| !proxy.is_no_proxy(uri)))
            }
            Self::Url(url) => {
                // ureq would take some others, and then say at each request that it cannot.
                let proxy = ureq::Proxy::new(url).ok().filter(|_| url.starts_with("http://"));
                proxy.map(Some).ok_or(SetupError::Proxy)
            }
        }
    }
}

/// Whether a receiver is this machine, by name or by address.
pub fn is_local(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What makes the requests to one receiver. Files of certificates are read again when they change.
pub struct Way {
    agent: Agent,
    proxy: Option<ureq::Proxy>,
    /// What stands in the certificate of the receiver.
    host: String,
    /// Nothing where the address is not of `https`.
    tls: Option<TlsFiles>,
    stamps: Vec<Option<Stamp>>,
}

impl Way {
    /// Prepares it.
    ///
    /// # Errors
    /// When proxy or certificates are wrong.
    pub fn open(setup: &Setup, uri: &Uri) -> Result<Self, SetupError> {
        let proxy = setup.proxy.to(uri)?;
        // Only where it is used: the system's authorities are megabytes.
        let tls = (uri.scheme_str() == Some("https")).then(|| setup.tls.clone());
        let stamps = tls.as_ref().map(stamps).unwrap_or_default();
        let agent = agent(tls.as_ref(), proxy.clone())?;
        let host = uri.host().unwrap_or_default().to_owned();
        Ok(Self { agent, proxy, host, tls, stamps })
    }

    /// What makes the next request.
    ///
    /// # Errors
    /// When a file of certificates was replaced by one that is wrong; the next call tries anew.
    pub fn agent(&mut self) -> Result<&Agent, TlsError> {
        let stamps = self.tls.as_ref().map(stamps).unwrap_or_default();
        if stamps != self.stamps {
            self.agent = agent(self.tls.as_ref(), self.proxy.clone())?;
            self.stamps = stamps;
        }
        Ok(&self.agent)
    }

    /// Why there is no answer, for an operator.
    pub fn explain(&self, error: &ureq::Error) -> String {
        let tls = match error {
            ureq::Error::Rustls(error) => Some(error),
            ureq::Error::Io(error) => tls::within(error),
            _ => None,
        };
        let ca = self.tls.as_ref().and_then(|files| files.ca.as_deref());
        let told = tls.and_then(|error| match error {
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Some(format!(
                "the certificate of the server is not for the name {}: `url` needs the name in it",
                self.host
            )),
            error => tls::explain(error, &self.host, ca),
        });
        if let Some(told) = told {
            return told;
        }
        let proxy = self.proxy.as_ref().map(|proxy| format!("{}:{}", proxy.host(), proxy.port()));
        let through = proxy.as_ref().map(|it| format!("through the proxy {it}: "));
        let through = through.unwrap_or_default();
        match (error, &self.proxy) {
            (ureq::Error::ConnectProxyFailed(why), _) if why.contains("407") => {
                format!("{through}it wants a user and a password (407), or others")
            }
            (ureq::Error::ConnectProxyFailed(why), _) => format!("{through}{why}"),
            (ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve), _) => {
                format!("{through}no connection within {} s", CONNECT.as_secs())
            }
            (ureq::Error::Timeout(_), _) => {
                format!("{through}no answer within {} s", WHOLE.as_secs())
            }
            (ureq::Error::HostNotFound, None) => format!("the name {} is not known", self.host),
            // In TLS 1.3 the client is done before the server has looked at its certificate, and what the
            // server says of it can be lost when it closes (RFC 8446, 4.4.2.4).
            (ureq::Error::Io(error), _) if self.tls.is_some() && is_closed(error) => {
                let ours = self.tls.as_ref().and_then(|files| files.certificate.as_ref());
                let question = match ours {
                    Some(_) => "does it take our client certificate?",
                    None => "does it want a client certificate? `certificate` and `key` name one",
                };
                format!("{through}{} closed the connection: {question}", self.host)
            }
            (ureq::Error::Io(error), _) => format!("{through}{error}"),
            (error, _) => format!("{through}{error}"),
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// A file that cannot be looked at has none; reading it says why.
fn stamps(files: &TlsFiles) -> Vec<Option<Stamp>> {
    let paths: [&Option<PathBuf>; 3] = [&files.ca, &files.certificate, &files.key];
    paths.into_iter().flatten().map(|path| Stamp::of(path).ok()).collect()
}

fn agent(files: Option<&TlsFiles>, proxy: Option<ureq::Proxy>) -> Result<Agent, TlsError> {
    let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(tls::provider());
    if let Some(files) = files {
        // Says whether certificate and key fit each other, which ureq takes for granted.
        files.client()?;
        let parts = files.read()?;
        let owned = |der: &[u8]| Certificate::from_der(der).to_owned();
        let roots: Vec<_> = parts.authorities.iter().map(|der| owned(der)).collect();
        tls = tls.root_certs(RootCerts::new_with_certs(&roots));
        if let (Some((chain, _)), Some(path)) = (parts.identity, &files.key) {
            let chain: Vec<_> = chain.iter().map(|der| owned(der)).collect();
            // From its file once more: ureq does not name the type that a decoded key would need.
            let pem = std::fs::read(path)
                .map_err(|error| TlsError::Read { path: path.clone(), error })?;
            let key = PrivateKey::from_pem(&pem)
                .map_err(|_| TlsError::Pem { path: path.clone(), what: "private key" })?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
    } else {
        tls = tls.root_certs(RootCerts::new_with_certs(&[]));
    }
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(proxy)
        .tls_config(tls.build())
        .user_agent(concat!("bpfwatch/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(WHOLE))
        .max_idle_connections(1)
        .build();
    Ok(config.new_agent())
}
