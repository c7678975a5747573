//! What operators did to dead letters, folded from topic `ops`: which state a letter is in.

use std::collections::HashMap;

use fleetlog_event::{
    EventMeta, TimestampMs,
    ops::{DeadLettersDiscarded, OpsEvent},
};
use serde::Serialize;

use crate::{Letter, LetterId, letter::time_text};

/// What has become of a dead letter. Redriven and parked ones join when there is a redrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Nothing: it waits for somebody.
    Open,
    /// Nobody will process it.
    Discarded(Action),
}

/// Who did what, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    /// The action's id, the same for all that one command did.
    pub action_id: String,
    /// When, RFC 3339.
    pub at: String,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

impl State {
    /// The state's name, as selectors and tables write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Discarded(_) => "discarded",
        }
    }
}

/// The actions on topic `ops`, in its order.
#[derive(Debug, Default)]
pub struct Actions {
    newest: HashMap<LetterId, (TimestampMs, Action)>,
}

impl Actions {
    /// Takes the next event of the topic into account.
    pub fn take(&mut self, event: OpsEvent) {
        // What is said of projections is not about letters.
        let OpsEvent::DeadLettersDiscarded(event) = event else { return };
        let DeadLettersDiscarded { meta, action_id, group, operator, why, letters, .. } = event;
        let EventMeta { recorded_at, .. } = meta;
        let action = Action { action_id, at: time_text(recorded_at), by: operator, why };
        for letter in letters {
            let id = LetterId { group: group.clone(), origin: letter.origin, log: letter.log };
            self.newest.insert(id, (letter.set_aside_at, action.clone()));
        }
    }

    /// What has become of the letter. An action means what it saw: a record that was set aside again later is open.
    #[must_use]
    pub fn state(&self, letter: &Letter) -> State {
        match self.newest.get(&letter.id()) {
            Some((up_to, action)) if letter.set_aside_at <= *up_to => State::Discarded(action.clone()),
            _ => State::Open,
        }
    }
}
