//! One line: `[node=…] type=SYSCALL msg=audit(1700000000.123:456): key=value key="value" …`.
//!
//! A value that a program chose stands in quotes, or in hexadecimal where it has a quote, a blank or a
//! control character in it (kernel/audit.c, `audit_log_untrustedstring`). With `log_format=ENRICHED`
//! auditd adds, after a byte 0x1d, what numbers mean (`UID="root"`).

use std::sync::Arc;

use bpfwatch_core::decoder::{Decoded, LineDecoder, LineError, Sequence};
use bpfwatch_core::logged::{Log, Logged, Value};
use bpfwatch_core::observation::{Kind, Observation, Origin, Os};
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;
use memchr::memmem;

use super::events::Events;
use crate::text::unhex;

/// Fields kept of a record, so that an execution with 100,000 arguments is no list of 100,000.
const MAX_ARGUMENTS: usize = 128;
/// The field of those beyond it, parted by NUL: no rule asks for `a129`, but the command line is whole.
pub(super) const REST: &str = "arguments_beyond";

/// The format `auditd`.
#[derive(Debug, Clone)]
pub struct Auditd {
    sensor: Arc<str>,
}

impl Default for Auditd {
    fn default() -> Self {
        Self { sensor: Arc::from("linux.audit") }
    }
}

impl LineDecoder for Auditd {
    fn name(&self) -> &'static str {
        "auditd"
    }

    fn sniff(&self, line: &[u8]) -> bool {
        !line.starts_with(b"{") && head(line).is_some()
    }

    fn os(&self) -> Option<Os> {
        Some(Os::Linux)
    }

    fn sequence(&self) -> Option<Box<dyn Sequence>> {
        Some(Box::new(Events::default()))
    }

    fn decode(&self, line: &[u8], out: &mut Vec<Observation>) -> Result<Decoded, LineError> {
        let Some(head) = head(line) else {
            // What auditd says of itself when it starts, or a foreign line in a syslog file.
            return if memmem::find(line, b"audit").is_none() {
                Ok(Decoded::Skipped)
            } else {
                Err(LineError::new("no record of Linux audit: expected type=… msg=audit(…): …"))
            };
        };
        let mut record = Logged::new(Log::Auditd, None, Text::from(""));
        record.fields.push("type", Value::text(head.kind));
        record.fields.push("serial", Value::Number(i64::try_from(head.serial).unwrap_or(i64::MAX)));
        fields(&head, &mut record);
        out.push(Observation {
            at: head.at,
            seq: 0,
            sensor: Arc::clone(&self.sensor),
            actor: None,
            kind: Kind::Logged { record: Arc::new(record) },
        });
        let Some(node) = head.node else { return Ok(Decoded::Observed) };
        Ok(Decoded::From(Box::new(Origin {
            host: Text::from_bytes_limited(node, 255),
            os: Os::Linux,
            os_version: None,
            boot_id: None,
        })))
    }
}

/// What every record begins with.
struct Head<'a> {
    node: Option<&'a [u8]>,
    kind: &'a [u8],
    at: Timestamp,
    serial: u64,
    body: &'a [u8],
}

/// `None` where the line is no record.
fn head(line: &[u8]) -> Option<Head<'_>> {
    let line = line.trim_ascii();
    // Before it may stand what syslog puts there.
    let start = memmem::find(line, b"type=")?;
    let before = &line[..start];
    let node = memmem::rfind(before, b"node=").map(|at| before[at + 5..].trim_ascii());
    let rest = &line[start + 5..];
    let (kind, rest) = rest.split_at(memchr::memchr(b' ', rest)?);
    let open = memmem::find(rest.get(..64).unwrap_or(rest), b"audit(")?;
    let rest = &rest[open + 6..];
    let close = memchr::memchr(b')', rest.get(..64).unwrap_or(rest))?;
    let (stamp, body) = (std::str::from_utf8(&rest[..close]).ok()?, &rest[close + 1..]);
    let (time, serial) = stamp.rsplit_once(':')?;
    let (secs, millis) = time.split_once('.')?;
    let nanos = secs.parse::<i64>().ok()?.checked_mul(1_000_000_000)?;
    let nanos = nanos.checked_add(millis.parse::<i64>().ok()?.checked_mul(1_000_000)?)?;
    Some(Head {
        node,
        kind: name_of(kind),
        at: Timestamp::from_nanos(nanos),
        serial: serial.parse().ok()?,
        body: body.strip_prefix(b":").unwrap_or(body),
    })
}

/// The kernel's own lines have numbers. (include/uapi/linux/audit.h)
fn name_of(kind: &[u8]) -> &[u8] {
    match kind {
        b"1300" => b"SYSCALL",
        b"1302" => b"PATH",
        b"1304" => b"SOCKETCALL",
        b"1306" => b"SOCKADDR",
        b"1307" => b"CWD",
        b"1309" => b"EXECVE",
        b"1320" => b"EOE",
        b"1325" => b"NETFILTER_CFG",
        b"1327" => b"PROCTITLE",
        b"1700" => b"ANOM_PROMISCUOUS",
        other => other,
    }
}

