//! An event as a CloudEvent 1.0 over HTTP.
//!
//! Sections named here are those of the CloudEvents specification 1.0 (`spec.md`), its HTTP protocol binding
//! (`http-protocol-binding.md`), its JSON event format (`json-format.md`) and its documented extensions.
//!
//! | attribute | from | section |
//! |---|---|---|
//! | `id` | `meta.event_id` | spec, "REQUIRED Attributes": the same for a repeated event |
//! | `source` | `/fleetlog/sites/{site}/units/{unit}`, as far as the event has them; after `#` what its `sequence` counts | spec, there: a URI-reference; the `#` by extension "Sequence" |
//! | `type` | the event's full name, `fleetlog.robot.Connected` | spec, there |
//! | `subject` | the entity: the unit's key or the task's id | spec, "OPTIONAL Attributes" |
//! | `time` | `meta.occurred_at`, RFC 3339 in UTC: when it happened, by the device's clock; as `ce_time` on Kafka | spec, there |
//! | `recordedtime` | `meta.recorded_at`: the same clock for all producers | extension "Recorded Time" |
//! | `datacontenttype` | `application/json` | spec, there |
//! | `partitionkey` | the entity | extension "Partitioning" |
//! | `sequence` | `meta.sequence`, 19 digits, so that texts are in the order of numbers | extension "Sequence" |
//! | `siteuid` | `meta.site_uid` | an extension of ours |
//!
//! An attribute whose text CloudEvents do not allow (empty, control characters, noncharacters: spec, "Type System") is left
//! out; it stands in the data all the same.

use std::fmt::Write as _;

use bytes::Bytes;
use fleetlog_event::{EventMeta, EventSet, FleetEvent, TimestampMs, encode_id};
use serde_json::{Map, Value};

use crate::Mode;

/// The media type of an event and its attributes in one JSON object (JSON format, section 3).
const STRUCTURED: &str = "application/cloudevents+json";
/// The media type of an event's content.
const JSON: &str = "application/json";
/// What an attribute's name is prefixed with as a header (HTTP binding, section 3.1.3.1).
const HEADER_PREFIX: &str = "ce-";

/// An event with its attributes.
pub(crate) struct CloudEvent {
    /// By the names of their headers; in this order in both modes.
    attributes: Vec<(&'static str, String)>,
    data: Value,
}

/// Headers and body of an event in one of the modes.
pub(crate) struct Encoded {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl CloudEvent {
    /// Of an event.
    ///
    /// # Errors
    /// When a value of the event has no JSON form.
    pub(crate) fn of(event: &FleetEvent) -> Result<Self, serde_json::Error> {
        let (meta, entity) = (event.meta(), event.entity());
        let sequence = meta.sequence.filter(|sequence| *sequence >= 0);
        let mut attributes = vec![
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", meta.event_id.to_string()),
            ("ce-source", source(meta)),
            ("ce-type", event.event_type().name.to_owned()),
        ];
        let mut optional = |name, value: Option<String>| {
            attributes.extend(value.filter(|text| is_string(text)).map(|text| (name, text)));
        };
        optional("ce-subject", Some(entity.as_str().to_owned()));
        optional("ce-time", rfc3339(meta.occurred_at));
        optional("ce-recordedtime", rfc3339(meta.recorded_at));
        optional("ce-partitionkey", Some(entity.as_str().to_owned()));
        optional("ce-sequence", sequence.map(|sequence| format!("{sequence:019}")));
        optional("ce-siteuid", Some(meta.site_uid.clone()));
        Ok(Self { attributes, data: event.to_json()? })
    }

    /// As it goes over HTTP.
    ///
    /// # Errors
    /// When the event cannot be written as JSON.
    pub(crate) fn encode(self, mode: Mode) -> Result<Encoded, serde_json::Error> {
        match mode {
            Mode::Structured => self.structured(),
            Mode::Binary => self.binary(),
        }
    }

    /// HTTP binding, section 3.2; JSON format, section 3.
    fn structured(self) -> Result<Encoded, serde_json::Error> {
        let mut object = Map::new();
        for (name, value) in self.attributes {
            object.insert(name.trim_start_matches(HEADER_PREFIX).to_owned(), Value::String(value));
        }
        object.insert("datacontenttype".to_owned(), JSON.into());
        object.insert("data".to_owned(), self.data);
        let body = serde_json::to_vec(&object)?.into();
        Ok(Encoded { headers: vec![("content-type", STRUCTURED.to_owned())], body })
    }

    /// HTTP binding, section 3.1: `datacontenttype` is the content type and nothing else (3.1.1).
    fn binary(self) -> Result<Encoded, serde_json::Error> {
        let mut headers = vec![("content-type", JSON.to_owned())];
        headers.extend(self.attributes.into_iter().map(|(name, value)| (name, percent_encoded(&value))));
        Ok(Encoded { headers, body: serde_json::to_vec(&self.data)?.into() })
    }
}

/// Who says it. Stable over versions and restarts of whatever made the event, up to the `#`: a `sequence` counts within one
/// source, and the fleet's counters begin anew with each incarnation of a channel.
fn source(meta: &EventMeta) -> String {
    let mut source = "/fleetlog".to_owned();
    // Writing into a text does not fail.
    if !meta.site_uid.is_empty() {
        let _ = write!(source, "/sites/{}", encode_id(&meta.site_uid));
    }
    if let Some(unit_uid) = meta.unit_uid.as_deref().filter(|unit_uid| !unit_uid.is_empty()) {
        let _ = write!(source, "/units/{}", encode_id(unit_uid));
    }
    let scope = meta.sequence_scope.as_deref().filter(|scope| !scope.is_empty());
    if let (Some(0..), Some(scope)) = (meta.sequence, scope) {
        let _ = write!(source, "#{}", encode_id(scope));
    }
    source
}

/// A moment as RFC 3339 with milliseconds, in UTC; none before the year 0 or in the last hours of 9999, where that or jiff ends.
fn rfc3339(time: TimestampMs) -> Option<String> {
    let text = jiff::Timestamp::from_millisecond(time.0).ok().map(|time| format!("{time:.3}"))?;
    (!text.starts_with('-')).then_some(text)
}

/// A `String` as CloudEvents have it (spec, "Type System"), and not empty.
fn is_string(text: &str) -> bool {
    let is_noncharacter = |c| matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    !text.is_empty() && text.chars().all(|c| !c.is_control() && !is_noncharacter(c))
}

/// A value as a header has it (HTTP binding, section 3.1.3.2): space, double quote, percent and whatever is not printable
/// ASCII, byte by byte of its UTF-8.
fn percent_encoded(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'"' | b'%' | ..=b' ' | 0x7f.. => {
                // Writing into a text does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
            plain => encoded.push(char::from(plain)),
        }
    }
    encoded
}

#[cfg(test)]
pub(crate) mod tests;
