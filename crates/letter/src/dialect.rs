//! What the headers of each dialect say.
//!
//! | dialect | who writes it | form |
//! |---|---|---|
//! | ours | `crates/engine/src/dead_letter.rs`, `fleetlog import` | `fleetlog-dlq-*`, `fleetlog-import-*`, text |
//! | Kafka Connect | `DeadLetterQueueReporter.populateContextHeaders` (apache/kafka, `connect/runtime`) | `__connect.errors.*`, text; an unknown place is topic ``, partition `-1`, offset `-1`; a header that is there already is left alone |
//! | Spring for Apache Kafka | `DeadLetterPublishingRecoverer` and `KafkaHeaders.DLT_*` (spring-projects/spring-kafka) | `kafka_dlt-original-*`, numbers binary; appended each time by default, so the first is the oldest; `kafka_dlt-exception-*` replaced each time, `kafka_dlt-key-exception-*` where the key could not be read |
//! | the platform | its own services | `original-topic`, `error-message`, `retry-count`, text |
//!
//! A dialect is believed as far as it goes: whatever is missing or unreadable is none, and a place counts only whole.

use serde::{Deserialize, Serialize};

use crate::headers::{Headers, binary_or_digits, text};

/// Longest name of a Kafka topic, in bytes (`org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH`).
const TOPIC_BYTES_MAX: usize = 249;

/// Whether a header is one that makes a record a dead letter, in any dialect; all others are the record's own.
#[must_use]
pub fn is_of_letters(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 3] = [b"fleetlog-dlq-", b"__connect.errors.", b"kafka_dlt-"];
    const NAMES: [&[u8]; 3] = [b"original-topic", b"error-message", b"retry-count"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Who wrote a dead letter, as its headers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// fleetlog.
    Fleetlog,
    /// A sink connector of Kafka Connect.
    KafkaConnect,
    /// A listener of Spring for Apache Kafka.
    Spring,
    /// A service of the platform.
    Platform,
    /// Nobody who left headers that are known.
    Unknown,
}

/// Where a record lay on the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogPlace {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// Everything that headers may tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) at: Option<LogPlace>,
    pub(crate) log: Option<String>,
    /// `file:line` of an import.
    pub(crate) file: Option<String>,
    /// The topic alone, where the rest of the place is not told.
    pub(crate) topic: Option<String>,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) group: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) class: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) event_type: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) attempts: Option<u32>,
    pub(crate) replay_count: Option<u32>,
    pub(crate) first_failure_ms: Option<i64>,
    pub(crate) last_failure_ms: Option<i64>,
    pub(crate) application_version: Option<String>,
}

impl Said {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What `self` says, and where it says nothing what `other` says.
    fn or(self, other: Self) -> Self {
        Self {
            // The id of a log belongs to the place that it was told with.
            log: if self.at.is_some() { self.log } else { other.log },
            at: self.at.or(other.at),
            file: self.file.or(other.file),
            topic: self.topic.or(other.topic),
            timestamp_ms: self.timestamp_ms.or(other.timestamp_ms),
            group: self.group.or(other.group),
            reason: self.reason.or(other.reason),
            class: self.class.or(other.class),
            detail: self.detail.or(other.detail),
            event_type: self.event_type.or(other.event_type),
            schema: self.schema.or(other.schema),
            attempts: self.attempts.or(other.attempts),
            replay_count: self.replay_count.or(other.replay_count),
            first_failure_ms: self.first_failure_ms.or(other.first_failure_ms),
            last_failure_ms: self.last_failure_ms.or(other.last_failure_ms),
            application_version: self.application_version.or(other.application_version),
        }
    }
}

/// What all dialects say together, ours first, and which of them spoke first.
pub(crate) fn read(headers: Headers<'_>) -> (Dialect, Said) {
    let each = [
        (Dialect::Fleetlog, ours(headers)),
        (Dialect::KafkaConnect, connect(headers)),
        (Dialect::Spring, spring(headers)),
        (Dialect::Platform, platform(headers)),
    ];
    let first = each.iter().find(|(_, said)| !said.is_nothing()).map_or(Dialect::Unknown, |(who, _)| *who);
    let mut all = each.into_iter().fold(Said::default(), |all, (_, said)| all.or(said));
    // CloudEvents in binary mode: the event's own headers, which no dialect takes away.
    all.event_type = all.event_type.or_else(|| headers.text("ce_type"));
    (first, all)
}

