//! What the engine writes, read by the conventions of other tools, byte by byte; and by ours.
//!
//! Connect: names and forms of `DeadLetterQueueReporter.populateContextHeaders` (apache/kafka,
//! `connect/runtime/src/main/java/org/apache/kafka/connect/runtime/errors/DeadLetterQueueReporter.java`): each header once,
//! UTF-8, numbers by `String.valueOf`. Spring: names of `KafkaHeaders.DLT_*`, forms of
//! `DeadLetterPublishingRecoverer.maybeAddOriginalHeaders` (spring-projects/spring-kafka): `ByteBuffer.putInt` and `putLong`,
//! which are big-endian, and `TimestampType.toString`. Both read with `Headers.lastHeader`.

use bytes::Bytes;
use fleetlog_engine::{DeadLetter, Origin as SetAsideOrigin};
use fleetlog_event::{LogId, Reason, Reject, TimestampMs};
use fleetlog_kafka::OwnedRecord;
use fleetlog_projection::{Headers, LaneId, Record, SetAside};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{Dialect, Letter, Origin, ReadLetter};

const LOG: Uuid = Uuid::from_u128(9);

/// The letter of a record that the engine sets aside, as it would come back from its topic.
fn engines(record: Record, reject: Reject) -> OwnedRecord {
    let lane = LaneId { projection: "p".into(), version: 1, topic: "x-robot".into(), partition: 3 };
    let origin = SetAsideOrigin {
        lane: &lane,
        log: LogId(LOG),
        group: "x-fleetlog-p-v1",
        application_version: "0.1.0",
        now: TimestampMs(5_000),
    };
    let event_type = Some("fleetlog.robot.Connected".to_owned());
    let letter = DeadLetter::new(&SetAside { record, reject, event_type }, &origin, usize::MAX);
    OwnedRecord {
        topic: letter.topic.as_str().into(),
        partition: 1,
        offset: 12,
        timestamp: TimestampMs(6_000),
        key: letter.key,
        value: letter.value,
        headers: letter.headers,
    }
}

fn usual() -> OwnedRecord {
    let headers = Headers::pack([("kept", Some(&b"\xff\x00"[..])), ("kept", None)]);
    let (key, value) = (Some(Bytes::from_static(b"s504.u7")), Some(Bytes::from_static(b"\xC3\x01value")));
    let record = Record { offset: 77, timestamp: TimestampMs(1_000), key, value, headers };
    engines(record, Reject::new(Reason::WrongKey, "the key is wrong"))
}

/// `Headers.lastHeader(name).value()`; the header is there exactly once.
fn only<'r>(record: &'r OwnedRecord, name: &str) -> &'r [u8] {
    let mut found = record.headers.iter().filter(|(known, _)| *known == name);
    let value = found.next().unwrap_or_else(|| panic!("no header {name}")).1.as_deref().unwrap();
    assert!(found.next().is_none(), "{name} is there twice");
    value
}

#[test]
fn an_inspector_for_kafka_connect_reads_our_letters() {
    let record = usual();
    for (name, value) in [
        ("topic", "x-robot"),
        ("partition", "3"),
        ("offset", "77"),
        ("connector.name", "x-fleetlog-p-v1"),
        ("task.id", "3"),
        ("stage", "KEY_CONVERTER"),
        ("class.name", "p"),
        ("exception.class.name", "fleetlog.wrong_key"),
        ("exception.message", "the key is wrong"),
        ("exception.stacktrace", ""),
    ] {
        assert_eq!(only(&record, &format!("__connect.errors.{name}")), value.as_bytes(), "{name}");
    }
}

