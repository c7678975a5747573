//! What an error of the cluster means: wait, or stop.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What to do about an error of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaFault {
    /// It passes: wait and try again.
    Transient,
    /// It does not pass by waiting.
    Permanent,
}

/// Why a question to the cluster, or a change of it, failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClusterError {
    /// librdkafka or a broker said no.
    #[error("{context}: {source}")]
    Kafka {
        /// What was being done.
        context: String,
        /// What librdkafka said.
        source: KafkaError,
    },
    /// The topic is not there.
    #[error("topic `{0}` does not exist: `fleetlog topics plan` shows what is missing, `apply` creates it")]
    UnknownTopic(String),
    /// A topic cannot have as many replicas as it is to have.
    #[error(
        "topic `{topic}` is to have {replication} replicas, the cluster has {brokers} broker(s): start more, or set \
         kafka.replication to as many as there are"
    )]
    TooFewBrokers {
        /// Which topic.
        topic: String,
        /// How many replicas it is to have.
        replication: i32,
        /// How many brokers have registered.
        brokers: usize,
    },
    /// It was done, but did not become visible in time.
    #[error("{what} did not become visible within {waited_s} s")]
    NotVisible {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        waited_s: u64,
    },
    /// The worker thread ended early.
    #[error("{0} was interrupted")]
    Interrupted(String),
}

impl ClusterError {
    /// Wraps what librdkafka said with what was being done.
    pub(crate) fn kafka(context: impl Into<String>, source: KafkaError) -> Self {
        Self::Kafka { context: context.into(), source }
    }

    /// Wraps an error code with what was being done.
    pub(crate) fn code(context: impl Into<String>, code: RDKafkaErrorCode) -> Self {
        Self::kafka(context, KafkaError::Global(code))
    }

    /// Whether waiting helps.
    #[must_use]
    pub fn fault(&self) -> KafkaFault {
        match self {
            Self::Kafka { source, .. } => classify(source),
            Self::NotVisible { .. } => KafkaFault::Transient,
            Self::UnknownTopic(_) | Self::TooFewBrokers { .. } | Self::Interrupted(_) => {
                KafkaFault::Permanent
            }
        }
    }
}

/// The error code within, where there is one.
#[must_use]
pub fn error_code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(inner) => Some(inner.code()),
        // The client knows this code and does not tell it.
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// Whether waiting helps. Listed case by case; what is not listed does not pass by waiting.
#[must_use]
pub fn classify(error: &KafkaError) -> KafkaFault {
    if let KafkaError::Transaction(inner) = error
        && (inner.is_fatal() || inner.txn_requires_abort())
    {
        return KafkaFault::Permanent;
    }
    error_code(error).map_or(KafkaFault::Permanent, classify_code)
}

fn classify_code(code: RDKafkaErrorCode) -> KafkaFault {
    use RDKafkaErrorCode as Code;
    match code {
        // The way to the brokers.
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::Resolve
        | Code::NetworkException
        | Code::NodeUpdate
        | Code::DestroyBroker
        // No answer in time.
        | Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::TimedOutQueue
        | Code::WaitCache
        | Code::Retry
        | Code::InProgress
        | Code::PreviousInProgress
        // A change of leader, controller or coordinator.
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::PreferredLeaderNotAvailable
        | Code::EligibleLeadersNotAvailable
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::StaleBrokerEpoch
        | Code::StaleControllerEpoch
        | Code::NotController
        | Code::OffsetNotAvailable
        | Code::ListenerNotFound
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::WaitingForCoordinator
        | Code::FetchSessionIdNotFound
        | Code::InvalidFetchSessionEpoch
        | Code::ReassignmentInProgress
        // Too few replicas for now, a full queue, a broker's failing disk (another takes over), quotas.
        | Code::ISRInsufficient
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::QueueFull
        | Code::KafkaStorageError
        | Code::ThrottlingQuotaExceeded
        // Groups and transactions on the move.
        | Code::RebalanceInProgress
        | Code::UnstableOffsetCommit
        | Code::ConcurrentTransactions => KafkaFault::Transient,
        _ => KafkaFault::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_away_passes_and_a_missing_topic_does_not() {
        let fault = |code| classify(&KafkaError::Global(code));
        assert_eq!(fault(RDKafkaErrorCode::AllBrokersDown), KafkaFault::Transient);
        assert_eq!(fault(RDKafkaErrorCode::NotEnoughReplicas), KafkaFault::Transient);
        let question = KafkaError::AdminOp(RDKafkaErrorCode::BrokerTransportFailure);
        assert_eq!(classify(&question), KafkaFault::Transient);
        for code in [
            RDKafkaErrorCode::UnknownTopicOrPartition,
            RDKafkaErrorCode::OffsetOutOfRange,
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::Authentication,
            RDKafkaErrorCode::ProducerFenced,
            RDKafkaErrorCode::Fatal,
        ] {
            assert_eq!(fault(code), KafkaFault::Permanent, "{code:?}");
        }
        assert_eq!(classify(&KafkaError::Canceled), KafkaFault::Permanent);
    }
}
