//! What became of a message.

use std::fmt;

use fleetlog_event::FleetEvent;

use crate::MessageKind;

/// What became of one message: the events it stands for, and why there are none.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The kind of message.
    pub kind: MessageKind,
    /// What it stands for, in order; all of them valid.
    pub events: Vec<FleetEvent>,
    /// What became of it.
    pub verdict: Verdict,
    /// Fields that were left out of the events, because their values are outside what an event may carry (such as
    /// `batteryState.batteryCharge`), or because no event says what they say (`zoneRequests`), or that were shortened.
    pub omitted: Vec<&'static str>,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gave events.
    Mapped,
    /// It told nothing new: a duplicate order, an unchanged factsheet, an empty list of actions.
    NoChange,
    /// An update of an order that is known: it gives events once the vehicle reports it.
    Noted,
    /// The broker handed it out of its store, and it told nothing new.
    RetainedReplay,
    /// The broker handed it out of its store, and it told what nobody had told before: the recording began later than
    /// the vehicle, or the message was lost. Its events carry no `sequence`.
    RetainedNews,
    /// An empty payload: it deletes a retained message.
    Deleted,
    /// It cannot be mapped: to be sent, untouched, to the dead letters.
    Dead {
        /// Why.
        reason: DeadReason,
        /// What was wrong, and where, in words.
        detail: String,
    },
}

impl Verdict {
    /// A short name, for reports and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Mapped => "mapped",
            Self::NoChange => "no_change",
            Self::Noted => "noted",
            Self::RetainedReplay => "retained_replay",
            Self::RetainedNews => "retained_news",
            Self::Deleted => "deleted",
            Self::Dead { .. } => "dead",
        }
    }

    /// Every label, in the order of a report.
    pub const LABELS: [&str; 7] =
        ["mapped", "no_change", "noted", "retained_replay", "retained_news", "deleted", "dead"];
}

/// Why a message cannot be mapped. Closed: free text goes into [`Verdict::Dead`]'s detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// The line of the recording is no JSON, or no message.
    BadLine,
    /// The topic is none of VDA 5050, so that nobody knows whom the message is about.
    NotVdaTopic,
    /// The payload is no JSON.
    NotJson,
    /// The payload is JSON, but no object.
    NotAnObject,
    /// A field that the mapping needs is not there, or of another type.
    MissingField,
    /// A field that the mapping needs has a value that it does not know.
    UnknownValue,
    /// An id is longer than an event may carry.
    TooLong,
    /// It is understood, and no event says what it says (`zoneSet`, `responses` of version 3.0).
    NoEvent,
    /// It speaks a version of VDA 5050 that came after this mapping: its words may mean something else.
    UnknownVersion,
}

impl DeadReason {
    /// Every reason, in the order of a report.
    pub const ALL: [Self; 9] = [
        Self::BadLine,
        Self::NotVdaTopic,
        Self::NotJson,
        Self::NotAnObject,
        Self::MissingField,
        Self::UnknownValue,
        Self::TooLong,
        Self::NoEvent,
        Self::UnknownVersion,
    ];

    /// The reason's name: metric label and header of the dead letter.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadLine => "bad_line",
            Self::NotVdaTopic => "not_vda_topic",
            Self::NotJson => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::MissingField => "missing_field",
            Self::UnknownValue => "unknown_value",
            Self::TooLong => "too_long",
            Self::NoEvent => "no_event",
            Self::UnknownVersion => "unknown_version",
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a message cannot be mapped, with the words.
pub(crate) type Dead = (DeadReason, String);