/// Adds the fields of a record's body.
fn fields(head: &Head<'_>, record: &mut Logged) {
    let mut rest = head.body;
    let mut arguments = 0;
    let mut beyond: Vec<u8> = Vec::new();
    while let Some((name, value, quoted)) = next(&mut rest) {
        if name.is_empty() || name.len() > 128 {
            continue;
        }
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if head.kind == b"EXECVE" && name.starts_with('a') && name != "argc" {
            arguments += 1;
            if arguments > MAX_ARGUMENTS {
                if name.ends_with("_len") {
                    continue;
                }
                let decoded = if quoted { None } else { unhex(value) };
                // `a200[1]` goes on what `a200[0]` began.
                if !beyond.is_empty() && (!name.ends_with(']') || name.ends_with("[0]")) {
                    beyond.push(0);
                }
                let value = decoded.as_deref().unwrap_or(value);
                beyond.extend(value.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }));
                continue;
            }
        }
        // User space's records have their own fields in msg='…'.
        if name == "msg" && quoted {
            let mut inner = value;
            while let Some((name, value, quoted)) = next(&mut inner) {
                let Ok(name) = std::str::from_utf8(name) else { continue };
                if let Some(value) = of(head.kind, name, value, quoted) {
                    record.fields.push(name.to_owned(), value);
                }
            }
            continue;
        }
        if let Some(value) = of(head.kind, name, value, quoted) {
            record.fields.push(name.to_owned(), value);
        }
    }
    if !beyond.is_empty() {
        record.fields.push(REST, Value::text(beyond));
    }
}

/// The next name and value, and whether it stood in quotes.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8], bool)> {
    let separates = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x1d;
    let start = rest.iter().position(|byte| !separates(byte))?;
    *rest = &rest[start..];
    let end = rest.iter().position(|byte| separates(byte) || *byte == b'=').unwrap_or(rest.len());
    let name = &rest[..end];
    *rest = &rest[end..];
    let Some(after) = rest.strip_prefix(b"=") else { return Some((b"", name, false)) };
    let (value, left, quoted) = match after.first() {
        Some(quote @ (b'"' | b'\'')) => {
            let inner = &after[1..];
            match memchr::memchr(*quote, inner) {
                Some(end) => (&inner[..end], &inner[end + 1..], true),
                None => (inner, &b""[..], true),
            }
        }
        // `SADDR={ saddr_fam=packet … }`
        Some(b'{') => {
            let end = memchr::memchr(b'}', after).map_or(after.len(), |end| end + 1);
            (&after[..end], &after[end..], true)
        }
        _ => {
            let end = after.iter().position(separates).unwrap_or(after.len());
            (&after[..end], &after[end..], false)
        }
    };
    *rest = left;
    Some((name, value, quoted))
}

/// Names of values that a program chose, and that the kernel may write in hexadecimal.
fn is_untrusted(kind: &[u8], name: &str) -> bool {
    match name {
        "proctitle" | "comm" | "exe" | "cwd" | "name" | "key" | "acct" | "cmd" | "dir"
        | "ocomm" | "data" | "file" | "path" | "unit" => true,
        _ => kind == b"EXECVE" && name.starts_with('a') && name != "argc",
    }
}

fn of(kind: &[u8], name: &str, value: &[u8], quoted: bool) -> Option<Value> {
    if !quoted && (value.is_empty() || matches!(value, b"(null)" | b"(none)" | b"?")) {
        return None;
    }
    if is_untrusted(kind, name) {
        if !quoted && let Some(bytes) = unhex(value) {
            let bytes = if name == "proctitle" { spaced(bytes) } else { bytes };
            return Some(Value::text(bytes));
        }
        return Some(Value::text(value));
    }
    // Arguments of a system call are in hexadecimal, whatever they look like.
    let is_argument =
        name.len() > 1 && name.starts_with('a') && name[1..].bytes().all(|b| b.is_ascii_digit());
    if !quoted && !is_argument && value.len() < 20 {
        let digits = value.strip_prefix(b"-").unwrap_or(value);
        // `0100755` is a mode, in octal.
        let plain = digits.iter().all(u8::is_ascii_digit)
            && (digits.len() == 1 || digits.first() != Some(&b'0'));
        let number =
            std::str::from_utf8(value).ok().filter(|_| plain).and_then(|text| text.parse().ok());
        if let Some(number) = number {
            return Some(Value::Number(number));
        }
    }
    Some(Value::text(value))
}

/// Arguments of a title are parted by NUL.
fn spaced(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    bytes
}
