//! A letter off a record as Kafka's reader hands it out.

use bytes::Bytes;
use fleetlog_kafka::OwnedRecord;

use crate::{Letter, letter::LetterRecord};

/// [`Letter::of`] for records that own what they hold.
pub trait ReadLetter {
    /// Reads a record of a dead-letter topic. There is no record that cannot be read: what its headers do not tell is
    /// unknown. `topic` is how its place is written: the record's topic, without the prefix where that is fleetlog's own.
    fn read(record: &OwnedRecord, topic: &str) -> Self;
}

impl ReadLetter for Letter {
    fn read(record: &OwnedRecord, topic: &str) -> Self {
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|(name, value)| (name.as_ref(), value.as_deref())).collect();
        let record = LetterRecord {
            topic: &record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.as_ref(),
            value_bytes: record.value.as_ref().map(Bytes::len),
            headers: &headers,
        };
        Self::of(&record, topic)
    }
}
