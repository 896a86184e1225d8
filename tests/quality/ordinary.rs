//! Ordinary programs that hold packet or raw sockets: what they are and how they are run.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::lab::Lab;
use crate::plan::Plan;
use crate::process::{Running, find, must};

/// A program, and a way to run it.
struct Program {
    /// Its command. `IF` is the interface, `NET` the worker's number in its address, `DIR` a folder of
    /// its own, `NS` the namespace on the other side.
    command: &'static [&'static str],
    /// The unit that it is a service of, for a service.
    unit: Option<&'static str>,
    /// A file in its folder, and what stands in it.
    config: Option<(&'static str, &'static str)>,
    /// It runs so long if it does not end by itself.
    seconds: u64,
}

const fn tool(command: &'static [&'static str], seconds: u64) -> Program {
    Program { command, unit: None, config: None, seconds }
}

const fn service(
    unit: &'static str,
    command: &'static [&'static str],
    config: Option<(&'static str, &'static str)>,
    seconds: u64,
) -> Program {
    Program { command, unit: Some(unit), config, seconds }
}

/// Scripts of DHCP clients are replaced by nothing, so that this machine's addresses and name servers
/// stay what they are; the sockets are the same.
const PROGRAMS: &[Program] = &[
    tool(&["ping", "-c", "3", "-i", "0.2", "10.213.NET.1"], 4),
    tool(&["ping", "-6", "-c", "3", "-i", "0.2", "::1"], 4),
    tool(&["ip", "netns", "exec", "NS", "ping", "-c", "3", "-i", "0.2", "10.213.NET.2"], 4),
    tool(&["fping", "-c", "3", "-p", "100", "10.213.NET.1", "127.0.0.1"], 4),
    tool(&["/usr/lib/nagios/plugins/check_icmp", "-H", "10.213.NET.1"], 4),
    tool(&["traceroute", "-I", "-m", "2", "-w", "1", "10.213.NET.1"], 4),
    tool(&["traceroute", "-T", "-m", "2", "-w", "1", "10.213.NET.1"], 4),
    tool(&["traceroute", "-m", "2", "-w", "1", "10.213.NET.1"], 4),
    tool(&["mtr", "-r", "-c", "2", "-i", "0.3", "10.213.NET.1"], 5),
    tool(&["mtr", "-u", "-r", "-c", "2", "-i", "0.3", "10.213.NET.1"], 5),
    tool(&["mtr", "-T", "-P", "53", "-r", "-c", "2", "-i", "0.3", "10.213.NET.1"], 5),
    tool(&["arping", "-c", "2", "-I", "IF", "10.213.NET.1"], 4),
    tool(&["arping", "-D", "-c", "2", "-I", "IF", "10.213.NET.77"], 4),
    tool(&["rdisc6", "-r", "1", "-w", "500", "IF"], 3),
    tool(&["ndisc6", "-r", "1", "-w", "500", "fe80::1", "IF"], 3),
    tool(&["etherwake", "-i", "IF", "02:00:00:00:00:01"], 2),
    tool(&["pppoe-discovery", "-I", "IF", "-t", "1"], 4),
    tool(
        &["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do iptables-legacy -w -L -n; sleep 0.1; done"],
        4,
    ),
    tool(
        &[
            "sh",
            "-c",
            "for i in 1 2 3 4; do ip6tables-legacy -w -L -n; ebtables-legacy -L; \
        arptables-legacy -L; ipvsadm -L; sleep 0.1; done",
        ],
        4,
    ),
    tool(&["dhclient", "-d", "-sf", "/bin/true", "-lf", "DIR/leases", "-pf", "DIR/pid", "IF"], 6),
    tool(
        &["dhclient", "-d", "-1", "-sf", "/bin/true", "-lf", "DIR/once", "-pf", "DIR/pid1", "IF"],
        4,
    ),
    tool(&["dhcpcd", "-4", "-B", "-c", "/bin/true", "-f", "/dev/null", "IF"], 6),
    tool(&["dhcpcd", "-B", "-c", "/bin/true", "-f", "/dev/null", "IF"], 6),
    tool(&["udhcpc", "-i", "IF", "-f", "-s", "/bin/true"], 5),
    tool(&["avahi-autoipd", "--script=/bin/true", "IF"], 6),
    service("systemd-networkd.service", &["/lib/systemd/systemd-networkd"], None, 6),
    service("lldpd.service", &["lldpd", "-d", "-u", "DIR/socket", "-I", "IF"], None, 6),
    service("ladvd.service", &["ladvd", "-f", "-L", "IF"], None, 5),
    service("lldpad.service", &["lldpad", "-f", "DIR/lldpad.conf"], Some(("lldpad.conf", "")), 4),
    service(
        "keepalived.service",
        &["keepalived", "-n", "-l", "-f", "DIR/keepalived.conf", "-p", "DIR/pid", "-r", "DIR/vrrp"],
        Some((
            "keepalived.conf",
            "vrrp_instance a {\n interface IF\n virtual_router_id 7\n \
            priority 100\n virtual_ipaddress {\n 10.213.NET.9/24\n }\n}\n\
            vrrp_instance b {\n interface IF\n virtual_router_id 8\n priority 100\n \
            virtual_ipaddress {\n fe80::9/64\n fd13::9/64\n }\n}\n",
        )),
        8,
    ),
    service(
        "bird.service",
        &["bird", "-f", "-c", "DIR/bird.conf", "-s", "DIR/socket"],
        Some((
            "bird.conf",
            "router id 10.213.0.1;\nprotocol device {}\n\
            protocol ospf v2 a { area 0 { interface \"IF\" {}; }; }\n\
            protocol ospf v3 b { ipv6; area 0 { interface \"IF\" {}; }; }\n\
            protocol rip c { ipv4; interface \"IF\" {}; }\n",
        )),
        5,
    ),
    service(
        "frr.service",
        &[
            "sh",
            "-c",
            "/usr/lib/frr/zebra -f DIR/frr.conf -i DIR/zebra.pid \
        -z DIR/zserv --vty_socket DIR & sleep 1; /usr/lib/frr/ospfd -f DIR/frr.conf -i DIR/ospfd.pid \
        -z DIR/zserv --vty_socket DIR & wait",
        ],
        Some((
            "frr.conf",
            "interface IF\n ip ospf area 0\nexit\nrouter ospf\n \
            ospf router-id 10.213.0.3\nexit\n",
        )),
        6,
    ),
    service(
        "wpa_supplicant.service",
        &["wpa_supplicant", "-Dwired", "-iIF", "-cDIR/wpa.conf"],
        Some((
            "wpa.conf",
            "ap_scan=0\nnetwork={\n key_mgmt=IEEE8021X\n eap=MD5\n \
            identity=\"a\"\n password=\"b\"\n}\n",
        )),
        4,
    ),
    service(
        "hostapd.service",
        &["hostapd", "DIR/hostapd.conf"],
        Some((
            "hostapd.conf",
            "interface=IF\ndriver=wired\nieee8021x=1\neap_server=1\n\
            eap_user_file=/dev/null\n",
        )),
        4,
    ),
    service(
        "NetworkManager.service",
        &[
            "sh",
            "-c",
            "dbus-daemon --config-file=DIR/bus.conf --nofork & sleep 0.5; \
            export DBUS_SYSTEM_BUS_ADDRESS=unix:path=DIR/bus; exec NetworkManager --debug \
            --config DIR/nm.conf --config-dir DIR/intern --system-config-dir DIR/intern \
            --intern-config DIR/intern/none --state-file DIR/state --pid-file DIR/pid",
        ],
        Some((
            "nm.conf",
            "[main]\nplugins=keyfile\ndns=none\nrc-manager=unmanaged\ndhcp=internal\n\
            no-auto-default=\n[keyfile]\nunmanaged-devices=*,except:interface-name:IF\n\
            path=DIR/connections\n[logging]\naudit=false\n",
        )),
        8,
    ),
    service(
        "radvd.service",
        &["radvd", "-n", "-C", "DIR/radvd.conf", "-p", "DIR/pid", "-u", "root"],
        Some((
            "radvd.conf",
            "interface IF { AdvSendAdvert on; IgnoreIfMissing on; \
            AdvDefaultLifetime 0; };\n",
        )),
        4,
    ),
    service(
        "igmpproxy.service",
        &["igmpproxy", "-n", "DIR/igmp.conf"],
        Some((
            "igmp.conf",
            "phyint IF upstream ratelimit 0 threshold 1\n\
            phyint lo downstream ratelimit 0 threshold 1\n",
        )),
        3,
    ),
    service(
        "isc-dhcp-server.service",
        &[
            "dhcpd",
            "-f",
            "-cf",
            "DIR/dhcpd.conf",
            "-lf",
            "DIR/dhcpd.leases",
            "-pf",
            "DIR/pid",
            "IF",
        ],
        Some((
            "dhcpd.conf",
            "subnet 10.213.NET.0 netmask 255.255.255.0 { \
            range 10.213.NET.240 10.213.NET.250; }\n",
        )),
        5,
    ),
    service(
        "kea-dhcp4-server.service",
        &["env", "KEA_PIDFILE_DIR=DIR", "KEA_LOCKFILE_DIR=none", "kea-dhcp4", "-c", "DIR/kea.conf"],
        Some((
            "kea.conf",
            "{\"Dhcp4\":{\"interfaces-config\":{\"interfaces\":[\"IF\"]},\
            \"lease-database\":{\"type\":\"memfile\",\"persist\":false},\"subnet4\":[{\
            \"subnet\":\"10.213.NET.0/24\",\"pools\":[{\"pool\":\"10.213.NET.240-10.213.NET.250\"}]}]}}",
        )),
        5,
    ),
    service("ptp4l@IF.service", &["ptp4l", "-2", "-S", "-s", "-i", "IF", "-m"], None, 4),
    service(
        "ndppd.service",
        &["ndppd", "-c", "DIR/ndppd.conf"],
        Some(("ndppd.conf", "proxy IF {\n rule fd13::/64 {\n static\n }\n}\n")),
        4,
    ),
    service(
        "arpwatch@IF.service",
        &["arpwatch", "-d", "-F", "-i", "IF", "-f", "DIR/arp.dat"],
        Some(("arp.dat", "")),
        4,
    ),
    service(
        "ucarp.service",
        &[
            "ucarp",
            "-i",
            "IF",
            "-s",
            "10.213.NET.2",
            "-v",
            "9",
            "-p",
            "x",
            "-a",
            "10.213.NET.9",
            "-u",
            "/bin/true",
            "-d",
            "/bin/true",
        ],
        None,
        4,
    ),
];

