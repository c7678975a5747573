//! What lies on a topic, and what retention takes away of it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use fleetlog_kafka::{KafkaSettings, LogReader, OwnedRecord, ReadError};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

/// All that is visible on a topic (its physical name), by partition and offset.
///
/// # Errors
/// When it cannot be read.
pub async fn records(settings: &KafkaSettings, topic: &str) -> Result<Vec<OwnedRecord>> {
    let (settings, topic) = (settings.clone(), topic.to_owned());
    let read = move || {
        let mut records = Vec::new();
        LogReader::open_all(&settings, &topic)?.for_each(|record| {
            records.push(record.to_owned_record());
            Ok::<_, ReadError>(())
        })?;
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    };
    tokio::task::spawn_blocking(read).await?
}

/// Does at once what retention does: everything of a topic (its physical name) before these offsets, by partition, is deleted.
///
/// # Errors
/// When the brokers do not do it.
pub async fn delete_before(
    settings: &KafkaSettings,
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = settings.client().create().context("an admin client")?;
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    admin.delete_records(&list, &AdminOptions::new()).await.context("deleting records")?;
    Ok(())
}
