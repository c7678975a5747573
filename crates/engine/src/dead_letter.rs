//! Dead letters: a set-aside record byte for byte, with headers that say why, in every dialect that other tools read.
//!
//! | dialect | headers | form |
//! |---|---|---|
//! | Kafka Connect (`DeadLetterQueueReporter`) | `__connect.errors.*` | text |
//! | Spring Kafka (`DeadLetterPublishingRecoverer`) | `kafka_dlt-original-*`, `kafka_dlt-exception-*` | text; numbers binary, big-endian |
//! | the platform | `original-topic`, `error-message`, `retry-count` | text |
//! | ours | `fleetlog-dlq-*` | text |
//!
//! Headers of these names that the record already had (it was set aside before) are replaced, never appended to; all
//! others stay as they were. Texts are bounded; if a letter would still be too large, the other dialects' headers are
//! left out and `fleetlog-dlq-shortened` says so. Key, value and foreign headers are never cut.

use bytes::Bytes;
use fleetlog_codec::frame;
use fleetlog_event::{
    LogId, Reason, TimestampMs,
    catalogue::{dead_letter_name, parking_name},
};
use fleetlog_kafka::HeaderName;
use fleetlog_projection::{LaneId, Record, SetAside};

/// Longest text of a header, in bytes.
const TEXT_BYTES_MAX: usize = 2_048;

/// Prefixes of headers that are ours to write.
const OWNED_PREFIXES: [&str; 3] = ["__connect.errors.", "kafka_dlt-", "fleetlog-dlq-"];
/// Names of headers that are ours to write.
const OWNED_NAMES: [&str; 3] = ["original-topic", "error-message", RETRY_COUNT];

const FIRST_FAILURE: &str = "fleetlog-dlq-first-failure";
const ATTEMPTS: &str = "fleetlog-dlq-attempts";
const RETRY_COUNT: &str = "retry-count";
const REPLAY_COUNT: &str = "fleetlog-dlq-replay-count";

/// A record on its way to a dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The dead-letter topic's physical name.
    pub topic: String,
    /// The record's key, untouched. Where there is one it decides the partition, as everywhere.
    pub key: Option<Bytes>,
    /// The record's value, untouched.
    pub value: Option<Bytes>,
    /// Foreign headers untouched, then ours.
    pub headers: Vec<(HeaderName, Option<Bytes>)>,
    /// A hash of the record's position, by which a record without a key finds its partition.
    pub position_hash: u32,
}

/// Who sets aside, and where from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The lane.
    pub lane: &'a LaneId,
    /// The log the record lies on.
    pub log: LogId,
    /// The consumer group.
    pub group: &'a str,
    /// The application's version.
    pub application_version: &'a str,
    /// When it is set aside.
    pub now: TimestampMs,
}

impl DeadLetter {
    /// The dead letter of a set-aside event, at most `bytes_max` long if its record allows that.
    #[must_use]
    pub fn new(set_aside: &SetAside, origin: &Origin<'_>, bytes_max: usize) -> Self {
        let record = &set_aside.record;
        debug_assert!(record.headers.are_read(), "offset {}: its headers would be lost", record.offset);
        let mut letter = Self {
            topic: dead_letter_name(&origin.lane.topic),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: foreign_headers(record),
            position_hash: position_hash(origin, record.offset),
        };
        let kept = letter.headers.len();
        letter.headers.extend(dialects(set_aside, origin));
        letter.headers.extend(ours(set_aside, origin));
        if letter.size_bytes() > bytes_max {
            letter.headers.truncate(kept);
            letter.headers.extend(ours(set_aside, origin));
            letter.headers.push(text("fleetlog-dlq-shortened", "headers of other dialects"));
        }
        letter
    }

    /// The letter of an event that was redriven and rejected once more; one that is parked goes to the parking topic of the
    /// topic it came from.
    #[must_use]
    pub fn replayed(mut self, replays: u32, parked: Option<&String>) -> Self {
        self.set(REPLAY_COUNT, replays);
        self.set(RETRY_COUNT, replays);
        self.set(ATTEMPTS, replays.saturating_add(1));
        if let Some(topic) = parked {
            self.topic = parking_name(topic);
        }
        self
    }

    /// The letter of an event that a handler was called for so often in vain, since then.
    #[must_use]
    pub fn after_calls(mut self, calls: u32, first_failed_at: Option<TimestampMs>) -> Self {
        self.set(ATTEMPTS, calls);
        self.set(RETRY_COUNT, calls.saturating_sub(1));
        if let Some(at) = first_failed_at {
            self.set(FIRST_FAILURE, at.0);
        }
        self
    }

    /// The letter of an event that an operator had sent back: one replay more than the letter before it tells.
    #[must_use]
    pub fn counting_a_replay(mut self) -> Self {
        let count = self.headers.iter().find(|(name, _)| *name == REPLAY_COUNT);
        let before = count.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok()?.parse().ok());
        self.set(REPLAY_COUNT, before.unwrap_or(0_u32).saturating_add(1));
        self
    }

    /// Changes a header where it is there: those of other dialects may have been left out.
    fn set(&mut self, header: &str, now: impl ToString) {
        for (_, value) in self.headers.iter_mut().filter(|(name, _)| *name == header) {
            *value = Some(Bytes::from(now.to_string()));
        }
    }

    /// Bytes of key, value and headers.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value) + 4).sum();
        length(&self.key) + length(&self.value) + headers
    }
}

