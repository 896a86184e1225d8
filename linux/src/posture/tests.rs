//! What each finding makes of its check.

use bpfwatch_core::text::Text;

use super::*;
use crate::capability::Capabilities;

fn capable(path: &str, mode: u32, serves_capture: bool) -> Privileged {
    Privileged {
        path: PathBuf::from(path),
        why: Why::Capabilities(Capabilities(1 << NET_RAW)),
        mode,
        gid: 118,
        serves_capture,
        copy_of: None,
    }
}

fn found(files: Vec<Privileged>) -> files::Found {
    files::Found { files, looked_at: 7, complete: true }
}

#[test]
fn a_capable_tool_is_a_warning_only_when_anyone_may_run_it() {
    let groups = "wireshark:x:118:ann\n";
    let states = [
        (vec![], CheckState::Ok),
        (vec![capable("/usr/bin/ping", 0o755, false)], CheckState::Info),
        (vec![capable("/usr/bin/dumpcap", 0o750, true)], CheckState::Info),
        (vec![capable("/usr/bin/dumpcap", 0o755, true)], CheckState::Warning),
    ];
    for (files, state) in states {
        let check = file_capabilities(&found(files), groups);
        assert_eq!(check.state, state, "{check:?}");
        assert_eq!(check.mend.is_some(), state == CheckState::Warning);
    }
    let check = file_capabilities(&found(vec![capable("/usr/bin/dumpcap", 0o750, true)]), groups);
    assert!(check.detail.starts_with("/usr/bin/dumpcap (cap_net_raw; run by group wireshark)"));
}

#[test]
fn set_uid_copies_are_named() {
    let copy = Privileged {
        why: Why::SetUid,
        copy_of: Some(PathBuf::from("/usr/bin/tcpdump")),
        ..capable("/tmp/x\n", 0o4755, true)
    };
    let mut found = found(vec![copy]);
    found.complete = false;
    let check = set_uid(&found, "");
    assert_eq!(check.state, CheckState::Warning);
    assert_eq!(
        check.detail,
        "/tmp/x\\n (set-uid root, a copy of /usr/bin/tcpdump; run by anyone) (looked at 7 files, and \
         then the time was up)"
    );
}

#[test]
fn a_walk_that_was_cut_finds_nothing_to_be_well() {
    let cut = files::Found { complete: false, ..found(vec![]) };
    assert_eq!(file_capabilities(&cut, "").state, CheckState::Info);
    assert_eq!(set_uid(&cut, "").state, CheckState::Info);
    assert_eq!(set_uid(&found(vec![]), "").state, CheckState::Ok);
}

#[test]
fn a_container_on_the_hosts_network_is_a_warning() {
    let scope = |id: &str| Scope::Container {
        id: Text::from(id),
        runtime: Some(Text::from("docker")),
        image: None,
        pod: None,
        netns: None,
    };
    let holder = |id: &str, host_network, own_user| Holder {
        pid: 5,
        name: "sh".to_owned(),
        uid: Some(0),
        scope: Some(scope(id)),
        host_network: Some(host_network),
        own_user: Some(own_user),
    };
    // The last one could reach the host's network, but its capabilities count only in its own user
    // namespace.
    let holders = vec![
        holder("0123456789abcdef", true, false),
        holder("fedcba9876543210", false, false),
        holder("5555555555555555", true, true),
    ];
    let found = processes::group(holders);
    let (on_host, own) = (containers(&found, true), containers(&found, false));
    assert_eq!((on_host.state, own.state), (CheckState::Warning, CheckState::Info));
    assert_eq!(on_host.detail, "docker 0123456789ab (sh)");
    assert_eq!(own.detail, "docker fedcba987654 (sh)");
    let unknown = processes::Found { namespaces_hidden: true, ..processes::Found::default() };
    assert_eq!(containers(&unknown, true).state, CheckState::Info);
    assert_eq!(containers(&processes::Found::default(), true).state, CheckState::Ok);
}

#[test]
fn user_namespace_settings() {
    let open = UserNamespaces { limit: Some(100), unprivileged: Some(1), apparmor: Some(0) };
    let states = [
        (open, CheckState::Info),
        (UserNamespaces { limit: Some(0), ..open }, CheckState::Ok),
        (UserNamespaces { limit: None, ..open }, CheckState::Ok),
        (UserNamespaces { unprivileged: Some(0), ..open }, CheckState::Ok),
        (UserNamespaces { apparmor: Some(1), ..open }, CheckState::Ok),
        (UserNamespaces { unprivileged: None, apparmor: None, ..open }, CheckState::Info),
    ];
    for (settings, state) in states {
        assert_eq!(user_namespaces(&settings).state, state, "{settings:?}");
    }
}

#[test]
fn capabilities_of_pid_1() {
    let state = |text: &str| init_capabilities(text).state;
    assert_eq!(state("CapBnd:\t0000000000002000\nCapAmb:\t0000000000000000\n"), CheckState::Ok);
    assert_eq!(
        state("CapBnd:\t0000000000002000\nCapAmb:\t0000000000002000\n"),
        CheckState::Warning
    );
    assert_eq!(state(""), CheckState::Info);
    assert!(init_capabilities("CapBnd:\t0000000000000000\n").detail.contains("can ever gain"));
}

#[test]
fn ebpf_and_wireshark() {
    assert_eq!(unprivileged_bpf(Some(0)).state, CheckState::Warning);
    assert_eq!(unprivileged_bpf(Some(2)).state, CheckState::Ok);
    assert_eq!(wireshark_group("root:x:0:\n"), None);
    assert_eq!(wireshark_group("wireshark:x:1:\n").unwrap().state, CheckState::Ok);
    let members = wireshark_group("wireshark:x:1:ann,bob\n").unwrap();
    assert_eq!((members.state, members.detail.as_str()), (CheckState::Info, "ann, bob"));
}

#[test]
fn long_lists_are_cut() {
    let items: Vec<_> = (0..LISTED + 3).map(|n| n.to_string()).collect();
    assert!(list(items.into_iter()).unwrap().ends_with(", and 3 more"));
    assert_eq!(list(Vec::new().into_iter()), None);
}

#[test]
fn looks_at_this_machine_in_time() {
    let start = std::time::Instant::now();
    let checks = checks();
    let took = start.elapsed();
    for check in &checks {
        eprintln!("{:?} {}: {}", check.state, check.name, check.detail);
        assert!(!check.detail.is_empty());
    }
    eprintln!("{took:?}");
    assert!(checks.iter().any(|check| check.name == "user namespaces"));
    // The walk has 200 ms; the rest is allowed to be slow on a busy machine.
    assert!(took < Duration::from_secs(5), "{took:?}");
}
