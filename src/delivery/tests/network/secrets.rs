//! Who is who: tokens, signatures, certificates, and the way through a proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::http::{Proxy, Setup};

use crate::harness::{Dir, assert_contiguous, finding, lines, setup, state, until, webhook_with};
use crate::receiver::{Receiver, Reply};

#[test]
fn a_token_goes_to_its_address_and_nowhere_else() {
    let dir = Dir::new("token");
    let elsewhere = Receiver::good();
    let to = elsewhere.url("/");
    let moved = Arc::new(AtomicU32::new(1));
    let now = Arc::clone(&moved);
    let receiver = Receiver::start(move |_| match now.load(Ordering::Relaxed) {
        0 => Reply::status(200),
        _ => Reply::Status(308, vec![("location", to.clone())], Vec::new()),
    });
    let token = dir.secret("token", "first\n");
    let setup = Setup { token_file: Some(token), ..setup(receiver.url("/")) };
    let mut sink = webhook_with(&dir, &setup, None);
    sink.write(&finding(1)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    let trouble = state(&sink).trouble.unwrap();
    assert!(trouble.contains("not followed") && trouble.contains("`url`"), "{trouble}");
    assert!(elsewhere.requests().is_empty());
    // Replaced while it runs.
    dir.secret("token", "other\n");
    moved.store(0, Ordering::Relaxed);
    until("it", || state(&sink).waiting == 0);
    let requests = receiver.requests();
    assert_eq!(requests[0].headers["authorization"], "Bearer first");
    assert_eq!(requests.last().unwrap().headers["authorization"], "Bearer other");
}

#[test]
fn a_wrong_token_waits_for_an_operator() {
    let dir = Dir::new("unauthorized");
    let receiver = Receiver::start(|request| {
        let good =
            request.headers.get("authorization").is_some_and(|token| token == "Bearer right");
        Reply::status(if good { 200 } else { 401 })
    });
    let token = dir.secret("token", "wrong");
    let setup = Setup { token_file: Some(token), ..setup(receiver.url("/")) };
    let mut sink = webhook_with(&dir, &setup, None);
    sink.write(&finding(1)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    assert!(state(&sink).trouble.unwrap().contains("is the token right?"));
    dir.secret("token", "right");
    until("it", || state(&sink).waiting == 0);
    assert_eq!(state(&sink).lost, 0);
}

#[test]
fn a_signature_is_over_what_was_received() {
    use base64::Engine;
    use hmac::Mac;
    let (dir, receiver) = (Dir::new("signature"), Receiver::good());
    let key = dir.secret("key", "a-long-random-word");
    let setup = Setup { gzip: true, ..setup(receiver.url("/")) };
    let mut sink = webhook_with(&dir, &setup, Some(&key));
    sink.write(&finding(1)).unwrap();
    until("it", || state(&sink).waiting == 0);
    let request = &receiver.requests()[0];
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"a-long-random-word").unwrap();
    let (id, time) = (&request.headers["webhook-id"], &request.headers["webhook-timestamp"]);
    mac.update(format!("{id}.{time}.").as_bytes());
    mac.update(&request.body);
    let expected = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(request.headers["webhook-signature"], format!("v1,{expected}"));
    assert_eq!(request.headers["content-encoding"], "gzip");
    assert_contiguous(&lines(&receiver.requests()), 1);
}

#[test]
fn a_request_goes_through_a_proxy_that_is_named() {
    let (dir, receiver) = (Dir::new("proxy"), Receiver::good());
    // A proxy that answers every CONNECT with a refusal shows that it was asked.
    let proxy = Receiver::start(|_| Reply::status(502));
    let setup = Setup {
        proxy: Proxy::Url(format!("http://{}", proxy.address)),
        ..setup(receiver.url("/"))
    };
    let mut sink = webhook_with(&dir, &setup, None);
    sink.write(&finding(1)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    assert!(receiver.requests().is_empty());
    let asked = &proxy.requests()[0];
    assert!(asked.line.contains(&receiver.address.to_string()), "{}", asked.line);
}

/// An authority, and a certificate of it for a name; PEM of the one, server configuration of the other.
fn authority(name: &str) -> (String, Arc<rustls::ServerConfig>) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(bpfwatch_delivery::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], key)
        .unwrap();
    (ca.pem(), Arc::new(config))
}

#[test]
fn a_certificate_of_a_stranger_is_refused_and_said_clearly() {
    let dir = Dir::new("tls");
    let (ca, server) = authority("localhost");
    let (other_ca, _) = authority("localhost");
    let any = "127.0.0.1:0".parse().unwrap();
    let receiver = Receiver::start_at(any, Some(server), |_| Reply::status(200));
    let url = format!("https://localhost:{}/", receiver.address.port());
    let trusting = |pem: &str| {
        let mut setup = setup(url.clone());
        setup.tls.ca = Some(dir.secret("ca.pem", pem));
        setup
    };
    let wrong = trusting(&other_ca);
    let mut sink = webhook_with(&dir, &wrong, None);
    sink.write(&finding(1)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    let trouble = state(&sink).trouble.unwrap();
    assert!(trouble.contains("certificate of localhost is not from an authority"), "{trouble}");
    assert!(trouble.contains("ca.pem"), "{trouble}");
    assert!(receiver.requests().is_empty(), "nothing was sent to a stranger");
    drop(sink);
    let sink = webhook_with(&dir, &trusting(&ca), None);
    until("it", || state(&sink).waiting == 0);
    assert_contiguous(&lines(&receiver.taken()), 1);
    drop(sink);
    // The right authority, and another name.
    let mut by_address = trusting(&ca);
    by_address.url = format!("https://127.0.0.1:{}/", receiver.address.port());
    let mut sink = webhook_with(&dir, &by_address, None);
    sink.write(&finding(2)).unwrap();
    until("trouble", || state(&sink).trouble.is_some());
    let trouble = state(&sink).trouble.unwrap();
    assert!(trouble.contains("is not for the name 127.0.0.1"), "{trouble}");
}
