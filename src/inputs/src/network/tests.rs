//! Lines as devices write them (made from their makers' message guides, not recorded).

use super::*;

fn now() -> Timestamp {
    Timestamp::parse("2026-11-24T12:00:00Z").unwrap()
}

/// Host, system, time, user and command of a line.
fn seen(line: &str) -> Option<(String, &'static str, String, String, String)> {
    let decoder = NetworkSyslog::new(now());
    assert!(decoder.sniff(line.as_bytes()), "{line}");
    let mut out = Vec::new();
    let decoded = decoder.decode(line.as_bytes(), &mut out).unwrap();
    let Decoded::From(origin) = decoded else { return None };
    let Kind::Logged { record } = &out[0].kind else { panic!("{out:?}") };
    let text = |name| {
        let value = record.fields.get(name).and_then(Value::as_text);
        value.map_or("-", |text| text.as_str()).to_owned()
    };
    let at = out[0].at.to_string();
    Some((origin.host.to_string(), origin.os.as_str(), at, text("User"), text("CmdSet")))
}

fn expect(line: &str, host: &str, os: &str, at: &str, user: &str, command: &str) {
    let (h, o, a, u, c) = seen(line).unwrap_or_else(|| panic!("nothing seen in {line}"));
    assert_eq!((&*h, o, &*a, &*u, &*c), (host, os, at, user, command), "{line}");
}

#[test]
fn cisco_in_its_many_frames() {
    let text = "%PARSER-5-CFGLOG_LOGGEDCMD: User:admin  logged command:monitor capture CAP start";
    let at = "2026-11-24T02:45:17.123000Z";
    let command = "monitor capture CAP start";
    for (line, host) in [
        (format!("<189>Nov 24 02:45:17.123 rtr1 123: *Nov 24 02:45:17.123: {text}"), "rtr1"),
        (format!("<189>123: rtr1: *Nov 24 02:45:17.123: {text}"), "rtr1"),
        (format!("<189>123: Nov 24 02:45:17.123 UTC: {text}"), "unknown"),
        (format!("*Nov 24 2026 02:45:17.123: {text}"), "unknown"),
        (format!("<189>1 2026-11-24T02:45:17.123Z rtr1 - - - - {text}"), "rtr1"),
        (format!("2026-11-24T02:45:17.123+00:00 rtr1 {text}"), "rtr1"),
    ] {
        expect(&line, host, "cisco", at, "admin", command);
    }
}

#[test]
fn nexus_tacacs_and_that_somebody_configured() {
    expect(
        "2026 Nov 24 02:45:17 nx1 %AAA-6-AAA_ACCOUNTING_MESSAGE: update:10.0.0.5@pts/0:bob:configure terminal ; monitor session 1 (SUCCESS)",
        "nx1",
        "cisco",
        "2026-11-24T02:45:17.000000Z",
        "bob",
        "configure terminal ; monitor session 1",
    );
    for from in ["2001:db8::5@pts/0", "console0"] {
        expect(
            &format!(
                "2026 Nov 24 02:45:17 nx1 %AAA-6-AAA_ACCOUNTING_MESSAGE: update:{from}:bob:monitor session 1 (SUCCESS)"
            ),
            "nx1",
            "cisco",
            "2026-11-24T02:45:17.000000Z",
            "bob",
            "monitor session 1",
        );
    }
    expect(
        "Nov 24 02:45:17\t10.1.1.1\tcarol\ttty2\t10.9.9.9\tstop\ttask_id=7\tservice=shell\tpriv-lvl=15\tcmd=monitor capture point ip cef P Gi0/1 both <cr>",
        "10.1.1.1",
        "cisco",
        "2026-11-24T02:45:17.000000Z",
        "carol",
        "monitor capture point ip cef P Gi0/1 both",
    );
    let (.., user, command) =
        seen("<189>9: r1: Nov 24 02:45:17: %SYS-5-CONFIG_I: Configured from console by dave on vty0 (10.0.0.5)").unwrap();
    assert_eq!((&*user, &*command), ("dave", "Configured from console by dave on vty0 (10.0.0.5)"));
}

#[test]
fn junos_plain_and_structured() {
    for line in [
        "<190>Nov 24 02:45:17 mx1 mgd[4321]: UI_CMDLINE_READ_LINE: User 'erin', command 'monitor traffic interface ge-0/0/0 '",
        "<190>1 2026-11-24T02:45:17.000Z mx1 mgd 4321 UI_CMDLINE_READ_LINE [junos@2636.1.1.1.2.18 username=\"erin\" command=\"monitor traffic interface ge-0/0/0 \"] User 'erin', command 'monitor traffic interface ge-0/0/0 '",
    ] {
        expect(
            line,
            "mx1",
            "juniper",
            "2026-11-24T02:45:17.000000Z",
            "erin",
            "monitor traffic interface ge-0/0/0",
        );
    }
    let (.., command) =
        seen("Nov 24 02:45:17 mx1 mgd[1]: UI_CFG_AUDIT_SET: User 'erin' set: [forwarding-options port-mirroring] <unconfigured> -> \"x\"").unwrap();
    assert!(command.contains("port-mirroring"));
}

#[test]
fn a_time_without_a_year_is_in_the_past() {
    let line = "<189>1: r: Dec 31 23:59:59: %SYS-5-CONFIG_I: Configured from console by x on vty0";
    assert_eq!(seen(line).unwrap().2, "2025-12-31T23:59:59.000000Z");
}

#[test]
fn other_lines_are_told_apart() {
    let decoder = NetworkSyslog::new(now());
    let decode = |line: &str| decoder.decode(line.as_bytes(), &mut Vec::new());
    for line in [
        "<189>1: r: Nov 24 02:45:17: %LINK-3-UPDOWN: Interface Gi0/1, changed state to up",
        "Nov 24 02:45:17 web-1 sshd[1]: 100% UI_ of it: x-5-y",
        "",
        "%",
        "%A-5-B",
        "<189>",
        "\t\t=\t",
        "UI_",
    ] {
        assert_eq!(decode(line), Ok(Decoded::Skipped), "{line}");
    }
    // A command whose time cannot be read is a problem, and no silence.
    assert!(decode("%PARSER-5-CFGLOG_LOGGEDCMD: User:a  logged command:b").is_err());
    assert!(!decoder.sniff(b"Nov 24 02:45:17 web-1 sshd[1]: hello"));
    assert!(!decoder.sniff(b"type=SYSCALL msg=audit(1.2:3): a=b"));
    for at in ["Nov 99 02:45:17", "Nov 24 99:99:99", "Nov 24 2", "Feb 30 00:00:00", "Nov"] {
        let _ = decode(&format!("<1>{at} h %A-5-B: User:a  logged command:b"));
    }
}
