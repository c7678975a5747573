//! The head that every event record begins with.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Milliseconds since 1970-01-01T00:00:00Z (Avro logical type `timestamp-millis`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimestampMs(pub i64);

/// The identity of one fact: 16 bytes, on the wire an Avro `fixed` with logical type `uuid`.
///
/// Version 7 when the event is made live; derived from the source position when it is imported, so that importing
/// twice is a duplicate. Fixed before the first send: a resend carries the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub Uuid);

impl EventId {
    /// A new version 7 id. Reads the clock and the system's randomness: for producers, never for projections.
    #[must_use]
    pub fn now_v7() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of the `n`-th event derived from `source` (such as a file digest and line): always the same.
    #[must_use]
    pub fn derived(source: &str, n: u32) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("fleetlog:{source}#{n}").as_bytes()))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text in formats for people (JSON), 16 bytes in binary ones (Avro `fixed`).
impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&self.0.hyphenated())
        } else {
            serializer.serialize_bytes(self.0.as_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = EventId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUID as text or as 16 bytes")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<EventId, E> {
                Uuid::parse_str(text).map(EventId).map_err(E::custom)
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<EventId, E> {
                Uuid::from_slice(bytes).map(EventId).map_err(E::custom)
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

/// Who, when and where: the first field of every event record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventMeta {
    /// Identity of the fact; the first 16 bytes of every record, readable without the schema.
    pub event_id: EventId,
    /// Time at the source (device time: may be 1970 or 2100).
    pub occurred_at: TimestampMs,
    /// When fleetlog took it in; also the Kafka record's timestamp.
    pub recorded_at: TimestampMs,
    /// The site, as the source names it (not percent-encoded).
    pub site_uid: String,
    /// The unit, as the source names it (not percent-encoded); none where no unit is involved yet.
    #[serde(default)]
    pub unit_uid: Option<String>,
    /// The source's own counter: only makes gaps visible, never used for order or identity.
    #[serde(default)]
    pub sequence: Option<i64>,
    /// What `sequence` counts: channel and incarnation, such as `state#3`.
    #[serde(default)]
    pub sequence_scope: Option<String>,
    /// Which service or bridge made the event, with its version, such as `fleetlog-import/0.1.0`.
    pub source: String,
    /// The business process this event belongs to.
    #[serde(default)]
    pub correlation_id: Option<EventId>,
    /// The event that caused this one.
    #[serde(default)]
    pub causation_id: Option<EventId>,
}

impl EventMeta {
    /// Of an event about fleetlog's own work (topic `ops`): of no site and no unit, and taken in when it happens.
    #[must_use]
    pub fn of_ops(event_id: EventId, source: impl Into<String>, now: TimestampMs) -> Self {
        Self {
            event_id,
            occurred_at: now,
            recorded_at: now,
            site_uid: String::new(),
            unit_uid: None,
            sequence: None,
            sequence_scope: None,
            source: source.into(),
            correlation_id: None,
            causation_id: None,
        }
    }
}
