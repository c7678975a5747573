//! Letters as other tools write them, whole and with half of their headers.
//!
//! Each is built here as its writer's source builds it: Connect by `DeadLetterQueueReporter.populateContextHeaders`
//! (apache/kafka), Spring by `DeadLetterPublishingRecoverer` with the names of `KafkaHeaders` (spring-projects/spring-kafka).

use bytes::Bytes;
use fleetlog_event::TimestampMs;

use super::{Header, header, record};
use crate::{Dialect, Letter, ReadLetter, UNKNOWN};

fn read(headers: Vec<Header>) -> Letter {
    Letter::read(&record(12, 6_000, headers), "robot-dlq")
}

/// What a converter's failure leaves: `stage` is `Stage.name()`, `class.name` the executing class.
fn connects(topic: &str, partition: i32, offset: i64) -> Vec<Header> {
    let text = |name: &str, value: &str| header(&format!("__connect.errors.{name}"), value.as_bytes());
    vec![
        header("the records own", b"1"),
        text("topic", topic),
        text("partition", &partition.to_string()),
        text("offset", &offset.to_string()),
        text("connector.name", "jdbc-sink"),
        text("task.id", "0"),
        text("stage", "VALUE_CONVERTER"),
        text("class.name", "io.confluent.connect.avro.AvroConverter"),
        text("exception.class.name", "org.apache.kafka.connect.errors.DataException"),
        text("exception.message", "Failed to deserialize data for topic x-robot to Avro: "),
        text("exception.stacktrace", "org.apache.kafka.connect.errors.DataException: …\n\tat …"),
    ]
}

