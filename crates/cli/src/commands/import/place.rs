//! How far a file was imported: a record on the compacted topic `import-places`, in the transaction of the events.

use bytes::Bytes;
use fleetlog_kafka::{KafkaSettings, LogReader, ReadError};
use fleetlog_producer::RawRecord;
use serde_json::{Value, json};

/// How far a file was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The last line that was sent.
    pub(super) line: u64,
    /// How many lines the file has.
    pub(super) lines: u64,
}

impl Place {
    /// The record that says so.
    pub(super) fn record(self, kafka: &KafkaSettings, digest: &str, name: &str) -> anyhow::Result<RawRecord> {
        let value = json!({ "line": self.line, "lines": self.lines, "file": name });
        Ok(RawRecord {
            topic: kafka.topic("import-places"),
            key: Some(Bytes::copy_from_slice(digest.as_bytes())),
            value: Some(serde_json::to_vec(&value)?.into()),
            ..RawRecord::default()
        })
    }
}

/// The place of a file, read to the topic's end; none if it was never imported.
pub(super) async fn read(kafka: &KafkaSettings, digest: &str) -> anyhow::Result<Option<Place>> {
    let (kafka, digest) = (kafka.clone(), digest.to_owned());
    let topic = kafka.topic("import-places");
    let read = tokio::task::spawn_blocking(move || {
        let mut last = None;
        LogReader::open_all(&kafka, &topic)?.for_each(|record| {
            if record.key() == Some(digest.as_bytes()) {
                last = record.value().map(<[u8]>::to_vec);
            }
            Ok::<_, ReadError>(())
        })?;
        Ok::<_, ReadError>(last)
    });
    let Some(value) = read.await?? else { return Ok(None) };
    let value: Value = serde_json::from_slice(&value)?;
    match (value["line"].as_u64(), value["lines"].as_u64()) {
        (Some(line), Some(lines)) => Ok(Some(Place { line, lines })),
        _ => anyhow::bail!("the place of this file on topic `import-places` cannot be read: {value}"),
    }
}
