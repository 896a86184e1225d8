//! What stands before a message: RFC 5424, RFC 3164 as devices and collectors write it, or a time alone.

use bpfwatch_core::time::Timestamp;

/// A line's time and host, and what follows them.
pub(super) struct Header<'a> {
    pub(super) at: Option<Timestamp>,
    pub(super) host: Option<&'a str>,
    pub(super) rest: &'a str,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl<'a> Header<'a> {
    /// Of a line that came when it was not later than `now`.
    pub(super) fn of(line: &'a str, now: Timestamp) -> Self {
        let rest = priority(line);
        // `1 2026-11-24T02:45:17.123Z host app 123 ID …`
        if let Some(versioned) = rest.strip_prefix("1 ")
            && let Some((stamp, rest)) = word(versioned)
            && let Ok(at) = Timestamp::parse(stamp)
        {
            let (host, rest) = word(rest).unwrap_or((rest, ""));
            return Self { at: Some(at), host: named(host), rest };
        }
        // `Nov 24 2026 02:45:17.123 host: …`, and what collectors put before.
        if let Some((at, rest)) = time(rest, now) {
            let (host, rest) = match word(rest) {
                // A device's own line: the number of the message, or its mark, comes next.
                Some((first, _)) if first.starts_with('%') || is_counter(first) => (None, rest),
                Some((host, rest)) => (named(host), rest),
                None => (None, rest),
            };
            return Self { at: Some(at), host, rest };
        }
        // `123: router1: *Nov 24 02:45:17.123: %…`, as the device itself sends it.
        let mut host = None;
        let mut left = rest;
        for _ in 0..3 {
            let Some((first, after)) = word(left) else { break };
            if let Some((at, rest)) = time(left, now) {
                return Self { at: Some(at), host, rest };
            }
            if !first.ends_with(':') {
                break;
            }
            if !is_counter(first) && host.is_none() {
                host = named(first);
            }
            left = after;
        }
        match time(left, now) {
            Some((at, rest)) => Self { at: Some(at), host, rest },
            None => Self { at: None, host, rest },
        }
    }
}

/// Without `<189>`.
fn priority(line: &str) -> &str {
    let inner = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match inner {
        Some((digits, rest)) if digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            rest
        }
        _ => line,
    }
}

/// `123:`, the number that a device counts its messages with.
fn is_counter(word: &str) -> bool {
    word.strip_suffix(':').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn named(host: &str) -> Option<&str> {
    let host = host.trim_end_matches(':');
    (!host.is_empty() && host != "-").then_some(host)
}

/// The first word and what follows it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    if text.is_empty() {
        return None;
    }
    Some(text.split_once([' ', '\t']).unwrap_or((text, "")))
}

/// A time at the start, with what devices put around it: `*` and `.` where the clock is not set, a year
/// before or after the day, a zone, a colon.
fn time(text: &str, now: Timestamp) -> Option<(Timestamp, &str)> {
    let text = text.trim_start().trim_start_matches(['*', '.']);
    let (first, mut rest) = word(text)?;
    if let Some(at) = crate::time::parse(first.trim_end_matches(':')) {
        return Some((at, rest));
    }
    let mut year = None;
    let mut month = first;
    if first.len() == 4 && first.bytes().all(|byte| byte.is_ascii_digit()) {
        year = first.parse::<i64>().ok();
        (month, rest) = word(rest)?;
    }
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let (day, mut rest) = word(rest)?;
    let day: u8 = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    let (mut clock, after) = word(rest)?;
    rest = after;
    if clock.len() == 4 && clock.bytes().all(|byte| byte.is_ascii_digit()) {
        year = clock.parse::<i64>().ok();
        (clock, rest) = word(rest)?;
    }
    let colon = clock.ends_with(':');
    let clock = clock.trim_end_matches(':');
    if clock.len() < 8 {
        return None;
    }
    let at = |year: i64| Timestamp::parse(&format!("{year:04}-{month:02}-{day:02}T{clock}Z")).ok();
    let at = match year {
        Some(year) => at(year)?,
        None => {
            let this: i64 = now.to_string().get(..4)?.parse().ok()?;
            // A day ahead may be a clock that goes wrong; more is the year before.
            let ahead = std::time::Duration::from_secs(86_400);
            at(this).filter(|at| *at <= now + ahead).or_else(|| at(this - 1))?
        }
    };
    // `UTC:`, `CET:`: a zone by name says little; it is taken for UTC.
    if !colon
        && let Some((zone, after)) = word(rest)
        && zone.len() <= 6
        && zone.strip_suffix(':').is_some_and(|name| name.bytes().all(|b| b.is_ascii_uppercase()))
    {
        rest = after;
    }
    Some((at, rest))
}
