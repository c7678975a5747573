//! The engine's ports over real parts: dead letters, and what waits for its retry, by raw producers.

use std::collections::BTreeMap;

use fleetlog_engine::{
    DeadLetter, Failure,
    ports::{Appended, DeadLetters, Onward, WaitingTopics},
};
use fleetlog_event::catalogue::{Catalogue, TopicSpec};
use fleetlog_kafka::{KafkaFault, KafkaSettings};
use fleetlog_producer::{BatchError, ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use futures_util::future::BoxFuture;

use crate::{config::Config, wiring};

/// [`DeadLetters`] over a producer.
pub(crate) struct DeadLetterTopics {
    producer: RawProducer,
    /// Partitions by physical name: a letter without a key finds its own by its position.
    partitions: BTreeMap<String, i32>,
}

impl DeadLetterTopics {
    pub(crate) fn connect(
        kafka: &KafkaSettings,
        catalogue: &Catalogue,
        metrics: ProducerMetrics,
    ) -> anyhow::Result<Self> {
        let specs = catalogue.expand(&kafka.topic_prefix, kafka.replication);
        let kafka = taking_all_that_topics_take(kafka.clone(), &specs);
        let partitions = specs.into_iter().map(|spec| (spec.name, spec.partitions)).collect();
        Ok(Self {
            producer: RawProducer::connect(&kafka, &ProducerSettings::default(), metrics)?,
            partitions,
        })
    }

    fn record(&self, letter: &DeadLetter) -> RawRecord {
        let own = self.partitions.get(&letter.topic).map(|partitions| {
            // Truncation cannot happen: the remainder is below a positive i32.
            i32::try_from(letter.position_hash % partitions.unsigned_abs().max(1)).unwrap_or(0)
        });
        RawRecord {
            topic: letter.topic.clone(),
            partition: if letter.key.is_some() { None } else { own },
            key: letter.key.clone(),
            value: letter.value.clone(),
            timestamp: None,
            headers: letter.headers.clone(),
        }
    }
}

/// Settings of a producer of dead letters. A dead letter is its record and headers; librdkafka's own limit (1,000,000
/// bytes) is below what the topics take.
pub(crate) fn taking_all_that_topics_take(mut kafka: KafkaSettings, topics: &[TopicSpec]) -> KafkaSettings {
    let limit = |spec: &TopicSpec| spec.configs.get("max.message.bytes")?.parse::<u64>().ok();
    if let Some(bytes) = topics.iter().filter_map(limit).max() {
        kafka.properties.entry("message.max.bytes".to_owned()).or_insert_with(|| bytes.to_string());
    }
    kafka
}

/// Settings of a producer of commands, which are as large as the records that they are about.
pub(crate) fn kafka_for_commands(config: &Config) -> anyhow::Result<KafkaSettings> {
    let topics = wiring::topic_specs(config, &wiring::catalogue(None)?);
    Ok(taking_all_that_topics_take(wiring::kafka_settings(config), &topics))
}

/// [`WaitingTopics`] over a producer.
pub(crate) struct RetryTopics {
    producer: RawProducer,
}

impl RetryTopics {
    /// A producer for these topics.
    pub(crate) fn connect(
        kafka: &KafkaSettings,
        topics: &[TopicSpec],
        metrics: ProducerMetrics,
    ) -> anyhow::Result<Self> {
        let kafka = taking_all_that_topics_take(kafka.clone(), topics);
        Ok(Self { producer: RawProducer::connect(&kafka, &ProducerSettings::default(), metrics)? })
    }
}

impl WaitingTopics for RetryTopics {
    fn append(&self, record: Onward) -> BoxFuture<'_, Result<Appended, Failure>> {
        let Onward { topic, partition, key, value, headers } = record;
        let record = RawRecord { topic, partition, key, value, timestamp: None, headers };
        Box::pin(async move {
            let delivery = self.producer.send(record).await;
            let delivery = delivery.map_err(|error| Failure::permanent(error.to_string()))?;
            match delivery.await {
                Ok(at) => Ok(Appended { partition: at.partition, stamp: at.appended_at }),
                Err(error) if error.fault() == KafkaFault::Transient => {
                    Err(Failure::transient(error.to_string()))
                }
                Err(error) => Err(Failure::permanent(error.to_string())),
            }
        })
    }
}

impl DeadLetters for DeadLetterTopics {
    fn publish<'a>(&'a self, letters: &'a [DeadLetter]) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let records: Vec<RawRecord> = letters.iter().map(|letter| self.record(letter)).collect();
            let batch = self.producer.send_all(records).await;
            batch.all().await.map(drop).map_err(|error| match &error {
                BatchError::Delivery(delivery) if delivery.fault() == KafkaFault::Transient => {
                    Failure::transient(error.to_string())
                }
                _ => Failure::permanent(error.to_string()),
            })
        })
    }
}
