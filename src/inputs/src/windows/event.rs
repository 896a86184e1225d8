//! An event of a Windows log, however it was written down.

use std::borrow::Cow;

use bpfwatch_core::decoder::LineError;
use bpfwatch_core::logged::Value as FieldValue;
use bpfwatch_core::time::Timestamp;
use serde_json::{Map, Value};

use crate::time;

/// One event: what every one has, and its own data.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) id: i64,
    pub(super) at: Timestamp,
    pub(super) provider: Cow<'a, str>,
    pub(super) channel: Cow<'a, str>,
    pub(super) computer: Option<&'a str>,
    /// The process that wrote it.
    pub(super) pid: Option<u32>,
    /// Security identifier of the user on whose behalf it was written.
    pub(super) sid: Option<&'a str>,
    /// The event's own data, by the names of its template.
    pub(super) data: Data<'a>,
}

/// Where the event's own data stand.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// In an object of their own.
    Own(&'a Map<String, Value>),
    /// `<Data Name="x">y</Data>` as a list of objects.
    List(&'a [Value]),
    /// Beside what every event has.
    Flat(&'a Map<String, Value>),
    None,
}

/// Keys of a flat record that belong to the shipper and not to the event.
const ENVELOPE: &[&str] = &[
    "@timestamp",
    "@version",
    "AccountType",
    "Category",
    "EventReceivedTime",
    "EventTime",
    "EventType",
    "ExecutionProcessID",
    "Hostname",
    "Keywords",
    "Level",
    "Message",
    "OpcodeValue",
    "Opcode",
    "ProviderGuid",
    "RecordNumber",
    "Severity",
    "SeverityValue",
    "SourceModuleName",
    "SourceModuleType",
    "SourceName",
    "Task",
    "ThreadID",
    "TimeCreated",
    "host",
    "port",
    "tags",
    "timestamp",
    "type",
];

impl<'a> Event<'a> {
    /// From a record of any of the shapes.
    pub(super) fn of(record: &'a Value) -> Result<Self, LineError> {
        let object = record.as_object().ok_or_else(|| LineError::new("no JSON object"))?;
        // As Elasticsearch exports it.
        let object = object.get("_source").and_then(Value::as_object).unwrap_or(object);
        if let Some(event) = object.get("Event").and_then(Value::as_object) {
            return Self::of_xml(event);
        }
        match object.get("winlog").and_then(Value::as_object) {
            Some(winlog) => Self::of_ecs(object, winlog),
            None => Self::of_flat(object),
        }
    }

    /// As converters of EVTX files write it: the XML's tree.
    fn of_xml(event: &'a Map<String, Value>) -> Result<Self, LineError> {
        let empty = || LineError::new("an Event without System");
        let system = event.get("System").and_then(Value::as_object).ok_or_else(empty)?;
        let attribute = |element: &str, name: &str| {
            let element = system.get(element)?;
            element.get("#attributes").and_then(|all| all.get(name)).or_else(|| {
                // With attributes apart from the content.
                system.get(&format!("{}_attributes", element.as_str()?))?.get(name)
            })
        };
        let id = system.get("EventID");
        let id = id.map(|id| id.get("#text").unwrap_or(id)).and_then(whole);
        let at = attribute("TimeCreated", "SystemTime").or_else(|| system.get("TimeCreated"));
        let at = at.and_then(Value::as_str);
        let data =
            ["EventData", "UserData"].into_iter().find_map(|name| match event.get(name)? {
                Value::Object(data) => Some(own_data(data)),
                _ => None,
            });
        Ok(Self {
            id: id.ok_or_else(no_id)?,
            at: at.and_then(time::parse).ok_or_else(no_time)?,
            provider: attribute("Provider", "Name").and_then(Value::as_str).unwrap_or("").into(),
            channel: text(system, "Channel").unwrap_or("").into(),
            computer: text(system, "Computer"),
            pid: attribute("Execution", "ProcessID")
                .and_then(whole)
                .and_then(|n| n.try_into().ok()),
            sid: attribute("Security", "UserID").and_then(Value::as_str),
            data: data.unwrap_or(Data::None),
        })
    }

    /// As Winlogbeat and Elastic Agent write it.
    fn of_ecs(
        object: &'a Map<String, Value>,
        winlog: &'a Map<String, Value>,
    ) -> Result<Self, LineError> {
        let inner = |outer: &str, name: &str| winlog.get(outer).and_then(|outer| outer.get(name));
        let id = winlog.get("event_id").or_else(|| object.get("event")?.get("code"));
        let at = inner("time_created", "").or_else(|| winlog.get("time_created"));
        let at = at.or_else(|| object.get("@timestamp")).and_then(Value::as_str);
        let host = || object.get("host")?.get("name")?.as_str();
        let data = winlog.get("event_data").or_else(|| winlog.get("user_data"));
        Ok(Self {
            id: id.and_then(whole).ok_or_else(no_id)?,
            at: at.and_then(time::parse).ok_or_else(no_time)?,
            provider: text(winlog, "provider_name").unwrap_or("").into(),
            channel: text(winlog, "channel").unwrap_or("").into(),
            computer: text(winlog, "computer_name").or_else(host),
            pid: inner("process", "pid").and_then(whole).and_then(|pid| pid.try_into().ok()),
            sid: inner("user", "identifier").and_then(Value::as_str),
            data: data.and_then(Value::as_object).map_or(Data::None, Data::Own),
        })
    }

    /// As NXLog and others write it: all in one object.
    fn of_flat(object: &'a Map<String, Value>) -> Result<Self, LineError> {
        let first = |names: &[&str]| names.iter().find_map(|name| object.get(*name));
        let id = first(&["EventID", "EventId", "event_id"]).and_then(whole);
        let names =
            ["UtcTime", "EventTime", "TimeCreated", "@timestamp", "SystemTime", "timestamp"];
        let at = names.iter().filter_map(|name| object.get(*name)).find_map(time::of_json);
        let provider = first(&["Provider_Name", "SourceName", "ProviderName", "Provider"]);
        let computer = first(&["Computer", "Hostname", "ComputerName", "host"]);
        let pid = first(&["ExecutionProcessID", "Execution_ProcessID"]).and_then(whole);
        Ok(Self {
            id: id.ok_or_else(no_id)?,
            at: at.ok_or_else(no_time)?,
            provider: provider.and_then(Value::as_str).unwrap_or("").into(),
            channel: first(&["Channel", "LogName"]).and_then(Value::as_str).unwrap_or("").into(),
            computer: computer.and_then(Value::as_str),
            pid: pid.and_then(|pid| pid.try_into().ok()),
            sid: first(&["UserID", "UserSid"]).and_then(Value::as_str),
            data: Data::Flat(object),
        })
    }

    /// A value of the event's own data.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        match self.data {
            Data::Own(map) | Data::Flat(map) => map.get(name),
            Data::List(list) => list
                .iter()
                .filter_map(named)
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value),
            Data::None => None,
        }
    }

    /// A text of the event's own data; what stands for nothing there is nothing.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let text = self.get(name)?.as_str()?;
        (!matches!(text, "" | "-")).then_some(text)
    }

    /// A number, which Windows writes in hexadecimal at times.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        whole(self.get(name)?).and_then(|number| number.try_into().ok())
    }

    /// All of the event's own data, in order.
    pub(super) fn each(&self, mut visit: impl FnMut(&'a str, FieldValue)) {
        let mut one = |name: &'a str, value: &'a Value| {
            if let Some(value) = field(value) {
                visit(name, value);
            }
        };
        match self.data {
            Data::Own(map) => map.iter().for_each(|(name, value)| one(name, value)),
            Data::Flat(map) => map
                .iter()
                .filter(|(name, _)| !ENVELOPE.contains(&name.as_str()))
                .for_each(|(name, value)| one(name, value)),
            Data::List(list) => {
                list.iter().filter_map(named).for_each(|(name, value)| one(name, value));
            }
            Data::None => {}
        }
    }
}

