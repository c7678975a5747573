//! One dead letter: what is known of it, without its payload.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use fleetlog_event::{TimestampMs, UnitKey, catalogue::PARKING};
use serde::{Serialize, Serializer};

use crate::{
    dialect::{self, Dialect, LogPlace},
    headers::Headers,
};

/// The reason or group of a letter that names none.
pub const UNKNOWN: &str = "unknown";

/// Longest group or origin, in bytes: an action names both, and events take no longer texts for ids. What is longer is no
/// group of Kafka's and no file of an import.
const ID_BYTES_MAX: usize = 512;

/// Where a dead letter lies, as people type it: `TOPIC/PARTITION/OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The dead-letter topic: without the deployment's prefix where it is one of fleetlog's own.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// A text that is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place of a dead letter: written TOPIC/PARTITION/OFFSET, such as robot-dlq/0/17")]
pub struct NoPlace(pub String);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let no_place = || NoPlace(text.to_owned());
        let mut parts = text.rsplitn(3, '/');
        let offset: i64 = parts.next().and_then(|part| part.parse().ok()).ok_or_else(no_place)?;
        let partition: i32 = parts.next().and_then(|part| part.parse().ok()).ok_or_else(no_place)?;
        match parts.next() {
            Some(topic) if !topic.is_empty() && partition >= 0 && offset >= 0 => {
                Ok(Self { topic: topic.to_owned(), partition, offset })
            }
            _ => Err(no_place()),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the record came from that could not be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A position of the log.
    Log {
        /// The topic's physical name.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// The topic's id (KIP-516), where it was told.
        log: Option<String>,
    },
    /// A line of an imported file, as `file:line`.
    File(String),
    /// Nobody wrote it down: the letter's own place (physical topic), which at least is one of a kind.
    Unknown(Place),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { topic, partition, offset, .. } => write!(f, "{topic}/{partition}/{offset}"),
            Self::File(line) => f.write_str(line),
            Self::Unknown(place) => place.fmt(f),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A record of a dead-letter topic, as whoever read it has it.
#[derive(Clone, Copy, Debug)]
pub struct LetterRecord<'r> {
    /// The dead-letter topic, physical name.
    pub topic: &'r str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: TimestampMs,
    /// The key.
    pub key: Option<&'r Bytes>,
    /// Length of the value in bytes; none where there is no value.
    pub value_bytes: Option<usize>,
    /// The headers, in order, names repeated where they are.
    pub headers: &'r [(&'r [u8], Option<&'r [u8]>)],
}

/// What dead letters are counted by: the same record that the same group did not take is one, however often its letter
/// lies on the topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The consumer group, or [`UNKNOWN`].
    pub group: String,
    /// The [`Origin`] as text.
    pub origin: String,
    /// The id of the origin's topic: a topic that was made anew has other records at the same offsets.
    pub log: Option<String>,
}

/// A dead letter: everything but its payload and foreign headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// Where it lies.
    pub place: Place,
    /// Who wrote it.
    pub dialect: Dialect,
    /// The consumer group (of Connect: the connector) that did not take the record; [`UNKNOWN`] where nobody wrote it
    /// down.
    pub group: String,
    /// Why: fleetlog's closed set, or the class of the exception that others name; [`UNKNOWN`] where nobody does.
    pub reason: String,
    /// fleetlog: `reject` or `refused`; Connect: the stage that failed.
    pub class: Option<String>,
    /// What exactly was wrong.
    #[serde(rename = "error")]
    pub detail: String,
    /// Where the record came from.
    pub origin: Origin,
    /// The topic that the record came from, physical name, where at least that is known.
    pub source_topic: Option<String>,
    /// The record's key. As JSON: the text, with replacements for what is no UTF-8.
    #[serde(serialize_with = "lossy")]
    pub key: Option<Bytes>,
    /// The full name of the event, where a header tells it.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// The letter's timestamp: when the broker took it in (`LogAppendTime`).
    #[serde(serialize_with = "rfc3339")]
    pub set_aside_at: TimestampMs,
    /// The record's own timestamp, where it was told.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub recorded_at: Option<TimestampMs>,
    /// When the record failed first.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub first_failure: Option<TimestampMs>,
    /// When the record failed last.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub last_failure: Option<TimestampMs>,
    /// How often it was tried.
    pub attempts: Option<u32>,
    /// How often it was sent back before.
    pub replay_count: u32,
    /// The schema that wrote the value, as the writer of the letter saw it.
    pub schema: Option<String>,
    /// Which version of the application did not take it.
    pub application_version: Option<String>,
    /// Length of the value in bytes; none where the record has no value (a tombstone).
    pub value_bytes: Option<usize>,
}

