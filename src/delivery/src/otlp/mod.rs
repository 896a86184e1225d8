//! OTLP over HTTP, for logs (OpenTelemetry Protocol 1.x): Protobuf by POST, to a Collector or to any
//! backend that speaks it.
//!
//! | module | duty |
//! |---|---|
//! | [`proto`] | the messages |
//! | [`record`] | one line as a log record |
//! | [`attributes`] | names of attributes, by the semantic conventions where they have one |

pub mod attributes;
pub mod proto;
pub mod record;

pub use record::OtlpRecord;

use std::time::SystemTime;

use bpfwatch_core::finding::Host;
use bpfwatch_core::observation::Os;
use prost::Message;

use crate::http::{Client, Setup, SetupError};
use crate::remote::{Record, Refused, Remote};
use proto::{
    ExportLogsServiceRequest, ExportLogsServiceResponse, InstrumentationScope, KeyValue, LogRecord,
    Resource, ResourceLogs, ScopeLogs, Status,
};

/// Path of the logs service; the address of a Collector without a path gets it.
pub const PATH: &str = "/v1/logs";

/// The semantic conventions that attribute names follow.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Sends log records over OTLP/HTTP.
pub struct Otlp {
    client: Client,
    name: String,
    resource: Resource,
}

impl Otlp {
    /// Prepares it. `stream` is the id of the spool's stream.
    ///
    /// # Errors
    /// As for [`Client::open`].
    pub fn open(setup: &Setup, host: &Host, stream: String) -> Result<Self, SetupError> {
        let mut setup = setup.clone();
        setup.url = endpoint(&setup.url);
        let client = Client::open(&setup)?;
        let name = format!("otlp {}", client.shown());
        Ok(Self { client, name, resource: resource(host, &stream) })
    }

    fn body(&self, batch: &[Record]) -> Result<Vec<u8>, Refused> {
        let observed = now();
        let mut log_records = Vec::with_capacity(batch.len());
        for record in batch {
            // Written by us and checksummed: it can only be that of another version.
            let mut log = LogRecord::decode(record.bytes.as_slice())
                .map_err(|error| Refused::Poison { why: format!("not an OTLP record: {error}") })?;
            log.observed_time_unix_nano = observed;
            log.attributes.push(KeyValue::new("log.record.uid", record.id.as_str()));
            log.attributes.push(KeyValue::new("bpfwatch.seq", record.seq));
            log_records.push(log);
        }
        let scope = InstrumentationScope {
            name: "bpfwatch".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let scope_logs =
            vec![ScopeLogs { scope: Some(scope), log_records, schema_url: SCHEMA.to_owned() }];
        let resource = Some(self.resource.clone());
        let resource_logs =
            vec![ResourceLogs { resource, scope_logs, schema_url: SCHEMA.to_owned() }];
        Ok(ExportLogsServiceRequest { resource_logs }.encode_to_vec())
    }
}

impl Remote for Otlp {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver(&mut self, batch: &[Record]) -> Result<(), Refused> {
        let body = self.body(batch)?;
        let body = self.client.pack(body);
        let answer = self.client.post("application/x-protobuf", &[], &body)?;
        let body = answer.success(|body| {
            let status = Status::decode(body).ok()?;
            (!status.message.is_empty()).then_some(status.message)
        })?;
        // An empty message is a full success; one of another sort says nothing against it.
        let response = ExportLogsServiceResponse::decode(body.as_slice()).unwrap_or_default();
        let partial = response.partial_success.unwrap_or_default();
        match u64::try_from(partial.rejected_log_records) {
            Ok(rejected @ 1..) => Err(Refused::InPart { rejected, why: partial.error_message }),
            _ => Ok(()),
        }
    }
}

/// The address with the path of the logs service, where it has none.
fn endpoint(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    match rest.find(['/', '?']) {
        None => format!("{url}{PATH}"),
        Some(at) if &rest[at..] == "/" => format!("{}{PATH}", &url[..url.len() - 1]),
        Some(_) => url.to_owned(),
    }
}

fn resource(host: &Host, stream: &str) -> Resource {
    // The values of `os.type` in the semantic conventions.
    let os = match host.os {
        Os::Macos => "darwin",
        os => os.as_str(),
    };
    Resource {
        attributes: vec![
            KeyValue::new("service.name", "bpfwatch"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", host.name.as_str()),
            KeyValue::new("os.type", os),
            KeyValue::new("bpfwatch.stream", stream),
        ],
    }
}

fn now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_added_only_where_there_is_none() {
        for (given, used) in [
            ("http://h:4318", "http://h:4318/v1/logs"),
            ("http://h:4318/", "http://h:4318/v1/logs"),
            ("https://h/otlp/v1/logs", "https://h/otlp/v1/logs"),
            ("https://h/api?x=y", "https://h/api?x=y"),
            ("https://h?x=y", "https://h?x=y"),
        ] {
            assert_eq!(endpoint(given), used);
        }
    }
}