/// Workers that have run every program of theirs at least once.
static ROUNDS: AtomicUsize = AtomicUsize::new(0);

/// See [`ROUNDS`].
pub fn rounds_done() -> usize {
    ROUNDS.load(Ordering::Relaxed)
}

/// Runs this worker's share of the programs, again and again. A program is never run twice at a time.
pub fn work(lab: &Lab, worker: usize, plan: &Plan, over: &AtomicBool) {
    let only = std::env::var("BPFWATCH_QUALITY_ONLY").ok();
    let wanted = |program: &Program| {
        only.as_ref().is_none_or(|only| program.command.join(" ").contains(only.as_str()))
    };
    for round in 0.. {
        for (number, program) in PROGRAMS.iter().enumerate() {
            if number % plan.ordinary_workers != worker || !wanted(program) {
                continue;
            }
            if over.load(Ordering::Relaxed) {
                return;
            }
            match start(lab, worker, number, program) {
                Ok(mut running) => {
                    running.wait(Duration::from_secs(program.seconds));
                }
                Err(why) if round == 0 => println!("skipped in part: {why}"),
                Err(_) => {}
            }
        }
        if round == 0 {
            ROUNDS.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start(lab: &Lab, worker: usize, number: usize, program: &Program) -> Result<Running, String> {
    let name = program.command[0];
    let image = if name == "env" { program.command[3] } else { name };
    find(image).ok_or_else(|| format!("{image} is not installed"))?;
    let path = find(name).unwrap();
    let dir = lab.dir.join(format!("program{number}"));
    std::fs::create_dir_all(&dir).unwrap();
    // Daemons that drop their rights write there.
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
    let interface = lab.interface(worker);
    // The last one may have taken its address away.
    let address = format!("10.213.{worker}.2/24");
    must("ip", &["addr", "replace", &address, "dev", interface]);
    must("ip", &["link", "set", interface, "up"]);
    let fill = |text: &str| {
        text.replace("DIR", dir.to_str().unwrap())
            .replace("IF", interface)
            .replace("NET", &worker.to_string())
            .replace("NS", &lab.network)
    };
    if let Some((file, text)) = program.config {
        std::fs::write(dir.join(file), fill(text)).unwrap();
    }
    prepare(lab, name, &dir, interface, program)?;
    let groups = match program.unit {
        Some(unit) => lab
            .unit(&fill(unit))
            .ok_or_else(|| format!("{name}: no control group can be made for {unit}"))?,
        None => Vec::new(),
    };
    let mut command = vec![path.to_str().unwrap().to_owned()];
    command.extend(program.command[1..].iter().map(|word| fill(word)));
    Ok(Running::start(&groups, &command))
}

/// What a program needs beside its configuration.
fn prepare(
    lab: &Lab,
    name: &str,
    dir: &std::path::Path,
    interface: &str,
    program: &Program,
) -> Result<(), String> {
    let write = |path: PathBuf, text: String| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    match name {
        // What its package makes at start of the service.
        "ladvd" => std::fs::create_dir_all("/run/ladvd").unwrap(),
        "dhclient" => ["leases", "once"].iter().for_each(|file| {
            write(dir.join(file), String::new());
        }),
        "dhcpd" => write(dir.join("dhcpd.leases"), String::new()),
        "/lib/systemd/systemd-networkd" => {
            if is_running("systemd-network") {
                return Err("systemd-networkd runs here already".to_owned());
            }
            write(
                lab.temporary(format!("/run/systemd/network/10-bpfwatch-{interface}.network")),
                format!(
                    "[Match]\nName={interface}\n[Network]\nDHCP=ipv4\nLLDP=yes\n\
                    IPv4LLRoute=no\nIPv6AcceptRA=no\nKeepConfiguration=yes\n[DHCPv4]\n\
                    UseRoutes=no\nUseGateway=no\nUseDNS=no\nUseHostname=no\n"
                ),
            );
        }
        "sh" if program.command[2].contains("NetworkManager") => {
            if find("NetworkManager").is_none() || find("dbus-daemon").is_none() {
                return Err("NetworkManager or dbus-daemon is not installed".to_owned());
            }
            if is_running("NetworkManager") {
                return Err("NetworkManager runs here already".to_owned());
            }
            let at = dir.display();
            write(
                dir.join("bus.conf"),
                format!(
                    "<busconfig><type>system</type><listen>unix:path={at}/bus</listen>\
                    <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
                    <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy>\
                    </busconfig>\n"
                ),
            );
            std::fs::create_dir_all(dir.join("intern")).unwrap();
            let connection = dir.join("connections").join("lab.nmconnection");
            write(
                connection.clone(),
                format!(
                    "[connection]\nid=lab\ntype=ethernet\ninterface-name={interface}\n\
                    uuid=7d0d2b5e-3f0c-4b0e-9b0c-1d1f2a3b4c5d\nlldp=1\n[ipv4]\nmethod=auto\n\
                    never-default=true\nignore-auto-dns=true\n[ipv6]\nmethod=ignore\n"
                ),
            );
            std::fs::set_permissions(connection, PermissionsExt::from_mode(0o600)).unwrap();
        }
        _ => {}
    }
    Ok(())
}

/// Whether a program of this name runs on the machine.
fn is_running(name: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut names =
        entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
    names.any(|comm| comm.trim_end().starts_with(name))
}
