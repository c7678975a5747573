//! Where what waits goes, as `fleetlog run` does it; dead letters are not to come about.

use anyhow::Result;
use fleetlog_engine::{
    DeadLetter, Failure,
    ports::{Appended, DeadLetters, Onward, WaitingTopics},
};
use fleetlog_kafka::KafkaSettings;
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use futures_util::future::BoxFuture;

/// What waits, by a producer of its own.
pub(crate) struct Tiers(RawProducer);

impl Tiers {
    pub(crate) fn connect(kafka: &KafkaSettings) -> Result<Self> {
        let metrics = ProducerMetrics::unregistered()?;
        Ok(Self(RawProducer::connect(kafka, &ProducerSettings::default(), metrics)?))
    }
}

impl WaitingTopics for Tiers {
    fn append(&self, record: Onward) -> BoxFuture<'_, Result<Appended, Failure>> {
        let Onward { topic, partition, key, value, headers } = record;
        let record = RawRecord { topic, partition, key, value, timestamp: None, headers };
        Box::pin(async move {
            let delivery = self.0.send(record).await;
            let delivery = delivery.map_err(|error| Failure::permanent(error.to_string()))?;
            let at = delivery.await.map_err(|error| Failure::permanent(error.to_string()))?;
            Ok(Appended { partition: at.partition, stamp: at.appended_at })
        })
    }
}

/// Ends the measurement.
pub(crate) struct NoDeadLetters;

impl DeadLetters for NoDeadLetters {
    fn publish<'a>(&'a self, letters: &'a [DeadLetter]) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { Err(Failure::permanent(format!("{} dead letters came about", letters.len()))) })
    }
}