type Header = (HeaderName, Option<Bytes>);

fn foreign_headers(record: &Record) -> Vec<Header> {
    let is_ours = |name: &[u8]| {
        OWNED_NAMES.iter().any(|ours| name == ours.as_bytes())
            || OWNED_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
    };
    let foreign = record.headers.iter().filter(|(name, _)| !is_ours(name));
    foreign.map(|(name, value)| (name.into(), value.map(Bytes::copy_from_slice))).collect()
}

/// Murmur2 over the position, as over a key.
fn position_hash(origin: &Origin<'_>, offset: i64) -> u32 {
    let position = format!("{}/{}/{offset}", origin.log, origin.lane.partition);
    fleetlog_event::murmur2(position.as_bytes())
}

fn text(name: &str, value: impl Into<String>) -> Header {
    let mut value = value.into();
    if value.len() > TEXT_BYTES_MAX {
        let cut = (0..=TEXT_BYTES_MAX).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
        value.truncate(cut);
    }
    (name.into(), Some(Bytes::from(value)))
}

fn binary(name: &str, value: &[u8]) -> Header {
    (name.into(), Some(Bytes::copy_from_slice(value)))
}

/// What `Reason` says in Connect's terms: where in the way of a record it failed.
fn stage(reason: Reason) -> &'static str {
    match reason {
        Reason::NoKey | Reason::WrongKey | Reason::WrongPartition => "KEY_CONVERTER",
        Reason::EmptyPayload
        | Reason::UnknownFraming
        | Reason::UnknownSchema
        | Reason::Undecodable
        | Reason::UnknownEventType => "VALUE_CONVERTER",
        _ => "TASK_PUT",
    }
}

fn dialects(set_aside: &SetAside, origin: &Origin<'_>) -> Vec<Header> {
    let (record, reject, lane) = (&set_aside.record, &set_aside.reject, origin.lane);
    let class = format!("fleetlog.{}", reject.reason);
    let (partition, offset) = (lane.partition.to_string(), record.offset.to_string());
    vec![
        text("__connect.errors.topic", &lane.topic),
        text("__connect.errors.partition", &partition),
        text("__connect.errors.offset", &offset),
        text("__connect.errors.connector.name", origin.group),
        text("__connect.errors.task.id", &partition),
        text("__connect.errors.stage", stage(reject.reason)),
        text("__connect.errors.class.name", &lane.projection),
        text("__connect.errors.exception.class.name", &class),
        text("__connect.errors.exception.message", &reject.detail),
        text("__connect.errors.exception.stacktrace", ""),
        text("kafka_dlt-original-topic", &lane.topic),
        binary("kafka_dlt-original-partition", &lane.partition.to_be_bytes()),
        binary("kafka_dlt-original-offset", &record.offset.to_be_bytes()),
        binary("kafka_dlt-original-timestamp", &record.timestamp.0.to_be_bytes()),
        text("kafka_dlt-original-timestamp-type", "CreateTime"),
        text("kafka_dlt-original-consumer-group", origin.group),
        text("kafka_dlt-exception-fqcn", &class),
        text("kafka_dlt-exception-message", &reject.detail),
        text("original-topic", &lane.topic),
        text("error-message", format!("{}: {}", reject.reason, reject.detail)),
        text(RETRY_COUNT, "0"),
    ]
}

fn ours(set_aside: &SetAside, origin: &Origin<'_>) -> Vec<Header> {
    let (record, reject, lane) = (&set_aside.record, &set_aside.reject, origin.lane);
    let before =
        |name: &str| record.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
    let now = origin.now.0.to_string();
    let class = if reject.reason == Reason::RefusedByStore { "refused" } else { "reject" };
    let mut headers = vec![
        text("fleetlog-dlq-group", origin.group),
        text("fleetlog-dlq-reason", reject.reason.as_str()),
        text("fleetlog-dlq-class", class),
        text("fleetlog-dlq-detail", &reject.detail),
        text(ATTEMPTS, "1"),
        text(FIRST_FAILURE, before(FIRST_FAILURE).unwrap_or_else(|| now.clone())),
        text("fleetlog-dlq-last-failure", now),
        text("fleetlog-dlq-log", origin.log.to_string()),
        text("fleetlog-dlq-topic", &lane.topic),
        text("fleetlog-dlq-partition", lane.partition.to_string()),
        text("fleetlog-dlq-offset", record.offset.to_string()),
        text("fleetlog-dlq-timestamp", record.timestamp.0.to_string()),
        text("fleetlog-dlq-application-version", origin.application_version),
        text(REPLAY_COUNT, before(REPLAY_COUNT).unwrap_or_else(|| "0".into())),
    ];
    if let Ok((schema, _)) = frame::parse(record.value.as_deref()) {
        headers.push(text("fleetlog-dlq-schema", schema.to_string()));
    }
    if let Some(event_type) = &set_aside.event_type {
        headers.push(text("fleetlog-dlq-event-type", event_type));
    }
    headers
}

