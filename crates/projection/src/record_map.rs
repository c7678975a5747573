//! A projection over records as they lie on the log, events or not.
//!
//! Dead letters are such records: whoever wrote them, in whatever form. Nothing is decoded, so nothing can be rejected, and
//! a lane of such a projection sets nothing aside.

use fleetlog_event::{Decode, LogId, catalogue::physical_name};

use crate::{LaneScope, Projected, Projection, Record, RowChange, Rulings};

/// Where a record lies, beside its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace<'a> {
    /// The topic without the deployment's prefix.
    pub stem: &'static str,
    /// The topic's physical name.
    pub topic: &'a str,
    /// The topic's id.
    pub log: LogId,
    /// The partition.
    pub partition: i32,
}

/// One record → rows, whatever the record is.
///
/// Pure: no clock, no I/O, no memory between records. Nothing can be rejected: what cannot be read is a row that says so.
pub trait RecordProjector: Send + Sync + 'static {
    /// The projection's ID: names its group and progress.
    const ID: &'static str;
    /// A new version is built beside the old one and swapped in.
    const VERSION: u32 = 1;
    /// Stems of the topics that it reads: names without the deployment's prefix, such as `robot-dlq`.
    const TOPICS: &'static [&'static str];
    /// What it writes.
    type Write: Send + Sync + 'static;

    /// The rows of one record.
    fn map(&self, record: &Record, place: &RecordPlace<'_>, out: &mut Vec<Self::Write>);

    /// What is written in the place of rows that the store refused, and why it did: nothing of the record that a store could
    /// have anything against.
    fn map_refused(&self, record: &Record, place: &RecordPlace<'_>, detail: &str, out: &mut Vec<Self::Write>);
}

/// Drives a [`RecordProjector`].
#[derive(Debug)]
pub struct RecordMap<P> {
    projector: P,
    /// Physical names, in the order of [`RecordProjector::TOPICS`].
    topics: Vec<String>,
}

impl<P: RecordProjector> RecordMap<P> {
    /// For a deployment whose topics have this prefix.
    #[must_use]
    pub fn new(projector: P, topic_prefix: &str) -> Self {
        let topics = P::TOPICS.iter().map(|stem| physical_name(topic_prefix, stem)).collect();
        Self { projector, topics }
    }
}

impl<P: RecordProjector> Projection for RecordMap<P> {
    type Write = P::Write;
    type Cache = ();
    type Pending = ();
    type Touched = ();
    const READS_EVENTS: bool = false;

    fn id(&self) -> &'static str {
        P::ID
    }
    fn version(&self) -> u32 {
        P::VERSION
    }
    fn topics(&self) -> &'static [&'static str] {
        P::TOPICS
    }

    fn project<D: Decode>(
        &self,
        scope: &LaneScope,
        _: &D,
        records: &[&Record],
        rulings: &Rulings,
        (): &(),
    ) -> Projected<P::Write, ()> {
        let place = RecordPlace {
            stem: P::TOPICS[scope.topic],
            topic: &self.topics[scope.topic],
            log: scope.log,
            partition: scope.partition,
        };
        let (mut rows, mut of_one) = (Vec::with_capacity(records.len()), Vec::new());
        for &record in records {
            if rulings.named.contains(&record.offset) {
                continue;
            }
            match rulings.refused.get(&record.offset) {
                None => self.projector.map(record, &place, &mut of_one),
                Some(detail) => self.projector.map_refused(record, &place, detail, &mut of_one),
            }
            rows.extend(of_one.drain(..).map(|write| RowChange { offset: record.offset, write }));
        }
        Projected { pending: (), rows, set_aside: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::given::{MemoryLog, START, assert_cuts_do_not_matter};
    use crate::{Headers, Map};

    /// Writes where each record lies.
    struct Places;

    impl RecordProjector for Places {
        const ID: &'static str = "places";
        const TOPICS: &'static [&'static str] = &["a", "b-dlq"];
        type Write = String;

        fn map(&self, record: &Record, place: &RecordPlace<'_>, out: &mut Vec<String>) {
            out.push(format!("{} {} {}/{}", place.stem, place.topic, place.partition, record.offset));
        }
        fn map_refused(&self, record: &Record, _: &RecordPlace<'_>, detail: &str, out: &mut Vec<String>) {
            out.push(format!("{}: {detail}", record.offset));
        }
    }

    fn log() -> MemoryLog {
        let mut log = MemoryLog::default();
        for value in [None, Some(&b""[..]), Some(b"\xff\x00"), Some(b"{}")] {
            log.append_raw(None, value, Headers::default(), START);
        }
        log
    }

    fn scope(topic: usize) -> LaneScope {
        LaneScope { topic, log: LogId(uuid::Uuid::from_u128(7)), partition: 2, partitions: 3 }
    }

    #[test]
    fn every_record_is_a_row_and_knows_its_topic() {
        let (log, map) = (log(), RecordMap::new(Places, "x-"));
        assert_eq!((map.id(), map.topics()), ("places", &["a", "b-dlq"][..]));
        let records: Vec<&Record> = log.records().iter().collect();
        let made = map.project(&scope(1), &log, &records, &Rulings::default(), &());
        let rows: Vec<&str> = made.rows.iter().map(|row| row.write.as_str()).collect();
        assert_eq!(rows, [0, 1, 2, 3].map(|n| format!("b-dlq x-b-dlq 2/{n}")));
        assert!(made.set_aside.is_empty());
    }

    #[test]
    fn a_refused_row_is_written_another_way_and_what_is_named_is_not() {
        let log = log();
        let records: Vec<&Record> = log.records().iter().collect();
        let rulings = Rulings { named: [0].into(), refused: BTreeMap::from([(2, "no room".to_owned())]) };
        let made = RecordMap::new(Places, "").project(&scope(0), &log, &records, &rulings, &());
        let rows: Vec<(i64, &str)> = made.rows.iter().map(|row| (row.offset, row.write.as_str())).collect();
        assert_eq!(rows, [(1, "a a 2/1"), (2, "2: no room"), (3, "a a 2/3")]);
        assert!(made.set_aside.is_empty());
    }

    #[test]
    fn the_cut_of_the_log_does_not_matter() {
        assert_cuts_do_not_matter(&RecordMap::new(Places, ""), &log(), &[3, 1]);
    }

    /// Only this kind of projection can do without schemas.
    #[test]
    fn events_are_read_by_all_others() {
        fn reads_events<P: Projection>() -> bool {
            P::READS_EVENTS
        }
        struct OfEvents;
        impl crate::MapProjector for OfEvents {
            const ID: &'static str = "of-events";
            type Event = fleetlog_event::robot::RobotEvent;
            type Write = ();
            fn map(
                &self,
                _: &fleetlog_event::Recorded<Self::Event>,
                _: &mut Vec<()>,
            ) -> Result<(), fleetlog_event::Reject> {
                Ok(())
            }
        }
        assert!(reads_events::<Map<OfEvents>>() && !reads_events::<RecordMap<Places>>());
    }
}
