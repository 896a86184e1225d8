//! Path forms as runtimes write them, and what they must not be taken for.

use super::*;

const ID: &str = "9a1f0d4c2b7e8a6f5d3c1b0a9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";
const UID: &str = "1b2c3d4e-0a1b-4c2d-8e3f-5a6b7c8d9e0f";
const UID_: &str = "1b2c3d4e_0a1b_4c2d_8e3f_5a6b7c8d9e0f";

/// Own pid, mount and network namespace.
fn inside() -> Namespaces {
    Namespaces {
        net: Some(2),
        host_net: Some(1),
        own_pid: Some(true),
        own_mount: Some(true),
        ..Namespaces::default()
    }
}

/// All of pid 1's namespaces.
fn outside() -> Namespaces {
    Namespaces { net: Some(1), own_pid: Some(false), own_mount: Some(false), ..inside() }
}

/// `id runtime pod` of a container with `ID`, `UID` and so on filled in; the scope's kind otherwise.
fn seen(path: &str, namespaces: &Namespaces) -> String {
    let cgroup = path.replace("UID_", UID_).replace("UID", UID).replace("ID", ID);
    let text = match from_proc(cgroup.as_bytes(), namespaces) {
        Some(Scope::Container { id, runtime, pod, .. }) => {
            let word = |text: Option<Text>| text.map_or("-".to_owned(), |t| t.as_str().to_owned());
            format!("{} {} {}", id.as_str(), word(runtime), word(pod))
        }
        other => other.map_or("unknown", |scope| scope.kind()).to_owned(),
    };
    text.replace(UID, "UID").replace(ID, "ID")
}

#[test]
fn runtimes_are_told_by_their_paths() {
    let table = [
        // docker: cgroupfs v1, systemd v1, systemd v2, rootless, custom parent, buildkit.
        (
            "12:pids:/docker/ID\n1:name=systemd:/docker/ID\n0::/system.slice/containerd.service",
            "ID docker -",
        ),
        ("0::/docker/ID", "ID docker -"),
        (
            "4:memory:/system.slice/docker-ID.scope\n1:name=systemd:/system.slice/docker-ID.scope",
            "ID docker -",
        ),
        ("0::/system.slice/docker-ID.scope", "ID docker -"),
        ("0::/system.slice/docker-ID.scope/init", "ID docker -"),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            "ID docker -",
        ),
        ("0::/actions_job/ID", "ID - -"),
        ("0::/docker/buildkit/1x9kq2mzv4t8", "1x9kq2mzv4t8 buildkit -"),
        // containerd through the CRI: systemd and cgroupfs drivers, each QoS class.
        (
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/cri-containerd-ID.scope",
            "ID containerd UID",
        ),
        (
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
            "ID containerd UID",
        ),
        ("0::/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope", "ID containerd UID"),
        ("9:cpu:/kubepods/besteffort/podUID/ID", "ID containerd UID"),
        ("9:cpu:/kubepods/burstable/podUID/ID", "ID containerd UID"),
        ("9:cpu:/kubepods/podUID/ID", "ID containerd UID"),
        (
            "0::/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID",
            "ID containerd UID",
        ),
        (
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID_.slice/cri-containerd-ID.scope",
            "ID containerd UID",
        ),
        ("0::/kubepods.slice/kubepods-podUID_.slice/docker-ID.scope", "ID docker UID"),
        // A static pod's uid is a hash without dashes.
        (
            "0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/ID",
            "ID containerd 0123456789abcdef0123456789abcdef",
        ),
        // containerd without Kubernetes: nerdctl, ctr.
        ("0::/system.slice/nerdctl-ID.scope", "ID containerd -"),
        ("0::/default/ID", "ID containerd -"),
        ("0::/default/redis", "redis containerd -"),
        // cri-o, with the inner group that crun makes.
        (
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/crio-ID.scope",
            "ID cri-o UID",
        ),
        ("0::/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope/container", "ID cri-o UID"),
        ("9:cpu:/kubepods/burstable/podUID/crio-ID", "ID cri-o UID"),
        // podman: root, rootless, inside a unit, cgroupfs.
        ("0::/machine.slice/libpod-ID.scope", "ID podman -"),
        ("0::/machine.slice/libpod-ID.scope/container", "ID podman -"),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "ID podman -",
        ),
        ("0::/system.slice/web.service/libpod-payload-ID", "ID podman -"),
        ("9:cpu:/libpod_parent/libpod-ID", "ID podman -"),
        // runc alone: v1, below a login, systemd driver, a systemd path with the cgroupfs driver.
        ("3:cpuset:/box\n2:cpuacct:/box\n1:cpu:/box\n0::/", "box runc -"),
        ("0::/box", "box runc -"),
        ("0::/user.slice/user-0.slice/box", "box runc -"),
        ("0::/system.slice/runc-box.scope", "box runc -"),
        ("9:cpu:/system.slice:runc:box", "box runc -"),
        // lxc: old, Proxmox, 4.0 and later, user.
        ("9:cpu:/lxc/web\n1:name=systemd:/lxc/web/init.scope", "web lxc -"),
        ("0::/lxc/101/ns/system.slice/cron.service", "101 lxc -"),
        ("0::/lxc.payload.web/system.slice/ssh.service", "web lxc -"),
        ("9:cpu:/lxc.payload/web", "web lxc -"),
        ("0::/user.slice/user-1000.slice/session-2.scope/lxc.payload.web", "web lxc -"),
        // systemd-nspawn.
        ("0::/machine.slice/machine-web.scope/payload", "web systemd-nspawn -"),
        ("0::/machine.slice/systemd-nspawn@web.service/payload/init.scope", "web systemd-nspawn -"),
        // Read from another cgroup namespace.
        ("0::/../../kubepods-burstable-podUID_.slice/cri-containerd-ID.scope", "ID containerd UID"),
        ("0::/../cri-containerd-ID.scope", "ID containerd -"),
        ("0::/../../burstable/podUID/ID", "ID containerd UID"),
        ("0::/../ID", "ID - -"),
        ("0::/system.slice/docker-ID.scope (deleted)", "ID docker -"),
    ];
    for (path, want) in table {
        assert_eq!(seen(path, &inside()), want, "{path}");
    }
}

