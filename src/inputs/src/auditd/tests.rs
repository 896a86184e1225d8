//! Lines as the kernel and auditd write them (made from kernel/audit.c, kernel/auditsc.c and
//! ausearch(8), not recorded), and what comes of them.

use bpfwatch_core::decoder::{Decoded, LineDecoder, Sequence as _};
use bpfwatch_core::handle::HandleKind;
use bpfwatch_core::logged::{Logged, Value};
use bpfwatch_core::observation::{Kind, Observation};

use super::Auditd;
use super::events::Events;

fn observe(lines: &str) -> Vec<Observation> {
    let decoder = Auditd::default();
    let mut events = Events::default();
    let mut out = Vec::new();
    for line in lines.lines() {
        let mut decoded = Vec::new();
        decoder.decode(line.as_bytes(), &mut decoded).unwrap();
        decoded.into_iter().for_each(|observation| events.pass(observation, &mut out));
    }
    events.flush(&mut out);
    out
}

fn records(observations: &[Observation]) -> Vec<&Logged> {
    observations
        .iter()
        .filter_map(|observation| match &observation.kind {
            Kind::Logged { record } => Some(&**record),
            _ => None,
        })
        .collect()
}

fn value<'a>(record: &'a Logged, name: &str) -> Option<&'a str> {
    record.fields.get(name).and_then(Value::as_text).map(|text| text.as_str())
}

const SYSCALL: &str = "arch=c000003e syscall=59 success=yes exit=0 a0=5581 a1=5582 a2=5583 a3=8 items=2 \
    ppid=900 pid=1000 auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts1 ses=3 \
    comm=\"tcpdump\" exe=\"/usr/bin/tcpdump\" subj=unconfined key=\"exec\"";

#[test]
fn an_execution_from_its_records_in_any_company() {
    // Two events whose records alternate; one has its EOE, the other not even a PROCTITLE.
    let text = format!(
        "type=SYSCALL msg=audit(1700000000.100:1): {SYSCALL}\x1dARCH=x86_64 SYSCALL=execve AUID=\"alice\" UID=\"root\" EUID=\"root\"\n\
         type=SYSCALL msg=audit(1700000000.100:2): {}\n\
         type=EXECVE msg=audit(1700000000.100:1): argc=4 a0=\"tcpdump\" a1=\"-i\" a2=\"any\" a3=2D772066696C65\n\
         type=EXECVE msg=audit(1700000000.100:2): argc=1 a0=\"true\"\n\
         type=CWD msg=audit(1700000000.100:1): cwd=\"/root\"\n\
         type=PATH msg=audit(1700000000.100:1): item=0 name=\"/usr/bin/tcpdump\" inode=1 dev=08:01 mode=0100755 ouid=0\n\
         type=PROCTITLE msg=audit(1700000000.100:1): proctitle=74637064756D70002D6900616E79\n\
         type=EOE msg=audit(1700000000.100:1): \n",
        SYSCALL.replace("pid=1000", "pid=1001").replace("tcpdump", "true"),
    );
    let seen = observe(&text);
    let executed: Vec<&Observation> = seen.iter().filter(|o| o.kind == Kind::Executed).collect();
    assert_eq!(executed.len(), 2);
    let process = executed[0].actor.as_ref().unwrap();
    assert_eq!((process.pid, process.ppid, process.uid), (1000, Some(900), Some(0)));
    assert_eq!(process.user.as_ref().unwrap().as_str(), "root");
    assert_eq!(process.image.as_ref().unwrap().as_str(), "/usr/bin/tcpdump");
    assert_eq!(process.args.as_ref().unwrap().command_line(), "tcpdump -i any -w file");
    assert_eq!(process.args.as_ref().unwrap().count(), 4);
    assert_eq!(process.cwd.as_ref().unwrap().as_str(), "/root");
    assert_eq!(process.tty.as_ref().unwrap().as_str(), "pts1");
    assert_eq!(executed[1].actor.as_ref().unwrap().pid, 1001);
    assert_eq!(executed[0].at.nanos(), 1_700_000_000_100_000_000);

    let records = records(&seen);
    let kinds: Vec<&str> = records.iter().filter_map(|record| value(record, "type")).collect();
    assert_eq!(kinds, ["SYSCALL", "EXECVE", "CWD", "PATH", "PROCTITLE", "SYSCALL", "EXECVE"]);
    assert_eq!(records[0].subject.as_ref().unwrap().as_str(), "alice");
    assert_eq!(records[1].message.as_str(), "executed tcpdump -i any -w file");
    assert_eq!(value(records[1], "a3"), Some("-w file"));
    assert_eq!(value(records[4], "proctitle"), Some("tcpdump -i any"));
    // Not enriched: the name of a known system call is added; numbers of arguments stay as they are.
    assert_eq!(value(records[5], "SYSCALL"), Some("execve"));
    assert_eq!(value(records[5], "a3"), Some("8"));
    assert_eq!(records[5].subject.as_ref().unwrap().as_str(), "uid 1000");
    assert_eq!(records[5].fields.get("euid"), Some(&Value::Number(0)));
}

