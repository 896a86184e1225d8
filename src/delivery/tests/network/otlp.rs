//! OTLP: what a record carries, and partial success.

use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::http::Setup;
use bpfwatch_delivery::otlp::proto::{
    Any, ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse, KeyValue,
};
use prost::Message;

use crate::fixtures;
use crate::harness::{Dir, finding, otlp, setup, state, until};
use crate::receiver::{Receiver, Reply};

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Any::String(text) => Some(text.clone()),
        Any::Int(number) => Some(number.to_string()),
        Any::Bool(yes) => Some(yes.to_string()),
        other => Some(format!("{other:?}")),
    }
}

#[test]
fn otlp_carries_severity_body_attributes_and_resource() {
    let (dir, receiver) = (Dir::new("otlp"), Receiver::good());
    let setup = Setup { gzip: true, ..setup(receiver.url("")) };
    let mut sink = otlp(&dir, &setup);
    sink.write(&finding(1)).unwrap();
    until("it", || state(&sink).waiting == 0);
    let request = &receiver.requests()[0];
    assert_eq!(request.line, "POST /v1/logs HTTP/1.1");
    assert_eq!(request.headers["content-type"], "application/x-protobuf");
    assert_eq!(request.headers["content-encoding"], "gzip");
    let export = ExportLogsServiceRequest::decode(&request.content()[..]).unwrap();
    let [logs] = &export.resource_logs[..] else { panic!("{export:?}") };
    let resource = &logs.resource.as_ref().unwrap().attributes;
    for (key, value) in
        [("service.name", "bpfwatch"), ("host.name", "web-1"), ("os.type", "darwin")]
    {
        assert_eq!(text(resource, key).as_deref(), Some(value));
    }
    let [record] = &logs.scope_logs[0].log_records[..] else { panic!("{export:?}") };
    assert_eq!((record.severity_number, record.severity_text.as_str()), (17, "high"));
    assert_eq!(record.event_name, "bpfwatch.finding");
    assert_eq!(record.time_unix_nano, 1_795_488_317_138_456_000);
    assert!(record.observed_time_unix_nano > record.time_unix_nano / 2);
    let Some(Any::String(body)) = &record.body.as_ref().unwrap().value else {
        panic!("{record:?}")
    };
    assert!(body.starts_with("Packet capture inside a container: "), "{body}");
    for (key, value) in [
        ("log.record.uid", "id-1"),
        ("bpfwatch.seq", "1"),
        ("process.pid", "4242"),
        ("process.executable.path", "/tmp/.cache/tcpdump"),
        ("security_rule.name", "Packet capture inside a container"),
        ("bpfwatch.rule.level", "high"),
        ("bpfwatch.session.promiscuous", "true"),
        ("bpfwatch.session.handle.interface", "lo"),
        ("bpfwatch.scope.kind", "container"),
    ] {
        assert_eq!(text(&record.attributes, key).as_deref(), Some(value), "{key}");
    }
    let mut keys: Vec<_> = record.attributes.iter().map(|attribute| &attribute.key).collect();
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all, "keys of attributes are unique");
}

#[test]
fn every_conventional_name_is_of_a_field_that_exists() {
    let mut known = std::collections::BTreeSet::new();
    fn walk(path: &str, value: &serde_json::Value, known: &mut std::collections::BTreeSet<String>) {
        if let Some(fields) = value.as_object() {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, value, known);
            }
        }
        known.insert(path.to_owned());
    }
    for (_, line) in fixtures::lines() {
        walk("", &serde_json::to_value(&line).unwrap(), &mut known);
    }
    for (native, _) in bpfwatch_delivery::otlp::attributes::NAMES {
        assert!(known.contains(native), "{native}");
    }
}

#[test]
fn a_partial_success_of_otlp_is_counted_and_not_sent_again() {
    let dir = Dir::new("partial");
    let receiver = Receiver::start(|_| {
        let partial = ExportLogsPartialSuccess {
            rejected_log_records: 1,
            error_message: "too old".to_owned(),
        };
        let response = ExportLogsServiceResponse { partial_success: Some(partial) };
        Reply::Status(200, Vec::new(), response.encode_to_vec())
    });
    let mut sink = otlp(&dir, &setup(receiver.url("")));
    sink.write(&finding(1)).unwrap();
    until("it", || state(&sink).waiting == 0);
    let state = state(&sink);
    assert_eq!((state.delivered, state.lost), (0, 1), "{state:?}");
    assert!(state.trouble.unwrap().contains("too old"));
    assert_eq!(receiver.requests().len(), 1);
}
