//! The three and more shapes of a VDA 5050 `timestamp`.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::Value;

/// `timestamp` of a message in milliseconds since 1970: ISO 8601 with any number of digits after the second; a time
/// without a zone is UTC, as the specification wants. None if there is none, or none that can be read.
pub(crate) fn timestamp_ms(body: &Value) -> Option<i64> {
    let text = body.get("timestamp")?.as_str()?;
    let timestamp = text.parse::<Timestamp>().or_else(|_| {
        let civil: DateTime = text.parse()?;
        Ok::<_, jiff::Error>(civil.to_zoned(TimeZone::UTC)?.timestamp())
    });
    timestamp.ok().map(|timestamp| timestamp.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn timestamps_of_every_shape_are_read() {
        let at = |text: &str| timestamp_ms(&json!({ "timestamp": text }));
        assert_eq!(at("2026-11-21T09:04:16.027Z"), Some(1_795_251_856_027));
        assert_eq!(at("2026-11-21T09:04:16.02Z"), Some(1_795_251_856_020));
        assert_eq!(at("2026-11-21T09:04:16Z"), Some(1_795_251_856_000));
        assert_eq!(at("2026-11-21T10:04:16+01:00"), Some(1_795_251_856_000));
        assert_eq!(at("2026-11-21T09:04:16"), Some(1_795_251_856_000));
        assert_eq!(at("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(at("2100-01-01T00:00:00.000Z"), Some(4_102_444_800_000));
        assert_eq!(at("yesterday"), None);
        assert_eq!(timestamp_ms(&json!({ "timestamp": 5 })), None);
        assert_eq!(timestamp_ms(&json!({})), None);
    }
}
