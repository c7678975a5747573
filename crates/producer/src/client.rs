//! One librdkafka client and what its callbacks do with each record.

use std::sync::{Arc, Mutex, PoisonError};

use fleetlog_event::TimestampMs;
use fleetlog_kafka::{log_error, log_line};
use rdkafka::{
    ClientContext, Message, Timestamp,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, ProducerContext},
};

use crate::{
    error::Cause,
    outbox::{Delivered, Pending, Shared},
};

/// A client that tells the outbox about every record.
pub(crate) type Client = BaseProducer<Callbacks>;

/// Called by the poll thread for each record, and never by another.
pub(crate) struct Callbacks {
    pub(crate) shared: Arc<Shared>,
    /// Records that this client will not deliver, but the next one may.
    pub(crate) returned: Mutex<Vec<Pending>>,
}

impl Callbacks {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, returned: Mutex::default() }
    }

    pub(crate) fn take_returned(&self) -> Vec<Pending> {
        std::mem::take(&mut *self.returned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn has_returned(&self) -> bool {
        !self.returned.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        match result {
            Ok(message) => {
                let topic = Arc::clone(&pending.outgoing.topic.name);
                let appended_at = match message.timestamp() {
                    Timestamp::LogAppendTime(ms) => Some(TimestampMs(ms)),
                    Timestamp::CreateTime(_) | Timestamp::NotAvailable => None,
                };
                let (partition, offset) = (message.partition(), message.offset());
                let delivered = Delivered { topic, partition, offset, appended_at };
                self.shared.finish(*pending, Ok(delivered));
            }
            Err((error, _)) if self.shared.gives_up() => {
                let cause = if is_purge(error) { Cause::GivenUp } else { Cause::Kafka(error.clone()) };
                self.shared.finish(*pending, Err(cause));
            }
            Err((error, _)) if dies_with_client(error) => {
                self.returned.lock().unwrap_or_else(PoisonError::into_inner).push(*pending);
            }
            Err((error, _)) => self.shared.finish(*pending, Err(Cause::Kafka(error.clone()))),
        }
    }
}

fn is_purge(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
}

/// Whether the error is the client's own death (or ours of it), not the record's fault: another client may deliver.
pub(crate) fn dies_with_client(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::Fatal
                | Code::PurgeQueue
                | Code::PurgeInflight
                | Code::Inconsistent
                | Code::GaplessGuarantee
                | Code::OutOfOrderSequenceNumber
                | Code::DuplicateSequenceNumber
                | Code::UnknownProducerId
                | Code::InvalidProducerEpoch
                | Code::InvalidProducerIdMapping
        )
    )
}

/// Whether a new client can heal a fatal error of that code: one about the state of this client's sequence can be,
/// one about rights or features cannot.
pub(crate) fn heals_with_new_client(code: RDKafkaErrorCode) -> bool {
    dies_with_client(&KafkaError::Global(code))
}

/// Hands a record to the client's queue, or gives it back with the reason.
pub(crate) fn produce(client: &Client, pending: Box<Pending>) -> Result<(), (KafkaError, Box<Pending>)> {
    let outgoing = &pending.outgoing;
    let topic = Arc::clone(&outgoing.topic);
    let (key, value) = (outgoing.key.clone(), outgoing.value.clone());
    let (partition, timestamp, headers) = (outgoing.partition, outgoing.timestamp, outgoing.native_headers());
    let record = BaseRecord {
        topic: &topic.name,
        partition,
        payload: value.as_deref(),
        key: key.as_deref(),
        timestamp: timestamp.map(|time| time.0),
        headers,
        delivery_opaque: pending,
    };
    client.send(record).map_err(|(error, record)| (error, record.delivery_opaque))
}
