//! The road to the lanes over real topics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fleetlog_codec::{AnyEvent, Decoder};
use fleetlog_event::{EntityKey, EventSet, FleetEvent, TimestampMs, ops::OpsEvent};
use fleetlog_kafka::{
    Admin, ClusterError, KafkaFault, KafkaSettings, LogReader, Offsets, OwnedRecord, PartitionRange,
    ReadError,
};
use fleetlog_producer::{
    BatchError, ConnectError, EventProducer, ProducerMetrics, RawRecord, Schemas, TransactionError,
    TransactionalProducer,
};
use fleetlog_projection::{Command, Fault, InboxRecord};

use super::{InboxOffsets, Leases, LogFacts, Road, Trouble, fault};
use crate::{Place, ToolError, Tools};

/// How long the brokers may be silent while something is read.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Makes the schemas' home anew for each producer.
type MakeSchemas = Box<dyn Fn() -> Result<Schemas, String> + Send + Sync>;

/// What a road is made of.
pub struct KafkaRoadParts {
    /// The cluster, with a message size that inboxes take.
    pub kafka: KafkaSettings,
    /// Reads events.
    pub decoder: Arc<Decoder>,
    /// Writes events on topic `ops`.
    pub events: EventProducer,
    /// Where schemas go, for a producer.
    pub schemas: MakeSchemas,
}

/// [`Road`] over a cluster.
pub struct KafkaRoad<'a> {
    tools: &'a Tools,
    parts: KafkaRoadParts,
    admin: Admin,
    offsets: Offsets,
    producers: BTreeMap<String, TransactionalProducer>,
    /// Transactions whose outcome got lost, by group: where their inboxes ended before.
    lost: BTreeMap<String, InboxOffsets>,
}

impl<'a> KafkaRoad<'a> {
    /// A road. Does not connect yet.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn new(tools: &'a Tools, parts: KafkaRoadParts) -> Result<Self, ClusterError> {
        Ok(Self {
            tools,
            admin: Admin::new(&parts.kafka)?,
            offsets: Offsets::new(&parts.kafka)?,
            parts,
            producers: BTreeMap::new(),
            lost: BTreeMap::new(),
        })
    }

    async fn connect(&mut self, group: &str) -> Result<(), Trouble> {
        self.producers.remove(group);
        let schemas = (self.parts.schemas)().map_err(permanent)?;
        let metrics = ProducerMetrics::default();
        let id = format!("{group}-redrive");
        let producer = TransactionalProducer::connect(&self.parts.kafka, &id, schemas, metrics).await;
        let producer = producer.map_err(|ConnectError(error)| error)?;
        self.producers.insert(group.to_owned(), producer);
        Ok(())
    }

    /// Where the partitions of inboxes that these records go to end.
    async fn ends(&self, records: &[RawRecord]) -> Result<InboxOffsets, Trouble> {
        let mut topics: Vec<&str> = records.iter().map(|record| record.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        let ranges = self.offsets.ranges(&topics).await?;
        let goes_there = |topic: &str, partition: i32| {
            records.iter().any(|record| record.topic == topic && record.partition == Some(partition))
        };
        let ends = ranges.into_iter().map(|(at, range)| (at, range.end));
        Ok(ends.filter(|((topic, partition), _)| goes_there(topic, *partition)).collect())
    }

    /// Looks for the commands of a transaction whose outcome got lost: where the last of them lies on each partition. Nothing
    /// where it was not committed.
    async fn found(&self, from: &InboxOffsets, sent: &[RawRecord]) -> Result<InboxOffsets, Trouble> {
        let wanted: BTreeSet<_> = sent.iter().filter_map(named).collect();
        let mut last = InboxOffsets::new();
        for record in self.commands(from).await? {
            let (topic, partition, offset) = (record.topic.to_string(), record.partition, record.offset);
            let raw = RawRecord {
                topic: topic.clone(),
                partition: Some(partition),
                key: record.key,
                value: record.value,
                timestamp: None,
                headers: record.headers,
            };
            if named(&raw).is_some_and(|named| wanted.contains(&named)) {
                last.insert((topic, partition), offset);
            }
        }
        Ok(last)
    }

    /// Where the last of these records lies on each partition, as the group's producer was told.
    fn told(&self, group: &str, records: &[RawRecord], before: &InboxOffsets) -> Option<InboxOffsets> {
        let last = self.producers.get(group)?.last_offsets();
        let mut told = InboxOffsets::new();
        for record in records {
            let at = (record.topic.clone(), record.partition?);
            let offset = *last.get(&at)?;
            // An acknowledgement that was a duplicate's tells no offset.
            if offset < *before.get(&at)? {
                return None;
            }
            told.insert(at, offset);
        }
        Some(told)
    }

    /// The records at or behind these offsets, in order per partition.
    async fn commands(&self, from: &InboxOffsets) -> Result<Vec<OwnedRecord>, Trouble> {
        let mut by_topic: BTreeMap<&str, Vec<(i32, i64)>> = BTreeMap::new();
        for ((topic, partition), offset) in from {
            by_topic.entry(topic).or_default().push((*partition, *offset));
        }
        let mut all = Vec::new();
        for (topic, partitions) in by_topic {
            let log = self.offsets.ranges(&[topic]).await?;
            let range = |(partition, offset): (i32, i64)| {
                let there = log.get(&(topic.to_owned(), partition))?;
                let from = offset.clamp(there.low, there.end);
                (from < there.end).then_some(PartitionRange { partition, from, to: Some(there.end) })
            };
            let ranges: Vec<PartitionRange> = partitions.into_iter().filter_map(range).collect();
            if !ranges.is_empty() {
                all.extend(read(&self.parts.kafka, topic, ranges, |_| true).await?);
            }
        }
        Ok(all)
    }

    async fn transact(&mut self, group: &str, records: Vec<RawRecord>) -> Result<(), TransactionError> {
        let producer = self.producers.get_mut(group);
        let producer = producer.ok_or_else(|| TransactionError::Fenced(format!("{group}-redrive")))?;
        producer.transact(Vec::new(), records).await
    }
}

