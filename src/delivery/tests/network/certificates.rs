//! Certificates over HTTPS: whose the receiver's is, and ours, which may be renewed while it runs.

use std::fs;
use std::sync::Arc;

use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::http::Setup;
use bpfwatch_delivery::tls::{TlsFiles, provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::harness::{
    Dir, assert_contiguous, finding, lines, otlp, setup, state, until, webhook_with,
};
use crate::pki::{Authority, Identity};
use crate::receiver::{Receiver, Reply};

/// A server with this identity, which wants a certificate of `clients` where they are given.
pub fn server(identity: &Identity, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let read = |authority: &Authority| CertificateDer::from_pem_file(&authority.file).unwrap();
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(read(authority)).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

/// One that takes everything, over TLS, and its address by name.
pub fn receiver(config: Arc<ServerConfig>) -> (Receiver, String) {
    let any = "127.0.0.1:0".parse().unwrap();
    let receiver = Receiver::start_at(any, Some(config), |_| Reply::status(200));
    let url = format!("https://localhost:{}/", receiver.address.port());
    (receiver, url)
}

fn trusting(url: &str, authority: &Authority) -> Setup {
    let tls = TlsFiles { ca: Some(authority.file.clone()), ..TlsFiles::default() };
    Setup { tls, ..setup(url.to_owned()) }
}

#[test]
fn a_certificate_of_a_stranger_is_refused_and_said_clearly() {
    let dir = Dir::new("tls");
    let (authority, other) = (Authority::new(&dir.0, "ca"), Authority::new(&dir.0, "other"));
    let (receiver, url) = receiver(server(&authority.issue("server", &["localhost"]), None));
    let mut sink = webhook_with(&dir, &trusting(&url, &other), None);
    sink.write(&finding(1)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    let trouble = state(&sink).trouble.unwrap();
    assert!(trouble.contains("certificate of localhost is not from an authority"), "{trouble}");
    assert!(trouble.contains("other.pem"), "{trouble}");
    assert!(receiver.requests().is_empty(), "nothing was sent to a stranger");
    drop(sink);
    let sink = webhook_with(&dir, &trusting(&url, &authority), None);
    until("it", || state(&sink).waiting == 0);
    assert_contiguous(&lines(&receiver.taken()), 1);
    drop(sink);
    // The right authority, and another name.
    let by_address = format!("https://127.0.0.1:{}/", receiver.address.port());
    let mut sink = webhook_with(&dir, &trusting(&by_address, &authority), None);
    sink.write(&finding(2)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    let trouble = state(&sink).trouble.unwrap();
    assert!(trouble.contains("is not for the name 127.0.0.1"), "{trouble}");
}

#[test]
fn a_receiver_that_wants_to_know_us_gets_our_certificate_and_a_renewed_one() {
    let dir = Dir::new("mutual");
    let (servers, clients) = (Authority::new(&dir.0, "servers"), Authority::new(&dir.0, "clients"));
    let strangers = Authority::new(&dir.0, "strangers");
    let config = server(&servers.issue("server", &["localhost"]), Some(&clients));
    let (receiver, url) = receiver(config);

    // Without one.
    let mut sink = webhook_with(&dir, &trusting(&url, &servers), None);
    sink.write(&finding(1)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    let trouble = state(&sink).trouble.unwrap();
    assert!(trouble.contains("does it want a client certificate?"), "{trouble}");
    drop(sink);

    // One of an authority that the receiver does not know.
    let ours = strangers.issue("ours", &["agent"]);
    let mut known = trusting(&url, &servers);
    known.tls.certificate = Some(ours.certificate.clone());
    known.tls.key = Some(ours.key.clone());
    let sink = webhook_with(&dir, &known, None);
    until("trouble", || state(&sink).trouble.is_some());
    let trouble = state(&sink).trouble.unwrap();
    assert!(trouble.contains("take our client certificate"), "{trouble}");
    assert!(receiver.requests().is_empty());

    // Replaced while it runs: a moment of half of it, then all.
    let renewed = clients.issue("renewed", &["agent"]);
    fs::rename(&renewed.certificate, &ours.certificate).unwrap();
    until("other trouble", || state(&sink).trouble.is_some_and(|now| now.contains("ours.pem")));
    fs::rename(&renewed.key, &ours.key).unwrap();
    until("it", || state(&sink).waiting == 0);
    assert_contiguous(&lines(&receiver.taken()), 1);
    assert_eq!(state(&sink).trouble, None);
    assert_eq!(state(&sink).lost, 0);
    drop(sink);

    // The same over OTLP.
    let dir = Dir::new("mutual-otlp");
    let mut sink = otlp(&dir, &known);
    sink.write(&finding(1)).unwrap();
    until("it", || state(&sink).waiting == 0);
    assert_eq!(receiver.taken().last().unwrap().line, "POST /v1/logs HTTP/1.1");
}
