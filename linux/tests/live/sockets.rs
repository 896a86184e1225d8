//! Handles: how they are opened, what they are, who has them.

use std::process::Command;
use std::time::{Duration, Instant};

use bpfwatch_core::handle::{HandleKind, RawGrade, SocketType};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::platform::Platform;
use bpfwatch_linux::LinuxPlatform;

use crate::watcher::{Killed, Watcher, by, has_argument, is_root, python, tool};

#[test]
fn tcpdump_from_execution_to_end() {
    let test = "tcpdump_from_execution_to_end";
    if !is_root(test) || tool(test, "tcpdump").is_none() {
        return;
    }
    let mut watcher = Watcher::start();
    let mut run = Killed::start(Command::new("tcpdump").args(["-i", "lo", "-w", "/dev/null"]));
    let pid = run.0.id();
    let executed = watcher.wait("execution", |o| by(o, pid, "executed"));
    assert!(has_argument(&executed, "tcpdump -i lo"));
    let process = executed.actor.unwrap();
    assert_eq!(process.ppid, Some(std::process::id()));
    assert_eq!((process.uid, process.image_owner), (Some(0), Some(0)));
    let opened = watcher.wait("handle", |o| by(o, pid, "handle_opened"));
    let key = opened.kind.handle().unwrap().key();
    assert!(matches!(opened.kind, Kind::HandleOpened { pre_existing: false, .. }));
    watcher.wait("promiscuous", |o| by(o, pid, "promiscuous"));
    let attached = watcher.wait("ring", |o| {
        by(o, pid, "handle_attached") && o.kind.handle().is_some_and(|h| h.ring == Some(true))
    });
    let handle = attached.kind.handle().unwrap();
    assert_eq!(handle.kind, HandleKind::PacketSocket);
    assert_eq!(handle.interface.as_ref().unwrap().as_str(), "lo");
    assert_eq!(handle.protocol.as_ref().unwrap().as_str(), "ETH_P_ALL");
    assert_eq!((handle.filter, handle.netns), (Some(false), None));
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    watcher.wait("end", |o| by(o, pid, "handle_closed") && o.kind.handle().unwrap().key() == key);
    watcher.wait("exit", |o| by(o, pid, "exited"));
    let of_it = |kind: &'static str| {
        move |o: &&bpfwatch_core::observation::Observation| {
            o.kind.name() == kind && o.kind.handle().is_some_and(|handle| handle.key() == key)
        }
    };
    let seen = watcher.stop();
    assert_eq!(seen.iter().filter(of_it("handle_opened")).count(), 1);
    assert_eq!(seen.iter().filter(of_it("promiscuous")).count(), 1);
    assert_eq!(seen.iter().filter(of_it("handle_closed")).count(), 1);
}

#[test]
fn every_way_to_open_a_socket() {
    let test = "every_way_to_open_a_socket";
    if !is_root(test) || tool(test, "python3").is_none() {
        return;
    }
    let ways = [
        ("AF_PACKET,socket.SOCK_RAW,0x0300", HandleKind::PacketSocket, Some("ETH_P_ALL"), None),
        ("AF_PACKET,socket.SOCK_DGRAM,0xcc88", HandleKind::PacketSocket, Some("ETH_P_LLDP"), None),
        ("AF_PACKET,socket.SOCK_RAW,0", HandleKind::PacketSocket, None, None),
        ("AF_INET,10,0x0300", HandleKind::SockPacket, Some("ETH_P_ALL"), None),
        (
            "AF_INET,socket.SOCK_RAW,6",
            HandleKind::RawSocket,
            Some("IPPROTO_TCP"),
            Some(RawGrade::Capture),
        ),
        (
            "AF_INET,socket.SOCK_RAW,1",
            HandleKind::RawSocket,
            Some("IPPROTO_ICMP"),
            Some(RawGrade::Control),
        ),
        (
            "AF_INET6,socket.SOCK_RAW,58",
            HandleKind::RawSocket,
            Some("IPPROTO_ICMPV6"),
            Some(RawGrade::Control),
        ),
        (
            "AF_INET,socket.SOCK_RAW,255",
            HandleKind::RawSocket,
            Some("IPPROTO_RAW"),
            Some(RawGrade::SendOnly),
        ),
    ];
    let mut watcher = Watcher::start();
    for (way, kind, protocol, grade) in ways {
        let run =
            Killed::start(&mut python(&format!("s=socket.socket(socket.{way})\ntime.sleep(60)")));
        let pid = run.0.id();
        let opened = watcher.wait(way, |o| by(o, pid, "handle_opened"));
        let handle = opened.kind.handle().unwrap();
        assert_eq!(handle.kind, kind, "{way}");
        assert_eq!(handle.protocol.as_ref().map(|p| p.as_str()), protocol, "{way}");
        assert_eq!(handle.grade, grade, "{way}");
        let cooked = way.contains("DGRAM");
        let socket_type = match kind {
            HandleKind::SockPacket => SocketType::Packet,
            _ if cooked => SocketType::Dgram,
            _ => SocketType::Raw,
        };
        assert_eq!(handle.socket_type, Some(socket_type), "{way}");
        if kind != HandleKind::RawSocket {
            assert_eq!(handle.interface.as_ref().unwrap().as_str(), "any", "{way}");
        }
        drop(run);
        watcher.wait(way, |o| by(o, pid, "handle_closed"));
        let attached = watcher.seen.iter().any(|o| by(o, pid, "handle_attached"));
        let receives = protocol.is_some() && grade != Some(RawGrade::SendOnly);
        assert_eq!(attached, receives, "{way}");
    }
    watcher.stop();
}

