//! `dead-letters`: every record on a dead-letter topic as a row of `dead_letter`.
//!
//! Whoever wrote it: fleetlog, Kafka Connect, Spring, the platform, or somebody who left no header at all. Nothing is
//! rejected (it lies where rejected records lie): what a letter does not tell is unknown. One row a record, doubled letters
//! included; view `dead_letters` counts them by what failed, as `fleetlog dlq` does.
//!
//! Times are numbers of milliseconds, exact however wild a foreign header is; the view has them as times.

use fleetlog_event::{EventId, LogId};
use fleetlog_letter::{Letter, LetterRecord, Origin};
use fleetlog_projection::{CopyEncoder, HistoryRow, PlacedRow, Record, RecordPlace, RecordProjector, Table};

use crate::{column, sql_text::shown, symbol};

/// The table of dead letters.
pub static DEAD_LETTER: Table = Table {
    name: "dead_letter",
    columns: &[
        column("topic", "text"),
        column("log", "uuid"),
        column("log_partition", "integer"),
        column("log_offset", "bigint"),
        column("place", "text"),
        column("set_aside_ms", "bigint"),
        column("dialect", "text"),
        column("consumer_group", "text"),
        column("reason", "text"),
        column("class", "text"),
        column("detail", "text"),
        column("origin", "text"),
        column("origin_log", "text"),
        column("origin_topic", "text"),
        column("origin_partition", "integer"),
        column("origin_offset", "bigint"),
        column("source_topic", "text"),
        column("record_key", "bytea"),
        column("event_type", "text"),
        column("recorded_ms", "bigint"),
        column("first_failure_ms", "bigint"),
        column("last_failure_ms", "bigint"),
        column("attempts", "bigint"),
        column("replay_count", "bigint"),
        column("writer_schema", "text"),
        column("application_version", "text"),
        column("value_bytes", "bigint"),
    ],
};

/// A dead letter, and where it lies on the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterRow {
    /// The dead-letter topic, physical name.
    pub topic: String,
    /// The id of that topic.
    pub log: LogId,
    /// What is known of it.
    pub letter: Letter,
}

impl HistoryRow for DeadLetterRow {
    fn table(&self) -> &'static Table {
        &DEAD_LETTER
    }

    fn encode(&self, out: &mut CopyEncoder) {
        let letter = &self.letter;
        out.text(&self.topic);
        out.uuid(EventId(self.log.0));
        out.int4(letter.place.partition);
        out.int8(letter.place.offset);
        out.text(&letter.place.to_string());
        out.int8(letter.set_aside_at.0);
        out.text(&symbol(&letter.dialect));
        out.text(&letter.group);
        out.text(&letter.reason);
        out.maybe_text(letter.class.as_deref());
        out.text(&letter.detail);
        encode_origin(&letter.origin, out);
        out.maybe_text(letter.source_topic.as_deref());
        out.maybe_bytea(letter.key.as_deref());
        out.maybe_text(letter.event_type.as_deref());
        for time in [letter.recorded_at, letter.first_failure, letter.last_failure] {
            out.maybe_int8(time.map(|time| time.0));
        }
        out.maybe_int8(letter.attempts.map(i64::from));
        out.int8(i64::from(letter.replay_count));
        out.maybe_text(letter.schema.as_deref());
        out.maybe_text(letter.application_version.as_deref());
        // A Kafka message: far below.
        out.maybe_int8(letter.value_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
    }

    /// That of the index by what failed.
    fn sort_key(&self) -> (&str, i64) {
        (&self.letter.group, self.letter.set_aside_at.0)
    }
}

impl PlacedRow for DeadLetterRow {
    const TABLE: &'static Table = &DEAD_LETTER;
}

/// As text, which letters are counted by; and in parts, where it is a position of a log.
fn encode_origin(origin: &Origin, out: &mut CopyEncoder) {
    out.text(&origin.to_string());
    let Origin::Log { topic, partition, offset, log } = origin else {
        return (0..4).for_each(|_| out.null());
    };
    out.maybe_text(log.as_deref());
    out.text(topic);
    out.int4(*partition);
    out.int8(*offset);
}

/// The projector.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadLetters;

impl RecordProjector for DeadLetters {
    const ID: &'static str = "dead-letters";
    const TOPICS: &'static [&'static str] = &[
        "robot-dlq",
        "robot-parking",
        "telemetry-dlq",
        "telemetry-parking",
        "task-dlq",
        "task-parking",
        "ops-dlq",
        "ops-parking",
        "vda5050-dlq",
    ];
    type Write = DeadLetterRow;

    fn map(&self, record: &Record, place: &RecordPlace<'_>, out: &mut Vec<DeadLetterRow>) {
        let headers: Vec<_> = record.headers.iter().collect();
        let read = LetterRecord { key: record.key.as_ref(), headers: &headers, ..bare(record, place) };
        out.push(row(Letter::of(&read, place.stem), place));
    }

    fn map_refused(
        &self,
        record: &Record,
        place: &RecordPlace<'_>,
        detail: &str,
        out: &mut Vec<DeadLetterRow>,
    ) {
        let letter = Letter::of(&bare(record, place), place.stem);
        let detail = format!("the database refused what is known of it: {}", shown(detail));
        out.push(row(Letter { detail, ..letter }, place));
    }
}

/// The record without anything that its writer chose.
fn bare<'r>(record: &Record, place: &RecordPlace<'r>) -> LetterRecord<'r> {
    LetterRecord {
        topic: place.topic,
        partition: place.partition,
        offset: record.offset,
        timestamp: record.timestamp,
        key: None,
        value_bytes: record.value.as_ref().map(|value| value.len()),
        headers: &[],
    }
}

fn row(letter: Letter, place: &RecordPlace<'_>) -> DeadLetterRow {
    DeadLetterRow { topic: place.topic.to_owned(), log: place.log, letter }
}

#[cfg(test)]
#[path = "dead_letters/tests.rs"]
mod tests;
