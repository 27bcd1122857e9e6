//! Durations as people write them in manifests: `90s`, `10m`, `1h 30m`, `2days`.

use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time in whole seconds, never negative. Written as `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    seconds: u32,
}

impl Span {
    pub const fn seconds(seconds: u32) -> Span {
        Span { seconds }
    }

    pub const fn minutes(minutes: u32) -> Span {
        Span { seconds: minutes * 60 }
    }

    pub const fn hours(hours: u32) -> Span {
        Span { seconds: hours * 3600 }
    }

    pub const fn as_seconds(&self) -> i64 {
        self.seconds as i64
    }

    pub const fn is_zero(&self) -> bool {
        self.seconds == 0
    }

    pub fn delta(&self) -> TimeDelta {
        TimeDelta::seconds(self.as_seconds())
    }

    /// The span from a signed difference; what is negative becomes zero.
    pub fn from_delta(delta: TimeDelta) -> Span {
        Span { seconds: u32::try_from(delta.num_seconds().max(0)).unwrap_or(u32::MAX) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration; write whole seconds or more, such as 90s, 10m, 1h 30m or 2days")]
pub struct SpanError {
    text: String,
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let error = || SpanError { text: text.to_owned() };
        let parsed = humantime::parse_duration(text).map_err(|_| error())?;
        if parsed.subsec_nanos() != 0 {
            return Err(error());
        }
        Ok(Span { seconds: u32::try_from(parsed.as_secs()).map_err(|_| error())? })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(std::time::Duration::from_secs(u64::from(self.seconds))).fmt(f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "maxLength": 64, "pattern": r"^([0-9]+ ?(s|sec|m|min|h|hr|hour|hours|d|day|days|w|week|weeks) ?)+$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        assert_eq!("1h 30m".parse::<Span>().unwrap(), Span::minutes(90));
        assert_eq!("2days".parse::<Span>().unwrap(), Span::hours(48));
        assert!("500ms".parse::<Span>().is_err());
        assert!("-5m".parse::<Span>().is_err());
        assert!("soon".parse::<Span>().is_err());
        assert_eq!(Span::minutes(90).to_string(), "1h 30m");
    }
}
