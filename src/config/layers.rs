//! Where the configuration comes from: the file, then the files of the folder beside it, in the order
//! of their names. Each is checked by itself, so that an error names its own file and line.
//!
//! How they come together: a later file's value replaces an earlier one's; lists grow, `[[sink]]` among
//! them. Managed preferences, where the system has them, are one more layer, and the last.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::{Table, Value};

use super::wrong::Wrong;
use super::{Config, managed, refuse_untrusted};
use crate::exit::{Code, Failure};
use crate::{platform, trust};

/// A larger file is no configuration.
const LIMIT: u64 = 1024 * 1024;
/// Files of the folder.
const FILES: usize = 256;

/// One source of the configuration, right by itself.
#[derive(Debug)]
struct Layer {
    /// For messages.
    name: PathBuf,
    keys: Table,
}

/// Reads the configuration, and tells from which files. Without a name the platform's own is read,
/// which need not be there.
///
/// # Errors
/// When a file cannot be read or is wrong; where `trusted` is wanted, when others could write one.
pub fn load(path: Option<&Path>, trusted: bool) -> Result<(Config, Vec<PathBuf>), Failure> {
    load_with(path, platform::MANAGED.map(Path::new), trusted)
}

fn load_with(
    path: Option<&Path>,
    managed: Option<&Path>,
    trusted: bool,
) -> Result<(Config, Vec<PathBuf>), Failure> {
    let main = path.unwrap_or(Path::new(platform::CONFIG));
    let mut layers = Vec::new();
    // One that was asked for has to be there.
    if path.is_some() || main.exists() {
        layers.push(read(main, trusted)?);
    }
    for file in folder(main, trusted)? {
        layers.push(read(&file, trusted)?);
    }
    if let Some(managed) = managed.filter(|file| file.exists()) {
        layers.push(read_managed(managed, trusted)?);
    }
    let files = layers.iter().map(|layer| layer.name.clone()).collect();
    Ok((merge(layers)?, files))
}

/// The keys of one file, without the folder beside it.
///
/// # Errors
/// When it cannot be read, has an unknown key or a wrong value.
pub fn file_keys(file: &Path) -> Result<Table, Failure> {
    read(file, false).map(|layer| layer.keys)
}

fn read_managed(file: &Path, trusted: bool) -> Result<Layer, Failure> {
    if trusted {
        refuse_untrusted("the managed configuration", trust::check(file))?;
    }
    let bytes = read_bytes(file)?;
    Ok(Layer { name: file.to_owned(), keys: managed::keys(&bytes, file)? })
}

/// The files of the folder beside `main`, in order.
fn folder(main: &Path, trusted: bool) -> Result<Vec<PathBuf>, Failure> {
    let Some(parent) = main.parent() else { return Ok(Vec::new()) };
    let dir = parent.join(platform::CONFIG_FOLDER);
    let failed = |error: &io::Error| Failure::file("read the folder", &dir, error);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed(&error))?,
    };
    if trusted {
        refuse_untrusted("the configuration", trust::check(&dir))?;
    }
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(&error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if !hidden && path.extension().is_some_and(|end| end == "toml") {
            files.push(path);
        }
    }
    if files.len() > FILES {
        let what = format!("{} holds more than {FILES} files", dir.display());
        return Err(Failure::new(Code::Config, what));
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path, trusted: bool) -> Result<Layer, Failure> {
    if trusted && file.exists() {
        refuse_untrusted("the configuration", trust::check(file))?;
    }
    let bytes = read_bytes(file)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::new(Code::Config, format!("{} is not UTF-8, so it is no TOML", file.display()))
    })?;
    let keys =
        keys(&text).map_err(|wrong| Failure::new(Code::Config, wrong.at(file)).next(wrong.next))?;
    Ok(Layer { name: file.to_owned(), keys })
}

fn read_bytes(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: &io::Error| {
        Failure::file("read the configuration", file, error)
            .next("`bpfwatch config default` prints one to begin with")
    };
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).map_err(|error| failed(&error))?;
    opened.take(LIMIT + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > LIMIT {
        let what = format!("{} is larger than 1 MiB, so it is no configuration", file.display());
        return Err(Failure::new(Code::Config, what));
    }
    Ok(bytes)
}

/// The keys of a text that is a right configuration by itself.
pub fn keys(text: &str) -> Result<Table, Wrong> {
    toml::from_str::<Config>(text)
        .and_then(|_| toml::from_str(text))
        .map_err(|error| Wrong::new(text, &error))
}

/// Puts the layers together.
fn merge(layers: Vec<Layer>) -> Result<Config, Failure> {
    let mut all = Table::new();
    let names: Vec<String> = layers.iter().map(|layer| layer.name.display().to_string()).collect();
    for layer in layers {
        take(&mut all, layer.keys);
    }
    Config::deserialize(all).map_err(|error| {
        let what = format!("{} do not go together: {}", names.join(" and "), error.message());
        Failure::new(Code::Config, what)
    })
}

fn take(all: &mut Table, newer: Table) {
    for (key, value) in newer {
        match (all.get_mut(&key), value) {
            (Some(Value::Table(known)), Value::Table(more)) => take(known, more),
            (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
            (_, value) => {
                all.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfwatch_core::finding::Level;

    fn layer(name: &str, text: &str) -> Layer {
        Layer { name: PathBuf::from(name), keys: keys(text).unwrap() }
    }

    #[test]
    fn later_values_win_and_lists_grow() {
        let sink = "[[sink]]\nformat = \"json\"\ntransport = \"file\"\npath = ";
        let config = merge(vec![
            layer("a", &format!("level = \"high\"\n[rules]\ndirs = [\"/a\"]\n{sink}\"/1\"\n")),
            layer("b", "redact = false\n[rules]\nshipped = false\ndirs = [\"/b\"]\n"),
            layer("c", &format!("level = \"medium\"\n{sink}\"/2\"\n{sink}\"/3\"\n")),
        ])
        .unwrap();
        assert_eq!((config.level, config.redact), (Level::Medium, false));
        assert_eq!(config.rules.dirs, ["/a", "/b"].map(PathBuf::from));
        assert!(!config.rules.shipped);
        // Naming one replaces the default.
        assert_eq!(config.sinks.len(), 3);
        assert_eq!(merge(Vec::new()).unwrap(), Config::default());
    }

    #[test]
    fn managed_preferences_are_the_last_layer_and_all_or_nothing() {
        let dir = std::env::temp_dir().join(format!("bpfwatch-managed-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (main, managed) = (dir.join("bpfwatch.toml"), dir.join("managed.plist"));
        fs::write(&main, "level = \"high\"\nredact = false\n").unwrap();
        let manage = |inner: &str| {
            let text = format!("<plist version=\"1.0\"><dict>{inner}</dict></plist>");
            fs::write(&managed, text).unwrap();
            load_with(Some(&main), Some(&managed), false)
        };
        let (config, files) = manage("<key>level</key><string>critical</string>").unwrap();
        assert_eq!((config.level, config.redact), (Level::Critical, false));
        assert_eq!(files, [&main, &managed].map(Clone::clone));
        for (inner, key) in [
            ("<key>level</key><string>high</string><key>lvel</key><true/>", "`lvel`"),
            ("<key>redact</key><integer>1</integer>", "`redact`"),
        ] {
            let refused = manage(inner).unwrap_err().to_string();
            assert!(refused.contains(key) && refused.contains("managed.plist"), "{refused}");
            assert!(refused.contains("the last good configuration stays"), "{refused}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
