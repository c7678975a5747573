//! What went wrong outside the sink, and how a lane ends.

use fleetlog_kafka::KafkaFault;
use fleetlog_projection::{Fault, SinkError};

/// A failure of something the engine uses: schemas, dead letters, the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// How to treat it: wait (Transient), or stop this projection (Permanent).
    pub fault: Fault,
    /// What was tried and what was wrong; for Permanent also what to do.
    pub what: String,
}

impl Failure {
    /// It passes: wait and do the same again.
    #[must_use]
    pub fn transient(what: impl Into<String>) -> Self {
        Self { fault: Fault::Transient, what: what.into() }
    }

    /// What the cluster said: it passes or does not, as told by its error.
    pub(crate) fn of_cluster(fault: KafkaFault, what: String) -> Self {
        match fault {
            KafkaFault::Transient => Self::transient(what),
            KafkaFault::Permanent => Self::permanent(what),
        }
    }

    /// It does not pass by itself.
    #[must_use]
    pub fn permanent(what: impl Into<String>) -> Self {
        Self { fault: Fault::Permanent, what: what.into() }
    }
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Self { fault: error.fault, what: error.to_string() }
    }
}

/// Why a lane does not simply go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// It was asked to stop (shutdown, revocation).
    Stopped,
    /// The chain is broken: begin again from stored progress.
    Fenced(String),
    /// Nothing is broken, but reading begins again from stored progress, after a pause.
    Restart(String),
    /// The same, at once.
    Again(String),
    /// This projection stops.
    Permanent(String),
}
