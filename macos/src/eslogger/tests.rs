//! Lines made from the documented layout; nobody has published an open of /dev/bpf.

use bpfwatch_core::handle::HandleKind;
use bpfwatch_core::observation::Kind;
use serde_json::{Value, json};

use super::*;

fn token(pid: u32, pidversion: u32) -> Value {
    json!({"auid": 501, "euid": 0, "egid": 0, "ruid": 501, "rgid": 20, "pid": pid, "asid": 100_003,
           "pidversion": pidversion})
}

fn file(path: &str) -> Value {
    json!({"path": path, "path_truncated": false, "stat": {"st_uid": 0, "st_mode": 33261}})
}

fn process(pid: u32, pidversion: u32, path: &str) -> Value {
    json!({
        "ppid": 400, "original_ppid": 400, "group_id": pid, "session_id": 400,
        "codesigning_flags": 0x2600_0001u32, "is_platform_binary": true, "is_es_client": false,
        "cdhash": "FEDCBA98765432100123456789ABCDEF00000000", "signing_id": "com.apple.tcpdump",
        "team_id": null, "start_time": "2026-11-24T02:45:00.000001Z",
        "tty": file("/dev/ttys001"), "executable": file(path), "audit_token": token(pid, pidversion),
        "parent_audit_token": token(400, 900), "responsible_audit_token": token(300, 700),
    })
}

fn record(version: u32, event: Value) -> Value {
    json!({
        "schema_version": 1, "version": version, "time": "2026-11-24T02:45:17.123456789Z",
        "mach_time": 1_000_000_002u64, "event_type": 10, "action_type": 1, "seq_num": 1,
        "action": {"result": {"result_type": 0, "result": {"auth": 0}}},
        "global_seq_num": 8, "thread": {"thread_id": 900_002},
        "process": process(4343, 9001, "/usr/sbin/tcpdump"), "event": event,
    })
}

fn decode(record: &Value) -> Result<Option<Observation>, LineError> {
    let mut out = Vec::new();
    let decoded = Eslogger::default().decode(record.to_string().as_bytes(), &mut out)?;
    assert_eq!(decoded == Decoded::Skipped, out.is_empty());
    assert!(out.len() < 2);
    Ok(out.pop())
}

fn kind(event: Value) -> Option<Kind> {
    decode(&record(10, event)).unwrap().map(|observation| observation.kind)
}

#[test]
fn an_exec_shows_the_new_process_and_never_the_environment() {
    let mut target = process(4343, 9002, "/usr/sbin/tcpdump");
    for version in 7..=11 {
        if version == 10 {
            target["audit_token"] = json!([501, 0, 0, 501, 20, 4343, 100_003, 9002]);
            target["responsible_audit_token"] = json!([501, 501, 20, 501, 20, 300, 100_003, 700]);
        }
        let observation = decode(&record(
            version,
            json!({"exec": {
                "target": target, "args": ["tcpdump", "-i", "en0", "p\u{e4}\n"],
                "env": ["SECRET_TOKEN=hunter2"], "fds": [{"fd": 0, "fdtype": 1}], "script": null,
                "cwd": file("/private/tmp"), "last_fd": 3, "image_cputype": 16_777_228,
            }}),
        ))
        .unwrap()
        .unwrap();
        assert_eq!(observation.kind, Kind::Executed);
        assert_eq!(observation.at.to_string(), "2026-11-24T02:45:17.123456789Z");
        let actor = observation.actor.as_ref().unwrap();
        let key = actor.key();
        assert_eq!(
            (key.pid, key.start, actor.ppid, actor.sid),
            (4343, Some(9002), Some(400), Some(400))
        );
        let responsible = actor.responsible.as_ref().unwrap();
        assert_eq!((responsible.pid, responsible.start), (300, Some(700)));
        assert_eq!((actor.uid, actor.image_owner), (Some(0), Some(0)));
        assert_eq!(actor.image, Some("/usr/sbin/tcpdump".into()));
        assert_eq!(actor.args.as_ref().unwrap().command_line(), "tcpdump -i en0 pä\n");
        assert_eq!(actor.cwd, Some("/private/tmp".into()));
        assert_eq!(actor.tty, Some("/dev/ttys001".into()));
        let identity = actor.identity.as_ref().unwrap();
        assert_eq!(identity.signing_id, Some("com.apple.tcpdump".into()));
        assert_eq!(identity.cdhash, Some("fedcba98765432100123456789abcdef00000000".into()));
        assert_eq!((&identity.team_id, identity.platform_binary), (&None, Some(true)));
        let json = serde_json::to_string(&observation).unwrap();
        assert!(!json.contains("hunter2") && !json.contains("SECRET"), "{json}");
        assert!(!format!("{observation:?}").contains("hunter2"));
    }
}

