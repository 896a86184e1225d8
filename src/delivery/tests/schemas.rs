//! ECS, OCSF and Falco's JSON against the published schemas: every field that a record has is one of
//! theirs, of their type. The lists here hold the fields that bpfwatch uses and no others; they were
//! written down from the sources that they name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

mod fixtures;

use std::collections::BTreeMap;

use bpfwatch_core::finding::Line;
use bpfwatch_delivery::limit::{Cut, LEAST_LIMIT};
use bpfwatch_delivery::{Ecs, Falco, Format, Limited, Ocsf};
use serde_json::Value;

/// Every line, whole and cut to the least size, as JSON.
fn documents(format: impl Cut + Copy) -> Vec<Value> {
    let limited = Limited::new(format, LEAST_LIMIT);
    let render = |format: &dyn Format, line: &Line| {
        let mut out = Vec::new();
        format.render(line, &mut out);
        serde_json::from_slice(&out).unwrap()
    };
    fixtures::lines()
        .iter()
        .flat_map(|(_, line)| [render(&format, line), render(&limited, line)])
        .collect()
}

/// Fields that ECS calls `date`, `keyword`, `wildcard` or `match_only_text` are strings here.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ecs9 {
    Text,
    Texts,
    Long,
    Bool,
}

/// From `generated/csv/fields.csv` of the Elastic Common Schema, tag v9.4.0.
const ECS: [(&str, Ecs9); 66] = [
    ("@timestamp", Ecs9::Text),
    ("container.id", Ecs9::Text),
    ("container.image.name", Ecs9::Text),
    ("container.runtime", Ecs9::Text),
    ("ecs.version", Ecs9::Text),
    ("event.action", Ecs9::Text),
    ("event.category", Ecs9::Texts),
    ("event.code", Ecs9::Text),
    ("event.dataset", Ecs9::Text),
    ("event.duration", Ecs9::Long),
    ("event.end", Ecs9::Text),
    ("event.id", Ecs9::Text),
    ("event.kind", Ecs9::Text),
    ("event.module", Ecs9::Text),
    ("event.outcome", Ecs9::Text),
    ("event.provider", Ecs9::Text),
    ("event.reason", Ecs9::Text),
    ("event.severity", Ecs9::Long),
    ("event.start", Ecs9::Text),
    ("event.type", Ecs9::Texts),
    ("host.hostname", Ecs9::Text),
    ("host.name", Ecs9::Text),
    ("host.os.platform", Ecs9::Text),
    ("host.os.type", Ecs9::Text),
    ("log.level", Ecs9::Text),
    ("message", Ecs9::Text),
    ("observer.hostname", Ecs9::Text),
    ("observer.ingress.interface.name", Ecs9::Text),
    ("observer.product", Ecs9::Text),
    ("observer.type", Ecs9::Text),
    ("observer.vendor", Ecs9::Text),
    ("observer.version", Ecs9::Text),
    ("orchestrator.namespace", Ecs9::Text),
    ("orchestrator.resource.id", Ecs9::Text),
    ("orchestrator.resource.name", Ecs9::Text),
    ("orchestrator.resource.type", Ecs9::Text),
    ("orchestrator.type", Ecs9::Text),
    ("process.code_signature.exists", Ecs9::Bool),
    ("process.code_signature.signing_id", Ecs9::Text),
    ("process.code_signature.team_id", Ecs9::Text),
    ("process.command_line", Ecs9::Text),
    ("process.executable", Ecs9::Text),
    ("process.hash.cdhash", Ecs9::Text),
    ("process.name", Ecs9::Text),
    ("process.parent.command_line", Ecs9::Text),
    ("process.parent.executable", Ecs9::Text),
    ("process.parent.name", Ecs9::Text),
    ("process.parent.pid", Ecs9::Long),
    ("process.pid", Ecs9::Long),
    ("process.user.id", Ecs9::Text),
    ("process.user.name", Ecs9::Text),
    ("process.working_directory", Ecs9::Text),
    ("related.user", Ecs9::Texts),
    ("rule.author", Ecs9::Texts),
    ("rule.id", Ecs9::Text),
    ("rule.license", Ecs9::Text),
    ("rule.name", Ecs9::Text),
    ("tags", Ecs9::Texts),
    ("threat.framework", Ecs9::Text),
    ("threat.tactic.id", Ecs9::Texts),
    ("threat.tactic.name", Ecs9::Texts),
    ("threat.technique.id", Ecs9::Texts),
    ("threat.technique.name", Ecs9::Texts),
    ("threat.technique.subtechnique.id", Ecs9::Texts),
    ("user.id", Ecs9::Text),
    ("user.name", Ecs9::Text),
];

