//! Hands out the metrics: as a file that is replaced whole, and to whoever asks over loopback.
//!
//! The listener knows one request, `GET /metrics`, reads little, waits little, and serves few at once:
//! whoever hangs takes one of those places for a second.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::metrics;
use super::status::Board;
use crate::exit::plain;
use crate::output;

/// Most that is read of a request.
const REQUEST: usize = 8 * 1024;
/// How long one client may take in all, and with each step.
const PATIENCE: Duration = Duration::from_secs(1);
/// Clients at once.
const CLIENTS: usize = 8;
/// After a failed accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes the file every `interval`, on a thread of its own, until the program ends.
///
/// # Errors
/// When it cannot be written now, or the system gives no thread.
pub fn write_file(path: PathBuf, interval: Duration, board: Board) -> io::Result<()> {
    write(&path, &board)?;
    thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        let mut failing = false;
        loop {
            thread::sleep(interval);
            let written = write(&path, &board);
            if let (Err(error), false) = (&written, failing) {
                output::warn(&format!("metrics {}: {}", path.display(), plain(error)));
            }
            failing = written.is_err();
        }
    })?;
    Ok(())
}

/// A new file, then a rename over the old one: the collector never reads half of it. It reads as a user
/// of its own, and nothing in it is secret.
fn write(path: &Path, board: &Board) -> io::Result<()> {
    let Some(status) = board.newest() else { return Ok(()) };
    let new = path.with_extension("prom.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // create_new follows no link that somebody put there.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
    file.write_all(metrics::render(&status).as_bytes())?;
    drop(file);
    fs::rename(&new, path)
}

/// Listens at a loopback address.
///
/// # Errors
/// When it is taken, or may not be.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

/// Answers on threads of its own, until the program ends.
///
/// # Errors
/// When the system gives no thread.
pub fn serve(listener: TcpListener, board: Board) -> io::Result<()> {
    let clients = Arc::new(AtomicUsize::new(0));
    thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        loop {
            let Ok((stream, _)) = listener.accept() else {
                thread::sleep(PAUSE);
                continue;
            };
            if clients.load(Ordering::Acquire) >= CLIENTS {
                // Closed unanswered: there is nothing better to do for it than for the others.
                continue;
            }
            clients.fetch_add(1, Ordering::AcqRel);
            let (board, count) = (board.clone(), Place(Arc::clone(&clients)));
            let served = thread::Builder::new().name("scrape".to_owned()).spawn(move || {
                let _ = answer(&stream, &board);
                drop(count);
            });
            if served.is_err() {
                thread::sleep(PAUSE);
            }
        }
    })?;
    Ok(())
}

/// One of the places, given back at its end.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(mut stream: &TcpStream, board: &Board) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let (status, body) = match request(stream)? {
        Request::Metrics => match board.newest() {
            Some(status) => ("200 OK", metrics::render(&status)),
            None => ("503 Service Unavailable", "not yet\n".to_owned()),
        },
        Request::OtherPath => ("404 Not Found", "only /metrics is here\n".to_owned()),
        Request::OtherMethod => ("405 Method Not Allowed", "only GET\n".to_owned()),
        Request::None => ("400 Bad Request", "no request\n".to_owned()),
    };
    let kind = if status.starts_with("200") { metrics::CONTENT_TYPE } else { "text/plain" };
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Metrics,
    OtherPath,
    OtherMethod,
    None,
}

/// Reads up to the end of the header. What stands in it beside the first line is of no interest.
fn request(mut stream: &TcpStream) -> io::Result<Request> {
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || bytes.len() >= REQUEST {
            return Ok(Request::None);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return Ok(Request::None),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(parse(&bytes))
}

/// The request line (RFC 9112, section 3).
fn parse(bytes: &[u8]) -> Request {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, words.next())
    else {
        return Request::None;
    };
    if !version.starts_with(b"HTTP/1.") || method.is_empty() {
        return Request::None;
    }
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    match (method, path) {
        (b"GET", b"/metrics") => Request::Metrics,
        (b"GET", _) => Request::OtherPath,
        _ => Request::OtherMethod,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_request_is_known() {
        for (line, request) in [
            ("GET /metrics HTTP/1.1", Request::Metrics),
            ("GET /metrics?name[]=x HTTP/1.0", Request::Metrics),
            ("GET / HTTP/1.1", Request::OtherPath),
            ("GET /metrics/../x HTTP/1.1", Request::OtherPath),
            ("HEAD /metrics HTTP/1.1", Request::OtherMethod),
            ("POST /metrics HTTP/1.1", Request::OtherMethod),
            ("get /metrics HTTP/1.1", Request::OtherMethod),
            ("GET /metrics", Request::None),
            ("GET /metrics HTTP/2", Request::None),
            ("GET /metrics HTTP/1.1 x", Request::None),
            ("", Request::None),
            ("\0\u{ff}", Request::None),
        ] {
            assert_eq!(parse(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()), request, "{line}");
        }
    }
}
