//! The newest records of the topics that events lie on: keys, partitions, framing.

use std::collections::BTreeSet;

use fleetlog_event::partition_of;
use fleetlog_kafka::{Tail, TailRecord};

use crate::{Check, Finding, brokers::count, partitioner::culprit};

/// Most sources that one finding names.
const SOURCES_SHOWN_MAX: usize = 3;

/// The newest records of a topic whose order hangs on its keys.
#[derive(Clone, Debug)]
pub struct TopicTail {
    /// Its physical name.
    pub topic: String,
    /// The name without the deployment's prefix.
    pub stem: String,
    /// How many partitions its file says.
    pub partitions_wanted: i32,
    /// What was read.
    pub tail: Tail,
}

/// Judges the newest records.
#[must_use]
pub fn judge(topics: &[TopicTail]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = topics
        .iter()
        .flat_map(|topic| [misplaced(topic), keyless(topic), unframed(topic), unread(topic)])
        .flatten()
        .collect();
    let seen: usize = topics.iter().map(|topic| topic.tail.records.len()).sum();
    let looked = format!("the newest {seen} records of {}", count(topics.len(), "topic"));
    for (check, so) in [
        (Check::RecordsPartitioner, "lie on murmur2(key)'s partition"),
        (Check::RecordsKeys, "have a key"),
        (Check::RecordsFraming, "name their schema"),
    ] {
        if !findings.iter().any(|finding| finding.check == check) {
            findings.push(check.ok(if seen == 0 {
                "no records yet".to_owned()
            } else {
                format!("{looked} {so}")
            }));
        }
    }
    findings
}

fn misplaced(topic: &TopicTail) -> Option<Finding> {
    let TopicTail { topic: name, stem, partitions_wanted, tail } = topic;
    let is_misplaced = |record: &&TailRecord| {
        record.key.as_ref().is_some_and(|key| partition_of(key, tail.partitions) != record.partition)
    };
    let wrong: Vec<&TailRecord> = tail.records.iter().filter(is_misplaced).collect();
    let first = wrong.first()?;
    let key = first.key.as_deref().unwrap_or_default();
    let placed: Vec<(&[u8], i32)> =
        wrong.iter().filter_map(|record| Some((record.key.as_deref()?, record.partition))).collect();
    let culprit = culprit(&placed, tail.partitions, *partitions_wanted);
    let keys: BTreeSet<&[u8]> = placed.iter().map(|(key, _)| *key).collect();
    Some(
        Check::RecordsPartitioner
            .error(format!(
                "{name}: {} of the newest {} records ({}) lie on another partition than murmur2 of their key, such as \
                 `{}` at {}/{}, which belongs on {}; their places are those of {culprit}{}",
                wrong.len(),
                tail.records.len(),
                count(keys.len(), "key"),
                String::from_utf8_lossy(key),
                first.partition,
                first.offset,
                partition_of(key, tail.partitions),
                sources(&wrong)
            ))
            .cure(culprit.cure())
            .by(format!("fleetlog events --topic {stem}")),
    )
}

fn keyless(topic: &TopicTail) -> Option<Finding> {
    let without: Vec<&TailRecord> = topic.tail.records.iter().filter(|record| record.key.is_none()).collect();
    let first = without.first()?;
    Some(
        Check::RecordsKeys
            .error(format!(
                "{}: {} of the newest {} records have no key, such as {}/{}{}",
                topic.topic,
                without.len(),
                topic.tail.records.len(),
                first.partition,
                first.offset,
                sources(&without)
            ))
            .cure("let that producer set the unit's or task's id as key"),
    )
}

