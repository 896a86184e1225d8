//! Building JSON objects field by field: what is not known is not there.

use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

/// An object that grows.
#[derive(Debug, Clone, Default)]
pub struct Object(Map<String, Value>);

impl Object {
    /// Without a field.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field.
    pub fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Adds a field where there is a value.
    pub fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Adds a text of foreign origin where there is one.
    pub fn put_text(&mut self, key: &str, text: Option<&Text>) {
        self.put_some(key, text.map(Text::as_str));
    }

    /// Adds a moment as RFC 3339.
    pub fn put_time(&mut self, key: &str, at: Timestamp) {
        self.put(key, at.to_string());
    }

    /// Adds an object unless it has no field.
    pub fn put_object(&mut self, key: &str, object: Object) {
        if !object.0.is_empty() {
            self.put(key, Value::Object(object.0));
        }
    }

    /// Adds a list unless it is empty.
    pub fn put_list<T: Into<Value>>(&mut self, key: &str, list: impl IntoIterator<Item = T>) {
        let list: Vec<Value> = list.into_iter().map(Into::into).collect();
        if !list.is_empty() {
            self.put(key, list);
        }
    }

    /// Adds a part of the vocabulary as it stands in native JSON.
    pub fn put_native(&mut self, key: &str, value: &impl Serialize) {
        // Fails for maps with keys that are no strings alone, of which the vocabulary has none.
        match serde_json::to_value(value) {
            Ok(Value::Null) | Err(_) => {}
            Ok(value) => self.put(key, value),
        }
    }

    /// Whether it has no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Value::Object(object.0)
    }
}

/// Last part of a path. A backslash parts only paths that begin as those of Windows do.
pub fn file_name(path: &str) -> &str {
    let is_windows = path.as_bytes().get(1..3) == Some(b":\\");
    let split = if is_windows { path.rsplit_once('\\') } else { path.rsplit_once('/') };
    match split {
        Some((_, file)) if !file.is_empty() => file,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names() {
        for (path, file) in [
            ("/usr/bin/tcpdump", "tcpdump"),
            (r"C:\Windows\System32\pktmon.exe", "pktmon.exe"),
            (r"/tmp/a\b", r"a\b"),
            ("tcpdump", "tcpdump"),
            ("/tmp/", "/tmp/"),
            ("", ""),
        ] {
            assert_eq!(file_name(path), file);
        }
    }
}