#[test]
fn what_watches_over_a_container_is_not_in_it() {
    for path in [
        "0::/machine.slice/libpod-conmon-ID.scope",
        "0::/kubepods.slice/kubepods-podUID_.slice/crio-conmon-ID.scope",
        "9:cpu:/libpod_parent/conmon",
        "0::/lxc.monitor.web",
        "9:cpu:/lxc.monitor/web",
        "0::/system.slice/containerd.service",
        "0::/system.slice/docker.service",
    ] {
        assert_eq!(seen(path, &outside()), "host", "{path}");
    }
}

#[test]
fn services_and_logins_are_the_host() {
    for path in [
        "0::/system.slice/NetworkManager.service",
        "12:pids:/system.slice/ssh.service\n1:name=systemd:/system.slice/ssh.service\n0::/system.slice/ssh.service",
        "0::/user.slice/user-1000.slice/session-3.scope",
        "0::/init.scope",
        "0::/",
        "1:cpu:/box",
        "0::/system.slice/runc-box.scope",
        "9:cpu:/system.slice:runc:box",
        "0::/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
        "",
        "nonsense\n:\n::",
    ] {
        assert_eq!(seen(path, &outside()), "host", "{path}");
    }
}

#[test]
fn a_private_namespace_alone_makes_no_container() {
    // PrivateTmp gives a mount namespace, PrivatePIDs and bubblewrap both: still a unit, not a container.
    let private_tmp = Namespaces { own_pid: Some(false), net: Some(1), ..inside() };
    assert_eq!(seen("0::/box", &private_tmp), "host");
    let both = Namespaces { net: Some(1), ..inside() };
    for path in [
        "0::/system.slice/sandboxed.service",
        "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-flatpak-x-1.scope",
        "0::/openrc.sshd",
        // One controller of many: a job manager's memory limit.
        "4:memory:/jobs/50b77b5fc856cdef2397df60b8133353\n3:cpuset:/\n2:cpuacct:/\n0::/",
    ] {
        assert_eq!(seen(path, &both), "host", "{path}");
    }
    let unknown = Namespaces { own_pid: None, own_mount: None, net: None, ..inside() };
    assert_eq!(seen("0::/box", &unknown), "unknown");
    assert_eq!(seen("0::/docker/ID", &unknown), "ID docker -");
}

