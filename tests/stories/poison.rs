//! Records that nobody can take, made of such as lie on the log.

use bytes::Bytes;
use fleetlog_event::partition_of;
use fleetlog_kafka::OwnedRecord;
use fleetlog_producer::RawRecord;

pub(crate) const PARTITIONS: i32 = 6;
/// Bytes before the datum: `C3 01` and the schema's fingerprint.
const FRAME_BYTES: usize = 10;
/// The event's id, with which the datum begins.
const EVENT_ID_BYTES: usize = 16;

/// The ways to spoil a record, each with the reason for which it is set aside.
pub(crate) const KINDS: [(Kind, &str); 7] = [
    (Kind::NoValue, "empty_payload"),
    (Kind::Json, "unknown_framing"),
    (Kind::UnknownSchema, "unknown_schema"),
    (Kind::Undecodable, "undecodable"),
    (Kind::WrongKey, "wrong_key"),
    (Kind::WrongPartition, "wrong_partition"),
    (Kind::NoKey, "no_key"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NoValue,
    Json,
    UnknownSchema,
    Undecodable,
    WrongKey,
    WrongPartition,
    NoKey,
}

/// The record, spoilt. `number` makes it an event of its own: the same once more would be dropped as a duplicate.
pub(crate) fn poison(kind: Kind, well: &OwnedRecord, number: u64) -> RawRecord {
    let value = well.value.as_deref().unwrap_or_default();
    let (frame, datum) = (&value[..FRAME_BYTES], &value[FRAME_BYTES + EVENT_ID_BYTES..]);
    let event_id = uuid::Uuid::from_u128((0x0070_6f69 << 96) | u128::from(number)).into_bytes();
    let anew = [frame, &event_id, datum].concat();
    let (mut key, mut partition) = (well.key.clone(), well.partition);
    let value = match kind {
        Kind::NoValue => None,
        Kind::Json => Some(format!("{{\"number\": {number}}}").into_bytes()),
        Kind::UnknownSchema => Some([&[0xC3, 0x01][..], &[7; 8], &event_id, datum].concat()),
        Kind::Undecodable => Some([frame, &event_id, &[0xff; 24]].concat()),
        Kind::WrongKey => {
            let other = format!("spoilt-{number}");
            partition = partition_of(other.as_bytes(), PARTITIONS);
            key = Some(Bytes::from(other));
            Some(anew)
        }
        Kind::WrongPartition => {
            partition = (partition + 1) % PARTITIONS;
            Some(anew)
        }
        Kind::NoKey => {
            key = None;
            Some(anew)
        }
    };
    let mut headers = well.headers.clone();
    headers.push(("kept".into(), Some(Bytes::from_static(b"\xff\x00"))));
    headers.push(("kept".into(), None));
    let topic = well.topic.to_string();
    RawRecord {
        topic,
        partition: Some(partition),
        key,
        value: value.map(Bytes::from),
        timestamp: None,
        headers,
    }
}