impl Road for KafkaRoad<'_> {
    fn now(&self) -> TimestampMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    async fn logs(&self, topics: &[String]) -> Result<BTreeMap<String, LogFacts>, Trouble> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        LogFacts::of(&self.admin, &names).await
    }

    async fn fetch(&self, places: &[Place]) -> Result<BTreeMap<Place, OwnedRecord>, Trouble> {
        let mut by_topic: BTreeMap<&str, BTreeMap<i32, (i64, i64)>> = BTreeMap::new();
        for place in places {
            let of_topic = by_topic.entry(&place.topic).or_default();
            let (first, last) = of_topic.entry(place.partition).or_insert((place.offset, place.offset));
            (*first, *last) = ((*first).min(place.offset), (*last).max(place.offset));
        }
        let mut found = BTreeMap::new();
        for (shown, partitions) in by_topic {
            let topic = self.tools.name_of(shown).to_owned();
            let log = self.offsets.ranges(&[&topic]).await?;
            let range = |(partition, (first, last)): (i32, (i64, i64))| {
                let there = log.get(&(topic.clone(), partition))?;
                let (from, to) = (first.clamp(there.low, there.end), (last + 1).min(there.end));
                (from < to).then_some(PartitionRange { partition, from, to: Some(to) })
            };
            let ranges: Vec<PartitionRange> = partitions.into_iter().filter_map(range).collect();
            let wanted: BTreeSet<(i32, i64)> = places
                .iter()
                .filter(|place| place.topic == shown)
                .map(|place| (place.partition, place.offset))
                .collect();
            if ranges.is_empty() {
                continue;
            }
            for record in read(&self.parts.kafka, &topic, ranges, move |at| wanted.contains(&at)).await? {
                let (partition, offset) = (record.partition, record.offset);
                found.insert(Place { topic: shown.to_owned(), partition, offset }, record);
            }
        }
        Ok(found)
    }

    async fn entity_of(
        &self,
        topic: &str,
        record: &OwnedRecord,
    ) -> Result<Result<EntityKey, String>, Trouble> {
        let value = record.value.as_deref();
        let prepared = self.parts.decoder.prepare([value]).await;
        let prepared = prepared.map_err(|error| transient(error.to_string()))?;
        Ok(match prepared.decode_any(value) {
            Err(reject) => Err(format!("they cannot be read ({})", reject.reason)),
            Ok(AnyEvent::Foreign { name, .. }) => Err(format!("{name} is no event of this fleetlog")),
            Ok(AnyEvent::Fleet(event)) => match event.validate() {
                _ if self.parts.kafka.topic(event.event_type().topic) != topic => {
                    Err(format!("{} belongs on another topic", event.event_type().name))
                }
                Err(reject) => Err(format!("they would be rejected again ({})", reject.reason)),
                Ok(()) => Ok(event.entity()),
            },
        })
    }

    async fn leases(&self) -> Result<Leases, Trouble> {
        let mut leases = Leases::default();
        self.tools.ops_events(|event| leases.take(&event)).await.map_err(|error| tool(&error))?;
        Ok(leases)
    }

    async fn write_down(&self, events: Vec<OpsEvent>) -> Result<(), Trouble> {
        let mut sent = Vec::new();
        for event in events {
            sent.push(self.parts.events.send_any(FleetEvent::Ops(event)).await.map_err(BatchError::from));
        }
        for delivery in sent {
            let delivered = match delivery {
                Ok(delivery) => delivery.await.map_err(BatchError::from),
                Err(error) => Err(error),
            };
            delivered.map_err(|error| batch(&error))?;
        }
        Ok(())
    }

    async fn take_over(&mut self, group: &str) -> Result<(), Trouble> {
        self.connect(group).await
    }

    async fn send(&mut self, group: &str, records: Vec<RawRecord>) -> Result<InboxOffsets, Trouble> {
        if let Some(before) = self.lost.get(group).cloned() {
            // A producer of the same id ends what was open; then it stands on the log, or it does not.
            self.connect(group).await?;
            let found = self.found(&before, &records).await?;
            self.lost.remove(group);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let before = self.ends(&records).await?;
        match self.transact(group, records.clone()).await {
            Ok(()) => {}
            Err(TransactionError::Fenced(id)) => {
                let what = format!("another redrive has taken over `{id}`: this one ends");
                return Err(Trouble { fault: Fault::Fenced, what });
            }
            Err(error @ TransactionError::Unknown(_)) => {
                self.lost.insert(group.to_owned(), before);
                return Err(transient(error.to_string()));
            }
            Err(TransactionError::Aborted(error)) => {
                return Err(match fleetlog_kafka::classify(&error) {
                    KafkaFault::Transient => transient(format!("sending commands: {error}")),
                    KafkaFault::Permanent => permanent(format!("sending commands: {error}")),
                });
            }
            Err(error @ TransactionError::Event(_)) => return Err(permanent(error.to_string())),
        }
        match self.told(group, &records, &before) {
            Some(told) => Ok(told),
            None => self.found(&before, &records).await,
        }
    }

    async fn last_commands(&self, from: &InboxOffsets) -> Result<InboxOffsets, Trouble> {
        let commands = self.commands(from).await?.into_iter();
        Ok(commands.map(|record| ((record.topic.to_string(), record.partition), record.offset)).collect())
    }
}

