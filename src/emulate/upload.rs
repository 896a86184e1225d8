//! A capture file that leaves: written while a handle is held, then sent to a port of loopback by what is
//! called curl.

use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use bpfwatch_core::platform::reported::UNEXPECTED;
use bpfwatch_core::sensor::SensorError;

use super::part::Duty;
use super::run::Run;
use super::{ATTACH, FILE_MOVED, failed, stage};

/// The file's name, by which a rule knows it.
const FILE: &str = "capture.pcap";
/// How long the file may take to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than this does not come.
const LIMIT: u64 = 64 * 1024;

/// A file header and one record of draft-ietf-opsawg-pcap: little-endian, microseconds, Ethernet. The
/// packet is made up: a broadcast of EtherType 0x88b5, which IEEE 802 keeps for local experiments.
const CAPTURE: [u8; 24 + 16 + 14] = [
    0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0,
    0, //
    0, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0, 14, 0, 0, 0, //
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
];

/// Captures, and sends the file away.
pub fn upload(run: &Run) -> Result<String, SensorError> {
    let own = std::process::id();
    run.involve(own);
    let network = |error: io::Error| {
        failed(format!("cannot receive on loopback: {error}"), "see whether loopback is up")
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(network)?;
    let address = listener.local_addr().map_err(network)?;

    let open = run.open(ATTACH)?;
    let held = run.hold(|known| known.has(&[UNEXPECTED]));
    let (_stage, mut part) = sender(address)?;
    run.involve(part.pid());
    drop(open.handle);
    let received = thread::spawn(move || receive(&listener));
    part.perform()?;
    let received =
        received.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).map_err(network)?;
    if !received.ends_with(&CAPTURE) {
        return Err(failed("the capture file came otherwise than it was sent", "please report it"));
    }
    // Its start is what is reported; it goes on so that a look round sees it too.
    run.hold(|known| known.has(&[UNEXPECTED, FILE_MOVED]));
    Ok(format!(
        "pid {own} held {} for {held}; pid {}, called curl, sent {FILE} of {} bytes to {address}",
        open.held,
        part.pid(),
        CAPTURE.len()
    ))
}

/// What sends, with the file beside it.
fn sender(address: SocketAddr) -> Result<(stage::Stage, stage::Part), SensorError> {
    let url = format!("http://{address}/{FILE}");
    let file = format!("{{}}/{FILE}");
    let duty = |stage: &stage::Stage| Duty::Upload(address, stage.file(FILE));
    let (stage, part) = stage::copy("curl", "curl", &["-s", "-T", &file, &url], duty)?;
    fs::write(stage.file(FILE), CAPTURE)
        .map_err(|error| failed(format!("cannot write {FILE}: {error}"), "make room there"))?;
    Ok((stage, part))
}

/// Takes one upload.
fn receive(listener: &TcpListener) -> io::Result<Vec<u8>> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + PATIENCE;
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if Instant::now() > until => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    stream.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}
