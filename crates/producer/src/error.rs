//! Why an event is not on the log.

use std::sync::Arc;

use fleetlog_codec::EncodeError;
use fleetlog_event::{EventId, Reject};
use fleetlog_kafka::{ClusterError, KafkaFault, classify};
use rdkafka::error::KafkaError;

use crate::schemas::SchemaError;

/// Why a producer could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct ConnectError(#[from] pub ClusterError);

/// Why an event was not even sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// Its values are such that every reader would reject it.
    #[error("event {event_id} ({event}) is not sent: {source}")]
    Invalid {
        /// Which event.
        event_id: EventId,
        /// Its full name.
        event: &'static str,
        /// What is wrong with it.
        source: Reject,
    },
    /// It has no form on the wire.
    #[error("event {event_id} is not sent: {source}")]
    Encode {
        /// Which event.
        event_id: EventId,
        /// What went wrong.
        source: EncodeError,
    },
    /// Its schema could not be published, so nobody could read it.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The producer was closed.
    #[error("the producer is closed: make a new one")]
    Closed,
}

/// Why a record that was sent was not acknowledged. It may lie on the log all the same where the acknowledgement
/// was lost: send it again with the same `event_id`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} was not acknowledged on topic `{topic}`: {cause}", named(*.event_id))]
pub struct DeliveryError {
    /// Which event; none for a raw record.
    pub event_id: Option<EventId>,
    /// The topic.
    pub topic: Arc<str>,
    /// Why.
    pub cause: Cause,
}

/// What kept a record from being acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Cause {
    /// The cluster refused it, or did not answer in time.
    #[error("{0}")]
    Kafka(KafkaError),
    /// The producer was closed before an answer came.
    #[error("the producer was closed before an answer came")]
    GivenUp,
    /// The client failed in a way that a new client does not heal.
    #[error("the producer failed for good: {0}")]
    Failed(Arc<str>),
}

impl DeliveryError {
    /// Whether sending it again later may help.
    #[must_use]
    pub fn fault(&self) -> KafkaFault {
        match &self.cause {
            Cause::Kafka(error) => classify(error),
            Cause::GivenUp => KafkaFault::Transient,
            Cause::Failed(_) => KafkaFault::Permanent,
        }
    }
}

fn named(event_id: Option<EventId>) -> String {
    event_id.map_or_else(|| "a record".to_owned(), |id| format!("event {id}"))
}

/// Why a transaction was not committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransactionError {
    /// An event of it cannot be sent; nothing of it is on the log.
    #[error(transparent)]
    Event(#[from] SendError),
    /// It was aborted: nothing of it is visible to `read_committed` readers. It can be tried again.
    #[error("the transaction was aborted: {0}")]
    Aborted(KafkaError),
    /// Another process took over this transactional id: this one has to stop.
    #[error("another process uses transactional id `{0}`: this one stops")]
    Fenced(String),
    /// The connection or client failed; the transaction may or may not have been committed. Make a new producer
    /// (which ends what was open) and read from the log how far the work got.
    #[error("the transaction's outcome is unknown: {0}; read from the log how far it got")]
    Unknown(KafkaError),
}
