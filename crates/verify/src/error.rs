//! Why a recount could not be made. That a store is wrong is no error but the [`crate::Report`].

use fleetlog_codec::Unavailable;
use fleetlog_event::LogId;
use fleetlog_kafka::{ClusterError, ReadError};

/// A recount could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The cluster could not be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A record's schema cannot be looked up now.
    #[error(transparent)]
    Schema(#[from] Unavailable),
    /// Redis failed.
    #[error("redis: {what}: {source}")]
    Redis {
        /// What was tried.
        what: String,
        /// What the client library says.
        source: redis::RedisError,
    },
    /// SQL failed.
    #[error("sql: {what}: {source}")]
    Sql {
        /// What was tried.
        what: String,
        /// What the client library says.
        source: sqlx::Error,
    },
    /// A lane's progress belongs to a topic that was deleted and made again.
    #[error(
        "{lane}: its progress is of log {stored}, the topic is now log {found}; rebuild the projection, or adopt the log"
    )]
    OtherLog {
        /// Which lane.
        lane: String,
        /// The log of its progress.
        stored: LogId,
        /// The log of the topic.
        found: LogId,
    },
    /// What a store or the log holds has not the form it must have.
    #[error("{0}")]
    Malformed(String),
}
