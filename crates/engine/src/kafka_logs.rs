//! Facts about logs, from a real cluster.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use fleetlog_kafka::{
    Admin, ClusterError, KafkaFault, KafkaSettings, LogReader, Offsets, OwnedRecord, PartitionRange,
    ReadError,
};
use fleetlog_projection::{Headers, LaneScope, LogNow, Record};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::mpsc::{Receiver, Sender};

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
}

/// What a piece of a search holds at most, and how much of the log is looked through at most between two.
const PIECE_BYTES_MAX: usize = 1 << 20;
const PIECE_OFFSETS_MAX: i64 = 100_000;
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
                let scope = LaneScope { log, partition: *partition, partitions };
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
                match error.fault() {
                    KafkaFault::Transient => Failure::transient(what),
                    KafkaFault::Permanent => Failure::permanent(what),
                }
            })
        }
        .boxed()
    }

    fn search(&self, part: LogPart, keys: Arc<HashSet<Bytes>>) -> Receiver<Result<Piece, Failure>> {
        let (sender, pieces) = tokio::sync::mpsc::channel(PIECES_AHEAD);
        let settings = self.settings.clone();
        tokio::task::spawn_blocking(move || {
            let searched = search(&settings, &part, &keys, &sender);
            if let Err(Ended::Failed(failure)) = searched {
                // Nobody waits any more if the lane was stopped meanwhile.
                let _ = sender.blocking_send(Err(failure));
            }
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
    let (mut piece, mut bytes) = (Piece { records: Vec::new(), next: range.from }, 0);
    let mut told = range.from;
    let send = |piece: Piece| sender.blocking_send(Ok(piece)).map_err(|_| Ended::Unwanted);
    LogReader::open_within(settings, topic, &[range], &log)?.for_each(|record| {
        piece.next = record.offset() + 1;
        if record.key().is_some_and(|key| keys.contains(key)) {
            let record = owned(&record.to_owned_record());
            bytes += record.size_bytes();
            piece.records.push(record);
        }
        if bytes >= PIECE_BYTES_MAX || piece.next - told >= PIECE_OFFSETS_MAX {
            (told, bytes) = (piece.next, 0);
            return send(std::mem::take(&mut piece));
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
