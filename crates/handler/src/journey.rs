//! What a record on a retry tier, or among what is held, carries: where its event lies, and what happened to it.
//!
//! | header `fleetlog-retry-…` | |
//! |---|---|
//! | `topic`, `partition`, `offset`, `log`, `timestamp` | where the event lies: physical name, KIP-516 id, time in ms |
//! | `failed-calls` | how many calls about it have failed |
//! | `first-failure` | when the first of them ended, in ms; absent before |
//! | `rest-ms` | what is left to wait once the tier's delay is over; absent if nothing |
//! | `why` | what failed last, or what it waits for, for people; at most 2,048 bytes |
//! | `redrive` | `true` if an operator sent it back; absent if not |
//!
//! Texts in decimal digits. Key, value and all other headers are those of the record on its source topic, byte for byte; headers of
//! these names are replaced, never appended.

use std::time::Duration;

use bytes::Bytes;
use fleetlog_event::{LogId, Position, TimestampMs};

const PREFIX: &str = "fleetlog-retry-";
const TOPIC: &str = "fleetlog-retry-topic";
const PARTITION: &str = "fleetlog-retry-partition";
const OFFSET: &str = "fleetlog-retry-offset";
const LOG: &str = "fleetlog-retry-log";
const TIMESTAMP: &str = "fleetlog-retry-timestamp";
const FAILED_CALLS: &str = "fleetlog-retry-failed-calls";
const FIRST_FAILURE: &str = "fleetlog-retry-first-failure";
const REST_MS: &str = "fleetlog-retry-rest-ms";
const WHY: &str = "fleetlog-retry-why";
const REDRIVE: &str = "fleetlog-retry-redrive";
/// The header of a record that only makes the broker tell its time.
const TIME: &str = "fleetlog-retry-time";

/// Longest text of `why`, in bytes.
const WHY_BYTES_MAX: usize = 2_048;

/// Where an event lies, and what happened to it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// The source topic's physical name.
    pub topic: String,
    /// Where on it.
    pub position: Position,
    /// The record's timestamp there.
    pub recorded_at: TimestampMs,
    /// How many calls about it have failed.
    pub failed_calls: u32,
    /// When the first of them ended; none before.
    pub first_failed_at: Option<TimestampMs>,
    /// What is left to wait once the tier's delay is over.
    pub rest: Duration,
    /// What failed last, or what it waits for.
    pub why: Option<String>,
    /// An operator sent it back from the dead letters.
    pub is_redrive: bool,
}

/// A record that does not say where its event lies: nobody of ours wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoJourney {
    /// A header is not there.
    #[error("it has no header {0}: only fleetlog writes on retry topics")]
    Missing(&'static str),
    /// A header says something else.
    #[error("its header {name} is `{found}`, expected {expected}")]
    Wrong {
        /// Which.
        name: &'static str,
        /// What it says.
        found: String,
        /// What it should.
        expected: &'static str,
    },
}

/// Whether a header is one of these; all others are the record's own.
#[must_use]
pub fn is_of_journeys(name: &[u8]) -> bool {
    name.starts_with(PREFIX.as_bytes())
}

/// The header of a record that only makes the broker tell its time: it has neither key nor value.
#[must_use]
pub fn time_header() -> (&'static str, Bytes) {
    (TIME, Bytes::new())
}

/// Whether a record only made the broker tell its time. `header` gives the last header of a name.
pub fn tells_time<'h>(header: impl Fn(&str) -> Option<&'h [u8]>) -> bool {
    header(TIME).is_some()
}

impl Journey {
    /// The headers, to be put behind those of the record that are its own.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, Bytes)> {
        let mut headers = vec![
            (TOPIC, text(&self.topic)),
            (PARTITION, text(self.position.partition)),
            (OFFSET, text(self.position.offset)),
            (LOG, text(self.position.log)),
            (TIMESTAMP, text(self.recorded_at.0)),
            (FAILED_CALLS, text(self.failed_calls)),
        ];
        headers.extend(self.first_failed_at.map(|at| (FIRST_FAILURE, text(at.0))));
        headers.extend((!self.rest.is_zero()).then(|| (REST_MS, text(round_up_ms(self.rest)))));
        headers.extend(self.why.as_deref().map(|why| (WHY, text(shortened(why)))));
        headers.extend(self.is_redrive.then(|| (REDRIVE, text(true))));
        headers
    }

    /// Reads it back. `header` gives the last header of a name.
    ///
    /// # Errors
    /// [`NoJourney`] names the header that is missing or wrong.
    pub fn read<'h>(header: impl Fn(&str) -> Option<&'h [u8]>) -> Result<Self, NoJourney> {
        let text_of = |name: &'static str| header(name).map(String::from_utf8_lossy);
        let needed = |name: &'static str| text_of(name).ok_or(NoJourney::Missing(name));
        let rest_ms: u64 = optional(REST_MS, text_of(REST_MS))?.unwrap_or(0);
        Ok(Self {
            topic: needed(TOPIC)?.into_owned(),
            position: Position {
                log: parsed::<LogId>(LOG, &needed(LOG)?, "a topic id of 32 hexadecimal digits")?,
                partition: number(PARTITION, &needed(PARTITION)?)?,
                offset: number(OFFSET, &needed(OFFSET)?)?,
            },
            recorded_at: TimestampMs(number(TIMESTAMP, &needed(TIMESTAMP)?)?),
            failed_calls: number(FAILED_CALLS, &needed(FAILED_CALLS)?)?,
            first_failed_at: optional(FIRST_FAILURE, text_of(FIRST_FAILURE))?.map(TimestampMs),
            rest: Duration::from_millis(rest_ms),
            why: text_of(WHY).map(std::borrow::Cow::into_owned),
            is_redrive: text_of(REDRIVE).is_some_and(|text| text == "true"),
        })
    }
}