fn unframed(topic: &TopicTail) -> Option<Finding> {
    let without: Vec<&TailRecord> =
        topic.tail.records.iter().filter(|record| record.schema.is_err()).collect();
    let first = without.first()?;
    let why = first.schema.as_ref().err()?;
    Some(
        Check::RecordsFraming
            .error(format!(
                "{}: {} of the newest {} records name no schema; {}/{}: {why}{}",
                topic.topic,
                without.len(),
                topic.tail.records.len(),
                first.partition,
                first.offset,
                sources(&without)
            ))
            .cure("let that producer write Avro in one of the two framings; `fleetlog dlq list` shows what was set aside"),
    )
}

fn unread(topic: &TopicTail) -> Option<Finding> {
    (!topic.tail.is_complete).then(|| {
        Check::RecordsUnseen
            .warning(format!(
                "{}: the brokers were slow, and only {} were read",
                topic.topic,
                count(topic.tail.records.len(), "record")
            ))
            .cure("ask again with a longer --timeout")
    })
}

/// Which services made the records, as far as their headers tell.
fn sources(records: &[&TailRecord]) -> String {
    let named: BTreeSet<&str> = records.iter().filter_map(|record| record.source.as_deref()).collect();
    let shown: Vec<&str> = named.iter().copied().take(SOURCES_SHOWN_MAX).collect();
    match named.len() - shown.len() {
        _ if shown.is_empty() => String::new(),
        0 => format!(" (made by {})", shown.join(", ")),
        more => format!(" (made by {} and {more} more)", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use fleetlog_codec::SchemaRef;
    use fleetlog_event::TimestampMs;

    use super::*;
    use crate::Severity;

    fn record(key: &str, partition: i32) -> TailRecord {
        TailRecord {
            partition,
            offset: 7,
            timestamp: TimestampMs(0),
            key: Some(key.as_bytes().to_vec()),
            schema: Ok(SchemaRef::Fingerprint(1)),
            source: None,
        }
    }

    fn topic(records: Vec<TailRecord>) -> TopicTail {
        let tail = Tail { partitions: 6, offsets: 100, records, is_complete: true };
        TopicTail { topic: "p-robot".into(), stem: "robot".into(), partitions_wanted: 6, tail }
    }

    fn judged(records: Vec<TailRecord>, check: Check) -> Finding {
        judge(&[topic(records)]).into_iter().find(|finding| finding.check == check).unwrap()
    }

    #[test]
    fn keys_on_their_partitions_and_an_empty_log_are_fine() {
        let right: Vec<TailRecord> = (0..20)
            .map(|n| format!("s1.u{n}"))
            .map(|key| record(&key, partition_of(key.as_bytes(), 6)))
            .collect();
        assert!(judge(&[topic(right)]).iter().all(|finding| finding.severity == Severity::Ok));
        assert!(judge(&[topic(vec![])]).iter().all(|finding| finding.found == "no records yet"));
    }

    #[test]
    fn misplaced_keys_name_place_source_and_cure() {
        let mut wrong = record("s1.u1", (partition_of(b"s1.u1", 6) + 1) % 6);
        wrong.source = Some("door-service/1.2".into());
        let finding = judged(vec![wrong], Check::RecordsPartitioner);
        assert_eq!(finding.severity, Severity::Error);
        assert!(
            finding.found.contains("`s1.u1`") && finding.found.contains("door-service/1.2"),
            "{}",
            finding.found
        );
        assert!(finding.action.unwrap().contains("murmur2"));
        assert_eq!(finding.command.as_deref(), Some("fleetlog events --topic robot"));
    }

    #[test]
    fn records_without_key_or_schema_and_a_slow_broker_are_found() {
        let mut bare = record("k", partition_of(b"k", 6));
        bare.key = None;
        bare.schema = Err("this looks like JSON: events are Avro".into());
        assert_eq!(judged(vec![bare.clone()], Check::RecordsKeys).severity, Severity::Error);
        assert!(judged(vec![bare.clone()], Check::RecordsFraming).found.contains("looks like JSON"));
        let mut slow = topic(vec![bare]);
        slow.tail.is_complete = false;
        assert!(judge(&[slow]).iter().any(|finding| finding.check == Check::RecordsUnseen));
    }
}