fn check_ecs(path: &str, value: &Value, fields: &BTreeMap<&str, Ecs9>) {
    match (fields.get(path), value) {
        (None, Value::Object(inner)) => {
            for (key, value) in inner {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                // What ECS does not have: a name of our own, as its guidelines for custom fields ask.
                if path != "bpfwatch" {
                    check_ecs(&path, value, fields);
                }
            }
        }
        (Some(Ecs9::Text), Value::String(_)) | (Some(Ecs9::Bool), Value::Bool(_)) => {}
        (Some(Ecs9::Texts), Value::Array(list)) => assert!(list.iter().all(Value::is_string)),
        (Some(Ecs9::Long), Value::Number(number)) if number.is_i64() || number.is_u64() => {}
        (kind, value) => panic!("{path}: {value} is no {kind:?}"),
    }
}

#[test]
fn ecs_has_only_fields_of_its_version() {
    let fields = BTreeMap::from(ECS);
    for document in documents(Ecs) {
        check_ecs("", &document, &fields);
        assert_eq!(document["ecs"]["version"], bpfwatch_delivery::ecs::VERSION);
        let kind = document["event"]["kind"].as_str().unwrap();
        // Allowed values of event.kind that fit.
        assert!(["alert", "event", "metric", "state"].contains(&kind), "{kind}");
        // A text that was cut or had bad bytes is a plain string too: mappings demand one type.
        assert_texts_are_plain(&document);
    }
}

fn assert_texts_are_plain(value: &Value) {
    match value {
        Value::Object(inner) => {
            assert!(!(inner.contains_key("text") && inner.contains_key("escaped")), "{value}");
            inner.values().for_each(assert_texts_are_plain);
        }
        Value::Array(list) => list.iter().for_each(assert_texts_are_plain),
        _ => {}
    }
}

#[test]
fn a_finding_in_ecs_says_what_detection_engines_ask_for() {
    let document = &documents(Ecs)[0];
    assert_eq!(document["event"]["kind"], "alert");
    assert_eq!(document["threat"]["technique"]["id"][0], "T1040");
    assert_eq!(document["observer"]["ingress"]["interface"]["name"], "lo");
    assert_eq!(document["orchestrator"]["namespace"], "shop");
    assert_eq!(document["orchestrator"]["resource"]["name"], "web-7d9f");
    assert_eq!(document["container"]["runtime"], "containerd");
    assert_eq!(document["process"]["parent"]["executable"], "/usr/bin/bash");
    assert_eq!(document["rule"]["license"], "DRL-1.1");
}

/// Types of OCSF attributes.
#[derive(Debug, Clone, Copy)]
enum Type {
    /// `string_t` and what is derived from it.
    S,
    /// `integer_t`, `long_t`, `timestamp_t`.
    I,
    /// `boolean_t`.
    B,
    /// `json_t` and `object`: anything.
    A,
    /// An object by name.
    O(&'static str),
    /// A list.
    L(&'static Type),
}

use Type::{A, B, I, L, O, S};

/// Name, attributes, required ones, and those of which one at least is needed.
type Object = (
    &'static str,
    &'static [(&'static str, Type)],
    &'static [&'static str],
    &'static [&'static str],
);

