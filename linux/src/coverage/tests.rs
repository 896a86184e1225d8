//! What each answer makes of its check.

use bpfwatch_core::platform::Ebpf as Wanted;

use super::*;
use crate::capability::Capabilities;
use crate::ebpf::load::{Hook, Loaded};

/// Root on an ordinary host.
fn host() -> Probe {
    Probe {
        kernel: "6.1.0".to_owned(),
        effective: Capabilities(u64::MAX),
        initial_pid: true,
        initial_user: true,
        host_network: Some(true),
        packet_diag: Ok(2),
        packet_table: true,
        raw_diag: Ok(0),
        raw_table: true,
        links: Ok(3),
        connector: Ok(()),
        beyond: beyond::tests::host(),
        ebpf: Ok((Hook::Tracepoints, vec!["fentry and fexit: EPERM".to_owned()])),
        hide_pid: HidePid::Off,
        processes: 80,
        hidden: Vec::new(),
        namespaces: 4,
        namespaces_reached: 4,
        namespaces_unknown: 0,
    }
}

fn blind(probe: &Probe) -> Vec<String> {
    let checks = from_probe(probe);
    checks.into_iter().filter(|c| c.state == CheckState::Blind).map(|c| c.name).collect()
}

fn state(probe: &Probe, name: &str) -> CheckState {
    let checks = from_probe(probe);
    checks.iter().find(|check| check.name == name).expect("no such check").state
}

#[test]
fn root_on_a_host_sees_all_that_can_be_seen() {
    let checks = from_probe(&host());
    assert!(checks.iter().all(|check| check.state <= CheckState::Info), "{checks:?}");
    let gaps = checks.iter().filter(|check| check.name.starts_with("not seen: ")).count();
    assert_eq!(gaps, GAPS.len());
}

#[test]
fn without_events_the_blind_spots_of_looks_are_named() {
    let with = from_probe(&host());
    let event = |checks: &[Check]| checks.iter().find(|c| c.name == "events at once").cloned();
    assert!(event(&with).is_some_and(|check| check.detail.contains("raw tracepoints")));
    let probe = Probe { ebpf: Err(LoadError::NoBtf("no such file".to_owned())), ..host() };
    let without = from_probe(&probe);
    assert_eq!(event(&without).map(|check| check.state), Some(CheckState::Warning));
    let named = |checks: &[Check]| checks.iter().any(|c| c.name.contains("short-lived"));
    assert!(named(&without) && !named(&with));
    let off = from_probe(&Probe { ebpf: Err(LoadError::Off), ..host() });
    let mend = event(&off).and_then(|check| check.mend);
    assert!(mend.as_deref().is_some_and(|mend| mend.contains("ebpf = \"auto\"")), "{mend:?}");
}

#[test]
fn a_sensor_that_is_switched_off_is_not_tried_for_its_coverage() {
    assert_eq!(Loaded::new(Wanted::Off, 64).err(), Some(LoadError::Off));
    assert_eq!(Probe::take().ebpf, Err(LoadError::Off));
}

#[test]
fn a_user_is_told_what_is_missing() {
    let probe = Probe {
        effective: Capabilities(0),
        connector: Err(Errno::EPERM),
        hidden: (2..80).collect(),
        namespaces: 1,
        namespaces_reached: 1,
        namespaces_unknown: 78,
        ..host()
    };
    let blind = blind(&probe);
    for name in [
        "CAP_SYS_PTRACE",
        "CAP_NET_ADMIN",
        "holders of sockets",
        "network namespaces",
        "executions",
    ] {
        assert!(blind.iter().any(|one| one == name), "{name} is not in {blind:?}");
    }
    let checks = from_probe(&probe);
    let unmended = checks.iter().filter(|c| c.state == CheckState::Blind && c.mend.is_none());
    assert_eq!(unmended.count(), 0, "{checks:?}");
}

#[test]
fn one_process_with_more_capabilities_is_a_warning() {
    let probe = Probe { hidden: vec![1], namespaces_unknown: 1, ..host() };
    assert_eq!(state(&probe, "holders of sockets"), CheckState::Warning);
    assert_eq!(state(&probe, "network namespaces"), CheckState::Ok);
}

#[test]
fn kernels_without_diag_fall_back_to_proc() {
    let probe = Probe { packet_diag: Err(Errno::ENOENT), raw_diag: Err(Errno::ENOENT), ..host() };
    assert_eq!(state(&probe, "packet sockets"), CheckState::Warning);
    assert_eq!(state(&probe, "raw IP sockets"), CheckState::Ok);
    let neither = Probe { packet_table: false, raw_table: false, ..probe };
    assert_eq!(state(&neither, "packet sockets"), CheckState::Blind);
    assert_eq!(state(&neither, "raw IP sockets"), CheckState::Blind);
}

#[test]
fn inside_a_container_the_host_is_not_seen() {
    let inside = Probe { initial_pid: false, ..host() };
    assert_eq!(blind(&inside), ["place", "executions"]);
    // Its capabilities do not count on the host.
    let rootless = Probe { initial_user: false, hidden: vec![1], ..host() };
    let names = NEEDED.map(|(_, name, ..)| name);
    let rest = ["holders of sockets", "executions"];
    assert_eq!(blind(&rootless), [&["place"], &names[..], &rest].concat());
    let own_network =
        Probe { host_network: Some(false), connector: Err(Errno::ECONNREFUSED), ..host() };
    assert_eq!(blind(&own_network), ["place", "executions"]);
}

#[test]
fn hidepid_hides_only_from_who_may_not_trace() {
    let hidden = Probe { hide_pid: HidePid::On("hidepid=2".to_owned()), ..host() };
    assert_eq!(state(&hidden, "holders of sockets"), CheckState::Ok);
    let user = Probe { effective: Capabilities(0), ..hidden };
    assert_eq!(state(&user, "holders of sockets"), CheckState::Blind);
}