/// What stands in EventData, or one level below in UserData.
fn own_data(data: &Map<String, Value>) -> Data<'_> {
    if let Some(Value::Array(list)) = data.get("Data")
        && list.iter().any(|item| named(item).is_some())
    {
        return Data::List(list);
    }
    let mut values = data.iter().filter(|(name, _)| *name != "#attributes");
    if let (Some((_, Value::Object(inner))), None) = (values.next(), values.next()) {
        return Data::Own(inner);
    }
    Data::Own(data)
}

fn named(item: &Value) -> Option<(&str, &Value)> {
    let name =
        item.get("#attributes").and_then(|all| all.get("Name")).or_else(|| item.get("@Name"))?;
    Some((name.as_str()?, item.get("#text").unwrap_or(&Value::Null)))
}

fn field(value: &Value) -> Option<FieldValue> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => FieldValue::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(number) => FieldValue::Number(number),
            None => FieldValue::text(number.to_string()),
        },
        Value::String(text) => FieldValue::text(text),
        Value::Array(list) => FieldValue::List(list.iter().filter_map(field).collect()),
        Value::Object(inner) => field(inner.get("#text")?)?,
    })
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

/// A whole number, also where it is written as text: `4688`, `0x16d0`.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => match text.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).ok(),
            None => text.trim().parse().ok(),
        },
        _ => None,
    }
}

fn no_id() -> LineError {
    LineError::new("no event id")
}

fn no_time() -> LineError {
    LineError::new("no time that can be read")
}
