//! Managed preferences: the keys of the configuration file, in a property list.
//!
//! On macOS, MDM installs them for the machine; there they are the last layer, and win. A property list
//! knows less than TOML and more (dates, data): what has no counterpart is an error that names its key.

use std::path::Path;

use plist::{Dictionary, Value as Plist};
use serde::Deserialize as _;
use toml::{Table, Value};

use super::Config;
use crate::exit::{Code, Failure};

/// Deeper nesting is no configuration.
const DEPTH: usize = 8;

/// The keys of a property list that is a right configuration by itself.
///
/// # Errors
/// When it is no property list, has an unknown key or a wrong value.
pub fn keys(bytes: &[u8], file: &Path) -> Result<Table, Failure> {
    let failed = |what: String| {
        Failure::new(Code::Config, format!("{}: {what}", file.display()))
            .next("mend the profile that installs it; until then the last good configuration stays")
    };
    let value = Plist::from_reader(std::io::Cursor::new(bytes))
        .map_err(|error| failed(format!("no property list: {error}")))?;
    let Plist::Dictionary(dictionary) = value else {
        return Err(failed("no dictionary at the top".to_owned()));
    };
    let table = table(dictionary, "", DEPTH).map_err(failed)?;
    // Its message has the key on a line of its own.
    Config::deserialize(table.clone())
        .map_err(|error| failed(error.to_string().trim_end().replace('\n', ", ")))?;
    Ok(table)
}

fn table(dictionary: Dictionary, path: &str, depth: usize) -> Result<Table, String> {
    let mut table = Table::new();
    for (key, value) in dictionary {
        // Left in by some MDM servers; they belong to the payload, not to us.
        if path.is_empty() && key.starts_with("Payload") {
            continue;
        }
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        table.insert(key, from_plist(value, &path, depth)?);
    }
    Ok(table)
}

fn from_plist(value: Plist, path: &str, depth: usize) -> Result<Value, String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!("`{path}` is nested too deeply"));
    };
    Ok(match value {
        Plist::Boolean(value) => Value::Boolean(value),
        Plist::String(value) => Value::String(value),
        Plist::Real(value) => Value::Float(value),
        Plist::Integer(value) => match value.as_signed() {
            Some(value) => Value::Integer(value),
            None => return Err(format!("`{path}` is too large a number")),
        },
        Plist::Array(values) => {
            let values = values.into_iter().map(|value| from_plist(value, path, depth));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        Plist::Dictionary(value) => Value::Table(table(value, path, depth)?),
        _ => return Err(format!("`{path}` is of a type that no key has (date, data)")),
    })
}

/// The keys as a property list, for a configuration profile.
pub fn to_plist(table: Table) -> Dictionary {
    table.into_iter().map(|(key, value)| (key, into_plist(value))).collect()
}

fn into_plist(value: Value) -> Plist {
    match value {
        Value::Boolean(value) => value.into(),
        Value::String(value) => value.into(),
        Value::Integer(value) => value.into(),
        Value::Float(value) => Plist::Real(value),
        // No key of ours has one; as text it is at least named in the error.
        Value::Datetime(value) => value.to_string().into(),
        Value::Array(values) => Plist::Array(values.into_iter().map(into_plist).collect()),
        Value::Table(table) => Plist::Dictionary(to_plist(table)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(inner: &str) -> Result<Table, String> {
        let text = format!("<plist version=\"1.0\"><dict>{inner}</dict></plist>");
        keys(text.as_bytes(), Path::new("managed.plist")).map_err(|failure| failure.to_string())
    }

    #[test]
    fn it_says_the_same_as_toml() {
        let toml = "level = \"high\"\nredact = false\n[rules]\nshipped = true\ndirs = [\"/a\"]\n\
                    [sensors]\nscan_interval_ms = 500\n[[sink]]\nformat = \"json\"\n\
                    transport = \"file\"\npath = \"/x\"\nmode = 416\n";
        let table: Table = toml::from_str(toml).unwrap();
        let mut xml = Vec::new();
        plist::to_writer_xml(&mut xml, &Plist::Dictionary(to_plist(table.clone()))).unwrap();
        assert_eq!(keys(&xml, Path::new("x")).unwrap(), table);
    }

    #[test]
    fn errors_name_the_key() {
        for (inner, key) in [
            ("<key>lvel</key><string>low</string>", "lvel"),
            ("<key>redact</key><string>yes</string>", "redact"),
            (
                "<key>sensors</key><dict><key>scan_interval_ms</key><true/></dict>",
                "scan_interval_ms",
            ),
            ("<key>rules</key><dict><key>dirs</key><string>/a</string></dict>", "dirs"),
            ("<key>level</key><date>2026-01-01T00:00:00Z</date>", "level"),
            ("<key>rules</key><dict><key>shipped</key><data>AA==</data></dict>", "rules.shipped"),
        ] {
            let error = parse(inner).unwrap_err();
            assert!(error.contains(key) && error.contains("managed.plist"), "{error}");
        }
        assert!(keys(b"not a plist", Path::new("x")).is_err());
        assert!(keys(b"<plist version=\"1.0\"><array/></plist>", Path::new("x")).is_err());
    }

    #[test]
    fn what_belongs_to_the_payload_is_no_key_of_ours() {
        let payload = "<key>PayloadUUID</key><string>x</string><key>redact</key><false/>";
        assert_eq!(parse(payload).unwrap().len(), 1);
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("<key>rules</key>{}{}", "<array>".repeat(500), "</array>".repeat(500));
        assert!(parse(&deep).is_err());
    }
}
