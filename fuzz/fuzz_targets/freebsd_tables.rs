//! What FreeBSD's sysctls and sockets give, of any bytes: decoders may neither panic nor make more rows of
//! them than fit in.
#![no_main]

use bpfwatch_bsd::{filedesc, files, jails, link, pcbs, procs, route, spans, stats};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert!(stats::rows(bytes).map_or(0, |rows| rows.len()) * 168 <= bytes.len());
    assert!(files::rows(bytes, |_| true).map_or(0, |rows| rows.len()) * 128 <= bytes.len());
    assert!(filedesc::rows(bytes).map_or(0, |rows| rows.len()) * 368 <= bytes.len());
    assert!(pcbs::rows(bytes).map_or(0, |rows| rows.len()) * 400 <= bytes.len());
    assert!(spans::ports(bytes).len() * 80 <= bytes.len());
    let _ = spans::bridge(bytes);
    assert!(procs::rows(bytes).map_or(0, |rows| rows.len()) * 1088 <= bytes.len());
    assert!(route::messages(bytes).len() * 4 <= bytes.len());
    assert!(link::links(bytes).len() * 32 <= bytes.len());
    let _ = (procs::arguments(bytes), procs::path(bytes));
    let values: Vec<_> = bytes.chunks(4).map(|value| Some(value.to_vec())).collect();
    let _ = jails::row(&values);
});
