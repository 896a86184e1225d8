//! Times as logs write them.

use bpfwatch_core::time::Timestamp;
use serde_json::Value;

/// RFC 3339; the same with a blank between date and time, or without a zone, which is then UTC.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(at) = Timestamp::parse(text) {
        return Some(at);
    }
    let text = text.trim();
    // `/Date(1606186797000)/`, as Windows PowerShell writes it.
    if let Some(millis) = text.strip_prefix("/Date(").and_then(|rest| rest.strip_suffix(")/")) {
        return Some(Timestamp::from_nanos(millis.parse::<i64>().ok()?.checked_mul(1_000_000)?));
    }
    if text.len() < 19 || !text.is_ascii() {
        return None;
    }
    let (date, clock) = text.split_at(10);
    let clock = clock.get(1..)?;
    let zoned = clock.ends_with('Z') || clock.get(8..)?.contains(['+', '-']);
    let zone = if zoned { "" } else { "Z" };
    Timestamp::parse(&format!("{date}T{}{zone}", clock.trim_end())).ok()
}

/// A text as above, or a number of seconds, milliseconds or microseconds since 1970, told by its size.
pub(crate) fn of_json(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => parse(text),
        Value::Number(number) => of_number(number.as_i64().or_else(|| whole(number.as_f64()?))?),
        Value::Object(inner) => of_json(inner.get("#attributes")?.get("SystemTime")?),
        _ => None,
    }
}

/// Seconds with a fraction, in microseconds, which a double holds exactly enough.
#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
fn whole(number: f64) -> Option<i64> {
    (1e8..1e11).contains(&number).then_some((number * 1e6) as i64)
}

fn of_number(number: i64) -> Option<Timestamp> {
    let scale = match number {
        100_000_000..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => return None,
    };
    number.checked_mul(scale).map(Timestamp::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_logs_write() {
        let at = Timestamp::parse("2020-11-24T02:59:57.123Z").unwrap();
        for text in [
            "2020-11-24T02:59:57.123Z",
            "2020-11-24 02:59:57.123",
            "2020-11-24T02:59:57.1230000Z",
            "2020-11-24 03:59:57.123+01:00",
            "/Date(1606186797123)/",
        ] {
            assert_eq!(parse(text), Some(at), "{text}");
        }
        for number in ["1606186797123", "1606186797123000"] {
            assert_eq!(of_json(&serde_json::from_str(number).unwrap()), Some(at), "{number}");
        }
        for text in [
            "",
            "-",
            "now",
            "2020-11-24",
            "/Date(x)/",
            "2020-11-24 02:59:57é",
            "99999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(of_json(&serde_json::json!(7)), None);
    }
}
