//! Other network namespaces and containers: seen, and not kept alive.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bpfwatch_core::observation::Kind;
use bpfwatch_core::scope::Scope;

use crate::watcher::{Killed, Watcher, by, is_root, python, tool};

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "ip {arguments}");
}

#[test]
fn a_named_namespace() {
    let test = "a_named_namespace";
    if !is_root(test) || tool(test, "ip").is_none() || tool(test, "tcpdump").is_none() {
        return;
    }
    struct Named;
    impl Drop for Named {
        fn drop(&mut self) {
            ip("netns del bpfwatch-test");
        }
    }
    let mut watcher = Watcher::start();
    ip("netns add bpfwatch-test");
    let _named = Named;
    ip("-n bpfwatch-test link set lo up");
    let arguments = "netns exec bpfwatch-test tcpdump -i lo -w /dev/null";
    let run = Killed::start(Command::new("ip").args(arguments.split(' ')));
    // `ip` becomes tcpdump.
    let pid = run.0.id();
    let attached = watcher.wait("attached", |o| by(o, pid, "handle_attached"));
    let handle = attached.kind.handle().unwrap();
    let process = attached.actor.clone().unwrap();
    let netns = handle.netns.unwrap();
    let name = Some("bpfwatch-test".into());
    assert_eq!(process.scope.as_deref(), Some(&Scope::Namespace { netns, name }));
    let interface = watcher.wait("interface", |o| match &o.kind {
        Kind::InterfacePromiscuous { interface, on } => *on && interface.netns == Some(netns),
        _ => false,
    });
    let Kind::InterfacePromiscuous { interface, .. } = interface.kind else { unreachable!() };
    assert_eq!((interface.name.as_str(), interface.role), ("lo", None));
    drop(run);
    watcher.wait("end", |o| by(o, pid, "handle_closed"));
    watcher.stop();
}

#[test]
fn root_in_a_user_namespace_only() {
    let test = "root_in_a_user_namespace_only";
    if !is_root(test) || tool(test, "unshare").is_none() || tool(test, "python3").is_none() {
        return;
    }
    let mut watcher = Watcher::start();
    let program =
        python("s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,0x0300)\ntime.sleep(60)");
    let mut command = Command::new("unshare");
    command.arg("-rn").arg(program.get_program()).args(program.get_args());
    let run = Killed::start(command.uid(65534).gid(65534));
    let pid = run.0.id();
    let opened = watcher.wait("handle", |o| by(o, pid, "handle_opened"));
    let process = opened.actor.unwrap();
    assert_eq!((process.uid, &process.user), (Some(65534), &None));
    assert!(matches!(process.scope.as_deref(), Some(Scope::Namespace { name: None, .. })));
    watcher.stop();
}

#[test]
fn a_bridge_has_good_reasons() {
    let test = "a_bridge_has_good_reasons";
    if !is_root(test) || tool(test, "ip").is_none() {
        return;
    }
    struct Links;
    impl Drop for Links {
        fn drop(&mut self) {
            ip("link del bwbr0");
            ip("link del bwv0");
        }
    }
    let mut watcher = Watcher::start();
    ip("link add bwbr0 type bridge");
    ip("link add bwv0 type veth peer name bwv1");
    let _links = Links;
    ip("link set bwv0 master bwbr0");
    ip("link set bwv0 up");
    let role = |watcher: &mut Watcher, name: &'static str, on: bool| {
        let said = watcher.wait(name, |o| match &o.kind {
            Kind::InterfacePromiscuous { interface, on: is } => {
                *is == on && interface.name.as_str() == name
            }
            _ => false,
        });
        let Kind::InterfacePromiscuous { interface, .. } = said.kind else { unreachable!() };
        interface.role.map(|role| role.to_string())
    };
    assert_eq!(role(&mut watcher, "bwv0", true).as_deref(), Some("veth on a bridge"));
    ip("link set bwbr0 promisc on");
    assert_eq!(role(&mut watcher, "bwbr0", true).as_deref(), Some("bridge"));
    ip("link set bwbr0 promisc off");
    role(&mut watcher, "bwbr0", false);
    watcher.stop();
}

