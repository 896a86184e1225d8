//! A baseline as a file of Sigma filters: evidence in comments, values that match nothing but
//! themselves, one document for each group.

use std::fmt::Write as _;

use bpfwatch_core::ids;
use bpfwatch_core::time::Timestamp;
use bpfwatch_delivery::visible;

use super::{Baseline, Fate, Group, Key, Place};

/// Evidence is cut to so many columns.
const WIDTH: usize = 160;

/// The file: what is to be reviewed first, then each filter.
pub fn text(baseline: &Baseline, made: Timestamp, version: &str) -> String {
    let on = second(made);
    let mut out = format!(
        "# What captured here while bpfwatch {version} learnt, as expected filters.\n\
         # Made {on}.\n\
         #\n\
         # Read each before you use it: whatever it matches will not be reported any more. What is\n\
         # commented out needs a decision; remove the `#` to take it. Then put the file into a\n\
         # directory of your own that [rules] dirs names, and `bpfwatch rules check` it.\n"
    );
    let mut left = String::new();
    for (key, group, fate) in baseline.entries() {
        match fate {
            Fate::Written => {
                out.push_str("---\n");
                out.push_str(&document(key, group, made));
            }
            Fate::Commented(why) => out.push_str(&commented(&document(key, group, made), why)),
            Fate::Left(why) => {
                let _ = writeln!(left, "#\n# {}: {why}.", shown(&key.image));
                evidence(&mut left, group);
            }
        }
    }
    for (why, count) in &baseline.unusable {
        let _ = writeln!(left, "#\n# {count} more: {why}.");
    }
    if !left.is_empty() {
        let _ = write!(out, "#\n# No filter was made of these; look at them yourself:\n{left}");
    }
    out
}

fn document(key: &Key, group: &Group, made: Timestamp) -> String {
    let mut out = String::new();
    evidence(&mut out, group);
    let name = key.image.rsplit(['/', '\\']).next().unwrap_or(&key.image);
    let what = if key.category == "packet_capture" { "captures" } else { "is executed" };
    let place = match &key.place {
        Place::Host => String::new(),
        Place::Jail(jail) => format!(" in jail {jail}"),
        Place::Container(Some(image)) => format!(" in container {image}"),
        Place::Container(None) => " in a container".to_owned(),
        Place::Namespace => " in a network namespace".to_owned(),
    };
    let _ = writeln!(out, "title: {}", quoted(&format!("{name} {what}{place}")));
    let _ = writeln!(out, "id: {}", id(key));
    out.push_str("status: experimental\n");
    let hosts: Vec<&str> = group.hosts.iter().map(String::as_str).collect();
    let description = format!(
        "Learnt by bpfwatch baseline on {}: seen {} from {} to {}.",
        hosts.join(", "),
        times(group.count),
        second(group.seen.0),
        second(group.seen.1)
    );
    let _ = writeln!(out, "description: {}", quoted(&description));
    out.push_str("author: bpfwatch baseline\n");
    let made = made.to_string();
    let _ = writeln!(out, "date: {}", made.get(..10).unwrap_or(&made));
    let _ = writeln!(
        out,
        "logsource:\n    category: {}\n    product: {}",
        key.category,
        key.os.as_str()
    );
    out.push_str("filter:\n    rules:\n");
    for (id, (title, level)) in &group.rules {
        let _ = writeln!(out, "        - {id} # {} ({})", shown(title), level.as_str());
    }
    out.push_str("    selection:\n");
    for (field, values) in selection(key, group) {
        match values.as_slice() {
            [value] => {
                let _ = writeln!(out, "        {field}: {value}");
            }
            values => {
                let _ = writeln!(out, "        {field}:");
                for value in values {
                    let _ = writeln!(out, "            - {value}");
                }
            }
        }
    }
    out.push_str("    condition: not selection\n");
    out
}

