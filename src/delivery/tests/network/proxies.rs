//! The way through a proxy: a tunnel (CONNECT, RFC 9110, 9.3.6) in which the proxy sees nothing, and
//! what it says when it refuses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::http::{Proxy, Setup};
use bpfwatch_delivery::tls::TlsFiles;

use crate::certificates;
use crate::harness::{Dir, assert_contiguous, finding, lines, setup, state, until, webhook_with};
use crate::pki::Authority;
use crate::receiver::{Receiver, Reply};

/// Opens tunnels to one receiver for whoever knows the word; keeps all that went through it.
struct Tunnels {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    passed: Arc<Mutex<Vec<u8>>>,
}

impl Tunnels {
    fn start(to: SocketAddr, word: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, passed) = (Arc::default(), Arc::default());
        let proxy = Self { address, heads: Arc::clone(&heads), passed: Arc::clone(&passed) };
        // Ends with the program.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (heads, passed) = (Arc::clone(&heads), Arc::clone(&passed));
                thread::spawn(move || tunnel(client, to, word, &heads, &passed));
            }
        });
        proxy
    }
}

fn tunnel(
    client: TcpStream,
    to: SocketAddr,
    word: &str,
    heads: &Mutex<Vec<String>>,
    passed: &Arc<Mutex<Vec<u8>>>,
) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    heads.lock().unwrap().push(head.clone());
    let mut client = client;
    if !head.contains(word) {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
        return client.write_all(refusal).ok();
    }
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let mut server = TcpStream::connect(to).ok()?;
    let mut back = (server.try_clone().ok()?, client.try_clone().ok()?);
    thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
    let mut buffer = [0; 4096];
    loop {
        let count = reader.read(&mut buffer).ok()?;
        passed.lock().unwrap().extend_from_slice(&buffer[..count]);
        server.write_all(&buffer[..count]).ok()?;
        if count == 0 {
            return server.shutdown(std::net::Shutdown::Write).ok();
        }
    }
}

fn has(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

/// A receiver over TLS, a token for it, and how it is reached through a proxy.
fn behind(dir: &Dir, proxy: impl Fn(SocketAddr) -> String) -> (Receiver, Setup) {
    let authority = Authority::new(&dir.0, "ca");
    let server = certificates::server(&authority.issue("server", &["localhost"]), None);
    let (receiver, url) = certificates::receiver(server);
    let setup = Setup {
        proxy: Proxy::Url(proxy(receiver.address)),
        token_file: Some(dir.secret("token", "hunter2")),
        tls: TlsFiles { ca: Some(authority.file), ..TlsFiles::default() },
        ..setup(url)
    };
    (receiver, setup)
}

#[test]
fn a_tunnel_shows_the_proxy_nothing_of_what_goes_through_it() {
    let dir = Dir::new("tunnel");
    // user:word, in base64.
    let tunnels = Mutex::new(None);
    let (receiver, setup) = behind(&dir, |to| {
        let proxy = Tunnels::start(to, "Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n");
        let url = format!("http://user:word@{}", proxy.address);
        *tunnels.lock().unwrap() = Some(proxy);
        url
    });
    let proxy = tunnels.lock().unwrap().take().unwrap();
    let mut sink = webhook_with(&dir, &setup, None);
    for number in 1..=50 {
        sink.write(&finding(number)).unwrap();
    }
    until("everything", || state(&sink).waiting == 0);
    let requests = receiver.taken();
    assert_contiguous(&lines(&requests), 50);
    assert_eq!(requests[0].headers["authorization"], "Bearer hunter2");
    assert!(
        !requests[0].headers.contains_key("proxy-authorization"),
        "not the receiver's business"
    );
    let heads = proxy.heads.lock().unwrap();
    let port = receiver.address.port();
    assert!(heads[0].starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\n")), "{heads:?}");
    assert!(!heads.concat().contains("hunter2"), "{heads:?}");
    let passed = proxy.passed.lock().unwrap();
    assert!(passed.len() > 10_000, "all of it went this way: {}", passed.len());
    assert!(!has(&passed, "hunter2") && !has(&passed, "POST /") && !has(&passed, "tcpdump"));
}

#[test]
fn a_proxy_that_refuses_or_is_away_is_named_as_what_is_wrong() {
    let dir = Dir::new("proxy-refuses");
    let (receiver, mut setup) = behind(&dir, |to| {
        format!("http://user:wrong@{}", Tunnels::start(to, "Basic dXNlcjp3b3Jk\r\n").address)
    });
    let trouble = |setup: &Setup, number| {
        let mut sink = webhook_with(&dir, setup, None);
        sink.write(&finding(number)).unwrap();
        until("trouble", || state(&sink).trouble.is_some());
        state(&sink).trouble.unwrap()
    };
    let said = trouble(&setup, 1);
    assert!(said.contains("through the proxy 127.0.0.1:") && said.contains("407"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
    let busy = Receiver::start(|_| Reply::status(502));
    setup.proxy = Proxy::Url(busy.url(""));
    let said = trouble(&setup, 2);
    assert!(said.contains("through the proxy") && said.contains("502"), "{said}");
    setup.proxy = Proxy::Url("http://127.0.0.1:9".to_owned());
    let said = trouble(&setup, 3);
    assert!(said.contains("through the proxy 127.0.0.1:9: ") && said.contains("refused"), "{said}");
    setup.proxy = Proxy::Url("http://no-such-proxy.invalid:3128".to_owned());
    let said = trouble(&setup, 4);
    assert!(said.contains("through the proxy no-such-proxy.invalid:3128: "), "{said}");
    assert!(receiver.requests().is_empty());
}

/// Not a test of its own: tells which way the environment sends it.
#[test]
fn child() {
    let Ok(url) = std::env::var("BPFWATCH_TEST_PROXIED") else { return };
    let dir = Dir(PathBuf::from(std::env::var("BPFWATCH_TEST_DIR").unwrap()));
    let setup = Setup { proxy: Proxy::Environment, ..setup(url) };
    let mut sink = webhook_with(&dir, &setup, None);
    sink.write(&finding(1)).unwrap();
    until("an answer", || state(&sink).trouble.is_some() || state(&sink).waiting == 0);
}

#[test]
fn the_environment_names_a_proxy_but_not_for_this_machine() {
    let proxy = Receiver::start(|_| Reply::status(502));
    let receiver = Receiver::good();
    let run = |url: &str, more: &[(&str, &str)]| {
        let dir = Dir::new("proxy-environment");
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["proxies::child", "--exact"])
            .env("BPFWATCH_TEST_PROXIED", url)
            .env("BPFWATCH_TEST_DIR", &dir.0)
            .env("https_proxy", proxy.url(""))
            .envs(more.iter().copied())
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        proxy.requests().len()
    };
    assert_eq!(run(&receiver.url("/"), &[]), 0, "this machine is reached straight");
    assert_eq!(receiver.taken().len(), 1);
    let far = "http://receiver.invalid/";
    assert_eq!(run(far, &[("no_proxy", ".invalid")]), 0);
    let asked = run(far, &[]);
    assert!(asked > 0);
    assert!(proxy.requests()[0].line.contains("receiver.invalid"), "{:?}", proxy.requests()[0]);
}
