//! Capability mode: what was opened before goes on, and nothing more is opened. It holds for the whole process,
//! so this test has a program of its own.
#![cfg(target_os = "freebsd")]

use std::fs::File;
use std::io::Read;

use bpfwatch_bsd::FreebsdPlatform;
use bpfwatch_core::platform::Platform;

#[test]
fn a_sealed_process_reads_on_and_opens_nothing() {
    let mut before = File::open("/etc/passwd").unwrap();
    FreebsdPlatform.seal().unwrap()().unwrap();
    let mut text = String::new();
    before.read_to_string(&mut text).unwrap();
    assert!(text.contains("root:"));
    let refused = File::open("/etc/passwd").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ECAPMODE));
    assert!(std::thread::spawn(|| 7).join().is_ok_and(|seven| seven == 7));
}
