//! Dead letters as JSON lines: all that is needed to restore the record byte for byte, beside what people search by.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use fleetlog_event::TimestampMs;
use fleetlog_kafka::{HeaderName, OwnedRecord};
use serde::{Deserialize, Serialize};

use crate::{Letter, State};

/// A line of an export: the record as it lies on the dead-letter topic. Bytes are base64 (RFC 4648, with padding); null
/// where there are none, which is not the same as empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawLetter {
    /// The dead-letter topic, physical name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key.
    pub key_base64: Option<String>,
    /// The value.
    pub value_base64: Option<String>,
    /// The headers, in order, names repeated where they are.
    pub headers: Vec<RawHeader>,
}

/// A header of an exported record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawHeader {
    /// The name; by the protocol a text, in fact whatever bytes somebody sent.
    pub name_base64: String,
    /// The name for people; not read back.
    #[serde(default)]
    pub name: String,
    /// The value.
    pub value_base64: Option<String>,
}

/// A line of an export, with what is known of the letter.
#[derive(Debug, Serialize)]
pub struct ExportLine<'a> {
    /// The letter as `fleetlog dlq list` shows it.
    #[serde(flatten)]
    pub letter: &'a Letter,
    /// What has become of it.
    #[serde(flatten)]
    pub state: &'a State,
    /// The record itself.
    pub record: RawLetter,
}

/// A text that is no base64, of a line that somebody edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is no base64: {source}")]
pub struct NoBase64 {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub source: base64::DecodeError,
}

impl RawLetter {
    /// The record in a form that JSON can hold.
    #[must_use]
    pub fn of(record: &OwnedRecord) -> Self {
        let header = |(name, value): &(HeaderName, Option<Bytes>)| RawHeader {
            name_base64: BASE64_STANDARD.encode(name),
            name: name.to_string(),
            value_base64: encoded(value.as_ref()),
        };
        Self {
            topic: record.topic.to_string(),
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp.0,
            key_base64: encoded(record.key.as_ref()),
            value_base64: encoded(record.value.as_ref()),
            headers: record.headers.iter().map(header).collect(),
        }
    }

    /// The record again, byte for byte.
    ///
    /// # Errors
    /// When a text is no base64.
    pub fn restore(&self) -> Result<OwnedRecord, NoBase64> {
        let header = |header: &RawHeader| {
            let name = decoded("name_base64", &header.name_base64)?;
            let value = maybe_decoded("headers.value_base64", header.value_base64.as_deref())?;
            Ok((HeaderName::from(&name[..]), value))
        };
        Ok(OwnedRecord {
            topic: self.topic.as_str().into(),
            partition: self.partition,
            offset: self.offset,
            timestamp: TimestampMs(self.timestamp_ms),
            key: maybe_decoded("key_base64", self.key_base64.as_deref())?,
            value: maybe_decoded("value_base64", self.value_base64.as_deref())?,
            headers: self.headers.iter().map(header).collect::<Result<_, _>>()?,
        })
    }
}

fn encoded(bytes: Option<&Bytes>) -> Option<String> {
    bytes.map(|bytes| BASE64_STANDARD.encode(bytes))
}

fn decoded(field: &'static str, text: &str) -> Result<Bytes, NoBase64> {
    BASE64_STANDARD.decode(text).map(Bytes::from).map_err(|source| NoBase64 { field, source })
}

fn maybe_decoded(field: &'static str, text: Option<&str>) -> Result<Option<Bytes>, NoBase64> {
    text.map(|text| decoded(field, text)).transpose()
}
