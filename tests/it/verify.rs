//! `verify` against stores that were filled by the sinks, and then wilfully damaged: every kind of difference is
//! found, and nothing else is.

mod explain;
mod history;
mod hot;
mod ledger;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use fleetlog_event::{Decode, EventId, EventMeta, EventSet, LogId, TimestampMs};
use fleetlog_projection::{
    Chain, Commit, DedupWindow, LaneId, LaneScope, LastRecord, Progress, Projection, Record, Rulings, Sink,
    UnitOfWork,
    given::{self, MemoryLog},
};
use fleetlog_verify::{Batches, Log, Range, Report, Topic, VerifyError, VerifySettings};
use tokio::sync::mpsc;
use uuid::Uuid;

const LOG: LogId = LogId(Uuid::from_u128(0xf1ee7));
const TOPIC: &str = "v-topic";
const SPAN: i64 = 50;

/// A log of one partition, in memory.
#[derive(Clone)]
struct TestLog {
    records: Arc<MemoryLog>,
    low: i64,
    /// The end as it is told the next time; afterwards the log's own: a log that grows while it is recounted.
    end_at_first: Arc<AtomicI64>,
}

impl TestLog {
    fn new(records: MemoryLog) -> Self {
        let end = i64::try_from(records.records().len()).unwrap();
        Self { records: Arc::new(records), low: 0, end_at_first: Arc::new(AtomicI64::new(end)) }
    }

    fn end(&self) -> i64 {
        i64::try_from(self.records.records().len()).unwrap()
    }

    /// The same, cut by retention.
    fn cut(&self, low: i64) -> Self {
        Self { low, ..self.clone() }
    }

    /// The same, but when it is first asked it ends earlier.
    fn growing_from(&self, end: i64) -> Self {
        Self { end_at_first: Arc::new(AtomicI64::new(end)), ..self.clone() }
    }
}

impl Log for TestLog {
    type Decode = MemoryLog;

    async fn topic(&self, _: &str) -> Result<Topic, VerifyError> {
        let end = self.end_at_first.swap(self.end(), Ordering::SeqCst);
        let partitions = vec![Range { low: self.low, end }];
        Ok(Topic { name: TOPIC.to_owned(), log: LOG, dedup_span_offsets: SPAN, partitions })
    }

    fn read(&self, topic: &str, partition: i32, from: i64, to: i64) -> Batches {
        assert_eq!((topic, partition), (TOPIC, 0));
        assert!(from >= self.low, "what retention took cannot be read");
        let records = self.records.records().iter().filter(|r| (from..to).contains(&r.offset)).cloned();
        let records: Vec<Record> = records.collect();
        let (sender, batches) = mpsc::channel(records.len() + 1);
        for batch in records.chunks(7) {
            sender.try_send(Ok(batch.to_vec())).unwrap();
        }
        batches
    }

    async fn prepare(&self, _: &[Record]) -> Result<MemoryLog, VerifyError> {
        Ok((*self.records).clone())
    }
}

/// Projects the records below `to` into a store as a lane does, in batches.
async fn fill<P: Projection, S: Sink<Write = P::Write>>(projection: &P, log: &TestLog, sink: &S, to: i64) {
    fill_by(projection, log, sink, to, 25).await;
}

/// The same, so many records a batch.
async fn fill_by<P: Projection, S: Sink<Write = P::Write>>(
    projection: &P,
    log: &TestLog,
    sink: &S,
    to: i64,
    batch: usize,
) {
    let lane = LaneId {
        projection: projection.id().to_owned(),
        version: projection.version(),
        topic: TOPIC.to_owned(),
        partition: 0,
    };
    let scope = LaneScope { topic: 0, log: LOG, partition: 0, partitions: 1 };
    let (mut chain, mut window) = (Chain::resume(rand::random(), None), DedupWindow::new(SPAN));
    let mut cache = P::Cache::default();
    let records: Vec<Record> = log.records.records().iter().filter(|r| r.offset < to).cloned().collect();
    for batch in records.chunks(batch) {
        let duplicate = window.sift(batch, |record| log.records.event_id(record.value.as_deref()));
        let fresh: Vec<&Record> =
            batch.iter().zip(&duplicate).filter(|(_, duplicate)| !**duplicate).map(|(r, _)| r).collect();
        let (keys, homes): (Vec<_>, Vec<_>) = projection.missing(&cache, &fresh).into_iter().unzip();
        let stored = sink.read(&lane, &homes).await.unwrap();
        for (key, state) in keys.into_iter().zip(stored.states) {
            projection.admit(&mut cache, &scope, key, state).unwrap();
        }
        let projected = projection.project(&scope, &*log.records, &fresh, &Rulings::default(), &cache);
        let (follows, leaves) = chain.next();
        let last = batch.last().unwrap();
        let unit = UnitOfWork {
            lane: lane.clone(),
            follows,
            leaves,
            progress: Progress {
                log: LOG,
                main: last.offset + 1,
                inbox: 0,
                last: Some(LastRecord { offset: last.offset, hash: last.hash() }),
            },
            entities: projection.settle(&mut cache, projected.pending),
            rows: projected.rows,
            set_aside: projected.set_aside,
            entries: Vec::new(),
            made_at: given::START,
        };
        assert_eq!(sink.commit(&unit).await.unwrap(), Commit::Applied);
        chain.written(leaves);
    }
}

fn settings() -> VerifySettings {
    VerifySettings { wait_ms: 0, range_offsets: 40, ..VerifySettings::at(given::START) }
}

/// Appends an event with an identity of its own.
fn append<S: EventSet + Clone>(log: &mut MemoryLog, make: impl Fn(EventMeta) -> S, unit: &str) -> i64 {
    let n = u32::try_from(log.records().len()).unwrap();
    let meta = EventMeta {
        event_id: EventId::derived("verify", n),
        occurred_at: TimestampMs(given::START.0 + i64::from(n) * 1000),
        recorded_at: TimestampMs(given::START.0 + i64::from(n) * 1000),
        sequence: Some(i64::from(n)),
        ..given::unit_meta("504", unit)
    };
    log.append(make(meta))
}

/// The counts of a report: missing, extra, different.
fn counts(report: &Report) -> (u64, u64, u64) {
    (report.missing, report.extra, report.different)
}

/// Asserts that a report holds one difference, which tells these texts.
fn assert_one(report: &Report, expected: (u64, u64, u64), texts: &[&str]) {
    assert_eq!(counts(report), expected, "{report:#?}");
    assert!(!report.is_clean());
    let told = report.differences[0].to_string();
    for text in texts {
        assert!(told.contains(text), "`{text}` is not in: {told}");
    }
}