fn text(value: impl ToString) -> Bytes {
    Bytes::from(value.to_string())
}

/// Never less: what waits is never called for early.
fn round_up_ms(time: Duration) -> u128 {
    time.as_nanos().div_ceil(1_000_000)
}

fn shortened(why: &str) -> &str {
    let end = (0..=WHY_BYTES_MAX.min(why.len())).rev().find(|at| why.is_char_boundary(*at));
    &why[..end.unwrap_or(0)]
}

fn number<T: std::str::FromStr>(name: &'static str, found: &str) -> Result<T, NoJourney> {
    parsed(name, found, "a whole number")
}

fn optional<T: std::str::FromStr>(
    name: &'static str,
    found: Option<std::borrow::Cow<'_, str>>,
) -> Result<Option<T>, NoJourney> {
    found.map(|found| number(name, &found)).transpose()
}

fn parsed<T: std::str::FromStr>(
    name: &'static str,
    found: &str,
    expected: &'static str,
) -> Result<T, NoJourney> {
    found.parse().map_err(|_| NoJourney::Wrong { name, found: found.to_owned(), expected })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn journey() -> Journey {
        Journey {
            topic: "prod-task".to_owned(),
            position: Position { log: LogId(Uuid::from_u128(7)), partition: 3, offset: 41 },
            recorded_at: TimestampMs(1_704_067_200_000),
            failed_calls: 0,
            first_failed_at: None,
            rest: Duration::ZERO,
            why: None,
            is_redrive: false,
        }
    }

    fn read(headers: &[(&'static str, Bytes)]) -> Result<Journey, NoJourney> {
        Journey::read(|name| {
            headers.iter().rfind(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
        })
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for n in 0..journey().headers().len() {
            let mut headers = journey().headers();
            let (name, _) = headers.remove(n);
            assert_eq!(read(&headers), Err(NoJourney::Missing(name)));
            if name != TOPIC {
                headers.push((name, Bytes::from_static(b"\xff7")));
                let error = read(&headers).expect_err("no number");
                assert!(error.to_string().contains(name), "{error}");
            }
        }
        let mut headers = journey().headers();
        headers.push((REST_MS, Bytes::from_static(b"-1")));
        assert_eq!(
            read(&headers).expect_err("negative").to_string(),
            "its header fleetlog-retry-rest-ms is `-1`, expected a whole number"
        );
    }

    #[test]
    fn a_record_that_tells_the_time_is_no_event_and_no_event_is_one() {
        let (name, value) = time_header();
        assert!(is_of_journeys(name.as_bytes()));
        assert!(tells_time(|asked| (asked == name).then_some(value.as_ref())));
        let headers = journey().headers();
        assert!(!tells_time(|asked| headers
            .iter()
            .find(|(name, _)| *name == asked)
            .map(|(_, v)| v.as_ref())));
        assert!(headers.iter().all(|(name, _)| is_of_journeys(name.as_bytes())));
        assert!(!is_of_journeys(b"fleetlog-dlq-reason") && !is_of_journeys(b"traceparent"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            topic in "[a-z-]{1,20}",
            (log, partition, offset, recorded_at) in any::<(u128, i32, i64, i64)>(),
            (failed_calls, first, rest_us, is_redrive) in any::<(u32, Option<i64>, u32, bool)>(),
            why in prop::option::of(".{0,3000}"),
        ) {
            let journey = Journey {
                topic,
                position: Position { log: LogId(Uuid::from_u128(log)), partition, offset },
                recorded_at: TimestampMs(recorded_at),
                failed_calls,
                first_failed_at: first.map(TimestampMs),
                rest: Duration::from_micros(rest_us.into()),
                why,
                is_redrive,
            };
            let read = read(&journey.headers()).expect("just written");
            prop_assert!(read.rest >= journey.rest && read.rest < journey.rest + Duration::from_millis(1));
            let (kept, whole) = (read.why.as_deref().unwrap_or(""), journey.why.as_deref().unwrap_or(""));
            prop_assert!(whole.starts_with(kept) && (kept == whole || kept.len() > WHY_BYTES_MAX - 4));
            prop_assert_eq!(Journey { rest: journey.rest, why: journey.why.clone(), ..read }, journey);
        }
    }
}
