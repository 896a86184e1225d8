//! The files of `deploy/`: they parse, hold together, and name only fields that OTLP output has.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fixtures;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bpfwatch_delivery::otlp::proto::LogRecord;
use bpfwatch_delivery::{Format, OtlpRecord};
use prost::Message;
use serde_json::Value;

fn text(name: &str) -> String {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    fs::read_to_string(deploy.join(name)).unwrap()
}

/// Attributes of records, with those that the transport adds (see `otlp/mod.rs`).
fn attributes() -> BTreeSet<String> {
    let mut known: BTreeSet<String> =
        ["log.record.uid", "bpfwatch.seq"].into_iter().map(str::to_owned).collect();
    for (_, line) in fixtures::lines() {
        let mut bytes = Vec::new();
        OtlpRecord.render(&line, &mut bytes);
        let record = LogRecord::decode(&bytes[..]).unwrap();
        known.extend(record.attributes.into_iter().map(|attribute| attribute.key));
    }
    known
}

const RESOURCE: [&str; 5] =
    ["service.name", "service.version", "host.name", "os.type", "bpfwatch.stream"];

/// Whatever stands between `begin` and `end` in a text.
fn between<'a>(text: &'a str, begin: &str, end: char) -> Vec<&'a str> {
    text.split(begin).skip(1).map(|rest| rest.split(end).next().unwrap()).collect()
}

fn check_sql(sql: &str) {
    let known = attributes();
    for name in between(sql, "LogAttributes['", '\'') {
        assert!(known.contains(name), "{name} is no attribute of a record");
    }
    for name in between(sql, "ResourceAttributes['", '\'') {
        assert!(RESOURCE.contains(&name), "{name} is no attribute of the resource");
    }
    let types: BTreeSet<String> = fixtures::lines()
        .iter()
        .map(|(_, line)| serde_json::to_value(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect();
    for kind in between(sql, "LogAttributes['bpfwatch.type'] = '", '\'') {
        assert!(types.contains(kind), "{kind} is no type of line");
    }
}

#[test]
fn the_queries_for_clickhouse_name_what_there_is() {
    let sql = text("clickhouse/queries.sql");
    check_sql(&sql);
    let (names, ends) = (sql.matches("-- name: ").count(), sql.matches(";\n").count());
    assert_eq!(names, ends, "each query has a name and an end");
    assert_eq!(sql.matches('(').count(), sql.matches(')').count());
}

#[test]
fn the_dashboard_names_what_there_is() {
    let dashboard: Value = serde_json::from_str(&text("grafana/bpfwatch.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        check_sql(panel["targets"][0]["rawSql"].as_str().unwrap());
    }
}

#[test]
fn the_queries_for_elasticsearch_name_what_there_is() {
    let json = text("elasticsearch/queries.json");
    let queries: serde_json::Map<String, Value> = serde_json::from_str(&json).unwrap();
    assert!(!queries.is_empty());
    let known = attributes();
    for name in between(&json, "\"attributes.", '"') {
        assert!(known.contains(name), "{name} is no attribute of a record");
    }
    for name in between(&json, "\"resource.attributes.", '"') {
        assert!(RESOURCE.contains(&name), "{name} is no attribute of the resource");
    }
}

#[test]
fn the_collector_configuration_holds_together() {
    let config: Value = yaml_serde::from_str(&text("collector/otel-collector.yaml")).unwrap();
    for pipeline in config["service"]["pipelines"].as_object().unwrap().values() {
        for part in ["receivers", "processors", "exporters"] {
            for name in pipeline[part].as_array().unwrap() {
                let name = name.as_str().unwrap();
                assert!(config[part].get(name).is_some(), "{part}: {name} is not configured");
            }
        }
    }
    for name in config["service"]["extensions"].as_array().unwrap() {
        assert!(config["extensions"].get(name.as_str().unwrap()).is_some());
    }
    let filter = config["processors"]["filter/no_heartbeats"].to_string();
    let known = attributes();
    for name in between(&filter, "attributes[\\\"", '\\') {
        assert!(known.contains(name), "{name}");
    }
}