#[test]
fn other_network_namespaces_have_a_scope() {
    let named = Namespaces { net_name: Some(Text::from("blue")), own_pid: Some(false), ..inside() };
    let want = Scope::Namespace { netns: 2, name: Some(Text::from("blue")) };
    assert_eq!(from_proc(b"0::/user.slice/user-0.slice/session-1.scope\n", &named), Some(want));
    let unknown_host = Namespaces { host_net: None, ..named };
    assert_eq!(from_proc(b"0::/\n", &unknown_host), None);
}

#[test]
fn a_container_that_entered_the_host_is_still_named() {
    assert_eq!(seen("0::/system.slice/docker-ID.scope", &outside()), "ID docker -");
    let Some(Scope::Container { netns, .. }) = from_proc(b"0::/lxc/web", &outside()) else {
        panic!("no container")
    };
    assert_eq!(netns, Some(1));
}

#[test]
fn inside_a_container_that_container_is_the_host() {
    let init = format!("9:cpu:/docker/{ID}\n");
    let nested = Namespaces { host_container: container_id(init.as_bytes()), ..outside() };
    assert_eq!(seen("9:cpu:/docker/ID", &nested), "host");
    let other = format!("9:cpu:/docker/{}", ID.replace('9', "8"));
    assert_eq!(from_proc(other.as_bytes(), &nested).map(|s| s.kind()), Some("container"));
}

#[test]
fn a_name_made_inside_a_container_does_not_hide_it() {
    let faked = "0::/lxc.payload.web/kubepods/podUID/ID";
    assert_eq!(seen(faked, &inside()), "web lxc -");
}

#[test]
fn units_are_those_of_the_system_manager() {
    let table = [
        ("0::/system.slice/NetworkManager.service\n", Some("NetworkManager.service")),
        ("0::/system.slice/system-getty.slice/getty@tty1.service\n", Some("getty@tty1.service")),
        ("1:name=systemd:/system.slice/ssh.service\n0::/\n", Some("ssh.service")),
        ("4:memory:/jobs\n1:name=systemd:/\n0::/system.slice/ssh.service\n", Some("ssh.service")),
        ("0::/system.slice/docker.service/init\n", Some("docker.service")),
        ("0::/init.scope\n", Some("init.scope")),
        ("0::/user.slice/user-0.slice/session-3.scope\n", Some("session-3.scope")),
        ("0::/system.slice/_cpu.service\n", Some("cpu.service")),
        ("0::/../../../system.slice/cron.service\n", Some("cron.service")),
        // A user's manager and a container's systemd may name their units as they like.
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/NetworkManager.service\n",
            Some("user@1000.service"),
        ),
        ("0::/docker/0123456789ab/system.slice/NetworkManager.service\n", None),
        ("0::/lxc.payload.web/system.slice/NetworkManager.service\n", None),
        ("0::/system.slice\n", None),
        ("0::/\n", None),
        ("4:memory:/system.slice/ssh.service\n", None),
        ("0::/.service\n", None),
        ("", None),
    ];
    for (cgroup, want) in table {
        assert_eq!(unit(cgroup.as_bytes()).as_ref().map(Text::as_str), want, "{cgroup}");
    }
}

#[test]
fn bytes_that_are_no_utf8_do_no_harm() {
    assert_eq!(
        from_proc(b"0::/\xff\xfe/lxc/\xff\n", &inside()).map(|s| s.kind()),
        Some("container")
    );
    assert_eq!(unit(b"0::/\xff.service\n").map(|unit| unit.is_escaped()), Some(true));
}
