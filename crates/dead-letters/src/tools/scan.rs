//! Reading dead-letter topics: a thread reads, the caller decides what it keeps.

use std::{collections::BTreeMap, time::Duration};

use fleetlog_event::TimestampMs;
use fleetlog_kafka::{
    ClusterError, KafkaSettings, LogReader, Offsets, OwnedRecord, PartitionOffsets, PartitionRange, ReadError,
};
use tokio::sync::mpsc;

use super::ToolError;

/// Records that lie between reading and looking at them. Each may be a megabyte.
const READ_AHEAD_RECORDS: usize = 32;

/// How long the brokers may be silent in the middle of a topic.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What the thread tells: a record, or none at the end. A thread that ends without a word did not read to the end.
type Told = Result<Option<OwnedRecord>, ReadError>;

/// A topic's records, one after the other. Dropped, it ends the thread behind it at its next record.
pub(super) struct Scan {
    records: mpsc::Receiver<Told>,
}

impl Scan {
    /// Everything that lies on the topic now, from the first record at or after `since`; none if there is no such topic.
    /// What comes later is not read: the end is frozen.
    pub(super) async fn of(
        kafka: &KafkaSettings,
        topic: &str,
        since: Option<TimestampMs>,
    ) -> Result<Option<Self>, ToolError> {
        let offsets = Offsets::new(kafka)?;
        let log = match offsets.ranges(&[topic]).await {
            Err(ClusterError::UnknownTopic(_)) => return Ok(None),
            log => log?,
        };
        let begins = match since {
            // The first record at or after it: whatever lies before is older, however the timestamps are ordered.
            Some(since) => offsets.at_time(topic, since).await?,
            None => BTreeMap::new(),
        };
        let ranges = log
            .iter()
            .map(|((_, partition), there)| PartitionRange {
                partition: *partition,
                from: begins.get(partition).copied().unwrap_or(there.low).clamp(there.low, there.end),
                to: Some(there.end),
            })
            .collect();
        Ok(Some(Self::start(kafka.clone(), topic.to_owned(), ranges, log)))
    }

    /// One place of a topic; none if there is no such topic.
    pub(super) async fn at(
        kafka: &KafkaSettings,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Option<Self>, ToolError> {
        let log = match Offsets::new(kafka)?.ranges(&[topic]).await {
            Err(ClusterError::UnknownTopic(_)) => return Ok(None),
            log => log?,
        };
        let there = log.get(&(topic.to_owned(), partition));
        let ranges = match there.filter(|there| (there.low..there.end).contains(&offset)) {
            Some(_) => vec![PartitionRange { partition, from: offset, to: Some(offset + 1) }],
            None => Vec::new(),
        };
        Ok(Some(Self::start(kafka.clone(), topic.to_owned(), ranges, log)))
    }

    /// These ranges, of a log as it was seen.
    pub(super) fn start(
        kafka: KafkaSettings,
        topic: String,
        ranges: Vec<PartitionRange>,
        log: BTreeMap<(String, i32), PartitionOffsets>,
    ) -> Self {
        let (sender, records) = mpsc::channel(READ_AHEAD_RECORDS);
        tokio::task::spawn_blocking(move || {
            let end = read(&kafka, &topic, &ranges, &log, &sender).map(|()| None);
            // Where nobody listens any more there is nobody to tell.
            let _ = sender.blocking_send(end);
        });
        Self { records }
    }

    /// The next record; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<OwnedRecord>, ToolError> {
        Ok(self.records.recv().await.ok_or(ToolError::Interrupted)??)
    }
}

/// Why reading stops: an error, or nobody listens.
enum Stop {
    Failed(ReadError),
    Unheard,
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Failed(error)
    }
}

fn read(
    kafka: &KafkaSettings,
    topic: &str,
    ranges: &[PartitionRange],
    log: &BTreeMap<(String, i32), PartitionOffsets>,
    sender: &mpsc::Sender<Told>,
) -> Result<(), ReadError> {
    let mut reader = LogReader::open_within(kafka, topic, ranges, log)?;
    let read = reader.for_each_within(SILENCE_MAX, |record| {
        sender.blocking_send(Ok(Some(record.to_owned_record()))).map_err(|_| Stop::Unheard)
    });
    match read {
        Err(Stop::Failed(error)) => Err(error),
        Ok(()) | Err(Stop::Unheard) => Ok(()),
    }
}