#[test]
fn an_inspector_for_spring_reads_our_letters() {
    let record = usual();
    for (name, value) in [
        ("original-topic", &b"x-robot"[..]),
        ("original-partition", &[0, 0, 0, 3]),
        ("original-offset", &[0, 0, 0, 0, 0, 0, 0, 77]),
        ("original-timestamp", &[0, 0, 0, 0, 0, 0, 0x03, 0xe8]),
        ("original-timestamp-type", b"CreateTime"),
        ("original-consumer-group", b"x-fleetlog-p-v1"),
        ("exception-fqcn", b"fleetlog.wrong_key"),
        ("exception-message", b"the key is wrong"),
    ] {
        assert_eq!(only(&record, &format!("kafka_dlt-{name}")), value, "{name}");
    }
}

#[test]
fn the_platforms_tools_read_our_letters() {
    let record = usual();
    assert_eq!(only(&record, "original-topic"), b"x-robot");
    assert_eq!(only(&record, "error-message"), b"wrong_key: the key is wrong");
    assert_eq!(only(&record, "retry-count"), b"0");
}

#[test]
fn we_read_our_letters_whole() {
    let letter = Letter::read(&usual(), "robot-dlq");
    assert_eq!(letter.place.to_string(), "robot-dlq/1/12");
    assert_eq!((letter.dialect, letter.group.as_str()), (Dialect::Fleetlog, "x-fleetlog-p-v1"));
    assert_eq!((letter.reason.as_str(), letter.class.as_deref()), ("wrong_key", Some("reject")));
    assert_eq!(letter.detail, "the key is wrong");
    let log = Some(LOG.simple().to_string());
    let origin = Origin::Log { topic: "x-robot".into(), partition: 3, offset: 77, log: log.clone() };
    assert_eq!(letter.origin, origin);
    assert_eq!((letter.id().origin.as_str(), letter.id().log), ("x-robot/3/77", log));
    assert_eq!(letter.event_type.as_deref(), Some("fleetlog.robot.Connected"));
    assert_eq!((letter.set_aside_at, letter.recorded_at), (TimestampMs(6_000), Some(TimestampMs(1_000))));
    assert_eq!(
        (letter.first_failure, letter.last_failure),
        (Some(TimestampMs(5_000)), Some(TimestampMs(5_000)))
    );
    assert_eq!((letter.attempts, letter.replay_count), (Some(1), 0));
    assert_eq!((letter.application_version.as_deref(), letter.value_bytes), (Some("0.1.0"), Some(7)));
    assert_eq!((letter.key_text().as_str(), letter.site_of_key().as_deref()), ("s504.u7", Some("504")));
}

proptest! {
    /// Whatever was set aside, with whatever headers: all three dialects name the same place.
    #[test]
    fn every_dialect_names_the_place_of_any_record(
        offset in 0..i64::MAX,
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..50)),
        names in prop::collection::vec("(fleetlog-dlq-|__connect.errors.|kafka_dlt-original-)?(topic|partition|offset)", 0..6),
    ) {
        let headers = Headers::pack(names.iter().map(|name| (name.as_str(), Some(&b"stale"[..]))));
        let record = Record {
            offset,
            timestamp: TimestampMs(1_000),
            key: key.clone().map(Bytes::from),
            value: value.clone().map(Bytes::from),
            headers,
        };
        let record = engines(record, Reject::new(Reason::Undecodable, "d"));
        let digits = offset.to_string();
        prop_assert_eq!(only(&record, "__connect.errors.offset"), digits.as_bytes());
        prop_assert_eq!(only(&record, "kafka_dlt-original-offset"), &offset.to_be_bytes()[..]);
        prop_assert_eq!((record.key.clone(), record.value.clone()), (key.map(Bytes::from), value.map(Bytes::from)));
        for dialect in ["fleetlog-dlq-", "__connect.errors.", "kafka_dlt-"] {
            let mut alone = record.clone();
            alone.headers.retain(|(name, _)| name.as_ref().starts_with(dialect.as_bytes()));
            let origin = Letter::read(&alone, "robot-dlq").origin.to_string();
            prop_assert_eq!(origin, format!("x-robot/3/{offset}"), "{}", dialect);
        }
    }
}