/// From the sources of the Open Cybersecurity Schema Framework, version 1.8.0: classes with the
/// attributes of their base, without those of profiles.
#[rustfmt::skip]
const OCSF: [Object; 22] = [
    ("analytic", &[
        ("name", S),
        ("type", S),
        ("type_id", I),
        ("uid", S),
    ], &["type_id"], &["name", "uid"]),
    ("application_error", &[
        ("activity_id", I),
        ("activity_name", S),
        ("category_name", S),
        ("category_uid", I),
        ("class_name", S),
        ("class_uid", I),
        ("device", O("device")),
        ("message", S),
        ("metadata", O("metadata")),
        ("severity", S),
        ("severity_id", I),
        ("status", S),
        ("status_code", S),
        ("status_detail", S),
        ("status_id", I),
        ("time", I),
        ("type_name", S),
        ("type_uid", I),
        ("unmapped", A),
    ], &["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"], &[]),
    ("application_lifecycle", &[
        ("activity_id", I),
        ("activity_name", S),
        ("app", O("product")),
        ("category_name", S),
        ("category_uid", I),
        ("class_name", S),
        ("class_uid", I),
        ("device", O("device")),
        ("message", S),
        ("metadata", O("metadata")),
        ("severity", S),
        ("severity_id", I),
        ("status", S),
        ("status_id", I),
        ("time", I),
        ("type_name", S),
        ("type_uid", I),
        ("unmapped", A),
    ], &["activity_id", "app", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"], &[]),
    ("attack", &[
        ("sub_technique", O("sub_technique")),
        ("tactic", O("tactic")),
        ("technique", O("technique")),
    ], &[], &["sub_technique", "tactic", "technique"]),
    ("container", &[
        ("image", O("image")),
        ("orchestrator", S),
        ("pod_uuid", S),
        ("runtime", S),
        ("uid", S),
    ], &[], &["uid"]),
    ("detection_finding", &[
        ("activity_id", I),
        ("activity_name", S),
        ("category_name", S),
        ("category_uid", I),
        ("class_name", S),
        ("class_uid", I),
        ("count", I),
        ("device", O("device")),
        ("duration", I),
        ("end_time", I),
        ("evidences", L(&O("evidences"))),
        ("finding_info", O("finding_info")),
        ("is_alert", B),
        ("message", S),
        ("metadata", O("metadata")),
        ("remediation", O("remediation")),
        ("severity", S),
        ("severity_id", I),
        ("start_time", I),
        ("status", S),
        ("status_id", I),
        ("time", I),
        ("type_name", S),
        ("type_uid", I),
        ("unmapped", A),
    ], &["activity_id", "category_uid", "class_uid", "finding_info", "metadata", "severity_id", "time", "type_uid"], &[]),
    ("device", &[
        ("hostname", S),
        ("interface_name", S),
        ("os", O("os")),
        ("type", S),
        ("type_id", I),
    ], &["type_id"], &["hostname", "interface_name"]),
    ("evidences", &[
        ("container", O("container")),
        ("data", A),
        ("file", O("file")),
        ("name", S),
        ("process", O("process")),
    ], &[], &["data", "file", "process"]),
    ("file", &[
        ("is_deleted", B),
        ("name", S),
        ("path", S),
        ("type_id", I),
    ], &["name", "type_id"], &["name"]),
    ("finding_info", &[
        ("analytic", O("analytic")),
        ("attacks", L(&O("attack"))),
        ("created_time", I),
        ("first_seen_time", I),
        ("last_seen_time", I),
        ("related_analytics", L(&O("analytic"))),
        ("related_events", L(&O("related_event"))),
        ("title", S),
        ("uid", S),
        ("uid_alt", S),
    ], &["uid"], &[]),
    ("image", &[
        ("name", S),
        ("uid", S),
    ], &["uid"], &["name", "uid"]),
    ("metadata", &[
        ("correlation_uid", S),
        ("event_code", S),
        ("is_truncated", B),
        ("original_time", S),
        ("product", O("product")),
        ("profiles", L(&S)),
        ("uid", S),
        ("untruncated_size", I),
        ("version", S),
    ], &["product", "version"], &[]),
    ("os", &[
        ("name", S),
        ("type", S),
        ("type_id", I),
    ], &["name", "type_id"], &[]),
    ("process", &[
        ("ancestry", L(&O("process_entity"))),
        ("cmd_line", S),
        ("file", O("file")),
        ("name", S),
        ("parent_process", O("process")),
        ("path", S),
        ("pid", I),
        ("user", O("user")),
        ("working_directory", S),
        ("xattributes", A),
    ], &[], &["pid"]),
    ("process_entity", &[
        ("cmd_line", S),
        ("name", S),
        ("path", S),
        ("pid", I),
    ], &[], &["cmd_line", "name", "path", "pid"]),
    ("product", &[
        ("name", S),
        ("vendor_name", S),
        ("version", S),
    ], &[], &["name"]),
    ("related_event", &[
        ("type_uid", I),
        ("uid", S),
    ], &["uid"], &[]),
    ("remediation", &[
        ("desc", S),
    ], &["desc"], &[]),
    ("sub_technique", &[
        ("name", S),
        ("uid", S),
    ], &[], &["name", "uid"]),
    ("tactic", &[
        ("name", S),
        ("uid", S),
    ], &[], &["name", "uid"]),
    ("technique", &[
        ("name", S),
        ("uid", S),
    ], &[], &["name", "uid"]),
    ("user", &[
        ("name", S),
        ("uid", S),
    ], &[], &["name", "uid"]),
];

fn check_ocsf(name: &str, value: &Value) {
    let (_, fields, required, one_of) =
        OCSF.iter().find(|(object, ..)| *object == name).expect(name);
    let inner = value.as_object().unwrap_or_else(|| panic!("{name}: {value}"));
    for (key, value) in inner {
        let kind = fields.iter().find(|(field, _)| field == key);
        let (_, kind) = kind.unwrap_or_else(|| panic!("{name} has no `{key}`"));
        check_type(&format!("{name}.{key}"), value, *kind);
    }
    for key in *required {
        assert!(inner.contains_key(*key), "{name} needs `{key}`: {value}");
    }
    assert!(
        one_of.is_empty() || one_of.iter().any(|key| inner.contains_key(*key)),
        "{name} needs one of {one_of:?}: {value}"
    );
}

fn check_type(path: &str, value: &Value, kind: Type) {
    let fits = match kind {
        S => value.is_string(),
        I => value.is_i64() || value.is_u64(),
        B => value.is_boolean(),
        A => true,
        O(name) => {
            check_ocsf(name, value);
            true
        }
        L(inner) => {
            value.as_array().expect(path).iter().for_each(|item| check_type(path, item, *inner));
            true
        }
    };
    assert!(fits, "{path}: {value} is no {kind:?}");
}

#[test]
fn ocsf_has_only_attributes_of_its_version() {
    for document in documents(Ocsf) {
        let class = match document["class_uid"].as_u64().unwrap() {
            2004 => "detection_finding",
            6002 => "application_lifecycle",
            6008 => "application_error",
            other => panic!("class {other}"),
        };
        check_ocsf(class, &document);
        let number = |key: &str| document[key].as_u64().unwrap();
        assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"));
        assert_eq!(number("class_uid") / 1000, number("category_uid"));
        assert!((1..=5).contains(&number("severity_id")));
        assert_eq!(document["metadata"]["version"], bpfwatch_delivery::ocsf::VERSION);
        assert_texts_are_plain(&document);
    }
}

#[test]
fn a_finding_in_ocsf_keeps_its_ids_and_says_what_has_no_field() {
    let finding = fixtures::full();
    let document = &documents(Ocsf)[0];
    assert_eq!(document["metadata"]["uid"], finding.id);
    assert_eq!(document["finding_info"]["uid"], finding.session.as_ref().unwrap().id);
    assert_eq!(document["finding_info"]["attacks"][0]["technique"]["uid"], "T1040");
    assert_eq!(document["unmapped"]["session"]["promiscuous"], true);
    assert_eq!(document["device"]["interface_name"], "lo");
    // From Create to Close it is one finding.
    let close =
        documents(Ocsf).into_iter().find(|document| document["activity_name"] == "Close").unwrap();
    assert_eq!(close["finding_info"]["uid"], document["finding_info"]["uid"]);
}

/// Falcosidekick at commit 8807ab7 (2026-08-16): `FalcoPayload` and `Check` in types/types.go,
/// priorities in types/priority.go, assertions on strings in handlers.go.
#[test]
fn falcosidekick_takes_every_record() {
    for document in documents(Falco) {
        let text = |key: &str| document[key].as_str().unwrap_or_else(|| panic!("{key}"));
        let priorities = ["Informational", "Notice", "Warning", "Error", "Critical"];
        assert!(priorities.contains(&text("priority")), "{document}");
        assert!(!text("rule").is_empty() && !text("output").is_empty());
        assert!(!text("source").is_empty() && !text("hostname").is_empty());
        // Go reads RFC 3339 into time.Time, and refuses the zero time.
        bpfwatch_core::time::Timestamp::parse(text("time")).unwrap();
        let fields = document["output_fields"].as_object().unwrap();
        assert!(!fields.is_empty());
        for key in ["k8s.ns.name", "k8s.pod.name"] {
            assert!(fields.get(key).is_none_or(Value::is_string));
        }
        let known =
            ["hostname", "output", "output_fields", "priority", "rule", "source", "tags", "time"];
        assert!(document.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())));
        if let Some(tags) = document.get("tags") {
            assert!(tags.as_array().unwrap().iter().all(Value::is_string));
        }
        // `HH:MM:SS.n: Priority text`, by which Falcosidekick takes the output apart.
        let (clock, rest) = text("output").split_once(": ").unwrap();
        assert!(
            clock.bytes().all(|byte| byte.is_ascii_digit() || b":.".contains(&byte)),
            "{clock}"
        );
        assert!(fields.contains_key("bpfwatch.cut") || rest.starts_with(text("priority")));
    }
}
