//! Where an event lies in the log.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{EntityKey, TimestampMs};

/// The id of a topic (KIP-516): a topic deleted and made again under the same name is another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub Uuid);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl std::str::FromStr for LogId {
    type Err = uuid::Error;

    /// Any form of a UUID: Kafka's tools show ids in another one, which is none.
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        uuid::Uuid::parse_str(text).map(Self)
    }
}

/// Where an event lies: log, partition, offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The topic's id.
    pub log: LogId,
    /// The partition.
    pub partition: i32,
    /// The offset of the record itself.
    pub offset: i64,
}

/// An event together with what the log knows about it.
#[derive(Clone, Debug)]
pub struct Recorded<E> {
    /// Where it lies.
    pub position: Position,
    /// The Kafka record's timestamp: when fleetlog took it in.
    pub recorded_at: TimestampMs,
    /// The record's key.
    pub key: EntityKey,
    /// The fact.
    pub event: E,
}