/// A place, if all of it is told and there can be one.
fn place(topic: Option<String>, partition: Option<i32>, offset: Option<i64>) -> Option<LogPlace> {
    let (topic, partition, offset) = (topic?, partition?, offset?);
    let can_be = (1..=TOPIC_BYTES_MAX).contains(&topic.len()) && partition >= 0 && offset >= 0;
    can_be.then_some(LogPlace { topic, partition, offset })
}

fn ours(headers: Headers<'_>) -> Said {
    let file = headers.text("fleetlog-import-file").zip(headers.number::<u64>("fleetlog-import-line"));
    Said {
        at: place(
            headers.text("fleetlog-dlq-topic"),
            headers.number("fleetlog-dlq-partition"),
            headers.number("fleetlog-dlq-offset"),
        ),
        log: headers.text("fleetlog-dlq-log"),
        file: file.map(|(file, line)| format!("{file}:{line}")),
        topic: headers.text("fleetlog-dlq-topic"),
        timestamp_ms: headers.number("fleetlog-dlq-timestamp"),
        group: headers.text("fleetlog-dlq-group"),
        reason: headers.text("fleetlog-dlq-reason"),
        class: headers.text("fleetlog-dlq-class"),
        detail: headers.text("fleetlog-dlq-detail"),
        event_type: headers.text("fleetlog-dlq-event-type"),
        schema: headers.text("fleetlog-dlq-schema"),
        attempts: headers.number("fleetlog-dlq-attempts"),
        replay_count: headers.number("fleetlog-dlq-replay-count"),
        first_failure_ms: headers.number("fleetlog-dlq-first-failure"),
        last_failure_ms: headers.number("fleetlog-dlq-last-failure"),
        application_version: headers.text("fleetlog-dlq-application-version"),
    }
}

fn connect(headers: Headers<'_>) -> Said {
    let topic = headers.text("__connect.errors.topic");
    Said {
        at: place(
            topic.clone(),
            headers.number("__connect.errors.partition"),
            headers.number("__connect.errors.offset"),
        ),
        topic,
        group: headers.text("__connect.errors.connector.name"),
        reason: headers.text("__connect.errors.exception.class.name"),
        class: headers.text("__connect.errors.stage"),
        detail: headers.text("__connect.errors.exception.message"),
        ..Said::default()
    }
}

fn spring(headers: Headers<'_>) -> Said {
    // All three are added together, so the first of each are of one place: that of the record itself, not of the retry
    // or dead-letter topics that it passed since.
    let number = |name| headers.first(name).and_then(binary_or_digits);
    let topic = headers.first("kafka_dlt-original-topic").and_then(text);
    let partition = number("kafka_dlt-original-partition").and_then(|number| i32::try_from(number).ok());
    let either = |value: &'static str, key: &'static str| headers.text(value).or_else(|| headers.text(key));
    let attempts = headers.last("retry_topic-attempts").and_then(binary_or_digits);
    Said {
        at: place(topic.clone(), partition, number("kafka_dlt-original-offset")),
        topic,
        timestamp_ms: number("kafka_dlt-original-timestamp"),
        group: headers.text("kafka_dlt-original-consumer-group"),
        // The outer exception is the listener container's for all of them; the cause is what went wrong.
        reason: headers
            .text("kafka_dlt-exception-cause-fqcn")
            .or_else(|| either("kafka_dlt-exception-fqcn", "kafka_dlt-key-exception-fqcn")),
        detail: either("kafka_dlt-exception-message", "kafka_dlt-key-exception-message"),
        attempts: attempts.and_then(|number| u32::try_from(number).ok()),
        ..Said::default()
    }
}

fn platform(headers: Headers<'_>) -> Said {
    Said {
        topic: headers.text("original-topic"),
        detail: headers.text("error-message"),
        // The number of retries; the call before them is an attempt too.
        attempts: headers.number::<u32>("retry-count").map(|retries| retries.saturating_add(1)),
        ..Said::default()
    }
}
