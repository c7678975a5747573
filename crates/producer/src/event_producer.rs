//! Typed events out.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fleetlog_event::{Event, EventMeta, EventVisitor, FleetEvent, TimestampMs};
use fleetlog_kafka::KafkaSettings;

use crate::{
    ConnectError, Delivered, Delivery, DeliveryError, ProducerMetrics, ProducerSettings, RawProducer, Report,
    Schemas, SendError,
    author::now,
    cloud_events::EventHeaders,
    outbox::Outbox,
    record::{Outgoing, RecordHeaders, Topic},
};

/// What goes with one event beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// W3C trace context: becomes the header of that name.
    pub traceparent: Option<String>,
}

/// Sends events. Cheap to clone; one per process is right.
///
/// Fields of `meta` that the producer completes: `recorded_at`, if it is 0, becomes now; it is also the record's
/// timestamp. Everything else is the caller's, or its [`Author`](crate::Author)'s, `event_id` above all: fix it before the
/// first send ([`EventId::now_v7`](fleetlog_event::EventId::now_v7)) and use the same one when sending again.
#[derive(Clone)]
pub struct EventProducer {
    outbox: Arc<Outbox>,
    schemas: Arc<Schemas>,
    topic_prefix: Arc<str>,
}

impl EventProducer {
    /// A producer with schemas on the schema topic and default limits. Does not wait for a broker; the deployment's
    /// topics must exist (`fleetlog topics apply`).
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn connect(kafka: &KafkaSettings) -> Result<Self, ConnectError> {
        let schemas = Schemas::on_topic(kafka)?;
        Self::connect_with(kafka, schemas, &ProducerSettings::default(), ProducerMetrics::default())
    }

    /// A producer with all choices made by the caller.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn connect_with(
        kafka: &KafkaSettings,
        schemas: Schemas,
        settings: &ProducerSettings,
        metrics: ProducerMetrics,
    ) -> Result<Self, ConnectError> {
        Ok(Self {
            outbox: Arc::new(Outbox::start(kafka, settings, metrics)?),
            schemas: Arc::new(schemas),
            topic_prefix: kafka.topic_prefix.as_str().into(),
        })
    }

    /// Hands the event over. Waits only while too much is in flight, and before the first event of its type until
    /// its schema is where readers look for it. The outcome is the [`Delivery`]'s.
    ///
    /// # Errors
    /// When the event is invalid or its schema cannot be published, or the producer is closed: then nothing was sent.
    pub async fn send<E: Event>(&self, event: E) -> Result<Delivery, SendError> {
        self.send_with(event, SendOptions::default()).await
    }

    /// [`send`](Self::send) with options.
    ///
    /// # Errors
    /// As there.
    pub async fn send_with<E: Event>(
        &self,
        mut event: E,
        options: SendOptions,
    ) -> Result<Delivery, SendError> {
        stamp(event.meta_mut());
        let topic = self.ready::<E>().await?;
        let outgoing = outgoing(&event, topic, &self.schemas, options)?;
        self.outbox.send(outgoing).await
    }

    /// [`send`](Self::send) for an event of any type.
    ///
    /// # Errors
    /// As there.
    pub async fn send_any(&self, event: FleetEvent) -> Result<Delivery, SendError> {
        self.send_any_with(event, SendOptions::default()).await
    }

    /// [`send_with`](Self::send_with) for an event of any type.
    ///
    /// # Errors
    /// As there.
    pub async fn send_any_with(
        &self,
        mut event: FleetEvent,
        options: SendOptions,
    ) -> Result<Delivery, SendError> {
        use fleetlog_event::EventSet;
        stamp(event.meta_mut());
        let event_type = event.event_type();
        let topic = self.outbox.topic(&self.physical(event_type.topic));
        self.schemas.ready(event_type.name, &topic.name).await?;
        let outgoing = event.visit(Prepare { topic, schemas: &self.schemas, options })?;
        self.outbox.send(outgoing).await
    }

    /// Hands all events over, in order; an event that cannot be sent does not keep the others from it.
    pub async fn send_all<E: Event>(&self, events: impl IntoIterator<Item = E>) -> Batch {
        let mut batch = Batch::default();
        for event in events {
            batch.sent.push(self.send(event).await);
        }
        batch
    }

    /// Raw records by the same client, in one order with the events.
    #[must_use]
    pub fn raw(&self) -> RawProducer {
        RawProducer::sharing(Arc::clone(&self.outbox))
    }

    /// Waits, at most so long, until everything sent so far has an outcome.
    pub async fn flush(&self, at_most: Duration) -> Report {
        self.outbox.flush(at_most).await
    }

    /// Takes nothing more (from any clone), waits at most so long, then gives up what is left and tells it. To be
    /// called at shutdown: a producer that is only dropped gives up at once.
    pub async fn close(&self, at_most: Duration) -> Report {
        self.outbox.close(at_most).await
    }

    /// How many fatal client errors were survived.
    #[must_use]
    pub fn fatal_errors(&self) -> u64 {
        self.outbox.fatal_errors()
    }

    /// Puts the client into a fatal error. For tests of what then happens.
    pub fn fail_client_for_test(&self) {
        self.outbox.fail_for_test();
    }

    async fn ready<E: Event>(&self) -> Result<Arc<Topic>, SendError> {
        let topic = self.outbox.topic(&self.physical(E::TOPIC));
        self.schemas.ready(E::NAME, &topic.name).await?;
        Ok(topic)
    }

    fn physical(&self, stem: &str) -> String {
        format!("{}{stem}", self.topic_prefix)
    }
}

