//! One call as it goes out: headers and body.

use bytes::Bytes;
use fleetlog_event::{EventId, FleetEvent, TimestampMs};

use crate::{
    Mode,
    cloud_event::CloudEvent,
    signature::{Secret, signatures},
};

/// What receivers know fleetlog by.
const USER_AGENT: &str = concat!("fleetlog/", env!("CARGO_PKG_VERSION"));

/// Headers and body of one POST. Beside them HTTP's own headers go out: `host`, `accept`, `content-length`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Names in lower case; values are printable ASCII.
    pub headers: Vec<(&'static str, String)>,
    /// The body, as it is signed.
    pub body: Bytes,
}

/// What is said about a call beside the event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope<'a> {
    /// The event's idempotence key: `webhook-id`.
    pub(crate) id: EventId,
    /// Which call it is, from 1: `fleetlog-attempt`.
    pub(crate) attempt: u32,
    /// Whether an operator sent it back: `fleetlog-redrive`.
    pub(crate) is_redrive: bool,
    /// The trace that the event is part of, for the receiver to go on with: `traceparent`.
    pub(crate) traceparent: Option<&'a str>,
    /// When the call is made: `webhook-timestamp` says it in seconds.
    pub(crate) now: TimestampMs,
}

impl Message {
    /// Of an event. `webhook-*` by Standard Webhooks, section "Webhook headers"; without secrets it has no signature.
    ///
    /// # Errors
    /// When a value of the event has no JSON form.
    pub(crate) fn new(
        event: &FleetEvent,
        mode: Mode,
        secrets: &[Secret],
        envelope: Envelope<'_>,
    ) -> Result<Self, serde_json::Error> {
        let Envelope { id, attempt, is_redrive, traceparent, now } = envelope;
        let encoded = CloudEvent::of(event)?.encode(mode)?;
        let (id, timestamp_s) = (id.to_string(), now.0.div_euclid(1000));
        let signature = signatures(secrets, &id, timestamp_s, &encoded.body);
        let mut headers = encoded.headers;
        headers.extend([
            ("user-agent", USER_AGENT.to_owned()),
            ("webhook-id", id),
            ("webhook-timestamp", timestamp_s.to_string()),
        ]);
        headers.extend(signature.map(|signature| ("webhook-signature", signature)));
        headers.push(("fleetlog-attempt", attempt.to_string()));
        headers.extend(is_redrive.then(|| ("fleetlog-redrive", "true".to_owned())));
        headers.extend(traceparent.map(|traceparent| ("traceparent", traceparent.to_owned())));
        Ok(Self { headers, body: encoded.body })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use fleetlog_event::EventSet;

    use super::*;
    use crate::cloud_event::tests::door_changed;

    fn message(secrets: &[Secret], attempt: u32, is_redrive: bool, now: i64) -> Message {
        let event = door_changed();
        let (id, now) = (event.meta().event_id, TimestampMs(now));
        let envelope = Envelope { id, attempt, is_redrive, traceparent: None, now };
        Message::new(&event, Mode::Structured, secrets, envelope).unwrap()
    }

    #[test]
    fn an_unsigned_first_call_says_no_more_than_it_has_to() {
        let expected = [
            ("content-type", "application/cloudevents+json"),
            ("user-agent", concat!("fleetlog/", env!("CARGO_PKG_VERSION"))),
            ("webhook-id", "0192aaaa-bbbb-7ccc-8ddd-eeeeffff0001"),
            ("webhook-timestamp", "1614265330"),
            ("fleetlog-attempt", "1"),
        ];
        let expected = expected.map(|(name, value)| (name, value.to_owned()));
        assert_eq!(message(&[], 1, false, 1_614_265_330_999).headers, expected);
    }

    #[test]
    fn a_later_call_differs_in_time_signature_and_attempt_alone() {
        let secret = [Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()];
        let (first, third) = (message(&secret, 1, false, 1_000), message(&secret, 3, true, 5_000));
        assert_eq!(first.body, third.body);
        let differing: Vec<&str> = third
            .headers
            .iter()
            .filter(|header| !first.headers.contains(header))
            .map(|(name, _)| *name)
            .collect();
        let expected = ["webhook-timestamp", "webhook-signature", "fleetlog-attempt", "fleetlog-redrive"];
        assert_eq!(differing, expected);
        assert!(third.headers.contains(&("fleetlog-redrive", "true".to_owned())));
    }

    #[test]
    fn a_clock_before_1970_is_a_whole_second_too() {
        let message = message(&[], 1, false, -1);
        assert!(message.headers.contains(&("webhook-timestamp", "-1".to_owned())));
    }
}
