//! Looking at a cluster and at the newest records of its topics, for people who ask what is wrong with it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fleetlog_codec::{SchemaRef, frame};
use fleetlog_event::TimestampMs;
use rdkafka::admin::ResourceSpecifier;

use crate::{
    Admin, ClusterError, KafkaSettings, LogReader, Offsets, PartitionRange, Read, ReadError, RecordView,
};

/// A broker, as the others name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerFacts {
    /// Its number within the cluster.
    pub id: i32,
    /// `host:port`, as it tells clients.
    pub address: String,
}

/// Who leads a partition and who follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionHealth {
    /// The partition.
    pub partition: i32,
    /// The broker that leads it; none while nobody does, and then nothing can be read or written.
    pub leader: Option<i32>,
    /// How many brokers should have it.
    pub replicas: usize,
    /// How many of them have all of it.
    pub in_sync: usize,
}

/// The cluster in one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// The cluster's id, as its brokers tell it.
    pub cluster_id: Option<String>,
    /// The brokers that are up.
    pub brokers: Vec<BrokerFacts>,
    /// The partitions of each topic.
    pub topics: BTreeMap<String, Vec<PartitionHealth>>,
}

impl Admin {
    /// Brokers and partitions; fails if no broker answers within `timeout`.
    ///
    /// # Errors
    /// When no broker could be reached.
    pub async fn overview(&self, timeout: Duration) -> Result<Overview, ClusterError> {
        let context = format!("reaching Kafka at {}", self.brokers);
        self.blocking(context, move |client| {
            let metadata = client.fetch_metadata(None, timeout)?;
            let health = |partition: &rdkafka::metadata::MetadataPartition| PartitionHealth {
                partition: partition.id(),
                leader: (partition.leader() >= 0).then(|| partition.leader()),
                replicas: partition.replicas().len(),
                in_sync: partition.isr().len(),
            };
            Ok(Overview {
                cluster_id: client.fetch_cluster_id(timeout),
                brokers: metadata
                    .brokers()
                    .iter()
                    .map(|b| BrokerFacts { id: b.id(), address: format!("{}:{}", b.host(), b.port()) })
                    .collect(),
                topics: metadata
                    .topics()
                    .iter()
                    .map(|topic| (topic.name().to_owned(), topic.partitions().iter().map(health).collect()))
                    .collect(),
            })
        })
        .await
    }

    /// A broker's configuration, defaults included; values that it keeps secret are absent.
    ///
    /// # Errors
    /// When the broker cannot be asked, or this client may not.
    pub async fn broker_configs(&self, id: i32) -> Result<BTreeMap<String, String>, ClusterError> {
        let resource = [ResourceSpecifier::Broker(id)];
        let configs = self.described_configs("reading the configuration", &resource).await?;
        Ok(configs.into_iter().next().unwrap_or_default())
    }
}

/// What can be told of a record without its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailRecord {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp (by the topic's timestamp type); -1 where it has none.
    pub timestamp: TimestampMs,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The schema that wrote it, or why that cannot be told.
    pub schema: Result<SchemaRef, String>,
    /// Which service made it, by its header `ce_source`.
    pub source: Option<String>,
}

/// The newest records of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// How many partitions the topic has.
    pub partitions: i32,
    /// How many offsets the log has, all told.
    pub offsets: i64,
    /// The records, in order per partition.
    pub records: Vec<TailRecord>,
    /// The end was reached in the time given; else the brokers were slow, and the newest records are missing.
    pub is_complete: bool,
}

/// Between two looks at the clock while nothing comes.
const POLL: Duration = Duration::from_millis(100);

/// Reads the last `records_max` offsets of each partition, for at most about `limit`. *Blocking*.
///
/// # Errors
/// When the topic does not exist or the cluster cannot be asked.
pub fn tail(
    settings: &KafkaSettings,
    topic: &str,
    records_max: i64,
    limit: Duration,
) -> Result<Tail, ReadError> {
    let begun = Instant::now();
    let log = Offsets::new(settings)?.ranges_blocking(&[topic])?;
    let mut tail = Tail {
        partitions: i32::try_from(log.len()).unwrap_or(i32::MAX),
        is_complete: true,
        ..Tail::default()
    };
    let mut ranges = Vec::new();
    for ((_, partition), there) in &log {
        tail.offsets += there.end - there.low;
        let from = there.low.max(there.end - records_max);
        ranges.push(PartitionRange { partition: *partition, from, to: Some(there.end) });
    }
    let mut reader = LogReader::open_within(settings, topic, &ranges, &log)?;
    loop {
        match reader.poll(POLL)? {
            Read::Record(record) => tail.records.push(TailRecord::of(&record)),
            Read::End => return Ok(tail),
            Read::Idle => {}
        }
        if begun.elapsed() > limit {
            tail.is_complete = false;
            return Ok(tail);
        }
    }
}

impl TailRecord {
    fn of(record: &RecordView<'_>) -> Self {
        Self {
            partition: record.partition(),
            offset: record.offset(),
            timestamp: record.timestamp(),
            key: record.key().map(<[u8]>::to_vec),
            schema: frame::parse(record.value()).map(|(schema, _)| schema).map_err(|reject| reject.detail),
            source: record.header("ce_source").map(|source| String::from_utf8_lossy(source).into_owned()),
        }
    }
}
