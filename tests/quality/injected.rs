//! Captures among the ordinary activity, each of another kind. All of them must be found.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::bundle;
use crate::lab::Lab;
use crate::plan::Plan;
use crate::process::{Running, find, run};

/// Each kind: how it is told from the others (a part of a command line), and what it is.
pub const KINDS: [(&str, &str); 22] = [
    ("port 41001", "tcpdump, promiscuous"),
    ("port 41002", "tcpdump on all interfaces"),
    ("port 41003", "tcpdump under another name"),
    ("port 41004", "tshark through dumpcap"),
    ("injected-packet", "AF_PACKET socket of an interpreter"),
    ("injected-filter", "AF_PACKET socket with a filter"),
    ("injected-cooked", "cooked AF_PACKET socket for IPv4 alone"),
    ("injected-raw.", "raw IPv4 socket for TCP"),
    ("injected-raw6", "raw IPv6 socket for UDP"),
    ("injected-old", "SOCK_PACKET socket"),
    ("injected-netns", "in a named network namespace"),
    ("injected-user", "in a user and network namespace of its own"),
    ("injected-container", "in a container"),
    ("port 41005", "in a container with the host's network"),
    ("port 41006", "from a temporary directory"),
    ("port 41007", "image deleted while it runs"),
    ("port 41008", "image in memory alone"),
    ("injected-ambient", "without root, with an ambient capability"),
    ("injected-server", "below a web server"),
    ("injected-forked", "handle inherited from a process that ended"),
    ("injected-passed", "handle passed over a Unix socket"),
    ("injected-short", "handle held for a tenth of a second"),
];

const PACKET: &str = "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))";

/// What a kind's Python program opens.
const SOCKETS: [(&str, &str); 12] = [
    ("injected-packet", PACKET),
    (
        "injected-filter",
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)\n\
        import ctypes, struct\n\
        code = (ctypes.c_char * 8)(*struct.pack('HBBI', 6, 0, 0, 65535))\n\
        s.setsockopt(socket.SOL_SOCKET, 26, struct.pack('HL', 1, ctypes.addressof(code)))\n\
        s.bind(('lo', 3))",
    ),
    (
        "injected-cooked",
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))",
    ),
    ("injected-raw.", "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)"),
    ("injected-raw6", "s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_UDP)"),
    ("injected-old", "s = socket.socket(socket.AF_INET, 10, socket.htons(3))"),
    ("injected-netns", PACKET),
    ("injected-user", PACKET),
    ("injected-ambient", PACKET),
    ("injected-server", PACKET),
    (
        "injected-forked",
        "import os\n\
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))\n\
        if os.fork(): os._exit(0)",
    ),
    (
        "injected-passed",
        "import os\n\
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        if os.fork():\n\
        \ts = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))\n\
        \tsocket.send_fds(a, [b'x'], [s.fileno()])\n\
        \tos._exit(0)\n\
        s = socket.recv_fds(b, 1, 1)",
    ),
];

/// Kinds that this machine lacks the program for.
static SKIPPED: Mutex<Vec<&str>> = Mutex::new(Vec::new());

/// Whether a kind was left out, and said so.
pub fn is_skipped(mark: &str) -> bool {
    SKIPPED.lock().unwrap().contains(&mark)
}

/// Captures in each way, one after the other.
pub fn work(lab: &Lab, plan: &Plan, over: &AtomicBool) {
    let dir = lab.dir.join("injected");
    std::fs::create_dir_all(&dir).unwrap();
    for (mark, what) in KINDS {
        if over.load(Ordering::Relaxed) {
            println!("the time is over before: {what}");
            return;
        }
        std::thread::sleep(plan.pause);
        if let Err(why) = inject(lab, &dir, mark) {
            println!("skipped in part: {what}: {why}");
            SKIPPED.lock().unwrap().push(mark);
        }
    }
}