struct Prepare<'a> {
    topic: Arc<Topic>,
    schemas: &'a Schemas,
    options: SendOptions,
}

impl EventVisitor for Prepare<'_> {
    type Output = Result<Outgoing, SendError>;

    fn event<E: Event>(self, event: &E) -> Self::Output {
        outgoing(event, self.topic, self.schemas, self.options)
    }
}

/// Fills `recorded_at` if the caller left it to the producer.
pub(crate) fn stamp(meta: &mut EventMeta) {
    if meta.recorded_at == TimestampMs(0) {
        meta.recorded_at = now();
    }
}

/// The record of an event whose schema is ready.
pub(crate) fn outgoing<E: Event>(
    event: &E,
    topic: Arc<Topic>,
    schemas: &Schemas,
    options: SendOptions,
) -> Result<Outgoing, SendError> {
    let meta = event.meta();
    let event_id = meta.event_id;
    event.validate().map_err(|source| SendError::Invalid { event_id, event: E::NAME, source })?;
    let mut value = Vec::with_capacity(VALUE_BYTES_HINT);
    schemas.encoder().encode(event, &mut value).map_err(|source| SendError::Encode { event_id, source })?;
    Ok(Outgoing {
        topic,
        event_id: Some(event_id),
        partition: None,
        key: Some(Bytes::copy_from_slice(event.entity().as_str().as_bytes())),
        value: Some(Bytes::from(value)),
        timestamp: Some(meta.recorded_at),
        headers: RecordHeaders::Event(EventHeaders::new(E::NAME, meta, options.traceparent)),
    })
}

/// What most events need, in bytes: saves growing the buffer, decides nothing.
const VALUE_BYTES_HINT: usize = 256;

/// The outcomes of a batch, in the order it was sent.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) sent: Vec<Result<Delivery, SendError>>,
}

/// Why one record of a batch is not on the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BatchError {
    /// It was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// It was not acknowledged.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

impl Batch {
    /// Awaits every outcome, in the order of sending.
    pub async fn outcomes(self) -> Vec<Result<Delivered, BatchError>> {
        let mut outcomes = Vec::with_capacity(self.sent.len());
        for sent in self.sent {
            outcomes.push(match sent {
                Ok(delivery) => delivery.await.map_err(BatchError::from),
                Err(error) => Err(error.into()),
            });
        }
        outcomes
    }

    /// Awaits that every record of the batch is acknowledged.
    ///
    /// # Errors
    /// The first record that is not, after all outcomes are known.
    pub async fn all(self) -> Result<Vec<Delivered>, BatchError> {
        self.outcomes().await.into_iter().collect()
    }
}