#[test]
fn long_arguments_come_in_pieces_and_in_numbers() {
    let first: String = (0..150).map(|n| format!(" a{n}=\"x{n}\"")).collect();
    let text = format!(
        "type=SYSCALL msg=audit(1.0:7): {SYSCALL}\n\
         type=EXECVE msg=audit(1.0:7): argc=153{first} a150_len=12 a150[0]=\"long\"\n\
         type=EXECVE msg=audit(1.0:7): a150[1]=2DFF a151=\"-w\" a152=\"end\"\n\
         type=EOE msg=audit(1.0:7):\n"
    );
    let seen = observe(&text);
    let process = seen[0].actor.as_ref().unwrap();
    let args = process.args.as_ref().unwrap();
    assert_eq!(args.count(), 153);
    assert!(!args.is_cut());
    let line = args.command_line();
    assert!(line.starts_with("x0 x1 x2 ") && line.ends_with(r"x149 long-\xff -w end"), "{line}");
    // What did not come is told.
    let text = format!(
        "type=SYSCALL msg=audit(1.0:8): {SYSCALL}\ntype=EXECVE msg=audit(1.0:8): argc=9 a0=\"x\" a1=\"y\"\n"
    );
    let args = observe(&text)[0].actor.as_ref().unwrap().args.clone().unwrap();
    assert!(args.is_cut());
    assert_eq!(args.count(), 9);
}

/// `socket(family, type, protocol) = 5`, then what follows with descriptor 5.
fn socket(family: &str, kind: &str, protocol: &str, rest: &str) -> Vec<Kind> {
    let call = |serial: u32, number: u32, exit: i32, args: &str| {
        format!(
            "type=SYSCALL msg=audit(1700000000.2:{serial}): arch=c000003e syscall={number} success=yes \
             exit={exit} {args} items=0 ppid=1 pid=50 auid=0 uid=0 gid=0 euid=0 comm=\"x\" exe=\"/tmp/x\"\n"
        )
    };
    let mut text = call(1, 41, 5, &format!("a0={family} a1={kind} a2={protocol} a3=0"));
    for (n, line) in rest.lines().enumerate() {
        let (number, args) = line.split_once(' ').unwrap();
        let (args, record) = args.split_once('|').unwrap_or((args, ""));
        let serial = 2 + n as u32;
        text += &call(serial, number.parse().unwrap(), 0, args);
        if !record.is_empty() {
            text += &record.replace('#', &format!("msg=audit(1700000000.2:{serial}):"));
            text += "\n";
        }
    }
    let seen = observe(&text);
    seen.into_iter().map(|o| o.kind).filter(|kind| !matches!(kind, Kind::Logged { .. })).collect()
}

