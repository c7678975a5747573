//! Headers of a dead letter, shown to people.

use fleetlog_kafka::HeaderName;
use fleetlog_letter::binary_or_digits;
use serde_json::Value;

/// Headers whose values Spring writes as binary numbers, big-endian.
///
/// `DeadLetterPublishingRecoverer.maybeAddOriginalHeaders` puts partition (`int`), offset and timestamp (`long`) with
/// `ByteBuffer`; retry topics put their attempts in the same way (`RetryTopicHeaders`).
const BINARY_NUMBERS: [&str; 5] = [
    "kafka_dlt-original-partition",
    "kafka_dlt-original-offset",
    "kafka_dlt-original-timestamp",
    "retry_topic-attempts",
    "retry_topic-original-timestamp",
];

/// A header's value for people: Spring's numbers as numbers, a text as it is, other bytes in hex, null where there is
/// none.
#[must_use]
pub fn readable(name: &HeaderName, value: Option<&[u8]>) -> Value {
    let Some(value) = value else { return Value::Null };
    if BINARY_NUMBERS.iter().any(|number| name == number)
        && let Some(number) = binary_or_digits(value)
    {
        return number.into();
    }
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => value.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_what_they_are() {
        let shown = |name: &str, value: Option<&[u8]>| readable(&name.into(), value);
        assert_eq!(shown("kafka_dlt-original-offset", Some(&77_i64.to_be_bytes())), 77);
        assert_eq!(shown("kafka_dlt-original-offset", Some(b"\x01")), "\u{1}");
        assert_eq!(shown("other", Some(&3_i32.to_be_bytes())), "\0\0\0\u{3}");
        assert_eq!(shown("other", Some(b"\xff\x00")), "ff00");
        assert_eq!(shown("other", None), Value::Null);
    }
}
