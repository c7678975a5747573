//! Writer schemas on a compacted topic, so that Kafka alone is enough and old readers can read new writers.
//!
//! Key: the schema's fingerprint, 8 bytes, little-endian, as it stands before each record's datum. Value: the
//! schema's JSON, with defaults and aliases. A record whose fingerprint is not its key is passed over: whoever wrote
//! it, readers must not decode with it.
//!
//! Guarantees: a schema is *not found* only after the topic was read to an end seen later than the question, so later
//! than the record that names the schema (its producer awaited the schema's acknowledgement first). Anything that
//! keeps from reading is *unavailable*, never *not found*. The topic is read only when a fingerprint is missing:
//! from where the last reading ended, in one reading for all who wait.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use fleetlog_codec::{Fingerprint, Lookup, LookupError, NoSource, SchemaSource, WriterSchema};
use fleetlog_event::LogId;
use rdkafka::{
    error::KafkaError,
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use crate::{
    Bootstrap, ClusterError, KafkaSettings, LogReader, Offsets, PartitionRange, Read, ReadError, RecordView,
    bootstrap::{ASK_TIMEOUT, PATIENCE},
    log_error, log_line,
};

/// How long reading may go without a record before it is given up as unavailable.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The schema topic of a deployment, `<prefix>schemas`. Cheap to clone.
#[derive(Clone)]
pub struct SchemaTopic {
    inner: Arc<Inner>,
}

struct Inner {
    settings: KafkaSettings,
    topic: String,
    known: RwLock<HashMap<Fingerprint, Arc<WriterSchema>>>,
    /// Held while reading: one reading serves all who wait for it.
    reading: tokio::sync::Mutex<Progress>,
    offsets: Offsets,
}

/// How far the topic was read.
#[derive(Clone, Debug, Default)]
struct Progress {
    log: Option<LogId>,
    next: BTreeMap<i32, i64>,
}

/// Why schemas were not published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The cluster said no, or did not answer.
    #[error("publishing schemas: {0}")]
    Cluster(#[from] ClusterError),
    /// The topic could not be read.
    #[error("publishing schemas: {0}")]
    Read(#[from] ReadError),
}

impl SchemaTopic {
    /// The schema topic of the deployment. Reads nothing yet.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn new(settings: &KafkaSettings) -> Result<Self, ClusterError> {
        let inner = Inner {
            settings: settings.clone(),
            topic: settings.topic("schemas"),
            known: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
            offsets: Offsets::new(settings)?,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The topic's physical name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.inner.topic
    }

    /// Every schema on the topic as of now.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub async fn all(&self) -> Result<Vec<Arc<WriterSchema>>, ReadError> {
        self.read_on().await?;
        Ok(self.inner.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect())
    }

    /// Puts those schemas on the topic that are not there yet, and awaits that all in-sync replicas have them.
    /// Returns how many were added.
    ///
    /// # Errors
    /// When the topic cannot be read or written; some may have been added.
    pub async fn publish(&self, schemas: &[Arc<WriterSchema>]) -> Result<usize, PublishError> {
        self.read_on().await?;
        let missing: Vec<Arc<WriterSchema>> =
            schemas.iter().filter(|schema| self.known(schema.fingerprint()).is_none()).cloned().collect();
        if missing.is_empty() {
            return Ok(0);
        }
        let (inner, count) = (Arc::clone(&self.inner), missing.len());
        let sent = tokio::task::spawn_blocking(move || inner.send(&missing)).await;
        sent.unwrap_or_else(|_| Err(ClusterError::Interrupted("publishing schemas".into())))?;
        Ok(count)
    }

    fn known(&self, fingerprint: Fingerprint) -> Option<Arc<WriterSchema>> {
        self.inner.known.read().unwrap_or_else(PoisonError::into_inner).get(&fingerprint).cloned()
    }

    async fn find(&self, fingerprint: Fingerprint) -> Result<Arc<WriterSchema>, LookupError> {
        if let Some(schema) = self.known(fingerprint) {
            return Ok(schema);
        }
        self.read_on().await.map_err(|error| LookupError::Unavailable(error.to_string()))?;
        self.known(fingerprint).ok_or_else(|| {
            LookupError::NotFound(format!(
                "no schema with fingerprint {fingerprint:016x} is on topic `{}`",
                self.inner.topic
            ))
        })
    }

    /// Reads to an end seen after this was called.
    async fn read_on(&self) -> Result<(), ReadError> {
        let mut progress = self.inner.reading.lock().await;
        let (inner, from) = (Arc::clone(&self.inner), progress.clone());
        let read = tokio::task::spawn_blocking(move || inner.read_on(from)).await;
        let interrupted = |_| Err(ClusterError::Interrupted("reading schemas".into()).into());
        *progress = read.unwrap_or_else(interrupted)?;
        Ok(())
    }
}

impl Inner {
    fn read_on(&self, mut progress: Progress) -> Result<Progress, ReadError> {
        let log = self.offsets.log_id_blocking(&self.topic)?;
        if progress.log != Some(log) {
            progress = Progress { log: Some(log), next: BTreeMap::new() };
        }
        let ends = self.offsets.ranges_blocking(&[&self.topic])?;
        let ranges: Vec<PartitionRange> = ends
            .iter()
            .map(|((_, partition), there)| {
                let next = progress.next.get(partition).copied().unwrap_or(there.low);
                // An end before our place is a topic that lost its tail: what is there now is read again.
                let from = if next > there.end { there.low } else { next.max(there.low) };
                PartitionRange { partition: *partition, from, to: Some(there.end) }
            })
            .collect();
        if ranges.iter().any(|range| range.to.is_some_and(|to| to > range.from)) {
            self.take(LogReader::open(&self.settings, &self.topic, &ranges)?)?;
        }
        progress.next = ranges.iter().filter_map(|range| Some((range.partition, range.to?))).collect();
        Ok(progress)
    }

    fn take(&self, mut reader: LogReader) -> Result<(), ReadError> {
        loop {
            match reader.poll(READ_TIMEOUT)? {
                Read::Record(record) => self.take_record(&record),
                Read::End => return Ok(()),
                Read::Idle => {
                    let what = format!("the end of topic `{}`", self.topic);
                    return Err(ClusterError::NotVisible { what, waited_s: READ_TIMEOUT.as_secs() }.into());
                }
            }
        }
    }

    fn take_record(&self, record: &RecordView<'_>) {
        match schema_of(record.key(), record.value()) {
            Ok(Some(schema)) => {
                let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                known.insert(schema.fingerprint(), schema);
            }
            Ok(None) => {}
            Err(detail) => tracing::warn!(
                topic = %self.topic, partition = record.partition(), offset = record.offset(),
                "a record of the schema topic is passed over: {detail}"
            ),
        }
    }

    fn send(&self, schemas: &[Arc<WriterSchema>]) -> Result<(), ClusterError> {
        let wrap =
            |error: KafkaError| ClusterError::kafka(format!("writing to topic `{}`", self.topic), error);
        let producer: BaseProducer<Acknowledgements> =
            self.settings.producer().create_with_context(Acknowledgements::default()).map_err(wrap)?;
        for schema in schemas {
            let key = schema.fingerprint().to_le_bytes();
            let record = BaseRecord::to(&self.topic).key(&key).payload(schema.json());
            producer.send(record).map_err(|(error, _)| wrap(error))?;
        }
        let (begun, mut bootstrap) = (Instant::now(), Bootstrap::new(&self.settings.brokers));
        while let Err(error) = producer.flush(ASK_TIMEOUT) {
            if begun.elapsed() >= PATIENCE {
                return Err(wrap(error));
            }
            bootstrap.look_after(producer.client());
        }
        producer
            .client()
            .context()
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .map_or(Ok(()), |error| Err(wrap(error)))
    }
}

/// The schema in a record; none for a tombstone.
fn schema_of(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Option<Arc<WriterSchema>>, String> {
    let Some(value) = value else { return Ok(None) };
    let key = key.unwrap_or_default();
    let key: [u8; 8] =
        key.try_into().map_err(|_| format!("its key has {} bytes, a fingerprint has 8", key.len()))?;
    let key = Fingerprint::from_le_bytes(key);
    let json = std::str::from_utf8(value).map_err(|error| format!("its value is no UTF-8: {error}"))?;
    let schema = WriterSchema::parse(json).map_err(|error| error.to_string())?;
    if schema.fingerprint() != key {
        return Err(format!(
            "its key is {key:016x}, but its schema's fingerprint {:016x}",
            schema.fingerprint()
        ));
    }
    Ok(Some(schema))
}

/// Says why an id cannot be looked up without a registry.
static NO_SOURCE: NoSource = NoSource;

impl SchemaSource for SchemaTopic {
    fn by_id(&self, id: u32) -> Lookup<'_> {
        NO_SOURCE.by_id(id)
    }
    fn by_fingerprint(&self, fingerprint: u64) -> Lookup<'_> {
        Box::pin(self.find(fingerprint))
    }
}

/// Remembers the first delivery that failed.
#[derive(Default)]
struct Acknowledgements(std::sync::Mutex<Option<KafkaError>>);

impl rdkafka::ClientContext for Acknowledgements {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_a_schema_whose_fingerprint_is_its_key_is_taken() {
        let schema = fleetlog_codec::builtin_schemas()[0].clone();
        let key = schema.fingerprint().to_le_bytes();
        let json = schema.json().as_bytes();
        let taken = schema_of(Some(&key), Some(json)).unwrap().unwrap();
        assert_eq!(taken.fingerprint(), schema.fingerprint());
        assert!(schema_of(Some(&key), None).unwrap().is_none());
        for (key, value, said) in [
            (&[1_u8; 8][..], json, "its key is 0101010101010101"),
            (&key[..7], json, "its key has 7 bytes"),
            (&key[..], b"{}", "not an Avro schema"),
            (&key[..], b"\xff", "no UTF-8"),
        ] {
            let error = schema_of(Some(key), Some(value)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
