//! Lines flow: at once or gathered, to a receiver that comes and goes, is away, or hangs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::spool::{Settings, Spool};
use bpfwatch_delivery::transport::SpooledSink;
use bpfwatch_delivery::{Json, Webhook};

use crate::harness::{Dir, PACE, assert_contiguous, finding, lines, setup, state, until, webhook};
use crate::receiver::{Receiver, Reply};

#[test]
fn a_line_after_a_quiet_time_goes_at_once_and_many_go_together() {
    let (dir, receiver) = (Dir::new("batches"), Receiver::good());
    // With the real linger of three seconds.
    let spool = Spool::open(&dir.spool(), Settings::default(), 1).unwrap();
    let remote = Webhook::open(&setup(receiver.url("/hook")), None, spool.stream()).unwrap();
    let mut sink = SpooledSink::with(spool, Json, Box::new(remote), PACE, 1).unwrap();
    let start = Instant::now();
    sink.write(&finding(1)).unwrap();
    until("the first line", || state(&sink).delivered == 1);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    for number in 2..=100 {
        sink.write(&finding(number)).unwrap();
    }
    until("the others", || state(&sink).delivered == 100);
    assert!(start.elapsed() >= Duration::from_secs(3), "gathered: {:?}", start.elapsed());
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2, "one for the first, one for all others");
    assert_eq!(requests[0].line, "POST /hook HTTP/1.1");
    assert_eq!(requests[0].headers["content-type"], "application/json");
    assert!(requests[0].headers["user-agent"].starts_with("bpfwatch/"));
    assert_contiguous(&lines(&requests), 100);
}

#[test]
fn a_receiver_that_comes_and_goes_has_all_of_it_in_the_end() {
    let dir = Dir::new("comes-and-goes");
    let mut receiver = Receiver::good();
    let address = receiver.address;
    let mut sink = webhook(&dir, receiver.url("/"));
    let mut requests = Vec::new();
    let mut number = 0;
    for round in 0..8_u64 {
        for _ in 0..200 {
            number += 1;
            sink.write(&finding(number)).unwrap();
        }
        // Gone in the midst of it, however far it came; then back, in a mood of its own.
        thread::sleep(Duration::from_millis(round * 7));
        requests.extend(receiver.end());
        thread::sleep(Duration::from_millis(50));
        let count = AtomicUsize::new(0);
        receiver = Receiver::start_at(address, None, move |_| {
            match (count.fetch_add(1, Ordering::Relaxed), round % 4) {
                (0, 1) => Reply::status(503),
                (0 | 1, 2) => Reply::Close,
                (0, 3) => Reply::Status(429, vec![("retry-after", "0".to_owned())], Vec::new()),
                _ => Reply::status(200),
            }
        });
    }
    until("everything", || state(&sink).waiting == 0);
    requests.extend(receiver.end());
    assert_contiguous(&lines(&requests), number);
    let state = state(&sink);
    assert_eq!((state.delivered, state.lost), (number, 0), "{state:?}");
}

#[test]
fn a_receiver_that_is_down_costs_nothing_and_says_why() {
    let dir = Dir::new("down");
    let address = Receiver::good().address;
    let mut sink = webhook(&dir, format!("http://{address}/"));
    let start = Instant::now();
    for number in 1..=10_000 {
        sink.write(&finding(number)).unwrap();
    }
    println!("10,000 findings into the spool: {:?}", start.elapsed());
    until("trouble", || state(&sink).trouble.is_some());
    let down = state(&sink);
    assert_eq!((down.waiting, down.lost), (10_000, 0));
    assert!(down.trouble.as_ref().unwrap().contains("refused"), "{down:?}");
    drop(sink);
    // The next start finds it all, and a receiver that is back, though slow.
    let receiver = Receiver::start_at(address, None, |_| Reply::Slow(Duration::from_millis(20)));
    let sink = webhook(&dir, format!("http://{address}/"));
    until("everything", || state(&sink).waiting == 0);
    assert_eq!(state(&sink).trouble, None);
    let got = lines(&receiver.requests());
    assert_contiguous(&got, 10_000);
    assert_eq!(got.len(), 10_000, "nothing came twice");
    let most = receiver.requests().iter().map(|request| request.body.len()).max().unwrap();
    assert!(most < 2 << 20, "a batch of {most} bytes");
}

#[test]
fn a_receiver_that_hangs_holds_up_neither_writing_nor_stopping() {
    let dir = Dir::new("hangs");
    let receiver = Receiver::start(|_| Reply::Hang);
    let mut sink = webhook(&dir, receiver.url("/"));
    sink.write(&finding(1)).unwrap();
    until("the request", || !receiver.requests().is_empty());
    let start = Instant::now();
    for number in 2..=1000 {
        sink.write(&finding(number)).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(2), "writing took {:?}", start.elapsed());
    let start = Instant::now();
    // Opened anew beside the courier that still waits, as a reload does.
    let good = Receiver::good();
    let second = webhook(&dir, good.url("/"));
    drop(sink);
    assert!(start.elapsed() < Duration::from_secs(2), "stopping took {:?}", start.elapsed());
    until("everything", || state(&second).waiting == 0);
    assert_contiguous(&lines(&good.requests()), 1000);
}
