//! A receiver over HTTP for tests: as small as can be, and as bad as it is told to be. It can fail,
//! hang, answer anything, come and go on the same port, and speak TLS.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// It was answered with a success.
    pub taken: bool,
}

impl Request {
    /// The body, decompressed where it says that it is compressed.
    pub fn content(&self) -> Vec<u8> {
        if self.headers.get("content-encoding").map(String::as_str) != Some("gzip") {
            return self.body.clone();
        }
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut out).unwrap();
        out
    }
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answers with a status, headers and a body.
    Status(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Answers 200 after a while.
    Slow(Duration),
    /// Says nothing until the receiver ends.
    Hang,
    /// Closes the connection without a word.
    Close,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), Vec::new())
    }
}

type Behaviour = dyn Fn(&Request) -> Reply + Send + Sync;

/// A receiver that runs until it is dropped.
pub struct Receiver {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// On a free port.
    pub fn start(behaviour: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), None, behaviour)
    }

    /// One that takes everything.
    pub fn good() -> Self {
        Self::start(|_| Reply::status(200))
    }

    /// On a given port, with TLS where a configuration is given.
    pub fn start_at(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        behaviour: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        // The port of one that has just ended may still be busy for a moment.
        let listener = (0..200)
            .find_map(|_| {
                TcpListener::bind(address)
                    .map_err(|_| thread::sleep(Duration::from_millis(10)))
                    .ok()
            })
            .unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let (kept, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut threads = Vec::new();
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (kept, stopped) = (Arc::clone(&kept), Arc::clone(&stopped));
                let (behaviour, tls) = (Arc::clone(&behaviour), tls.clone());
                threads.push(thread::spawn(move || match tls {
                    None => serve(stream, &*behaviour, &kept, &stopped),
                    Some(config) => {
                        let Ok(session) = rustls::ServerConnection::new(config) else { return };
                        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                        let stream = rustls::StreamOwned::new(session, stream);
                        serve_tls(stream, &*behaviour, &kept, &stopped);
                    }
                }));
            }
            for thread in threads {
                let _ = thread.join();
            }
        });
        Self { address, requests, stop, thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Those that were answered with a success.
    pub fn taken(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.taken).collect()
    }

    /// Ends it; what it took until then.
    pub fn end(mut self) -> Vec<Request> {
        self.stop();
        self.taken()
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(stream: TcpStream, behaviour: &Behaviour, kept: &Mutex<Vec<Request>>, stop: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader, stop) {
        if !answer(&mut writer, request, behaviour, kept, stop) {
            return;
        }
    }
}

fn serve_tls(
    stream: rustls::StreamOwned<rustls::ServerConnection, TcpStream>,
    behaviour: &Behaviour,
    kept: &Mutex<Vec<Request>>,
    stop: &AtomicBool,
) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader, stop) {
        if !answer(reader.get_mut(), request, behaviour, kept, stop) {
            return;
        }
    }
}

/// Answers; false when the connection ends.
fn answer(
    writer: &mut impl Write,
    mut request: Request,
    behaviour: &Behaviour,
    kept: &Mutex<Vec<Request>>,
    stop: &AtomicBool,
) -> bool {
    let reply = behaviour(&request);
    request.taken = matches!(reply, Reply::Status(200..300, ..) | Reply::Slow(_));
    kept.lock().unwrap().push(request);
    let (status, headers, body) = match reply {
        Reply::Status(status, headers, body) => (status, headers, body),
        Reply::Slow(time) => {
            thread::sleep(time);
            (200, Vec::new(), Vec::new())
        }
        Reply::Hang => {
            while !stop.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(5));
            }
            return false;
        }
        Reply::Close => return false,
    };
    let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&body)).is_ok()
        && writer.flush().is_ok()
}

/// Fills a buffer up to `end`, through the short timeouts that let a receiver end.
fn read(reader: &mut impl BufRead, stop: &AtomicBool) -> Option<Request> {
    let mut lines: Vec<String> = Vec::new();
    loop {
        let line = read_line(reader, stop)?;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let headers: HashMap<String, String> = lines
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    let mut got = 0;
    while got < length {
        match reader.read(&mut body[got..]) {
            Ok(0) => return None,
            Ok(more) => got += more,
            Err(error) if waits(&error) && !stop.load(Ordering::Acquire) => {}
            Err(_) => return None,
        }
    }
    Some(Request { line: lines.first()?.clone(), headers, body, taken: false })
}

fn read_line(reader: &mut impl BufRead, stop: &AtomicBool) -> Option<String> {
    let mut line = Vec::new();
    loop {
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => return Some(String::from_utf8(line).ok()?.trim_end().to_owned()),
            Err(error) if waits(&error) && !stop.load(Ordering::Acquire) => {}
            Err(_) => return None,
        }
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
