//! Why a log cannot be read.

use crate::{ClusterError, KafkaFault};

/// Why a range cannot be read (further).
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The cluster said no.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The begin of the range is gone, by retention or because the topic was made anew.
    #[error(
        "{topic}/{partition}: offset {wanted} is no longer there, the log has {low} to {end}: \
         read from {low} on, or find out where the earlier records went"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset that was to be read.
        wanted: i64,
        /// The first offset there is.
        low: i64,
        /// The end of the log.
        end: i64,
    },
    /// The end of the range is not stable yet: beyond the log, or an open transaction lies before it.
    #[error("{topic}/{partition}: offset {wanted} is past the stable end {end} of the log")]
    PastEnd {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset that was asked for.
        wanted: i64,
        /// The stable end.
        end: i64,
    },
    /// The brokers did not say anything for longer than the caller waits.
    #[error("reading topic `{topic}`: nothing came from the brokers for {silence_s} s")]
    Silent {
        /// The topic.
        topic: String,
        /// How long, in seconds.
        silence_s: u64,
    },
}

impl ReadError {
    /// Whether waiting helps.
    #[must_use]
    pub fn fault(&self) -> KafkaFault {
        match self {
            Self::Cluster(error) => error.fault(),
            Self::Silent { .. } => KafkaFault::Transient,
            Self::OffsetOutOfRange { .. } | Self::PastEnd { .. } => KafkaFault::Permanent,
        }
    }
}
