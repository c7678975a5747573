//! Topic `ops` again and again, each time from where the last reading ended.

use std::{collections::BTreeMap, sync::Arc};

use fleetlog_codec::Decoder;
use fleetlog_event::{Decode as _, EventSet as _, ops::OpsEvent};
use fleetlog_kafka::{ClusterError, KafkaSettings, Offsets, PartitionRange};

use super::{ToolError, scan::Scan};
use crate::Halts;

/// Reads which projections are halted, and what has changed since.
pub struct HaltsReader {
    kafka: KafkaSettings,
    topic: String,
    decoder: Arc<Decoder>,
    offsets: Offsets,
    /// Where to read on, by partition.
    next: BTreeMap<i32, i64>,
    halts: Halts,
}

impl HaltsReader {
    /// For the topic of a deployment. Reads nothing yet.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn new(kafka: &KafkaSettings, decoder: Arc<Decoder>) -> Result<Self, ToolError> {
        Ok(Self {
            topic: kafka.topic(OpsEvent::TOPICS[0]),
            offsets: Offsets::new(kafka)?,
            kafka: kafka.clone(),
            decoder,
            next: BTreeMap::new(),
            halts: Halts::default(),
        })
    }

    /// What the topic says, read to an end seen after this was called. One question to the cluster where nothing is new.
    /// Dropped in the middle, it goes on there next time.
    ///
    /// # Errors
    /// [`ToolError::NoOpsTopic`], or a server does not answer.
    pub async fn read_on(&mut self) -> Result<&Halts, ToolError> {
        let log = match self.offsets.ranges(&[&self.topic]).await {
            Err(ClusterError::UnknownTopic(topic)) => return Err(ToolError::NoOpsTopic(topic)),
            log => log?,
        };
        let next = |partition: i32| self.next.get(&partition).copied().unwrap_or(0);
        if log.iter().any(|((_, partition), there)| next(*partition) > there.end) {
            // The topic was made again: what it said is gone.
            (self.next, self.halts) = (BTreeMap::new(), Halts::default());
        }
        let range = |((_, partition), there): (&(String, i32), &fleetlog_kafka::PartitionOffsets)| {
            let from = self.next.get(partition).copied().unwrap_or(0).max(there.low);
            PartitionRange { partition: *partition, from, to: Some(there.end) }
        };
        let ranges: Vec<PartitionRange> = log.iter().map(range).collect();
        if ranges.iter().all(|range| range.to == Some(range.from)) {
            return Ok(&self.halts);
        }
        let ends: Vec<(i32, Option<i64>)> = ranges.iter().map(|range| (range.partition, range.to)).collect();
        let mut scan = Scan::start(self.kafka.clone(), self.topic.clone(), ranges, log);
        while let Some(record) = scan.next().await? {
            let value = record.value.as_deref();
            // What this version cannot read is no halt that it knows.
            if let Ok(event) = self.decoder.prepare([value]).await?.decode::<OpsEvent>(value) {
                self.halts.take(event);
            }
            self.next.insert(record.partition, record.offset + 1);
        }
        self.next.extend(ends.into_iter().filter_map(|(partition, end)| Some((partition, end?))));
        Ok(&self.halts)
    }
}