#[test]
fn inherited_passed_and_left_behind() {
    let test = "inherited_passed_and_left_behind";
    if !is_root(test) || tool(test, "python3").is_none() {
        return;
    }
    let mut watcher = Watcher::start();
    // A parent opens, a child inherits, the parent lets go; then the child passes the descriptor to a
    // process that was there before.
    let run = Killed::start(&mut python(
        "a,b=socket.socketpair()
late=os.fork()
if late==0:
    a.close()
    socket.recv_fds(b,1,1)
    time.sleep(60)
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,0x0300)
time.sleep(1.5)
child=os.fork()
if child==0:
    time.sleep(3)
    socket.send_fds(a,[b'x'],[s.fileno()])
    s.close()
    time.sleep(60)
time.sleep(1.5)
s.close()
time.sleep(60)",
    ));
    let parent = run.0.id();
    let opened = watcher.wait("parent", |o| by(o, parent, "handle_opened"));
    let key = opened.kind.handle().unwrap().key();
    let next = |not: Vec<u32>| {
        move |o: &bpfwatch_core::observation::Observation| {
            o.kind.name() == "handle_opened"
                && o.kind.handle().unwrap().key() == key
                && o.actor.as_ref().is_some_and(|actor| !not.contains(&actor.pid))
        }
    };
    let child = watcher.wait("child", next(vec![parent])).actor.unwrap();
    assert_eq!(child.ppid, Some(parent));
    watcher.wait("release by the parent", |o| by(o, parent, "handle_released"));
    let late = watcher.wait("passed", next(vec![parent, child.pid])).actor.unwrap();
    assert_eq!(late.ppid, Some(parent));
    watcher.wait("release by the child", |o| by(o, child.pid, "handle_released"));
    let closed = watcher.seen.iter().any(|o| by(o, parent, "handle_closed"));
    assert!(!closed, "it lives on");
    for pid in [late.pid, child.pid] {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid.cast_signed()),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
    watcher.wait("end", |o| by(o, late.pid, "handle_closed"));
    watcher.stop();
}

#[test]
fn a_snapshot_names_holders_and_their_ancestors() {
    let test = "a_snapshot_names_holders_and_their_ancestors";
    if !is_root(test) || tool(test, "python3").is_none() {
        return;
    }
    // One at a time, as for the others.
    let watcher = Watcher::start();
    let run = Killed::start(&mut python(
        "s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,0x0300)\ntime.sleep(60)",
    ));
    let pid = run.0.id();
    let start = Instant::now();
    let seen = loop {
        let before = Instant::now();
        let seen = LinuxPlatform.snapshot().unwrap();
        let took = before.elapsed();
        if seen.iter().any(|o| by(o, pid, "handle_opened")) {
            println!("snapshot of {} observations took {took:?}", seen.len());
            break seen;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "the holder is not seen");
        std::thread::sleep(Duration::from_millis(50));
    };
    watcher.stop();
    let opened = seen.iter().find(|o| by(o, pid, "handle_opened")).unwrap();
    assert!(matches!(opened.kind, Kind::HandleOpened { pre_existing: true, .. }));
    assert!(seen.iter().any(|o| by(o, pid, "running")));
    assert!(seen.iter().any(|o| by(o, std::process::id(), "running")), "the parent is missing");
    let running = seen.iter().filter(|o| o.kind == Kind::Running).count();
    assert!(seen[..running].iter().all(|o| o.kind == Kind::Running));
}

/// As root it starts itself again as nobody; then it looks.
#[test]
fn without_privilege_something_is_seen() {
    use std::os::unix::process::CommandExt;
    const NAME: &str = "sockets::without_privilege_something_is_seen";
    if nix::unistd::geteuid().is_root() {
        let this = std::env::current_exe().unwrap();
        let again = Command::new(this).args(["--exact", NAME]).uid(65534).gid(65534).output();
        match again {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => println!("skipped: {NAME}: nobody may not run the test: {error}"),
        }
        return;
    }
    let seen = LinuxPlatform.snapshot().unwrap();
    let without_holder = |o: &&bpfwatch_core::observation::Observation| {
        o.kind.name() == "handle_opened" && o.actor.is_none()
    };
    println!("{} handles without a holder", seen.iter().filter(without_holder).count());
    assert!(LinuxPlatform.sensors(&Default::default()).is_ok());
}
