//! Engine time: nanoseconds since the Unix epoch, written as RFC 3339.
//!
//! The core never reads a clock. Every [`Timestamp`] comes from an observation or from the caller of
//! `advance`, so a recording gives the same output whenever it is replayed.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment in nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From whole seconds since the epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Time from `earlier` to `self`; zero when `earlier` is the later one.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }

    /// Parses RFC 3339 with any number of sub-second digits.
    ///
    /// # Errors
    /// When `text` is not RFC 3339 or lies outside the years 1677 to 2262 that 64-bit nanoseconds hold.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let parsed = DateTime::parse_from_rfc3339(text).map_err(|_| TimestampError)?;
        parsed.timestamp_nanos_opt().map(Self).ok_or(TimestampError)
    }
}

/// The text was no RFC 3339 time that fits 64-bit nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time, such as 2026-11-24T02:45:17.123456Z")]
pub struct TimestampError;

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, rhs: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(rhs.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, rhs: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(rhs.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    /// Microseconds, or nanoseconds where the value has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = if self.0 % 1_000 == 0 { SecondsFormat::Micros } else { SecondsFormat::Nanos };
        f.write_str(&DateTime::<Utc>::from_timestamp_nanos(self.0).to_rfc3339_opts(format, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_parses() {
        for text in [
            "2026-11-24T02:45:17.123456Z",
            "1970-01-01T00:00:00.000000Z",
            "2026-11-24T02:45:17.123456789Z",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Timestamp::parse("2026-11-24T03:45:17+01:00").unwrap(),
            Timestamp::parse("2026-11-24T02:45:17Z").unwrap()
        );
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in ["", "now", "2026-13-01T00:00:00Z", "9999-01-01T00:00:00Z"] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let last = Timestamp::from_nanos(i64::MAX);
        assert_eq!(last + Duration::from_secs(1), last);
        assert_eq!(Timestamp::from_secs(1).since(last), Duration::ZERO);
    }
}
