//! Why a tool could not do what was asked.

use fleetlog_codec::Unavailable;
use fleetlog_kafka::{ClusterError, ReadError};
use fleetlog_producer::BatchError;

use crate::{NoPlace, Place, SelectorError};

/// Why a tool could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The selectors contradict each other.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// A text that is no place.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// A source topic that has no dead-letter topic.
    #[error("topic `{topic}` has no dead-letter topic")]
    UnknownTopic {
        /// What was asked for.
        topic: String,
        /// Those that have one.
        known: Vec<String>,
    },
    /// Dead-letter topics that the cluster does not have.
    #[error("the cluster has no topic {}", .topics.join(", "))]
    NoTopics {
        /// Their physical names.
        topics: Vec<String>,
    },
    /// A group that is none of fleetlog's and has no letters.
    #[error("group `{group}` has none of the dead letters that were read, and no projection is called so")]
    UnknownGroup {
        /// What was asked for.
        group: String,
        /// The groups that there are.
        known: Vec<String>,
    },
    /// No letter is meant.
    #[error("no dead letter matches {selection} ({seen} records read)")]
    NothingMatches {
        /// The selectors.
        selection: String,
        /// Records that were read.
        seen: u64,
    },
    /// It would be all open letters, and nobody said that this is meant.
    #[error("{letters} dead letters match {selection}: all that are open")]
    MatchesAll {
        /// How many.
        letters: usize,
        /// The selectors.
        selection: String,
    },
    /// There is no letter at that place.
    #[error("there is no dead letter at {0}: gone by retention, or never there")]
    NoLetter(Place),
    /// A reason or operator that no event can carry.
    #[error("{what} has {bytes} bytes, expected 1 to 512")]
    Text {
        /// Which.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// Nothing can be written down, so nothing is done.
    #[error("the cluster has no topic {0}, on which actions are written down")]
    NoOpsTopic(String),
    /// The cluster could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The cluster could not be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A schema that is needed cannot be looked up now.
    #[error(transparent)]
    Schema(#[from] Unavailable),
    /// Not everything was acknowledged.
    #[error("{acknowledged} of {events} events are on topic ops, not this one: {source}")]
    NotSent {
        /// Acknowledged ones.
        acknowledged: usize,
        /// All of the action.
        events: usize,
        /// The first that is not.
        source: Box<BatchError>,
    },
    /// The reading thread ended early.
    #[error("reading was interrupted")]
    Interrupted,
}
