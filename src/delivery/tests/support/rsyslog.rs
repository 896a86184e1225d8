//! A real rsyslogd of a test's own: another configuration, other sockets and ports than the system's.
//! It writes one JSON object for each message that it took in.

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::pki::{Authority, Identity};

/// The longest that anything takes here, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message as rsyslogd took it apart.
#[derive(Debug, Clone)]
pub struct Message {
    pub priority: u64,
    pub host: String,
    pub app: String,
    pub kind: String,
    pub data: String,
    pub text: String,
}

pub struct Rsyslog {
    dir: PathBuf,
    child: Option<Child>,
    pub socket: PathBuf,
    pub udp: u16,
    pub tcp: u16,
    /// TLS without a client certificate.
    pub tls: u16,
    /// TLS with one.
    pub mutual: u16,
}

/// Where it is; says why a test is skipped where there is none.
pub fn find() -> Option<PathBuf> {
    let found = ["/usr/sbin/rsyslogd", "/usr/local/sbin/rsyslogd"].map(PathBuf::from);
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: needs rsyslogd (Debian: rsyslog, rsyslog-openssl)");
    }
    found
}

/// Whether it can do TLS.
pub fn has_tls() -> bool {
    let modules = ["/usr/lib", "/usr/local/lib"].map(Path::new);
    let found = modules.iter().any(|dir| find_module(dir, 2));
    if !found {
        eprintln!("skipped: needs rsyslogd's TLS with OpenSSL (Debian: rsyslog-openssl)");
    }
    found
}

fn find_module(dir: &Path, depth: usize) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        path.ends_with("lmnsd_ossl.so")
            || depth > 0 && path.is_dir() && find_module(&path, depth - 1)
    })
}

fn free_tcp() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Rsyslog {
    /// Starts it. With an authority and an identity it listens for TLS too.
    pub fn start(dir: &Path, tls: Option<(&Authority, &Identity)>) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut daemon = Self {
            dir: dir.to_owned(),
            child: None,
            socket: dir.join("log"),
            udp,
            tcp: free_tcp(),
            tls: free_tcp(),
            mutual: free_tcp(),
        };
        fs::write(dir.join("rsyslog.conf"), daemon.configuration(tls)).unwrap();
        daemon.run();
        daemon
    }

    fn configuration(&self, tls: Option<(&Authority, &Identity)>) -> String {
        let dir = self.dir.display();
        let mut text = format!(
            r#"global(workDirectory="{dir}" maxMessageSize="256k")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imtcp")
template(name="out" type="list" option.jsonf="on") {{
  property(outname="pri" name="pri" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="kind" name="msgid" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="text" name="msg" format="jsonf")
}}
ruleset(name="all") {{ action(type="omfile" file="{dir}/got" template="out") }}
input(type="imuxsock" Socket="{dir}/log" Ruleset="all")
input(type="imudp" port="{udp}" address="127.0.0.1" ruleset="all")
input(type="imtcp" port="{tcp}" address="127.0.0.1" ruleset="all")
"#,
            udp = self.udp,
            tcp = self.tcp,
        );
        if let Some((authority, server)) = tls {
            for (port, mode) in [(self.tls, "anon"), (self.mutual, "x509/certvalid")] {
                text.push_str(&format!(
                    r#"input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="all"
  streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="{mode}"
  streamDriver.CAFile="{}" streamDriver.CertFile="{}" streamDriver.KeyFile="{}")
"#,
                    authority.file.display(),
                    server.certificate.display(),
                    server.key.display(),
                ));
            }
        }
        text
    }

    /// Starts it (again), and waits until it listens.
    pub fn run(&mut self) {
        let log = fs::File::create(self.dir.join("errors")).unwrap();
        let child = Command::new(find().unwrap())
            .args(["-n", "-i", "NONE", "-f"])
            .arg(self.dir.join("rsyslog.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.tcp)).is_err() || !self.socket.exists() {
            let errors = fs::read_to_string(self.dir.join("errors")).unwrap_or_default();
            assert!(Instant::now() < deadline, "rsyslogd does not listen: {errors}");
            thread::sleep(Duration::from_millis(20));
        }
        // Inputs start one after another.
        thread::sleep(Duration::from_millis(300));
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            let pid = Pid::from_raw(child.id().try_into().unwrap());
            kill(pid, signal).unwrap();
            child.wait().unwrap();
            let _ = fs::remove_file(&self.socket);
        }
    }

    /// What it has taken in, once that is `count` messages or more. Its own messages are left out.
    pub fn messages(&self, count: usize) -> Vec<Message> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Whatever else talks to its ports may be no text.
            let bytes = fs::read(self.dir.join("got")).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let got: Vec<Message> =
                whole.lines().map(parse).filter(|message| message.app == "bpfwatch").collect();
            if got.len() >= count {
                return got;
            }
            let errors = fs::read_to_string(self.dir.join("errors")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "{} of {count} messages came: {text:.4000}\n{errors}",
                got.len()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn parse(line: &str) -> Message {
    let value: Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Message {
        priority: text("pri").parse().unwrap(),
        host: text("host"),
        app: text("app"),
        kind: text("kind"),
        data: text("data"),
        text: text("text"),
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}
