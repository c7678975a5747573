//! Why an event is not taken: a closed list, which is also the metric label and the dead letter's reason.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an event was set aside. Closed: free text goes into [`Reject::detail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The record has no value (a tombstone where none belongs) or an empty one.
    EmptyPayload,
    /// The record has no key, or one that is no UTF-8.
    NoKey,
    /// The first bytes are of no framing that fleetlog reads.
    UnknownFraming,
    /// The registry denies the schema id, or the fingerprint is absent after reading the schema topic.
    UnknownSchema,
    /// The bytes do not decode by the writer's schema, or not into the event's newest version.
    Undecodable,
    /// The schema names an event that this topic's catalogue does not have.
    UnknownEventType,
    /// The record's key is not the event's entity.
    WrongKey,
    /// The record lies in another partition than `murmur2(key) mod n` (DESIGN: order per key).
    WrongPartition,
    /// A number that is not finite, or outside what the field allows.
    OutOfRange,
    /// A text that is empty or longer than the field allows.
    InvalidText,
    /// The task's life cycle has no such transition.
    ImpossibleTransition,
    /// An event other than `Created` for a task that nobody knows.
    UnknownTask,
    /// The store would not take the row.
    RefusedByStore,
    /// It was redriven, and what came after it in its entity is gone from the log: folded anew, the entity would become older.
    NoPlace,
    /// It was redriven, and the projector panicked.
    Panicked,
    /// Passed by an operator (`fleetlog progress skip`).
    Skipped,
    /// A handler's endpoint answered that it does not take this event.
    RefusedByEndpoint,
    /// A handler's calls about it all failed.
    GaveUp,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 18] = [
        Self::EmptyPayload,
        Self::NoKey,
        Self::UnknownFraming,
        Self::UnknownSchema,
        Self::Undecodable,
        Self::UnknownEventType,
        Self::WrongKey,
        Self::WrongPartition,
        Self::OutOfRange,
        Self::InvalidText,
        Self::ImpossibleTransition,
        Self::UnknownTask,
        Self::RefusedByStore,
        Self::NoPlace,
        Self::Panicked,
        Self::Skipped,
        Self::RefusedByEndpoint,
        Self::GaveUp,
    ];

    /// The metric label and header value, such as `unknown_schema`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptyPayload => "empty_payload",
            Self::NoKey => "no_key",
            Self::UnknownFraming => "unknown_framing",
            Self::UnknownSchema => "unknown_schema",
            Self::Undecodable => "undecodable",
            Self::UnknownEventType => "unknown_event_type",
            Self::WrongKey => "wrong_key",
            Self::WrongPartition => "wrong_partition",
            Self::OutOfRange => "out_of_range",
            Self::InvalidText => "invalid_text",
            Self::ImpossibleTransition => "impossible_transition",
            Self::UnknownTask => "unknown_task",
            Self::RefusedByStore => "refused_by_store",
            Self::NoPlace => "no_place",
            Self::Panicked => "panicked",
            Self::Skipped => "skipped",
            Self::RefusedByEndpoint => "refused_by_endpoint",
            Self::GaveUp => "gave_up",
        }
    }

    /// The reason of that label.
    #[must_use]
    pub fn parse(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == label)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event is not taken: why, and in words with the value that was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Reject {
    /// The closed reason.
    pub reason: Reason,
    /// What exactly was wrong, for people.
    pub detail: String,
}

impl Reject {
    /// A rejection with its explanation.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}
