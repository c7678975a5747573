//! The ledger of a lane: which events its projection did not take, and what became of them.

use std::fmt;

use fleetlog_event::{Reject, TimestampMs};

use crate::SetAside;

/// What became of an event that was set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryState {
    /// Nothing yet.
    #[default]
    Open,
    /// It was redriven and taken: it counts.
    Redriven,
    /// It has no place where it lies, and was emitted anew under the right key: here it never counts.
    EmittedAnew,
    /// It was rejected again as often as it may be: only asked for by name is it redriven once more.
    Parked,
}

impl EntryState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Open, Self::Redriven, Self::EmittedAnew, Self::Parked];

    /// As stores have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redriven => "redriven",
            Self::EmittedAnew => "emitted_anew",
            Self::Parked => "parked",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether the projection has the event.
    #[must_use]
    pub const fn is_taken(self) -> bool {
        matches!(self, Self::Redriven)
    }

    /// Whether it can still be redriven. What is closed stays closed.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Parked)
    }
}

impl fmt::Display for EntryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a lane's ledger holds about an event that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LedgerEntry {
    /// Why, as it was judged last.
    pub reject: Reject,
    /// The event's full name, if it could be read.
    pub event_type: Option<String>,
    /// The record's key, for people: what is no UTF-8 in it is replaced.
    pub key: Option<String>,
    /// When the entry was made.
    pub made_at: TimestampMs,
    /// What became of the event.
    pub state: EntryState,
    /// How often it was redriven and rejected again.
    pub replays: u32,
    /// When a command changed the entry last.
    pub changed_at: Option<TimestampMs>,
}

impl LedgerEntry {
    /// The entry of an event that is set aside now.
    #[must_use]
    pub fn new(set_aside: &SetAside, made_at: TimestampMs) -> Self {
        let SetAside { record, reject, event_type } = set_aside;
        Self {
            reject: reject.clone(),
            event_type: event_type.clone(),
            key: record.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()),
            made_at,
            state: EntryState::Open,
            replays: 0,
            changed_at: None,
        }
    }

    /// The entry, closed.
    #[must_use]
    pub fn closed(self, state: EntryState, now: TimestampMs) -> Self {
        debug_assert!(!state.is_open(), "{state} closes nothing");
        Self { state, changed_at: Some(now), ..self }
    }

    /// The entry after one more rejection: parked once that was as often as it may be.
    #[must_use]
    pub fn rejected_again(self, set_aside: &SetAside, replays_max: u32, now: TimestampMs) -> Self {
        let replays = self.replays.saturating_add(1);
        let is_parked = replays >= replays_max || self.state == EntryState::Parked;
        Self {
            reject: set_aside.reject.clone(),
            event_type: set_aside.event_type.clone().or(self.event_type),
            state: if is_parked { EntryState::Parked } else { EntryState::Open },
            replays,
            changed_at: Some(now),
            ..self
        }
    }
}

/// An entry that a command changes, as it is afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryChange {
    /// The event's offset.
    pub offset: i64,
    /// The entry.
    pub entry: LedgerEntry,
}
