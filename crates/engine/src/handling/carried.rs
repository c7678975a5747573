//! A record on its way through the process: as it was read, with where its event lies.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fleetlog_event::{LogId, Position, TimestampMs};
use fleetlog_handler::{Journey, NoJourney, is_of_journeys};
use fleetlog_kafka::HeaderName;
use fleetlog_projection::{Headers, LaneScope, Record};

use crate::trace::traceparent;

/// A record as it was read.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) record: Record,
    pub(super) origin: Origin,
}

/// Where its event lies.
#[derive(Debug)]
pub(super) enum Origin {
    /// Here: on the source topic of that name.
    Here { topic: Arc<str>, scope: LaneScope },
    /// Where it says that it came from.
    Elsewhere(Journey),
    /// Nobody knows: it lies on a topic of that name, and none of ours wrote it.
    Unknown { topic: Arc<str>, scope: LaneScope, why: NoJourney },
}

impl Carried {
    /// What happened to the event so far, and where it lies. Of a record of unknown origin: where that lies.
    pub(super) fn journey(&self) -> Journey {
        match &self.origin {
            Origin::Elsewhere(journey) => journey.clone(),
            Origin::Here { topic, scope } | Origin::Unknown { topic, scope, .. } => Journey {
                topic: topic.to_string(),
                position: Position { log: scope.log, partition: scope.partition, offset: self.record.offset },
                recorded_at: self.record.timestamp,
                failed_calls: 0,
                first_failed_at: None,
                rest: Duration::ZERO,
                why: None,
                is_redrive: false,
            },
        }
    }

    /// The record as it lies, or lay, on its source topic.
    pub(super) fn original(&self) -> Record {
        let Some(journey) = self.travelled() else { return self.record.clone() };
        let own = self.record.headers.iter().filter(|(name, _)| !is_of_journeys(name));
        Record {
            offset: journey.position.offset,
            timestamp: journey.recorded_at,
            headers: Headers::pack(own),
            ..self.record.clone()
        }
    }

    /// The part of the log that its event has to belong to; the number of partitions of its source topic is given.
    pub(super) fn scope(&self, partitions: i32) -> LaneScope {
        let of = |log: LogId, partition: i32| LaneScope { topic: 0, log, partition, partitions };
        match &self.origin {
            Origin::Here { scope, .. } | Origin::Unknown { scope, .. } => *scope,
            Origin::Elsewhere(journey) => of(journey.position.log, journey.position.partition),
        }
    }

    /// Its own headers, then those of its journey.
    pub(super) fn headers(&self, journey: &Journey) -> Vec<(HeaderName, Option<Bytes>)> {
        let own = self.record.headers.iter().filter(|(name, _)| !is_of_journeys(name));
        let own = own.map(|(name, value)| (name.into(), value.map(Bytes::copy_from_slice)));
        let ours = journey.headers().into_iter().map(|(name, value)| (name.into(), Some(value)));
        own.chain(ours).collect()
    }

    pub(super) fn failed_calls(&self) -> u32 {
        self.travelled().map_or(0, |journey| journey.failed_calls)
    }

    pub(super) fn rest(&self) -> Duration {
        self.travelled().map_or(Duration::ZERO, |journey| journey.rest)
    }

    pub(super) fn first_failed_at(&self) -> Option<TimestampMs> {
        self.travelled()?.first_failed_at
    }

    pub(super) fn traceparent(&self) -> Option<String> {
        traceparent(&self.record).map(str::to_owned)
    }

    pub(super) fn is_redrive(&self) -> bool {
        self.travelled().is_some_and(|journey| journey.is_redrive)
    }

    /// What is written on it; none of a record of a source.
    pub(super) fn travelled(&self) -> Option<&Journey> {
        match &self.origin {
            Origin::Elsewhere(journey) => Some(journey),
            Origin::Here { .. } | Origin::Unknown { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn scope() -> LaneScope {
        LaneScope { topic: 0, log: LogId(Uuid::from_u128(7)), partition: 3, partitions: 6 }
    }

    fn read(headers: Headers, offset: i64) -> Record {
        let value = Some(Bytes::from_static(b"value"));
        Record {
            offset,
            timestamp: TimestampMs(1_000),
            key: Some(Bytes::from_static(b"504/1")),
            value,
            headers,
        }
    }

    #[test]
    fn what_comes_back_from_a_tier_is_the_record_that_lay_on_its_source() {
        let own: [(&[u8], Option<&[u8]>); 3] = [(b"a", Some(b"1")), (b"\xff", None), (b"a", Some(b"2"))];
        let source = read(Headers::pack(own), 42);
        let origin = Origin::Here { topic: "x-robot".into(), scope: scope() };
        let carried = Carried { record: source.clone(), origin };
        let journey = Journey { failed_calls: 2, why: Some("down".into()), ..carried.journey() };

        let headers = carried.headers(&journey);
        let headers = headers.iter().map(|(name, value)| (name.as_ref(), value.as_deref()));
        let record = Record {
            offset: 9,
            timestamp: TimestampMs(77_000),
            headers: Headers::pack(headers),
            ..source.clone()
        };
        let found = Journey::read(|name| record.headers.get(name)).expect("a journey");
        assert_eq!(found, journey);
        let back = Carried { record, origin: Origin::Elsewhere(found) };
        assert_eq!(back.original(), source);
        assert_eq!(back.scope(6), scope());
        assert_eq!((back.failed_calls(), back.first_failed_at(), back.is_redrive()), (2, None, false));
        // Sent on once more its journey is written once.
        assert_eq!(back.headers(&journey).len(), carried.headers(&journey).len());
    }
}