#[test]
fn a_packet_socket_on_its_way() {
    let kinds = socket(
        "11",
        "80003",
        "300",
        "49 a0=5 a1=7f a2=14 a3=0|type=SOCKADDR # saddr=11000003020000000100000600000000\n\
         54 a0=5 a1=107 a2=1 a3=7f|type=ANOM_PROMISCUOUS # dev=eth0 prom=256 old_prom=0 auid=0 uid=0 gid=0 ses=1\n\
         54 a0=5 a1=1 a2=1a a3=7f\n\
         3 a0=5 a1=0 a2=0 a3=0",
    );
    let Kind::HandleOpened { handle, pre_existing: false } = &kinds[0] else { panic!("{kinds:?}") };
    assert_eq!((handle.kind, handle.id), (HandleKind::PacketSocket, 1));
    assert_eq!(handle.protocol.as_ref().unwrap().as_str(), "ETH_P_ALL");
    let names: Vec<&str> = kinds.iter().map(Kind::name).collect();
    assert_eq!(
        names,
        [
            "handle_opened",
            "handle_attached",
            "handle_attached",
            "promiscuous",
            "interface_promiscuous",
            "handle_attached",
            "handle_closed"
        ]
    );
    let Kind::Promiscuous { handle, on: true } = &kinds[3] else { panic!("{kinds:?}") };
    assert_eq!(handle.interface.as_ref().unwrap().as_str(), "eth0");
    let Kind::HandleAttached { handle } = &kinds[5] else { panic!("{kinds:?}") };
    assert_eq!(handle.filter, Some(true));
}

#[test]
fn which_sockets_capture() {
    let names = |kinds: Vec<Kind>| kinds.iter().map(Kind::name).collect::<Vec<_>>();
    // Sends only: AF_PACKET with protocol 0, and IPPROTO_RAW.
    assert_eq!(names(socket("11", "3", "0", "")), ["handle_opened"]);
    assert_eq!(names(socket("2", "3", "ff", "")), ["handle_opened"]);
    // AF_INET, SOCK_PACKET; raw TCP; raw ICMPv6.
    for (family, kind, protocol, expected) in [
        ("2", "a", "300", "sock_packet"),
        ("2", "3", "6", "raw_socket"),
        ("a", "3", "3a", "raw_socket"),
    ] {
        let kinds = socket(family, kind, protocol, "");
        assert_eq!(names(kinds.clone()), ["handle_opened", "handle_attached"]);
        assert_eq!(kinds[0].handle().unwrap().kind.as_str(), expected);
    }
    // TCP and UDP as everybody uses them, and a family that only looks alike.
    for (family, kind, protocol) in
        [("2", "1", "6"), ("a", "2", "11"), ("1", "3", "0"), ("10", "3", "0")]
    {
        assert_eq!(socket(family, kind, protocol, ""), []);
    }
}