/// Fields and values, in YAML.
fn selection(key: &Key, group: &Group) -> Vec<(&'static str, Vec<String>)> {
    let mut fields = Vec::new();
    let mut word = |field, value: &Option<String>| {
        if let Some(value) = value {
            fields.push((field, vec![literal(value)]));
        }
    };
    word("Image", &Some(key.image.clone()));
    word("Unit", &key.unit);
    word("SigningId", &key.signature.0);
    word("TeamId", &key.signature.1);
    match &key.place {
        Place::Jail(name) => word("JailName", &Some(name.clone())),
        Place::Container(image) => word("ContainerImage", image),
        Place::Host | Place::Namespace => {}
    }
    // Only where nothing else says who started it.
    if key.unit.is_none() && key.signature.0.is_none() {
        word("ParentImage", &group.parent);
    }
    let mut plain = |field, value: &str| fields.push((field, vec![value.to_owned()]));
    let place = match &key.place {
        Place::Host => "host",
        Place::Jail(_) => "jail",
        Place::Container(_) => "container",
        Place::Namespace => "namespace",
    };
    plain("ScopeKind", place);
    if group.root_owned {
        plain("ImageOwner", "0");
        plain("ImageDeleted", "false");
        plain("ImageWritableDir", "false");
    }
    if key.signature.0.is_some() && group.platform_binary {
        plain("PlatformBinary", "true");
    }
    if let Some(handle) = key.handle {
        plain("HandleKind", handle);
        if !group.promiscuous {
            plain("Promiscuous", "false");
        }
        if group.filtered {
            plain("FilterAttached", "true");
        }
        if !group.protocols.is_empty() {
            fields.push(("Protocol", group.protocols.iter().map(|name| literal(name)).collect()));
        }
        // Another program of the same loader is another thing.
        if !group.programs.is_empty() {
            fields.push(("ProgramTag", group.programs.iter().map(|tag| literal(tag)).collect()));
        }
    }
    // A service has few ways of being started; where there are more, the unit must do.
    if key.unit.is_some() && !group.more_lines && !group.lines.is_empty() {
        let whole = !group.lines.iter().any(|line| line.contains("[redacted]"));
        if whole {
            fields
                .push(("CommandLine", group.lines.iter().map(|line| command_line(line)).collect()));
        }
    }
    fields
}

/// Rules see a line break of a command line as a space.
fn command_line(line: &str) -> String {
    literal(&line.replace(['\n', '\r'], " "))
}

/// A Sigma value that matches nothing but `text`: wildcards and the backslash before them lose their
/// meaning (Sigma specification, Escaping).
fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    quoted(&escaped)
}

/// A YAML string in double quotes. JSON's are a subset of them but for characters that YAML does not
/// take as they are (YAML 1.2, 5.1 and 5.7).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if visible::is_unsafe(c) || c.is_control() => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn id(key: &Key) -> String {
    let (kind, name) = match &key.place {
        Place::Host => ("host", None),
        Place::Jail(name) => ("jail", Some(name.as_str())),
        Place::Container(image) => ("container", image.as_deref()),
        Place::Namespace => ("namespace", None),
    };
    let parts = [
        Some("baseline"),
        Some(key.os.as_str()),
        Some(&key.category),
        Some(&key.image),
        key.unit.as_deref(),
        key.signature.0.as_deref(),
        key.signature.1.as_deref(),
        Some(kind),
        name,
        key.handle,
    ];
    // Absent is not the same as empty.
    let parts: Vec<Vec<u8>> = parts
        .into_iter()
        .map(|part| part.map_or_else(Vec::new, |part| [b"=", part.as_bytes()].concat()))
        .collect();
    ids::derive(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// To the second, which is as exact as a reader of it needs.
fn second(time: Timestamp) -> String {
    let text = time.to_string();
    text.split_once('.').map_or(text.clone(), |(whole, _)| format!("{whole}Z"))
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// One line of a comment: no name in it can end the line.
fn shown(text: &str) -> String {
    visible::cut_end(&visible::escaped(text), WIDTH).into_owned()
}

fn evidence(out: &mut String, group: &Group) {
    let list = |names: &std::collections::BTreeSet<String>| {
        names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(
        out,
        "# Seen {}, {} to {}.",
        times(group.count),
        second(group.seen.0),
        second(group.seen.1)
    );
    for (what, names) in
        [("hosts", &group.hosts), ("users", &group.users), ("interfaces", &group.interfaces)]
    {
        if !names.is_empty() {
            let _ = writeln!(out, "# {what}: {}", shown(&list(names)));
        }
    }
    if let Some(parent) = &group.parent {
        let _ = writeln!(out, "# parent: {}", shown(parent));
    }
    for line in &group.lines {
        let _ = writeln!(out, "# command: {}", shown(line));
    }
    if group.more_lines {
        out.push_str("# command: ... and others\n");
    }
}

/// The document as a comment, with the reason on top.
fn commented(document: &str, why: &str) -> String {
    let mut out = format!("#---\n# NOT IN FORCE: {why}.\n");
    for line in document.lines() {
        let _ = match line.strip_prefix('#') {
            Some(_) => writeln!(out, "{line}"),
            None => writeln!(out, "#{line}"),
        };
    }
    out
}
