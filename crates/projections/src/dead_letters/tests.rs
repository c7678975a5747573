//! Letters of every dialect, and of none, become rows.

use fleetlog_event::{TimestampMs, catalogue::Catalogue};
use fleetlog_letter::{Dialect, UNKNOWN};
use fleetlog_projection::{
    Headers, RecordMap, RowChange,
    given::{MemoryLog, START, assert_cuts_do_not_matter, given_records},
};
use proptest::prelude::*;

use super::*;
use crate::testing::cuts;

type Header<'a> = (&'a str, Option<&'a [u8]>);

fn pack(headers: &[Header<'_>]) -> Headers {
    Headers::pack(headers.iter().copied())
}

/// The row of one record.
fn row_of(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) -> DeadLetterRow {
    let mut rows: Vec<RowChange<DeadLetterRow>> = Vec::new();
    let _ = given_records(DeadLetters)
        .record(key, value, pack(headers))
        .then_rows(|made| rows.extend(made.iter().cloned()));
    assert_eq!(rows.len(), 1, "one record is one row");
    rows.remove(0).write
}

fn columns(row: &DeadLetterRow) -> usize {
    let mut out = CopyEncoder::new();
    out.row(row);
    let copy = out.finish();
    usize::from(u16::from_be_bytes([copy[19], copy[20]]))
}

#[test]
fn every_dead_letter_topic_of_the_catalogue_is_read() {
    let known: Vec<String> = Catalogue::builtin().dead_letter_topics().collect();
    assert_eq!(known, DeadLetters::TOPICS, "add the topic to DeadLetters::TOPICS");
}

#[test]
fn a_letter_of_ours_has_all_it_tells() {
    let row = row_of(
        Some(b"s504.u7"),
        Some(b"value"),
        &[
            ("fleetlog-dlq-group", Some(b"g")),
            ("fleetlog-dlq-reason", Some(b"unknown_task")),
            ("fleetlog-dlq-class", Some(b"reject")),
            ("fleetlog-dlq-topic", Some(b"x-task")),
            ("fleetlog-dlq-partition", Some(b"3")),
            ("fleetlog-dlq-offset", Some(b"77")),
            ("fleetlog-dlq-log", Some(b"c1f7")),
            ("fleetlog-dlq-attempts", Some(b"2")),
            ("fleetlog-dlq-replay-count", Some(b"1")),
            ("fleetlog-dlq-first-failure", Some(b"4000")),
        ],
    );
    assert_eq!((row.topic.as_str(), row.table().name), ("robot-dlq", "dead_letter"));
    let letter = &row.letter;
    assert_eq!((letter.group.as_str(), letter.reason.as_str()), ("g", "unknown_task"));
    assert_eq!(
        (letter.origin.to_string().as_str(), letter.place.to_string().as_str()),
        ("x-task/3/77", "robot-dlq/0/0")
    );
    assert_eq!((letter.attempts, letter.replay_count, letter.value_bytes), (Some(2), 1, Some(5)));
    assert_eq!((letter.first_failure, letter.set_aside_at), (Some(TimestampMs(4000)), START));
    assert_eq!(columns(&row), DEAD_LETTER.columns.len());
}

#[test]
fn letters_of_kafka_connect_and_spring_are_rows_like_any_other() {
    let connect = row_of(
        None,
        None,
        &[
            ("__connect.errors.topic", Some(b"orders")),
            ("__connect.errors.partition", Some(b"2")),
            ("__connect.errors.offset", Some(b"41")),
            ("__connect.errors.connector.name", Some(b"jdbc-sink")),
            ("__connect.errors.stage", Some(b"VALUE_CONVERTER")),
        ],
    );
    let spring = row_of(
        None,
        Some(b""),
        &[
            ("kafka_dlt-original-topic", Some(b"orders")),
            ("kafka_dlt-original-partition", Some(&2_i32.to_be_bytes())),
            ("kafka_dlt-original-offset", Some(&42_i64.to_be_bytes())),
            ("kafka_dlt-original-consumer-group", Some(b"billing")),
            ("kafka_dlt-exception-fqcn", Some(b"java.lang.IllegalStateException")),
        ],
    );
    let told =
        |row: &DeadLetterRow| (row.letter.dialect, row.letter.group.clone(), row.letter.origin.to_string());
    assert_eq!(told(&connect), (Dialect::KafkaConnect, "jdbc-sink".to_owned(), "orders/2/41".to_owned()));
    assert_eq!(told(&spring), (Dialect::Spring, "billing".to_owned(), "orders/2/42".to_owned()));
}

/// It lies where rejected records lie, so it cannot be rejected once more.
#[test]
fn a_record_that_tells_nothing_is_a_row_that_says_so() {
    let row = row_of(None, None, &[]);
    let letter = &row.letter;
    assert_eq!(
        (letter.dialect, letter.group.as_str(), letter.reason.as_str()),
        (Dialect::Unknown, UNKNOWN, UNKNOWN)
    );
    assert_eq!(letter.origin.to_string(), "robot-dlq/0/0", "its own place");
    assert_eq!(columns(&row), DEAD_LETTER.columns.len());
}

#[test]
fn what_the_database_refuses_is_a_row_without_anything_that_was_sent() {
    let mut log = MemoryLog::default();
    log.append_raw(Some(b"k"), Some(b"v"), pack(&[("fleetlog-dlq-group", Some(b"g"))]), START);
    let record = Record { offset: 5, ..log.records()[0].clone() };
    let log = LogId(EventId::derived("log", 7).0);
    let place = RecordPlace { stem: "task-dlq", topic: "x-task-dlq", log, partition: 1 };
    let mut rows = Vec::new();
    DeadLetters.map_refused(&record, &place, "no\0room", &mut rows);
    let letter = &rows[0].letter;
    assert_eq!((letter.group.as_str(), letter.key.as_ref()), (UNKNOWN, None));
    assert_eq!(letter.detail, "the database refused what is known of it: no\u{2400}room");
    assert_eq!((rows[0].topic.as_str(), letter.place.to_string().as_str()), ("x-task-dlq", "task-dlq/1/5"));
}

/// Names that are read, and some that are not, with any bytes.
fn headers() -> impl Strategy<Value = Vec<(String, Option<Vec<u8>>)>> {
    const NAMES: [&str; 15] = [
        "fleetlog-dlq-group",
        "fleetlog-dlq-topic",
        "fleetlog-dlq-partition",
        "fleetlog-dlq-offset",
        "fleetlog-dlq-log",
        "fleetlog-dlq-first-failure",
        "fleetlog-import-file",
        "fleetlog-import-line",
        "__connect.errors.topic",
        "__connect.errors.offset",
        "kafka_dlt-original-topic",
        "kafka_dlt-original-offset",
        "original-topic",
        "retry-count",
        "own",
    ];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        any::<i64>().prop_map(|number| number.to_be_bytes().to_vec()),
    ];
    let header = (prop::sample::select(&NAMES[..]), prop::option::of(value));
    prop::collection::vec(header.prop_map(|(name, value)| (name.to_owned(), value)), 0..12)
}

proptest! {
    /// Any bytes are a row, with as many columns as the table has, and no text that a database would refuse.
    #[test]
    fn any_record_is_one_row(
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        headers in headers(),
    ) {
        let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let row = row_of(key.as_deref(), None, &headers);
        prop_assert_eq!(columns(&row), DEAD_LETTER.columns.len());
        prop_assert_eq!(row.letter.key.as_deref(), key.as_deref());
        let Letter { group, reason, detail, origin, .. } = &row.letter;
        for text in [group, reason, detail, &origin.to_string()] {
            prop_assert!(!text.contains('\0'), "{:?}", text);
        }
    }

    #[test]
    fn the_cut_of_the_log_does_not_matter(letters in prop::collection::vec(headers(), 0..20), cuts in cuts()) {
        let mut log = MemoryLog::default();
        for headers in &letters {
            let headers: Vec<Header<'_>> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            log.append_raw(Some(b"k"), None, pack(&headers), START);
        }
        assert_cuts_do_not_matter(&RecordMap::new(DeadLetters, "x-"), &log, &cuts);
    }
}
