//! One line of a recording: an MQTT message as its recorder received it.

use serde::{Deserialize, Serialize};

/// An MQTT message with the time of its arrival.
///
/// As a line of a recording it is a JSON object of these names; fields beyond them are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it arrived at the recorder, in milliseconds since 1970 (UTC).
    pub ts_ms: i64,
    /// The MQTT topic: `<interface>/v<major>/<manufacturer>/<serial number>/<kind>`.
    pub topic: String,
    /// The MQTT quality of service; only recorded, nothing depends on it.
    #[serde(default)]
    pub qos: u8,
    /// Whether the broker handed it out of its store, on subscription: a replay, no news.
    #[serde(default)]
    pub retain: bool,
    /// The message's body, as received.
    pub payload: String,
}

/// Longest reason, in bytes: serde repeats a value that does not fit, however long it is.
const REASON_BYTES_MAX: usize = 300;

/// Why a line of a recording holds no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not JSON at all.
    #[error("the line is no JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object with `ts_ms`, `topic` and `payload`.
    #[error("the line is no recorded message {{\"ts_ms\", \"topic\", \"payload\", …}}: {0}")]
    NotAMessage(String),
}

impl Line {
    /// Reads one line of a recording.
    ///
    /// # Errors
    /// When it is no JSON, or no message.
    pub fn parse(bytes: &[u8]) -> Result<Self, LineError> {
        serde_json::from_slice(bytes).map_err(|error| {
            let mut reason = error.to_string();
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            match error.classify() {
                serde_json::error::Category::Data => LineError::NotAMessage(reason),
                _ => LineError::NotJson(reason),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_needs_time_topic_and_payload_and_may_have_more() {
        let line = Line::parse(br#"{"ts_ms":5,"topic":"a/v2/b/c/state","payload":"{}","recorder":"x"}"#);
        let topic = "a/v2/b/c/state".to_owned();
        assert_eq!(line, Ok(Line { ts_ms: 5, topic, qos: 0, retain: false, payload: "{}".into() }));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_apart() {
        for text in ["", "{", "hello", "{\"ts_ms\":5,\"topic\":\"a\",\"payload\":\"\\ud800\"}"] {
            assert!(matches!(Line::parse(text.as_bytes()), Err(LineError::NotJson(_))), "{text}");
        }
        for text in ["5", "{}", r#"{"ts_ms":"5","topic":"a","payload":""}"#, r#"{"ts_ms":5,"topic":"a"}"#] {
            assert!(matches!(Line::parse(text.as_bytes()), Err(LineError::NotAMessage(_))), "{text}");
        }
        assert!(matches!(Line::parse(b"\"\xff\""), Err(LineError::NotJson(_))));
        let long = format!("{{\"ts_ms\":\"{}\"}}", "ä".repeat(100_000));
        let error = Line::parse(long.as_bytes()).map_err(|error| error.to_string());
        assert!(error.as_ref().is_err_and(|error| error.len() < 500), "{error:?}");
    }
}