impl Letter {
    /// Reads a record of a dead-letter topic. There is no record that cannot be read: what its headers do not tell is
    /// unknown. `topic` is how its place is written: the record's topic, without the prefix where that is fleetlog's own.
    #[must_use]
    pub fn of(record: &LetterRecord<'_>, topic: &str) -> Self {
        let (dialect, said) = dialect::read(Headers(record.headers));
        let (partition, offset) = (record.partition, record.offset);
        let origin = match (said.at, said.file.filter(|file| file.len() <= ID_BYTES_MAX)) {
            (Some(LogPlace { topic, partition, offset }), _) => {
                Origin::Log { topic, partition, offset, log: said.log }
            }
            (None, Some(file)) => Origin::File(file),
            (None, None) => Origin::Unknown(Place { topic: record.topic.to_owned(), partition, offset }),
        };
        let source_topic = match &origin {
            Origin::Log { topic, .. } => Some(topic.clone()),
            _ => said.topic,
        };
        let time = |ms: Option<i64>| ms.map(TimestampMs);
        Self {
            place: Place { topic: topic.to_owned(), partition, offset },
            dialect,
            group: said
                .group
                .filter(|group| group.len() <= ID_BYTES_MAX)
                .unwrap_or_else(|| UNKNOWN.to_owned()),
            reason: said.reason.unwrap_or_else(|| UNKNOWN.to_owned()),
            class: said.class,
            detail: said.detail.unwrap_or_default(),
            origin,
            source_topic,
            key: record.key.cloned(),
            event_type: said.event_type,
            set_aside_at: record.timestamp,
            recorded_at: time(said.timestamp_ms),
            first_failure: time(said.first_failure_ms),
            last_failure: time(said.last_failure_ms),
            attempts: said.attempts,
            replay_count: said.replay_count.unwrap_or(0),
            schema: said.schema,
            application_version: said.application_version,
            value_bytes: record.value_bytes,
        }
    }

    /// What it is counted by.
    #[must_use]
    pub fn id(&self) -> LetterId {
        let log = match &self.origin {
            Origin::Log { log, .. } => log.clone(),
            _ => None,
        };
        LetterId { group: self.group.clone(), origin: self.origin.to_string(), log }
    }

    /// The key as people read it; empty where there is none.
    #[must_use]
    pub fn key_text(&self) -> String {
        self.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default()
    }

    /// The site, where the key is a unit's.
    #[must_use]
    pub fn site_of_key(&self) -> Option<String> {
        let key = std::str::from_utf8(self.key.as_deref()?).ok()?;
        UnitKey::parse(key).ok().map(|unit| unit.site_uid)
    }

    /// Whether it lies on a parking topic: it was sent back as often as it may be.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.place.topic.ends_with(PARKING)
    }

    /// Which of two letters of one id is the newer: a second failure replaces the first.
    #[must_use]
    pub fn age(&self) -> (TimestampMs, i64, i32) {
        (self.set_aside_at, self.place.offset, self.place.partition)
    }
}

/// A time for people: RFC 3339 in UTC, with milliseconds; what no calendar holds as a number of them.
#[must_use]
pub fn time_text(time: TimestampMs) -> String {
    jiff::Timestamp::from_millisecond(time.0)
        .map_or_else(|_| format!("{} ms", time.0), |time| format!("{time:.3}"))
}

fn rfc3339<S: Serializer>(time: &TimestampMs, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time_text(*time))
}

fn maybe_rfc3339<S: Serializer>(time: &Option<TimestampMs>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(time_text).serialize(serializer)
}

fn lossy<S: Serializer>(key: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    key.as_deref().map(String::from_utf8_lossy).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in ["robot-dlq/0/17", "connect/dlq/2/0"] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()).as_deref(), Ok(text));
        }
        for wrong in ["", "robot-dlq", "robot-dlq/0", "/0/1", "robot-dlq/0/x", "robot-dlq/-1/0", "x/0/-1"] {
            assert_eq!(wrong.parse::<Place>(), Err(NoPlace(wrong.to_owned())));
        }
    }
}