fn inject(lab: &Lab, dir: &Path, mark: &str) -> Result<(), String> {
    // Not a version manager's script of that name, which other users may not read.
    let python = find("/usr/bin/python3").or_else(|| find("python3")).unwrap();
    let python = std::fs::canonicalize(python).unwrap();
    let python = python.to_str().unwrap();
    let tcpdump = find("tcpdump").unwrap();
    let program = dir.join(format!("{}.py", mark.trim_end_matches('.')));
    let open = SOCKETS.iter().find(|(name, _)| *name == mark).map_or(PACKET, |(_, open)| open);
    let held = if mark == "injected-short" { "0.1" } else { "3" };
    let text = format!("import socket, time\n{open}\ntime.sleep({held})\n");
    std::fs::write(&program, &text).unwrap();
    let program = program.to_str().unwrap();
    let copy = |name: &str| -> String {
        let copy = dir.join(name);
        std::fs::copy(&tcpdump, &copy).unwrap();
        copy.to_str().unwrap().to_owned()
    };
    let dump = |image: &str, interface: &str| {
        let words = [image, "-n", "-i", interface];
        words.into_iter().chain(mark.split(' ')).map(str::to_owned).collect::<Vec<_>>()
    };
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let command = match mark {
        "port 41001" => dump("tcpdump", "lo"),
        "port 41002" => dump("tcpdump", "any"),
        "port 41003" => dump(&copy("notes"), "lo"),
        "port 41004" if find("tshark").is_none() => return Err("tshark is not installed".into()),
        "port 41004" => words(&["tshark", "-n", "-i", "lo", "-f", mark]),
        "injected-netns" => words(&["ip", "netns", "exec", &lab.network, python, program]),
        "injected-user" => words(&["unshare", "-rn", python, program]),
        "injected-container" | "port 41005" => {
            if find("runc").is_none() {
                return Err("runc is not installed".into());
            }
            let code = format!("{} # {mark}", text.trim_end().replace('\n', ";"));
            let bundle = if mark == "port 41005" {
                bundle(dir, &["tcpdump", "-Z", "root", "-n", "-i", "lo", "port", "41005"], true)
            } else {
                bundle(dir, &[python, "-c", &code], false)
            };
            let id = format!("bpfwatch-quality-{}-injected", std::process::id());
            let command = words(&["runc", "run", "-b", bundle.to_str().unwrap(), &id]);
            let mut running = Running::start(&[], &command);
            running.wait(Duration::from_secs(4));
            run(&["runc", "kill", &id, "KILL"], Duration::from_secs(5));
            drop(running);
            run(&["runc", "delete", "-f", &id], Duration::from_secs(5));
            return Ok(());
        }
        "port 41006" => dump(&copy("tcpdump"), "lo"),
        "port 41007" => {
            let image = copy("gone");
            let mut command = words(&["sh", "-c", "\"$@\" & sleep 0.3; rm \"$1\"; wait", "remove"]);
            command.extend(dump(&image, "lo"));
            command
        }
        "port 41008" => {
            let code = "import os, sys\n\
                fd = os.memfd_create('note', 0)\n\
                os.write(fd, open(sys.argv[1], 'rb').read())\n\
                os.execv(f'/proc/self/fd/{fd}', sys.argv[1:])";
            let mut command = words(&[python, "-c", code]);
            command.extend(dump(tcpdump.to_str().unwrap(), "lo"));
            command
        }
        "injected-ambient" => words(&[
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--inh-caps",
            "+net_raw",
            "--ambient-caps",
            "+net_raw",
            python,
            program,
        ]),
        "injected-server" => {
            // A shell under a web server's name stands for one that an attacker talks to.
            let server = dir.join("nginx");
            std::fs::copy(find("sh").unwrap(), &server).unwrap();
            words(&[server.to_str().unwrap(), "-c", "\"$@\"; true", "x", python, program])
        }
        _ => words(&[python, program]),
    };
    // tshark takes a while to start its dumpcap.
    let seconds = if mark == "port 41004" { 8 } else { 3 };
    Running::start(&[], &command).wait(Duration::from_secs(seconds));
    Ok(())
}

/// A bundle for runc that runs `command` with the host's programs.
pub fn bundle(dir: &Path, command: &[&str], host_network: bool) -> PathBuf {
    let dirs = ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc"];
    bundle::bundle(dir, &dirs, command, host_network)
}
