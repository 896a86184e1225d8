//! A record of a log in that log's own words: what no OS-neutral kind of observation can say.
//!
//! A PowerShell script block, the install of a service, a request to a Kubernetes API server, a record of
//! auditd, a command on a router: each is a list of fields under the names that Sigma rules use for that
//! log. Everything in it comes from elsewhere and is bounded here.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, MapAccess, SeqAccess};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::Text;

/// Fields kept of one record; what comes after them is left out.
pub const MAX_FIELDS: usize = 160;
/// Bytes kept of one value; a PowerShell script block joined from its parts is the longest.
pub const VALUE_LIMIT: usize = 256 * 1024;
/// Bytes kept of all values of a record.
pub const BYTES_LIMIT: usize = 512 * 1024;
/// Values kept of a list.
pub const MAX_LIST: usize = 256;
/// Bytes kept of a field's name.
const NAME_LIMIT: usize = 256;

/// Which log a record stands in: Sigma's category or service of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Log {
    /// PowerShell script blocks (event 4104): category `ps_script` of `windows`.
    PsScript,
    /// The System log: service `system` of `windows`.
    WindowsSystem,
    /// The Security log: service `security` of `windows`.
    WindowsSecurity,
    /// Requests to the API server: service `audit` of `kubernetes`.
    KubernetesAudit,
    /// Records of the kernel's audit: service `auditd` of `linux`.
    Auditd,
    /// Commands on a Cisco device: service `aaa` of `cisco`.
    CiscoAaa,
    /// Commands on a Juniper device: service `mgd` of `juniper`.
    JuniperMgd,
    /// Opens of /dev/bpf that were told and of which no process was found: service `bpf_opens` of `freebsd`.
    BpfOpens,
}

impl Log {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Log::PsScript => "ps_script",
            Log::WindowsSystem => "windows_system",
            Log::WindowsSecurity => "windows_security",
            Log::KubernetesAudit => "kubernetes_audit",
            Log::Auditd => "auditd",
            Log::CiscoAaa => "cisco_aaa",
            Log::JuniperMgd => "juniper_mgd",
            Log::BpfOpens => "bpf_opens",
        }
    }
}

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// Which log.
    pub log: Log,
    /// Who did it, as the log names him: a user, a service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Text>,
    /// What was done, in one line for people: `exec into pod prod/web-0: tcpdump -i any`.
    pub message: Text,
    /// The log's fields, under Sigma's names.
    pub fields: Fields,
}

impl Logged {
    /// A record without fields.
    pub fn new(log: Log, subject: Option<Text>, message: Text) -> Self {
        Self { log, subject, message, fields: Fields::default() }
    }

    /// Memory that it takes beside its own fields, in bytes.
    pub fn weight(&self) -> usize {
        let subject = self.subject.as_ref().map_or(0, Text::weight);
        subject + self.message.weight() + self.fields.weight()
    }
}

/// Value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text of foreign origin.
    Text(Text),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Bool(bool),
    /// Several values, none of them a list; a rule matches any of them.
    List(Vec<Value>),
}

impl Value {
    /// A text of at most [`VALUE_LIMIT`] bytes.
    pub fn text(bytes: impl AsRef<[u8]>) -> Self {
        Value::Text(Text::from_bytes_limited(bytes.as_ref(), VALUE_LIMIT))
    }

    /// A list of texts.
    pub fn texts<T: AsRef<[u8]>>(list: impl IntoIterator<Item = T>) -> Self {
        Value::List(list.into_iter().take(MAX_LIST).map(Value::text).collect())
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&Text> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Value::Text(text) => text.weight(),
            Value::Number(_) | Value::Bool(_) => 0,
            Value::List(list) => {
                list.iter().map(|value| size_of::<Value>() + value.weight()).sum::<usize>()
            }
        }
    }

    /// Within the limits of a field.
    fn bounded(self) -> Self {
        match self {
            Value::List(mut list) => {
                list.truncate(MAX_LIST);
                list.retain(|value| !matches!(value, Value::List(_)));
                Value::List(list)
            }
            other => other,
        }
    }
}

/// Fields of a record, in the order of the log, each name once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    list: Vec<(Cow<'static, str>, Value)>,
    bytes: usize,
}