/// Which command a record is: of which job, on which inbox, about which position. None if it is no command.
fn named(record: &RawRecord) -> Option<(String, i32, String, Option<i64>)> {
    let headers = record.headers.iter();
    let written = InboxRecord {
        key: record.key.clone(),
        value: record.value.clone(),
        headers: headers
            .map(|(name, value)| (Bytes::copy_from_slice(name.as_ref()), value.clone()))
            .collect(),
    };
    let command = Command::read(&written.at(0, TimestampMs(0))).ok()?;
    Some((record.topic.clone(), record.partition?, command.job.clone(), command.offset()))
}

/// The records of ranges that are wanted, read on a thread of its own. Brokers that are away are told, and not waited for: that
/// is up to the caller.
async fn read(
    kafka: &KafkaSettings,
    topic: &str,
    ranges: Vec<PartitionRange>,
    wanted: impl Fn((i32, i64)) -> bool + Send + 'static,
) -> Result<Vec<OwnedRecord>, Trouble> {
    let (kafka, name) = (kafka.clone(), topic.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let mut records = Vec::new();
        LogReader::open(&kafka, &name, &ranges)?.for_each_within(SILENCE_MAX, |record| {
            if wanted((record.partition(), record.offset())) {
                records.push(record.to_owned_record());
            }
            Ok::<_, ReadError>(())
        })?;
        Ok::<_, ReadError>(records)
    });
    match reading.await {
        Ok(read) => read.map_err(|error| Trouble { fault: fault(error.fault()), what: error.to_string() }),
        Err(_) => Err(permanent(format!("reading {topic} was interrupted"))),
    }
}

fn transient(what: impl Into<String>) -> Trouble {
    Trouble { fault: Fault::Transient, what: what.into() }
}

fn permanent(what: impl Into<String>) -> Trouble {
    Trouble { fault: Fault::Permanent, what: what.into() }
}

fn batch(error: &BatchError) -> Trouble {
    let what = format!("writing on topic ops: {error}");
    match error {
        BatchError::Delivery(delivery) => Trouble { fault: fault(delivery.fault()), what },
        BatchError::Send(_) => permanent(what),
    }
}

fn tool(error: &ToolError) -> Trouble {
    let fault = match error {
        ToolError::Read(error) => fault(error.fault()),
        ToolError::Cluster(error) => fault(error.fault()),
        ToolError::Schema(_) => Fault::Transient,
        _ => Fault::Permanent,
    };
    Trouble { fault, what: error.to_string() }
}