/// What a listener's failure leaves, since 2.8: position with `ByteBuffer`, exception and its cause.
fn springs(topic: &str, partition: i32, offset: i64) -> Vec<Header> {
    let it = |name: &str, value: &[u8]| header(&format!("kafka_dlt-{name}"), value);
    vec![
        it("exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
        it("exception-cause-fqcn", b"java.lang.IllegalStateException"),
        it("exception-message", b"Listener failed; task is unknown"),
        it("exception-stacktrace", b"org.springframework.kafka\xe2\x80\xa6"),
        it("original-topic", topic.as_bytes()),
        it("original-partition", &partition.to_be_bytes()),
        it("original-offset", &offset.to_be_bytes()),
        it("original-timestamp", &1_000_i64.to_be_bytes()),
        it("original-timestamp-type", b"CreateTime"),
        it("original-consumer-group", b"billing"),
    ]
}

#[test]
fn a_letter_of_kafka_connect() {
    let letter = read(connects("x-robot", 3, 77));
    assert_eq!((letter.dialect, letter.group.as_str()), (Dialect::KafkaConnect, "jdbc-sink"));
    assert_eq!(letter.origin.to_string(), "x-robot/3/77");
    assert_eq!(letter.reason, "org.apache.kafka.connect.errors.DataException");
    assert_eq!(letter.class.as_deref(), Some("VALUE_CONVERTER"));
    assert_eq!(letter.detail, "Failed to deserialize data for topic x-robot to Avro: ");
    assert_eq!((letter.source_topic.as_deref(), letter.recorded_at), (Some("x-robot"), None));
}

/// `populateContextHeaders` without a consumed record: topic "", partition and offset -1.
#[test]
fn a_letter_of_kafka_connect_that_knows_no_record() {
    let letter = read(connects("", -1, -1));
    assert_eq!(
        (letter.origin.to_string().as_str(), letter.source_topic.as_deref()),
        ("x-robot-dlq/1/12", None)
    );
    assert_eq!(letter.group, "jdbc-sink");
}

#[test]
fn a_letter_of_spring() {
    let letter = read(springs("x-robot", 3, 77));
    assert_eq!((letter.dialect, letter.group.as_str()), (Dialect::Spring, "billing"));
    assert_eq!(letter.origin.to_string(), "x-robot/3/77");
    assert_eq!(letter.reason, "java.lang.IllegalStateException", "the cause, not the container's wrapper");
    assert_eq!(letter.detail, "Listener failed; task is unknown");
    assert_eq!(letter.recorded_at, Some(TimestampMs(1_000)));
}

/// `addExceptionInfoHeaders` with `isKey`: names of their own, while the position is as always.
#[test]
fn a_letter_of_spring_whose_key_could_not_be_read() {
    let mut headers = springs("x-robot", 3, 77);
    headers.retain(|(name, _)| !name.as_ref().starts_with(b"kafka_dlt-exception-"));
    let fqcn = b"org.springframework.kafka.support.serializer.DeserializationException";
    headers.push(header("kafka_dlt-key-exception-fqcn", fqcn));
    headers.push(header("kafka_dlt-key-exception-message", b"failed to deserialize"));
    let letter = read(headers);
    assert_eq!(letter.reason.as_bytes(), fqcn);
    assert_eq!(
        (letter.detail.as_str(), letter.origin.to_string().as_str()),
        ("failed to deserialize", "x-robot/3/77")
    );
}

/// `appendOriginalHeaders` is on by default: a record that went from topic to topic has each place, the oldest first.
#[test]
fn a_letter_of_spring_that_failed_again_comes_from_where_the_record_lay_first() {
    let headers = [springs("x-robot", 3, 77), springs("x-robot-retry-0", 1, 5)].concat();
    let letter = read([headers, vec![header("retry_topic-attempts", &4_i32.to_be_bytes())]].concat());
    assert_eq!((letter.origin.to_string().as_str(), letter.attempts), ("x-robot/3/77", Some(4)));
}

/// Clients in other languages write Spring's names with decimal digits.
#[test]
fn numbers_in_digits_under_springs_names() {
    let digits = |name: &str, value: &str| header(&format!("kafka_dlt-original-{name}"), value.as_bytes());
    for offset in ["7", "1234", "12345678", "123456789012"] {
        let letter =
            read(vec![digits("topic", "x-robot"), digits("partition", "3"), digits("offset", offset)]);
        assert_eq!(letter.origin.to_string(), format!("x-robot/3/{offset}"));
    }
}

#[test]
fn a_letter_of_the_platform_tells_no_place() {
    let letter = read(vec![
        header("original-topic", b"x-robot"),
        header("error-message", b"no such task"),
        header("retry-count", b"3"),
    ]);
    assert_eq!((letter.dialect, letter.source_topic.as_deref()), (Dialect::Platform, Some("x-robot")));
    assert_eq!((letter.group.as_str(), letter.reason.as_str(), letter.attempts), (UNKNOWN, UNKNOWN, Some(4)));
    assert_eq!(letter.origin.to_string(), "x-robot-dlq/1/12", "its own place, which is one of a kind");
}

#[test]
fn an_import_names_file_and_line() {
    let letter = read(vec![
        header("original-topic", b"uagv/v2/x/y/state"),
        header("fleetlog-dlq-group", b"import-vda5050"),
        header("fleetlog-dlq-reason", b"not_json"),
        header("fleetlog-import-file", b"A.jsonl"),
        header("fleetlog-import-line", b"17"),
    ]);
    assert_eq!((letter.origin.to_string().as_str(), letter.dialect), ("A.jsonl:17", Dialect::Fleetlog));
}

/// Half of the headers: a place counts only whole, and what is known of the rest is kept.
#[test]
fn a_place_with_a_part_missing_is_none() {
    for missing in ["topic", "partition", "offset"] {
        for whole in [connects("x-robot", 3, 77), springs("x-robot", 3, 77)] {
            let left = |(name, _): &Header| !name.as_ref().ends_with(missing.as_bytes());
            let letter = read(whole.into_iter().filter(left).collect());
            assert_eq!(letter.origin.to_string(), "x-robot-dlq/1/12", "without {missing}");
            assert_ne!(letter.group, UNKNOWN);
        }
    }
}

/// One dialect's place is never mixed with another's.
#[test]
fn a_half_place_is_completed_by_nobody_elses_half() {
    let ours = vec![header("fleetlog-dlq-topic", b"x-task"), header("fleetlog-dlq-log", b"00ff")];
    let letter = read([ours, springs("x-robot", 3, 77)].concat());
    assert_eq!(letter.origin.to_string(), "x-robot/3/77");
    assert_eq!(letter.id().log, None, "the id is of another topic");
}

#[test]
fn a_record_without_any_header_key_or_value_is_a_letter() {
    let mut bare = record(12, -1, vec![("".into(), None), ("kafka_dlt-original-offset".into(), None)]);
    (bare.key, bare.value) = (None, None);
    let letter = Letter::read(&bare, "robot-dlq");
    assert_eq!(
        (letter.dialect, letter.value_bytes, letter.key_text()),
        (Dialect::Unknown, None, String::new())
    );
    assert_eq!((letter.group.as_str(), letter.origin.to_string().as_str()), (UNKNOWN, "x-robot-dlq/1/12"));
}

#[test]
fn texts_that_are_none_are_shown_with_replacements() {
    let letter = read(vec![("error-message".into(), Some(Bytes::from_static(b"\xff!")))]);
    assert_eq!(letter.detail, "\u{fffd}!");
}

/// An action names group and origin, so neither may be longer than an event takes.
#[test]
fn names_that_nobody_can_have_are_unknown() {
    let long = vec![b'x'; 513];
    let letter = read(vec![
        header("fleetlog-dlq-group", &long),
        header("fleetlog-import-file", &long),
        header("fleetlog-import-line", b"1"),
        header("fleetlog-dlq-topic", &long),
        header("fleetlog-dlq-partition", b"0"),
        header("fleetlog-dlq-offset", b"0"),
    ]);
    assert_eq!((letter.group.as_str(), letter.origin.to_string().as_str()), (UNKNOWN, "x-robot-dlq/1/12"));
}
