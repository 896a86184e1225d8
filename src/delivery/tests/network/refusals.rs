//! What a receiver refuses: for good, for now, by size, by failing over it.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bpfwatch_core::sink::Sink;

use crate::harness::{Dir, assert_contiguous, finding, lines, state, until, webhook};
use crate::receiver::{Receiver, Reply, Request};

#[test]
fn one_record_that_is_never_taken_is_set_aside_alone() {
    let dir = Dir::new("poison");
    let poison = |request: &Request| {
        let body = String::from_utf8(request.content()).unwrap();
        if body.contains("\"id-37\"") {
            return Reply::Status(400, Vec::new(), b"cannot parse".to_vec());
        }
        Reply::status(200)
    };
    let receiver = Receiver::start(poison);
    let gate = receiver.address;
    // All of them in one batch: written before there is anybody to take them.
    let mut sink = webhook(&dir, "http://127.0.0.1:9/".to_owned());
    for number in 1..=100 {
        sink.write(&finding(number)).unwrap();
    }
    drop(sink);
    let sink = webhook(&dir, format!("http://{gate}/"));
    until("everything", || state(&sink).waiting == 0);
    let state = state(&sink);
    assert_eq!((state.delivered, state.lost), (99, 1), "{state:?}");
    assert!(state.why.contains("1 refused by the receiver"), "{state:?}");
    let folder = dir.spool().join("poison");
    let kept = fs::read_to_string(folder.join("00000000000000000037.records")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&kept).unwrap()["id"], "id-37");
    let why = fs::read_to_string(folder.join("00000000000000000037.why")).unwrap();
    assert_eq!(why, "HTTP 400: cannot parse\n");
    assert!(receiver.requests().len() < 30, "{} requests", receiver.requests().len());
}

#[test]
fn a_receiver_that_refuses_everything_is_not_hammered() {
    let dir = Dir::new("all-refused");
    let receiver = Receiver::start(|_| Reply::status(400));
    let mut sink = webhook(&dir, "http://127.0.0.1:9/".to_owned());
    for number in 1..=5000 {
        sink.write(&finding(number)).unwrap();
    }
    drop(sink);
    let sink = webhook(&dir, receiver.url("/"));
    until("everything", || state(&sink).waiting == 0);
    assert_eq!(state(&sink).lost, 5000);
    assert!(receiver.requests().len() < 100, "{} requests", receiver.requests().len());
}

#[test]
fn too_large_a_batch_goes_in_smaller_ones() {
    let dir = Dir::new("large");
    let receiver = Receiver::start(|request| {
        Reply::status(if request.body.len() > 20_000 { 413 } else { 200 })
    });
    let mut sink = webhook(&dir, "http://127.0.0.1:9/".to_owned());
    for number in 1..=100 {
        sink.write(&finding(number)).unwrap();
    }
    drop(sink);
    let sink = webhook(&dir, receiver.url("/"));
    until("everything", || state(&sink).waiting == 0);
    assert_eq!(state(&sink).lost, 0);
    assert_contiguous(&lines(&receiver.taken()), 100);
}

#[test]
fn a_receiver_that_fails_over_one_record_gets_the_others() {
    let dir = Dir::new("faulty");
    let receiver = Receiver::start(|request| {
        let body = String::from_utf8(request.content()).unwrap();
        Reply::status(if body.contains("\"id-3\"") { 500 } else { 200 })
    });
    let mut sink = webhook(&dir, receiver.url("/"));
    for number in 1..=10 {
        sink.write(&finding(number)).unwrap();
    }
    until("everything", || state(&sink).waiting == 0);
    let state = state(&sink);
    assert_eq!((state.delivered, state.lost), (9, 1), "{state:?}");
}

#[test]
fn retry_after_is_respected() {
    let dir = Dir::new("retry-after");
    let count = AtomicU32::new(0);
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Status(429, vec![("retry-after", "1".to_owned())], Vec::new()),
        _ => Reply::status(200),
    });
    let mut sink = webhook(&dir, receiver.url("/"));
    let start = Instant::now();
    sink.write(&finding(1)).unwrap();
    until("it", || state(&sink).waiting == 0);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(receiver.requests().len(), 2);
}
