//! Raw records with awaited outcomes: dead letters, commands, bridges.

use std::{sync::Arc, time::Duration};

use fleetlog_kafka::KafkaSettings;

use crate::{
    Batch, ConnectError, Delivery, ProducerMetrics, ProducerSettings, RawRecord, Report, SendError,
    outbox::Outbox, record::Outgoing,
};

/// Sends records as they are, with the guarantees of [`EventProducer`](crate::EventProducer) (order, no loss, fatal
/// errors survived), but no schema and no identity. Cheap to clone.
#[derive(Clone)]
pub struct RawProducer {
    outbox: Arc<Outbox>,
}

impl RawProducer {
    /// A producer of its own client. Does not wait for a broker.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn connect(
        kafka: &KafkaSettings,
        settings: &ProducerSettings,
        metrics: ProducerMetrics,
    ) -> Result<Self, ConnectError> {
        Ok(Self { outbox: Arc::new(Outbox::start(kafka, settings, metrics)?) })
    }

    pub(crate) fn sharing(outbox: Arc<Outbox>) -> Self {
        Self { outbox }
    }

    /// Hands the record over; waits only while too much is in flight.
    ///
    /// # Errors
    /// When the producer is closed.
    pub async fn send(&self, record: RawRecord) -> Result<Delivery, SendError> {
        let topic = self.outbox.topic(&record.topic);
        self.outbox.send(Outgoing::raw(topic, record)).await
    }

    /// Hands all records over, in order; the batch's outcomes are to be awaited.
    pub async fn send_all(&self, records: impl IntoIterator<Item = RawRecord>) -> Batch {
        let mut batch = Batch::default();
        for record in records {
            batch.sent.push(self.send(record).await);
        }
        batch
    }

    /// Waits, at most so long, until everything sent so far has an outcome.
    pub async fn flush(&self, at_most: Duration) -> Report {
        self.outbox.flush(at_most).await
    }

    /// Takes nothing more (from any clone), waits at most so long, then gives up what is left and tells it.
    pub async fn close(&self, at_most: Duration) -> Report {
        self.outbox.close(at_most).await
    }
}