#[test]
fn thirty_two_bits_and_other_machines() {
    let text = "type=SYSCALL msg=audit(1.0:1): arch=40000003 syscall=102 success=yes exit=4 a0=1 a1=bf a2=0 a3=0 pid=9 uid=0 euid=0\n\
                type=SOCKETCALL msg=audit(1.0:1): nargs=3 a0=11 a1=3 a2=300\n\
                type=SYSCALL msg=audit(1.0:2): arch=c00000b7 syscall=198 success=yes exit=4 a0=11 a1=3 a2=300 a3=0 pid=10 euid=0\n\
                type=SYSCALL msg=audit(1.0:3): arch=80000016 syscall=359 SYSCALL=socket success=yes exit=4 a0=11 a1=3 a2=3 a3=0 pid=11 euid=0\n\
                type=SYSCALL msg=audit(1.0:4): arch=c000003e syscall=41 success=no exit=-1 a0=11 a1=3 a2=300 a3=0 pid=12 euid=1000\n";
    let seen = observe(text);
    let attached: Vec<(u32, &str)> = seen
        .iter()
        .filter_map(|o| match &o.kind {
            Kind::HandleAttached { handle } => {
                Some((o.actor.as_ref()?.pid, handle.protocol.as_ref()?.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(attached, [(9, "ETH_P_ALL"), (10, "ETH_P_ALL"), (11, "ETH_P_ALL")]);
}

#[test]
fn user_space_speaks_for_itself_and_hosts_name_themselves() {
    let line = b"Nov 24 02:45:17 h audispd: node=web-1 type=SERVICE_STOP msg=audit(1700000000.5:9): pid=1 uid=0 \
        auid=4294967295 ses=4294967295 msg='unit=firewalld comm=\"systemd\" exe=\"/usr/lib/systemd/systemd\" \
        hostname=? addr=? terminal=? res=success'\x1dUID=\"root\" AUID=\"unset\"";
    let mut out = Vec::new();
    let Ok(Decoded::From(origin)) = Auditd::default().decode(line, &mut out) else {
        panic!("no node")
    };
    assert_eq!(origin.host.as_str(), "web-1");
    let mut events = Events::default();
    let mut passed = Vec::new();
    out.into_iter().for_each(|o| events.pass(o, &mut passed));
    let record = records(&passed)[0];
    assert_eq!(value(record, "unit"), Some("firewalld"));
    assert_eq!(value(record, "hostname"), None);
    assert_eq!(record.message.as_str(), "SERVICE_STOP: firewalld");
    assert_eq!(record.subject.as_ref().unwrap().as_str(), "root");
    // The kernel's own lines have numbers for types.
    let seen = observe(
        "kernel: audit: type=1700 audit(1700000000.5:10): dev=eth1 prom=256 old_prom=0 auid=0 uid=0 gid=0 ses=1",
    );
    assert!(
        matches!(&seen[0].kind, Kind::InterfacePromiscuous { interface, on: true } if interface.name.as_str() == "eth1")
    );
}

#[test]
fn other_lines_are_told_apart() {
    let decode = |line: &str| Auditd::default().decode(line.as_bytes(), &mut Vec::new());
    assert_eq!(decode("Nov 24 02:45:17 h sshd[1]: hello"), Ok(Decoded::Skipped));
    for line in [
        "type=SYSCALL msg=audit(x:1): a=b",
        "type=SYSCALL msg=audit(1.2:x): a=b",
        "type=SYSCALL msg=audit(99999999999999999999.2:1): a=b",
        "type=SYSCALL msg=audit(1.2:1",
        "audit",
    ] {
        assert!(decode(line).is_err(), "{line}");
        assert!(!Auditd::default().sniff(line.as_bytes()));
    }
    assert!(Auditd::default().sniff(b"node=a type=EOE msg=audit(1.2:3): "));
}

#[test]
fn hostile_logs_are_bounded() {
    let decoder = Auditd::default();
    let mut events = Events::default();
    let mut out = Vec::new();
    let mut most = 0;
    for n in 0..20_000u64 {
        // Events that never end, in one moment.
        let line = format!("type=SYSCALL msg=audit(5.0:{n}): {SYSCALL}");
        let mut decoded = Vec::new();
        decoder.decode(line.as_bytes(), &mut decoded).unwrap();
        decoded.into_iter().for_each(|o| events.pass(o, &mut out));
        most = most.max(n as usize + 1 - out.len().div_ceil(2).min(n as usize));
    }
    assert!(most < 600, "{most} waited");
    // One event of endless records.
    let mut out = Vec::new();
    for _ in 0..5_000 {
        let line = format!("type=EXECVE msg=audit(6.0:1): a0=\"{}\"", "x".repeat(8000));
        let mut decoded = Vec::new();
        decoder.decode(line.as_bytes(), &mut decoded).unwrap();
        decoded.into_iter().for_each(|o| events.pass(o, &mut out));
    }
    events.flush(&mut out);
    assert!(out.len() < 1200, "{}", out.len());
    // Quotes and braces without an end, bytes of any sort.
    for body in ["a=\"", "a='b=\"", "SADDR={ x", "= = =", "\x1d\x1d", "a=b=c==", "msg='msg='msg='"]
    {
        let line = format!("type=SYSCALL msg=audit(1.0:1): {body}");
        decoder.decode(line.as_bytes(), &mut Vec::new()).unwrap();
    }
    let noise: Vec<u8> = b"type=X msg=audit(1.0:1): ".iter().copied().chain(0..=255).collect();
    decoder.decode(&noise, &mut Vec::new()).unwrap();
}
