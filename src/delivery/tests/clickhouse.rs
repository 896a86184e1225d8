//! The queries of `deploy/clickhouse` and of the dashboard, run by ClickHouse itself (chDB, the Python
//! package `chdb`) over a table as the Collector's exporter makes it, with every sort of line in it twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod fixtures;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bpfwatch_delivery::otlp::proto::{Any, AnyValue, LogRecord};
use bpfwatch_delivery::{Format, OtlpRecord};
use prost::Message;
use serde_json::{Map, Value, json};

/// Makes the table, fills it, and answers each query with its rows. Columns are those of the exporter
/// (clickhouseexporter: logs_table.sql).
const RUN: &str = "
import json, sys
import chdb
given = json.load(sys.stdin)
session = chdb.session.Session()
session.query('CREATE DATABASE otel')
session.query('USE otel')
session.query('''CREATE TABLE otel_logs (
    Timestamp DateTime64(9) DEFAULT now64(9) - INTERVAL 1 HOUR, TimestampTime DateTime DEFAULT toDateTime(Timestamp), TraceId String,
    SpanId String, TraceFlags UInt8, SeverityText LowCardinality(String), SeverityNumber UInt8,
    ServiceName LowCardinality(String), Body String, ResourceSchemaUrl LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String), ScopeSchemaUrl LowCardinality(String),
    ScopeName String, ScopeVersion LowCardinality(String),
    ScopeAttributes Map(LowCardinality(String), String),
    LogAttributes Map(LowCardinality(String), String), EventName String
) ENGINE = MergeTree ORDER BY (ServiceName, TimestampTime, Timestamp)''')
rows = chr(10).join(json.dumps(row) for row in given['rows'])
session.query('INSERT INTO otel_logs FORMAT JSONEachRow ' + rows)
answers = {}
for name, sql in given['queries'].items():
    answers[name] = json.loads(str(session.query(sql, 'JSON')))['data']
print(json.dumps(answers))
";

/// A value as the exporter writes it: text as it is, the rest as JSON.
fn text(value: &AnyValue) -> String {
    fn json(value: &AnyValue) -> Value {
        match value.value.as_ref() {
            None => Value::Null,
            Some(Any::String(text)) => json!(text),
            Some(Any::Bool(yes)) => json!(yes),
            Some(Any::Int(number)) => json!(number),
            Some(Any::Double(number)) => json!(number),
            Some(Any::Array(list)) => list.values.iter().map(json).collect(),
            Some(Any::KvList(list)) => {
                let pair = |pair: &bpfwatch_delivery::otlp::proto::KeyValue| {
                    (pair.key.clone(), pair.value.as_ref().map_or(Value::Null, json))
                };
                Value::Object(list.values.iter().map(pair).collect())
            }
        }
    }
    match json(value) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Every sort of line, as rows, each of them twice; one number of the stream is missing.
fn rows() -> (Vec<Value>, BTreeMap<String, usize>) {
    let (mut rows, mut counts) = (Vec::new(), BTreeMap::new());
    let lines = fixtures::lines();
    let gap = lines.len() as u64 / 2;
    for ((_, line), seq) in lines.iter().zip(1_u64..) {
        let mut bytes = Vec::new();
        OtlpRecord.render(line, &mut bytes);
        let record = LogRecord::decode(&bytes[..]).unwrap();
        let attribute = |pair: &bpfwatch_delivery::otlp::proto::KeyValue| {
            (pair.key.clone(), json!(text(pair.value.as_ref().unwrap())))
        };
        let mut attributes: Map<String, Value> = record.attributes.iter().map(attribute).collect();
        let seq = if seq > gap { seq + 1 } else { seq };
        attributes.insert("bpfwatch.seq".to_owned(), json!(seq.to_string()));
        attributes.insert("log.record.uid".to_owned(), json!(format!("uid-{seq}")));
        *counts.entry(attributes["bpfwatch.type"].as_str().unwrap().to_owned()).or_default() += 1;
        let row = json!({
            "SeverityText": record.severity_text,
            "SeverityNumber": record.severity_number,
            "ServiceName": "bpfwatch",
            "Body": record.body.as_ref().map(text).unwrap(),
            "ResourceAttributes": {
                "service.name": "bpfwatch", "host.name": "web-1", "bpfwatch.stream": "stream-1",
            },
            "LogAttributes": attributes,
            "EventName": record.event_name,
        });
        rows.extend([row.clone(), row]);
    }
    (rows, counts)
}

fn queries() -> BTreeMap<String, String> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let sql = fs::read_to_string(deploy.join("clickhouse/queries.sql")).unwrap();
    let mut queries = BTreeMap::new();
    for part in sql.split("-- name: ").skip(1) {
        let (name, query) = part.split_once('\n').unwrap();
        queries.insert(name.to_owned(), query.trim().trim_end_matches(';').to_owned());
    }
    let dashboard = fs::read_to_string(deploy.join("grafana/bpfwatch.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        // What the data source puts in for its macros.
        let query = panel["targets"][0]["rawSql"].as_str().unwrap();
        let query = query
            .replace("$__timeFilter(Timestamp)", "Timestamp > now() - INTERVAL 1 DAY")
            .replace("$__timeInterval(Timestamp)", "toStartOfMinute(Timestamp)");
        assert!(!query.contains('$'), "{query}");
        queries.insert(format!("dashboard: {}", panel["title"].as_str().unwrap()), query);
    }
    queries
}

#[test]
fn every_query_runs_and_finds_what_there_is_once() {
    let importable = Command::new("python3")
        .args(["-c", "import chdb"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !importable {
        println!("skipped every_query_runs_and_finds_what_there_is_once: needs python3 with chdb");
        return;
    }
    let (rows, counts) = rows();
    let queries = queries();
    let mut python = Command::new("python3")
        .args(["-c", RUN])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let given = json!({"rows": rows, "queries": queries}).to_string();
    python.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers: BTreeMap<String, Vec<Value>> = serde_json::from_slice(&output.stdout).unwrap();
    for (name, answer) in &answers {
        println!("{name}: {} rows", answer.len());
        assert!(!answer.is_empty(), "{name} finds nothing");
    }
    assert_eq!(answers.len(), queries.len());
    let findings = &answers["findings of the last day, the most serious first"];
    assert_eq!(findings.len(), counts["finding"], "each once: {findings:#?}");
    let by_rule = &answers["captures by rule and level"];
    let sum: u64 = by_rule.iter().map(|row| number(&row["findings"])).sum();
    assert_eq!(sum as usize, counts["finding"]);
    assert!(findings.iter().any(|row| row["image"] == "/tmp/.cache/tcpdump"), "{findings:#?}");
}

/// 64-bit numbers are texts in ClickHouse's JSON.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap()
}
