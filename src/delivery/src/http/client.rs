//! One receiver over HTTP: a POST, and the answer to it.
//!
//! Redirects are never followed: a token is for the address that was configured. Every wait has a
//! timeout, and of an answer only the beginning is read.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use ureq::http::Uri;
use ureq::http::header::{HeaderName, HeaderValue};

use super::answer::Answer;
use super::secret::Secret;
use super::way::{self, Proxy, Way};
use crate::remote::Refused;
use crate::tls::{TlsError, TlsFiles};

/// Bytes of an answer that are read.
const ANSWER: u64 = 64 * 1024;

/// How to reach a receiver; as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Setup {
    /// Its address: `https://` or `http://`.
    pub url: String,
    /// Which way.
    pub proxy: Proxy,
    /// Whom to trust, and who we are.
    pub tls: TlsFiles,
    /// File with a bearer token (RFC 6750).
    pub token_file: Option<PathBuf>,
    /// Whether bodies go compressed with gzip.
    pub gzip: bool,
}

/// Why a receiver cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address is none.
    #[error("`url` {0}")]
    Url(String),
    /// The proxy's address is none.
    #[error("`proxy` is not like http://host:port")]
    Proxy,
    /// The token's file is not usable.
    #[error("{0}")]
    Secret(String),
    /// Certificates or authorities are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A receiver.
pub struct Client {
    way: Way,
    url: String,
    shown: String,
    token: Option<Secret>,
    gzip: bool,
}

impl Client {
    /// Prepares it; nothing is sent yet.
    ///
    /// # Errors
    /// When address, token or certificates are wrong. A token or password that would go over an
    /// unencrypted connection to another machine is refused.
    pub fn open(setup: &Setup) -> Result<Self, SetupError> {
        let url = |what: &str| SetupError::Url(what.to_owned());
        let uri: Uri = setup.url.parse().map_err(|_| url("is not like https://host:port/path"))?;
        let (scheme, authority) = (uri.scheme_str(), uri.authority());
        let (Some(scheme @ ("https" | "http")), Some(authority)) = (scheme, authority) else {
            return Err(url("is not like https://host:port/path"));
        };
        if authority.as_str().contains('@') {
            return Err(url("has a user or password in it: use `token_file`"));
        }
        let in_the_clear = scheme == "http" && setup.token_file.is_some();
        if in_the_clear && (!way::is_local(&uri) || matches!(setup.proxy, Proxy::Url(_))) {
            return Err(url("sends the token over the network in the clear: use https"));
        }
        let token = setup.token_file.as_deref().map(Secret::open).transpose();
        let token = token.map_err(SetupError::Secret)?;
        let shown = format!("{scheme}://{authority}{}", uri.path());
        let way = Way::open(setup, &uri)?;
        Ok(Self { way, url: setup.url.clone(), shown, token, gzip: setup.gzip })
    }

    /// Its address, without a query, which may hold a secret.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The body as it will be sent: compressed where that was asked for.
    pub fn pack(&self, body: Vec<u8>) -> Vec<u8> {
        if !self.gzip {
            return body;
        }
        let mut packed = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
        match packed.write_all(&body).and_then(|()| packed.finish()) {
            Ok(packed) => packed,
            // Writing to memory does not fail; were it to, nothing is lost by sending it as it is.
            Err(_) => body,
        }
    }

    /// Sends a body that [`Client::pack`] made.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(
        &mut self,
        content_type: &str,
        headers: &[(&'static str, String)],
        body: &[u8],
    ) -> Result<Answer, Refused> {
        let agent = self.way.agent().map_err(|error| Refused::later(error.to_string()))?;
        let mut request = agent.post(&self.url).header("content-type", content_type);
        // A gzip stream tells itself by its first two bytes (RFC 1952, 2.3.1); JSON and Protobuf of
        // ours begin with others.
        if self.gzip && body.starts_with(&[0x1F, 0x8B]) {
            request = request.header("content-encoding", "gzip");
        }
        if let Some(token) = &mut self.token {
            let token = token.get().map_err(Refused::later)?;
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Refused::later("the token is no header value"))?;
            value.set_sensitive(true);
            request = request.header("authorization", value);
        }
        for (name, value) in headers {
            request = request.header(HeaderName::from_static(name), value.as_str());
        }
        let mut response =
            request.send(body).map_err(|error| Refused::later(self.way.explain(&error)))?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("retry-after").and_then(|secs| secs.trim().parse().ok());
        let location = header("location").map(str::to_owned);
        let status = response.status().as_u16();
        let mut answer = Vec::new();
        // Half an answer's body is better than none; its status is what counts.
        let _ = response.body_mut().as_reader().take(ANSWER).read_to_end(&mut answer);
        let retry_after = retry_after.map(Duration::from_secs);
        Ok(Answer { status, retry_after, location, body: answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        let setup = Setup { url: url.to_owned(), ..Setup::default() };
        Client::open(&setup).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn wrong_addresses_are_refused_with_a_reason() {
        assert!(error("collector:4318").contains("https://host:port/path"));
        assert!(error("ftp://collector/").contains("https://host:port/path"));
        assert!(error("https://user:pass@collector/").contains("token_file"));
        assert_eq!(error("http://[::1]:1/x"), "");
    }

    #[test]
    fn a_token_goes_in_the_clear_only_to_this_machine() {
        let setup = |url: &str| Setup {
            url: url.to_owned(),
            token_file: Some(PathBuf::from("/nonexistent/token")),
            ..Setup::default()
        };
        let error = |url| Client::open(&setup(url)).err().map(|error| error.to_string()).unwrap();
        assert!(error("http://collector.example/").contains("in the clear"));
        assert!(error("http://10.0.0.1/").contains("in the clear"));
        for local in ["http://localhost:1/", "http://127.0.0.1:1/", "http://[::1]:1/"] {
            assert!(error(local).contains("/nonexistent/token"), "{local}");
        }
        // A proxy would be told to hand it on to its own machine.
        let proxy = Proxy::Url("http://proxy.example:3128".to_owned());
        let setup = Setup { proxy, ..setup("http://localhost:1/") };
        assert!(Client::open(&setup).err().unwrap().to_string().contains("in the clear"));
    }

    #[test]
    fn a_proxy_has_an_address_of_http() {
        let error = |proxy: &str| {
            let proxy = Proxy::Url(proxy.to_owned());
            let url = "https://collector.example/".to_owned();
            Client::open(&Setup { url, proxy, ..Setup::default() }).err().map(|it| it.to_string())
        };
        for wrong in ["gopher://x", "socks5://h:1080", "https://h:1", "", "http://", "h:1"] {
            assert!(error(wrong).unwrap().contains("http://host:port"), "{wrong}");
        }
        assert_eq!(error("http://user:password@proxy.example:3128"), None);
    }

    #[test]
    fn a_query_is_not_shown() {
        let url = "http://127.0.0.1:1/services?key=secret".to_owned();
        let client = Client::open(&Setup { url, ..Setup::default() }).unwrap();
        assert_eq!(client.shown(), "http://127.0.0.1:1/services");
    }
}
