//! Clocks: this host's against those of the stores and of whoever wrote the newest records.

use crate::{Check, Finding, records::TopicTail};

/// Differences of two clocks, in ms.
const SKEW_WARNING_MS: i64 = 1_000;
const SKEW_ERROR_MS: i64 = 30_000;

/// Another clock, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it said, in ms since 1970.
    pub theirs_ms: i64,
    /// This host's clock just before it was asked.
    pub before_ms: i64,
    /// This host's clock when the answer was there.
    pub after_ms: i64,
}

impl Reading {
    /// By how much the other clock is surely ahead (positive) or behind (negative), in ms; 0 within the time that asking took.
    #[must_use]
    pub fn skew_ms(self) -> i64 {
        if self.theirs_ms > self.after_ms {
            self.theirs_ms - self.after_ms
        } else {
            (self.theirs_ms - self.before_ms).min(0)
        }
    }
}

/// Judges a store's clock.
#[must_use]
pub fn judge_store(check: Check, whose: &str, reading: Reading) -> Finding {
    let (skew_ms, took_ms) = (reading.skew_ms(), reading.after_ms - reading.before_ms);
    let found = match skew_ms {
        0 => format!("{whose}'s clock agrees with this host's, within the {took_ms} ms that asking took"),
        1.. => format!("{whose}'s clock is {} ahead of this host's", span(skew_ms)),
        _ => format!("{whose}'s clock is {} behind this host's", span(-skew_ms)),
    };
    graded(check, skew_ms.abs(), found)
}

/// Judges the times of the newest records. Only a record from the future says anything: an old one may be just that.
#[must_use]
pub fn judge_records(topics: &[TopicTail], now_ms: i64) -> Finding {
    let records =
        topics.iter().flat_map(|topic| topic.tail.records.iter().map(move |record| (topic, record)));
    let Some((topic, newest)) = records.max_by_key(|(_, record)| record.timestamp) else {
        return Check::ClockRecords.info(
            "brokers do not tell their time, and there are no records yet whose times could be compared",
        );
    };
    let ahead_ms = newest.timestamp.0 - now_ms;
    let place = format!("{}/{}/{}", topic.topic, newest.partition, newest.offset);
    if ahead_ms <= 0 {
        return Check::ClockRecords.ok(format!(
            "no recent record is from the future; the newest ({place}) is {} old",
            span(-ahead_ms)
        ));
    }
    let maker = newest.source.as_ref().map_or_else(String::new, |source| format!(", made by {source}"));
    graded(
        Check::ClockRecords,
        ahead_ms,
        format!("the record at {place}{maker} is {} from the future", span(ahead_ms)),
    )
}

fn graded(check: Check, skew_ms: i64, found: String) -> Finding {
    let cure =
        "keep every host's clock by NTP (chrony, systemd-timesyncd), and look which of the two is wrong";
    let look = "timedatectl timesync-status || chronyc tracking";
    if skew_ms >= SKEW_ERROR_MS {
        check.error(found).cure(cure).by(look)
    } else if skew_ms >= SKEW_WARNING_MS {
        check.warning(found).cure(cure).by(look)
    } else {
        check.ok(found)
    }
}

fn span(ms: i64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { format!("{} s", ms / 1000) }
}

#[cfg(test)]
mod tests {
    use fleetlog_codec::SchemaRef;
    use fleetlog_event::TimestampMs;
    use fleetlog_kafka::{Tail, TailRecord};

    use super::*;
    use crate::Severity;

    fn reading(theirs_ms: i64) -> Reading {
        Reading { theirs_ms, before_ms: 100_000, after_ms: 100_400 }
    }

    #[test]
    fn what_asking_took_is_no_skew() {
        for (theirs_ms, skew_ms) in
            [(100_000, 0), (100_400, 0), (100_500, 100), (99_000, -1_000), (30_000, -70_000)]
        {
            assert_eq!(reading(theirs_ms).skew_ms(), skew_ms, "{theirs_ms}");
        }
        let severity = |theirs_ms| judge_store(Check::ClockRedis, "redis", reading(theirs_ms)).severity;
        assert_eq!(severity(100_200), Severity::Ok);
        assert_eq!(severity(101_400), Severity::Warning);
        assert_eq!(severity(69_999), Severity::Error);
    }

    #[test]
    fn only_records_from_the_future_say_anything() {
        let at = |timestamp| {
            let record = TailRecord {
                partition: 1,
                offset: 5,
                timestamp: TimestampMs(timestamp),
                key: None,
                schema: Ok(SchemaRef::Id(1)),
                source: Some("bridge/1".into()),
            };
            let tail = Tail { partitions: 6, offsets: 1, records: vec![record], is_complete: true };
            judge_records(
                &[TopicTail { topic: "p-task".into(), stem: "task".into(), partitions_wanted: 6, tail }],
                100_000,
            )
        };
        assert_eq!(at(-1).severity, Severity::Ok);
        assert_eq!(at(100_500).severity, Severity::Ok);
        let ahead = at(160_000);
        assert_eq!(ahead.severity, Severity::Error);
        assert!(ahead.found.contains("p-task/1/5, made by bridge/1 is 60 s"), "{}", ahead.found);
        assert_eq!(judge_records(&[], 0).severity, Severity::Info);
    }
}
