//! The log on Kafka.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fleetlog_codec::{Decoder, Prepared};
use fleetlog_kafka::{
    Admin, KafkaSettings, LogReader, Offsets, PartitionOffsets, PartitionRange, RecordView,
};
use fleetlog_projection::{Headers, Record};
use tokio::sync::mpsc;

use crate::{Log, Range, Topic, VerifyError, log::Batches};

/// Records handed over at a time, and batches that wait: what reading holds in memory.
const BATCH_RECORDS: usize = 2000;
const BATCHES_WAITING: usize = 4;
/// How often a schema is looked up again that cannot be looked up now, and how long to wait in between.
const SCHEMA_TRIES: u32 = 10;
const SCHEMA_WAIT: Duration = Duration::from_millis(500);

/// The log on Kafka.
#[derive(Clone)]
pub struct KafkaLog {
    settings: KafkaSettings,
    decoder: Arc<Decoder>,
    /// N of the duplicate rule, by topic stem.
    dedup_span_offsets: BTreeMap<String, i64>,
    /// Whether records are read with their headers.
    with_headers: bool,
    /// What was seen of each partition (topic, number) when its topic was last looked at.
    seen: Arc<Mutex<BTreeMap<(String, i32), PartitionOffsets>>>,
}

impl KafkaLog {
    /// The log at `settings`; `dedup_span_offsets` is N of the duplicate rule by topic stem, from the catalogue.
    #[must_use]
    pub fn new(
        settings: KafkaSettings,
        decoder: Arc<Decoder>,
        dedup_span_offsets: BTreeMap<String, i64>,
    ) -> Self {
        Self { settings, decoder, dedup_span_offsets, with_headers: false, seen: Arc::default() }
    }

    /// The same for records that are more than events: read with their headers, which no event needs.
    #[must_use]
    pub fn with_headers(&self) -> Self {
        Self { with_headers: true, ..self.clone() }
    }
}

impl Log for KafkaLog {
    type Decode = Prepared;

    async fn topic(&self, stem: &str) -> Result<Topic, VerifyError> {
        let name = self.settings.topic(stem);
        let ids = Admin::new(&self.settings)?.topic_ids(&[&name]).await?;
        let absent =
            || VerifyError::Malformed(format!("topic `{name}` is not there; run `fleetlog topics apply`"));
        let log = *ids.get(&name).ok_or_else(absent)?;
        let ranges = Offsets::new(&self.settings)?.ranges(&[&name]).await?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).extend(ranges.clone());
        let partitions = ranges.into_values().map(|found| Range { low: found.low, end: found.end }).collect();
        let dedup_span_offsets = *self.dedup_span_offsets.get(stem).ok_or_else(|| {
            VerifyError::Malformed(format!(
                "topic `{stem}` has no `dedup_window_offsets` in its file under topics/"
            ))
        })?;
        Ok(Topic { name, log, dedup_span_offsets, partitions })
    }

    fn read(&self, topic: &str, partition: i32, from: i64, to: i64) -> Batches {
        let (sender, batches) = mpsc::channel(BATCHES_WAITING);
        let (settings, topic) = (self.settings.clone(), topic.to_owned());
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let range = PartitionRange { partition, from, to: Some(to) };
        let with_headers = self.with_headers;
        tokio::task::spawn_blocking(move || {
            // Asked once for all partitions, by `topic`; again only for what was written since.
            let known = seen.get(&(topic.clone(), partition)).is_some_and(|there| to <= there.end);
            let opened = if known {
                LogReader::open_within(&settings, &topic, &[range], &seen)
            } else {
                LogReader::open(&settings, &topic, &[range])
            };
            if let Err(error) = opened
                .map_err(VerifyError::from)
                .and_then(|reader| read_blocking(reader, with_headers, &sender))
            {
                // Nobody listens any more only if the recount was given up.
                let _ = sender.blocking_send(Err(error));
            }
        });
        batches
    }

    async fn prepare(&self, records: &[Record]) -> Result<Prepared, VerifyError> {
        let mut tries = 0;
        loop {
            let prepared = self.decoder.prepare(records.iter().map(|record| record.value.as_deref())).await;
            tries += 1;
            match prepared {
                Ok(prepared) => return Ok(prepared),
                Err(error) if tries == SCHEMA_TRIES => return Err(error.into()),
                Err(_) => tokio::time::sleep(SCHEMA_WAIT).await,
            }
        }
    }
}

type Sender = mpsc::Sender<Result<Vec<Record>, VerifyError>>;

fn read_blocking(mut reader: LogReader, with_headers: bool, sender: &Sender) -> Result<(), VerifyError> {
    let mut batch = Vec::with_capacity(BATCH_RECORDS);
    reader.for_each(|view| {
        batch.push(record(view, with_headers));
        if batch.len() == BATCH_RECORDS {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_RECORDS));
            let given_up = |_| VerifyError::Malformed("the recount was given up".to_owned());
            return sender.blocking_send(Ok(full)).map_err(given_up);
        }
        Ok(())
    })?;
    if !batch.is_empty() {
        let _ = sender.blocking_send(Ok(batch));
    }
    Ok(())
}

fn record(view: &RecordView<'_>, with_headers: bool) -> Record {
    Record {
        offset: view.offset(),
        timestamp: view.timestamp(),
        key: view.key().map(Bytes::copy_from_slice),
        value: view.value().map(Bytes::copy_from_slice),
        headers: if with_headers { Headers::pack(view.headers()) } else { Headers::default() },
    }
}