#[test]
fn a_container() {
    let test = "a_container";
    let tools = ["runc", "busybox"].map(|name| tool(test, name));
    let (true, [Some(_), Some(busybox)]) = (is_root(test), tools) else { return };
    let bundle = std::env::temp_dir().join(format!("bpfwatch-bundle-{}", std::process::id()));
    if let Err(why) = make_bundle(&bundle, &busybox) {
        println!("skipped: {test}: {why}");
        return;
    }
    let mut watcher = Watcher::start();
    let id = format!("bpfwatch-test-{}", std::process::id());
    let mut command = Command::new("runc");
    let run = Killed::start(command.args(["run", &id]).current_dir(&bundle));
    let opened = watcher.wait("handle", |o| {
        let scope = o.actor.as_ref().and_then(|actor| actor.scope.as_deref());
        o.kind.name() == "handle_opened"
            && matches!(scope, Some(Scope::Container { id: found, .. }) if found.as_str() == id)
    });
    let process = opened.actor.clone().unwrap();
    let handle = opened.kind.handle().unwrap();
    let Some(Scope::Container { netns, .. }) = process.scope.as_deref() else { unreachable!() };
    assert!(handle.netns.is_some() && handle.netns == *netns);
    assert_eq!(process.image.as_ref().unwrap().as_str(), "/bin/busybox");
    assert_eq!(process.image_writable_dir, Some(false), "the container's own folders count");
    let _ = Command::new("runc").args(["delete", "-f", &id]).status();
    drop(run);
    watcher.wait("end", |o| by(o, process.pid, "handle_closed"));
    watcher.stop();
    std::fs::remove_dir_all(&bundle).unwrap();
}

fn make_bundle(bundle: &Path, busybox: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    for folder in ["bin", "proc", "sys", "dev"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(folder)).map_err(text)?;
    }
    let inside = bundle.join("rootfs/bin/busybox");
    std::fs::copy(busybox, &inside).map_err(text)?;
    let spec = Command::new("runc").arg("spec").current_dir(bundle).output().map_err(text)?;
    if !spec.status.success() {
        return Err(String::from_utf8_lossy(&spec.stderr).into_owned());
    }
    let path = bundle.join("config.json");
    let spec = std::fs::read(&path).map_err(text)?;
    let mut spec: serde_json::Value = serde_json::from_slice(&spec).map_err(|e| e.to_string())?;
    let process = &mut spec["process"];
    process["terminal"] = false.into();
    let sniff = "/bin/busybox ip link set lo up; exec /bin/busybox udhcpc -f -t 50 -i lo";
    process["args"] = serde_json::json!(["/bin/busybox", "sh", "-c", sniff]);
    for set in ["bounding", "effective", "permitted"] {
        process["capabilities"][set] = serde_json::json!(["CAP_NET_RAW", "CAP_NET_ADMIN"]);
    }
    std::fs::write(&path, spec.to_string()).map_err(text)
}

#[test]
fn no_namespace_is_kept_alive() {
    let test = "no_namespace_is_kept_alive";
    if !is_root(test) || tool(test, "ip").is_none() || tool(test, "unshare").is_none() {
        return;
    }
    const COUNT: usize = 100;
    let mut watcher = Watcher::start();
    let left = || {
        let names = std::fs::read_dir("/sys/class/net").unwrap();
        names
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("bwn"))
            .count()
    };
    for number in 0..COUNT {
        let mut run = Killed::start(Command::new("unshare").args(["-n", "sleep", "60"]));
        let pid = run.0.id();
        let other = || {
            let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/net")).ok();
            of(&pid.to_string()).is_some_and(|theirs| Some(theirs) != of("self"))
        };
        let start = Instant::now();
        while !other() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        ip(&format!("link add bwn{number} type veth peer name eth0 netns {pid}"));
        // Looks are at work in it when it ends.
        watcher.collect(Duration::from_millis(number as u64 % 40));
        run.0.kill().unwrap();
        run.0.wait().unwrap();
    }
    // A veth goes with the namespace of its peer.
    let start = Instant::now();
    while left() > 0 && start.elapsed() < Duration::from_secs(1) {
        watcher.collect(Duration::from_millis(20));
    }
    let left = left();
    println!("{COUNT} namespaces, the last was gone after {:?}", start.elapsed());
    watcher.stop();
    assert_eq!(left, 0, "namespaces are kept alive");
}