impl Fields {
    /// Adds a field; the first of a name stays. What is over a limit is left out.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: Value) {
        let (name, value) = (name.into(), value.bounded());
        let weight = name.len() + value.weight();
        if self.list.len() >= MAX_FIELDS
            || name.len() > NAME_LIMIT
            || self.bytes + weight > BYTES_LIMIT
            || self.get(&name).is_some()
        {
            return;
        }
        self.bytes += weight;
        self.list.push((name, value));
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.list.iter().map(|(name, value)| (&**name, value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Memory that they take, in bytes, roughly.
    pub fn weight(&self) -> usize {
        self.bytes + self.list.len() * size_of::<(Cow<'static, str>, Value)>()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Text(text) => text.serialize(serializer),
            Value::Number(number) => serializer.serialize_i64(*number),
            Value::Bool(flag) => serializer.serialize_bool(*flag),
            Value::List(list) => serializer.collect_seq(list),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a whole number, true, false, or a list of these")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(Text::from(text)))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
                Ok(Value::Text(Text::from(text)))
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Value, E> {
                Ok(Value::Bool(flag))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Number(number))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
                // What has no place in 64 bits with a sign stays readable as a text.
                Ok(i64::try_from(number)
                    .map_or_else(|_| Value::text(number.to_string()), Value::Number))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
                Text::deserialize(de::value::MapAccessDeserializer::new(map)).map(Value::Text)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element::<Scalar>()? {
                    if list.len() < MAX_LIST {
                        list.push(value.0);
                    }
                }
                Ok(Value::List(list))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A value that is no list: lists in lists would have no depth to stop at.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a whole number, true or false")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(Value::Text(Text::from(text))))
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Scalar, E> {
                Ok(Scalar(Value::Bool(flag)))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(Value::Number(number)))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                let value = i64::try_from(number).map(Value::Number);
                Ok(Scalar(value.unwrap_or_else(|_| Value::text(number.to_string()))))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalar, A::Error> {
                let text = Text::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Scalar(Value::Text(text)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of fields")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    fields.push(name, value);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote() {
        let mut record = Logged::new(Log::KubernetesAudit, Some("alice".into()), "exec".into());
        record.fields.push("verb", Value::text("create"));
        record.fields.push("bad", Value::text(b"a\xffb"));
        record.fields.push("EventID", Value::Number(-3));
        record.fields.push("hostNetwork", Value::Bool(true));
        record.fields.push("command", Value::texts(["tcpdump", "-i", "any"]));
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Logged>(&json).unwrap(), record);
        assert!(json.contains(r#""log":"kubernetes_audit","subject":"alice""#), "{json}");
    }

    #[test]
    fn is_bounded_whatever_comes() {
        let mut fields = Fields::default();
        for n in 0..10_000 {
            fields.push(format!("f{n}"), Value::text("x".repeat(1000)));
        }
        assert_eq!(fields.len(), MAX_FIELDS);
        fields.push("n".repeat(NAME_LIMIT + 1), Value::Bool(true));
        assert_eq!(fields.len(), MAX_FIELDS);
        let mut fields = Fields::default();
        for n in 0..100 {
            fields.push(format!("f{n}"), Value::text("x".repeat(VALUE_LIMIT * 2)));
        }
        assert!(fields.weight() < BYTES_LIMIT + 4096 && fields.len() == 1, "{}", fields.len());
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
        assert!(serde_json::from_str::<Fields>(&deep).is_err());
        assert_eq!(serde_json::from_str::<Fields>(r#"{"a":1,"a":2}"#).unwrap().len(), 1);
        let list = format!(r#"{{"a":[{}0]}}"#, "0,".repeat(100_000));
        let fields: Fields = serde_json::from_str(&list).unwrap();
        assert!(matches!(fields.get("a"), Some(Value::List(list)) if list.len() == MAX_LIST));
        // More than a number can hold is still a value.
        let fields: Fields = serde_json::from_str(r#"{"a":18446744073709551615}"#).unwrap();
        assert_eq!(fields.get("a"), Some(&Value::text("18446744073709551615")));
    }
}
