//! What lies on a topic.

use anyhow::Result;
use fleetlog_kafka::{KafkaSettings, LogReader, OwnedRecord, ReadError};

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
