//! Facts about logs, from a real cluster.

use std::collections::BTreeMap;

use fleetlog_kafka::{Admin, ClusterError, KafkaFault, KafkaSettings, Offsets};
use fleetlog_projection::{LaneScope, LogNow};
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::{
    Failure,
    ports::{LogFacts, Logs},
};

/// [`Logs`] over Kafka.
#[derive(Clone)]
pub struct KafkaLogs {
    admin: Admin,
    offsets: Offsets,
}

impl KafkaLogs {
    /// Clients for questions. Do not connect yet.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn new(settings: &KafkaSettings) -> Result<Self, ClusterError> {
        Ok(Self { admin: Admin::new(settings)?, offsets: Offsets::new(settings)? })
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
                match error.fault() {
                    KafkaFault::Transient => Failure::transient(what),
                    KafkaFault::Permanent => Failure::permanent(what),
                }
            })
        }
        .boxed()
    }
}