#[test]
fn a_bpf_device_opened_and_closed() {
    let opened = kind(json!({"open": {"fflag": 1, "file": file("/dev/bpf3")}}));
    let Some(Kind::HandleOpened { handle, pre_existing: false }) = opened else {
        panic!("{opened:?}")
    };
    assert_eq!((handle.kind, handle.id), (HandleKind::Bpf, 3));
    let close = json!({"close": {"modified": false, "target": file("/dev/bpf3"),
                                 "was_mapped_writable": false}});
    assert_eq!(kind(close), Some(Kind::HandleReleased { handle }));
    assert_eq!(kind(json!({"open": {"fflag": 1, "file": file("/etc/hosts")}})), None);
}

#[test]
fn descent_and_end() {
    let child = process(4400, 9100, "/bin/zsh");
    let forked = decode(&record(9, json!({"fork": {"child": child}}))).unwrap().unwrap();
    assert_eq!((forked.kind, forked.actor.unwrap().pid), (Kind::Forked, 4400));
    let ended = decode(&record(9, json!({"exit": {"stat": 256}}))).unwrap().unwrap();
    assert_eq!((ended.kind, ended.actor.unwrap().pid), (Kind::Exited, 4343));
}

#[test]
fn wider_access_to_a_device() {
    let mode = json!({"setmode": {"mode": 0o660, "target": file("/dev/bpf0")}});
    let Some(Kind::AccessLoosened { mode: Some(0o660), .. }) = kind(mode) else { panic!("mode") };
    for unchanged in [json!(-1), json!(4_294_967_295u32)] {
        let group =
            json!({"setowner": {"uid": unchanged, "gid": 501, "target": file("/dev/bpf0")}});
        let Some(Kind::AccessLoosened { uid: None, gid: Some(501), .. }) = kind(group) else {
            panic!("group")
        };
    }
}

#[test]
fn what_is_not_wanted_is_skipped() {
    assert_eq!(kind(json!({"xp_malware_detected": {"signature_version": "2"}})), None);
    assert_eq!(kind(json!({})), None);
    let open = || json!({"open": {"fflag": 3, "file": file("/dev/bpf0")}});
    let mut attempt = record(10, open());
    attempt["action_type"] = json!(0);
    assert_eq!(decode(&attempt), Ok(None));
    for denied in [json!({"auth": 1}), json!({"flags": 0})] {
        let mut refused = record(10, open());
        refused["action"] = json!({"result": {"result_type": 1, "result": denied}});
        assert_eq!(decode(&refused), Ok(None));
    }
}

#[test]
fn little_is_enough_and_unknown_stays_unknown() {
    let bare = json!({"time": "2026-11-24T02:45:17Z", "event": {"open": {"file": {"path": "/dev/bpf0"}}},
                      "process": {"audit_token": [0, 501, 0, 0, 0, 7, 0, 8]}});
    let observation = decode(&bare).unwrap().unwrap();
    let json = serde_json::to_value(&observation).unwrap();
    assert_eq!(json["process"], json!({"pid": 7, "start": 8, "uid": 501}));
    let mut unsigned = record(9, json!({"exit": {"stat": 0}}));
    unsigned["process"]["cdhash"] = json!("0000000000000000000000000000000000000000");
    unsigned["process"]["signing_id"] = json!("");
    unsigned["process"]["codesigning_flags"] = json!(0);
    unsigned["process"]["tty"] = json!("/dev/ttys002");
    unsigned["process"]["session_id"] = json!(-1);
    let actor = decode(&unsigned).unwrap().unwrap().actor.unwrap();
    let identity = actor.identity.as_ref().unwrap();
    assert_eq!((&identity.signing_id, &identity.cdhash), (&None, &None));
    assert_eq!((actor.tty.as_ref().unwrap().as_str(), actor.sid), ("/dev/ttys002", None));
}

