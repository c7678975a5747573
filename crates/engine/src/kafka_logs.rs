//! Facts about logs, from a real cluster.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use fleetlog_kafka::{
    Admin, ClusterError, GroupOffsets, KafkaSettings, LogReader, Offsets, OwnedRecord, PartitionRange,
    ReadError,
};
use fleetlog_projection::{Headers, LaneScope, LogNow, Record};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::{
    Semaphore,
    mpsc::{Receiver, Sender},
};

use crate::{
    Failure,
    ports::{LogFacts, LogPart, Logs, Piece},
};

/// [`Logs`] over Kafka.
#[derive(Clone)]
pub struct KafkaLogs {
    admin: Admin,
    offsets: Offsets,
    settings: KafkaSettings,
    searches: Arc<Semaphore>,
}

/// What a piece of a search holds at most, and how much of the log is looked through at most between two.
const PIECE_BYTES_MAX: usize = 1 << 20;
const PIECE_OFFSETS_MAX: i64 = 100_000;
/// What a search may fetch ahead.
const QUEUE_KBYTES: &str = "4096";
/// Searches of a process at a time: each is a client of its own, with what it fetches ahead.
const SEARCHES: usize = 2;
/// Pieces that wait to be taken.
const PIECES_AHEAD: usize = 2;

impl KafkaLogs {
    /// Clients for questions. Do not connect yet.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn new(settings: &KafkaSettings) -> Result<Self, ClusterError> {
        Ok(Self {
            admin: Admin::new(settings)?,
            offsets: Offsets::new(settings)?,
            settings: settings.clone(),
            searches: Arc::new(Semaphore::new(SEARCHES)),
        })
    }

    async fn ask(&self, topics: &[String]) -> Result<LogFacts, ClusterError> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        // The id is read before and after the offsets: both equal means that the offsets are of that log.
        loop {
            let before = self.admin.topic_ids(&names).await?;
            let ranges = self.offsets.ranges(&names).await?;
            let after = self.admin.topic_ids(&names).await?;
            if before != after {
                continue;
            }
            let mut partitions: BTreeMap<&str, i32> = BTreeMap::new();
            for (topic, _) in ranges.keys() {
                *partitions.entry(topic).or_default() += 1;
            }
            let now = ranges.iter().filter_map(|((topic, partition), range)| {
                let (log, partitions) = (*after.get(topic)?, *partitions.get(topic.as_str())?);
                let topic_index = topics.iter().position(|known| known == topic)?;
                let scope = LaneScope { topic: topic_index, log, partition: *partition, partitions };
                Some(((topic.clone(), *partition), LogNow { scope, low: range.low, high: range.end }))
            });
            return Ok(now.collect());
        }
    }
}

impl Logs for KafkaLogs {
    fn look<'a>(&'a self, topics: &'a [String]) -> BoxFuture<'a, Result<LogFacts, Failure>> {
        async move {
            self.ask(topics).await.map_err(|error| {
                let what = format!("asking the cluster about {}: {error}", topics.join(", "));
                Failure::of_cluster(error.fault(), what)
            })
        }
        .boxed()
    }

    fn committed<'a>(
        &'a self,
        group: &'a str,
        topics: &'a [String],
    ) -> BoxFuture<'a, Result<GroupOffsets, Failure>> {
        async move {
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let committed = self.offsets.committed(group, &names).await;
            committed.map_err(|error| Failure::of_cluster(error.fault(), error.to_string()))
        }
        .boxed()
    }

    fn search(&self, part: LogPart, keys: Arc<HashSet<Bytes>>) -> Receiver<Result<Piece, Failure>> {
        let (sender, pieces) = tokio::sync::mpsc::channel(PIECES_AHEAD);
        let (mut settings, searches) = (self.settings.clone(), Arc::clone(&self.searches));
        settings.properties.insert("queued.max.messages.kbytes".to_owned(), QUEUE_KBYTES.to_owned());
        tokio::spawn(async move {
            // Never closed.
            let Ok(turn) = searches.acquire_owned().await else { return };
            let searching = move || {
                if let Err(Ended::Failed(failure)) = search(&settings, &part, &keys, &sender) {
                    // Nobody waits any more if the lane was stopped meanwhile.
                    let _ = sender.blocking_send(Err(failure));
                }
            };
            drop(tokio::task::spawn_blocking(searching).await);
            drop(turn);
        });
        pieces
    }
}

/// Why a search ended early.
enum Ended {
    Failed(Failure),
    /// Nobody takes what is found.
    Unwanted,
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        // Whatever it is passes: an end that is not stable yet, a begin that retention took while we looked.
        Self::Failed(Failure::transient(error.to_string()))
    }
}

fn search(
    settings: &KafkaSettings,
    part: &LogPart,
    keys: &HashSet<Bytes>,
    sender: &Sender<Result<Piece, Failure>>,
) -> Result<(), Ended> {
    let LogPart { topic, partition, from, to } = part;
    let log = Offsets::new(settings).and_then(|offsets| offsets.ranges_blocking(&[topic]));
    let log = log.map_err(|error| Ended::Failed(Failure::transient(error.to_string())))?;
    let low = log.get(&(topic.clone(), *partition)).map_or(0, |range| range.low);
    let range = PartitionRange { partition: *partition, from: (*from).max(low), to: Some(*to) };
    let (mut piece, mut bytes) = (Piece { from: range.from, records: Vec::new(), next: range.from }, 0);
    let send = |piece: Piece| sender.blocking_send(Ok(piece)).map_err(|_| Ended::Unwanted);
    LogReader::open_within(settings, topic, &[range], &log)?.for_each(|record| {
        piece.next = record.offset() + 1;
        if record.key().is_some_and(|key| keys.contains(key)) {
            let record = owned(&record.to_owned_record());
            bytes += record.size_bytes();
            piece.records.push(record);
        }
        if bytes >= PIECE_BYTES_MAX || piece.next - piece.from >= PIECE_OFFSETS_MAX {
            bytes = 0;
            let next = Piece { from: piece.next, records: Vec::new(), next: piece.next };
            return send(std::mem::replace(&mut piece, next));
        }
        Ok(())
    })?;
    send(Piece { next: (*to).max(range.from), ..piece })
}

fn owned(record: &OwnedRecord) -> Record {
    let headers = record.headers.iter().map(|(name, value)| (name, value.as_deref()));
    Record {
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: Headers::pack(headers),
    }
}
