//! The messages of OTLP that are used here: opentelemetry-proto 1.x, `logs/v1/logs.proto`,
//! `common/v1/common.proto`, `resource/v1/resource.proto`, `collector/logs/v1/logs_service.proto`; and
//! `google/rpc/status.proto`, which an error's body is.
//!
//! Written as structs with their field numbers, so that building needs no protoc; a test decodes them
//! with the official definitions.

use prost::{Message, Oneof};

/// `collector.logs.v1.ExportLogsServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportLogsServiceRequest {
    /// One: all records of a batch are from this host.
    #[prost(message, repeated, tag = "1")]
    pub resource_logs: Vec<ResourceLogs>,
}

/// `collector.logs.v1.ExportLogsServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportLogsServiceResponse {
    /// What was not taken.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<ExportLogsPartialSuccess>,
}

/// `collector.logs.v1.ExportLogsPartialSuccess`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportLogsPartialSuccess {
    /// How many records were not taken.
    #[prost(int64, tag = "1")]
    pub rejected_log_records: i64,
    /// Why, or a warning.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// A code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For developers, in English.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `logs.v1.ResourceLogs`.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceLogs {
    /// Where the records come from.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// The records.
    #[prost(message, repeated, tag = "2")]
    pub scope_logs: Vec<ScopeLogs>,
    /// Which semantic conventions the resource follows.
    #[prost(string, tag = "3")]
    pub schema_url: String,
}

/// `resource.v1.Resource`.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Its attributes.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// `logs.v1.ScopeLogs`.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeLogs {
    /// What made the records.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<InstrumentationScope>,
    /// The records.
    #[prost(message, repeated, tag = "2")]
    pub log_records: Vec<LogRecord>,
    /// Which semantic conventions the records follow.
    #[prost(string, tag = "3")]
    pub schema_url: String,
}

/// `common.v1.InstrumentationScope`.
#[derive(Clone, PartialEq, Message)]
pub struct InstrumentationScope {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// `logs.v1.LogRecord`.
#[derive(Clone, PartialEq, Message)]
pub struct LogRecord {
    /// When it happened, nanoseconds since 1970.
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    /// `SeverityNumber`: 1 to 24.
    #[prost(int32, tag = "2")]
    pub severity_number: i32,
    /// The level in our own words.
    #[prost(string, tag = "3")]
    pub severity_text: String,
    /// One sentence.
    #[prost(message, optional, tag = "5")]
    pub body: Option<AnyValue>,
    /// The detail.
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<KeyValue>,
    /// When it was rendered, nanoseconds since 1970.
    #[prost(fixed64, tag = "11")]
    pub observed_time_unix_nano: u64,
    /// What sort of event it is.
    #[prost(string, tag = "12")]
    pub event_name: String,
}

/// `common.v1.KeyValue`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// `common.v1.AnyValue`.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// Its value.
    #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5, 6")]
    pub value: Option<Any>,
}

/// The value of an `AnyValue`.
#[derive(Clone, PartialEq, Oneof)]
pub enum Any {
    /// Text.
    #[prost(string, tag = "1")]
    String(String),
    /// Yes or no.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Int(i64),
    /// A number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// A list.
    #[prost(message, tag = "5")]
    Array(ArrayValue),
    /// Keys and values.
    #[prost(message, tag = "6")]
    KvList(KeyValueList),
}

/// `common.v1.ArrayValue`.
#[derive(Clone, PartialEq, Message)]
pub struct ArrayValue {
    /// Values.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<AnyValue>,
}

/// `common.v1.KeyValueList`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValueList {
    /// Keys and values.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<KeyValue>,
}

impl KeyValue {
    /// A key with a value.
    pub fn new(key: impl Into<String>, value: impl Into<AnyValue>) -> Self {
        Self { key: key.into(), value: Some(value.into()) }
    }
}

impl From<&str> for AnyValue {
    fn from(text: &str) -> Self {
        Self { value: Some(Any::String(text.to_owned())) }
    }
}

impl From<u64> for AnyValue {
    /// What does not fit 64 signed bits becomes text, as OTLP has no other integer.
    fn from(number: u64) -> Self {
        let value = match i64::try_from(number) {
            Ok(number) => Any::Int(number),
            Err(_) => Any::String(number.to_string()),
        };
        Self { value: Some(value) }
    }
}

impl From<serde_json::Value> for AnyValue {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value;
        let value = match value {
            Value::Null => return Self { value: None },
            Value::Bool(yes) => Any::Bool(yes),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Any::Int(number),
                (None, Some(number)) => return number.into(),
                (None, None) => Any::Double(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Any::String(text),
            Value::Array(values) => {
                let values = values.into_iter().map(Self::from).collect();
                Any::Array(ArrayValue { values })
            }
            Value::Object(fields) => {
                let pair = |(key, value)| KeyValue { key, value: Some(Self::from(value)) };
                Any::KvList(KeyValueList { values: fields.into_iter().map(pair).collect() })
            }
        };
        Self { value: Some(value) }
    }
}
