//! Who is who: tokens and signatures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::http::Setup;

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