#[cfg(test)]
mod tests {
    use fleetlog_event::Reject;
    use fleetlog_projection::Headers;

    use super::*;

    fn set_aside(headers: &[(&str, Option<&[u8]>)], detail: &str) -> SetAside {
        let record = Record {
            offset: 77,
            timestamp: TimestampMs(1_000),
            key: Some(Bytes::from_static(b"s1.u\xff")),
            value: Some(Bytes::from_static(b"\x00\x00\x00\x00\x07bytes")),
            headers: Headers::pack(headers.iter().copied()),
        };
        let reject = Reject::new(Reason::WrongKey, detail);
        SetAside { record, reject, event_type: Some("fleetlog.robot.Connected".into()) }
    }

    fn letter(set_aside: &SetAside, bytes_max: usize) -> DeadLetter {
        let lane = LaneId { projection: "p".into(), version: 1, topic: "x-robot".into(), partition: 3 };
        let origin = Origin {
            lane: &lane,
            log: LogId(uuid_of(9)),
            group: "x-fleetlog-p-v1",
            application_version: "0.1.0",
            now: TimestampMs(5_000),
        };
        DeadLetter::new(set_aside, &origin, bytes_max)
    }

    fn uuid_of(n: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(n)
    }

    fn all<'a>(letter: &'a DeadLetter, name: &str) -> Vec<&'a [u8]> {
        letter.headers.iter().filter(|(n, _)| *n == name).filter_map(|(_, v)| v.as_deref()).collect()
    }

    #[test]
    fn key_value_and_foreign_headers_stay_as_they_were() {
        let aside = set_aside(&[("a", Some(b"1")), ("a", Some(b"2")), ("nothing", None)], "d");
        let letter = letter(&aside, usize::MAX);
        assert_eq!((&letter.key, &letter.value), (&aside.record.key, &aside.record.value));
        assert_eq!(letter.topic, "x-robot-dlq");
        let foreign: Vec<_> = letter.headers[..3].iter().map(|(n, v)| (n.as_ref(), v.as_deref())).collect();
        assert_eq!(foreign, [(&b"a"[..], Some(&b"1"[..])), (b"a", Some(b"2")), (b"nothing", None)]);
    }

    #[test]
    fn every_dialect_names_the_origin_in_its_form() {
        let letter = letter(&set_aside(&[], "the key is wrong"), usize::MAX);
        assert_eq!(all(&letter, "__connect.errors.offset"), [b"77"]);
        assert_eq!(all(&letter, "__connect.errors.exception.message"), [b"the key is wrong"]);
        assert_eq!(all(&letter, "kafka_dlt-original-partition"), [3_i32.to_be_bytes()]);
        assert_eq!(all(&letter, "kafka_dlt-original-offset"), [77_i64.to_be_bytes()]);
        assert_eq!(all(&letter, "original-topic"), [b"x-robot"]);
        assert_eq!(all(&letter, "fleetlog-dlq-reason"), [b"wrong_key"]);
        assert_eq!(all(&letter, "fleetlog-dlq-schema"), [b"schema id 7"]);
        assert_eq!(all(&letter, "fleetlog-dlq-event-type"), [b"fleetlog.robot.Connected"]);
    }

    #[test]
    fn set_aside_again_headers_are_replaced_and_the_first_failure_stays() {
        let before: [(&str, Option<&[u8]>); 4] = [
            ("fleetlog-dlq-reason", Some(b"undecodable")),
            (FIRST_FAILURE, Some(b"4000")),
            (REPLAY_COUNT, Some(b"2")),
            ("original-topic", Some(b"other")),
        ];
        let letter = letter(&set_aside(&before, "d"), usize::MAX);
        assert_eq!(all(&letter, "fleetlog-dlq-reason"), [b"wrong_key"]);
        assert_eq!(all(&letter, "original-topic"), [b"x-robot"]);
        assert_eq!(all(&letter, FIRST_FAILURE), [b"4000"]);
        assert_eq!(all(&letter, "fleetlog-dlq-last-failure"), [b"5000"]);
        assert_eq!(all(&letter, REPLAY_COUNT), [b"2"]);
    }

    #[test]
    fn a_letter_is_bounded() {
        let aside = set_aside(&[], &"ä".repeat(100_000));
        let long = letter(&aside, usize::MAX);
        assert!(long.size_bytes() < 10 * TEXT_BYTES_MAX, "{}", long.size_bytes());
        let short = letter(&aside, 4_000);
        assert!(short.size_bytes() <= 4_000, "{}", short.size_bytes());
        assert_eq!(all(&short, "fleetlog-dlq-shortened").len(), 1);
        assert_eq!(short.value, aside.record.value);
    }
}