#[test]
fn a_truncated_path_is_marked() {
    let mut long = record(9, json!({"exit": {"stat": 0}}));
    long["process"]["executable"]["path_truncated"] = json!(true);
    let image = decode(&long).unwrap().unwrap().actor.unwrap().image.clone().unwrap();
    assert!(image.is_cut());
    assert_eq!(image.as_str(), "/usr/sbin/tcpdump");
}

#[test]
fn says_what_is_wrong() {
    let wrong = |record: &Value| decode(record).unwrap_err().to_string();
    let mut other = record(9, json!({"exit": {"stat": 0}}));
    other["schema_version"] = json!(2);
    assert_eq!(wrong(&other), "eslogger schema_version 2, only 1 is known");
    other["schema_version"] = json!(1);
    other["process"]["audit_token"] = json!([1, 2, 3]);
    assert!(
        wrong(&other).contains("invalid length 3, expected an audit token"),
        "{}",
        wrong(&other)
    );
    other["process"].as_object_mut().unwrap().remove("audit_token");
    assert!(wrong(&other).contains("missing field `audit_token`"));
    let mut out = Vec::new();
    let cut = Eslogger::default().decode(br#"{"schema_version":1,"ti"#, &mut out).unwrap_err();
    assert!(cut.to_string().starts_with("cut short"));
    assert!(out.is_empty());
}

#[test]
fn is_recognised_whatever_the_order_of_keys() {
    let eslogger = Eslogger::default();
    let line = record(10, json!({"exit": {"stat": 0}})).to_string();
    assert!(eslogger.sniff(line.as_bytes()));
    assert!(eslogger.sniff(br#"{"mach_time" : 1, "event_type" : 9"#));
    assert!(!eslogger.sniff(
        br#"{"type":"observation","process":{"args":["\"mach_time\"","\"audit_token\""]}}"#
    ));
    assert!(!eslogger.sniff(b"mach_time audit_token"));
}

#[test]
fn a_member_of_a_group_in_each_form() {
    let member = |member: Value| {
        let add = json!({"od_group_add": {
            "instigator": null, "error_code": 0, "group_name": "access_bpf", "member": member,
        }});
        let Some(Kind::AccessLoosened { member, .. }) = kind(add) else { panic!("not said") };
        member.map(|text| text.as_str().to_owned())
    };
    let id = "ABCDEFAB-CDEF-ABCD-0001-020304050607";
    for (value, wanted) in [
        (json!({"name": "eve"}), Some("eve")),
        (json!({"uuid": id}), Some(id)),
        (json!("eve"), Some("eve")),
        (json!({"name": ""}), None),
        (json!(7), None),
    ] {
        assert_eq!(member(json!({"member_type": 0, "member_value": value})).as_deref(), wanted);
    }
    assert_eq!(member(Value::Null), None);
}

#[test]
fn what_opens_the_way_for_others_is_said_of_who_asked_for_it() {
    let add = |error: i32, instigator: Value| {
        decode(&record(
            8,
            json!({"od_group_add": {
                "instigator": instigator, "error_code": error, "group_name": "access_bpf",
                "member": {"member_type": 0, "member_value": {"name": "eve"}},
                "node_name": "/Local/Default", "db_path": null,
            }}),
        ))
        .unwrap()
    };
    let asked = add(0, process(77, 770, "/usr/sbin/dseditgroup")).unwrap();
    let Kind::AccessLoosened { member, .. } = asked.kind else { panic!("{asked:?}") };
    assert_eq!(member, Some("eve".into()));
    assert_eq!(asked.actor.unwrap().pid, 77);
    assert_eq!(add(0, Value::Null).unwrap().actor.unwrap().pid, 4343);
    assert_eq!(add(1, Value::Null), None);
    let removed = json!({"profile_remove": {
        "instigator": null, "profile": {"identifier": "io.github.bpfwatch", "uuid": "x"},
    }});
    assert!(matches!(kind(removed), Some(Kind::Lost { .. })));
}
