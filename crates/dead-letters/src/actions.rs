//! What operators did to dead letters, folded from topic `ops`: which state a letter is in.

use std::collections::HashMap;

use fleetlog_event::{
    EventMeta, TimestampMs,
    ops::{DeadLettersDiscarded, DeadLettersRedriven, OpsEvent, RedriveOutcome},
};
use serde::Serialize;

use crate::{Letter, LetterId, letter::time_text};

/// What has become of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Nothing: it waits for somebody.
    Open,
    /// Nobody will process it.
    Discarded(Action),
    /// It was sent back, and its group took it.
    Redriven(Action),
    /// It was sent back and rejected as often as it may be: it lies on the parking topic.
    Parked,
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
            Self::Redriven(_) => "redriven",
            Self::Parked => "parked",
        }
    }

    /// What an operator did to it last, where that closed it.
    #[must_use]
    pub fn action(&self) -> Option<&Action> {
        match self {
            Self::Discarded(action) | Self::Redriven(action) => Some(action),
            Self::Open | Self::Parked => None,
        }
    }
}

/// The actions on topic `ops`, in its order.
#[derive(Debug, Default)]
pub struct Actions {
    newest: HashMap<LetterId, (TimestampMs, State)>,
}

impl Actions {
    /// Takes the next event of the topic into account.
    pub fn take(&mut self, event: OpsEvent) {
        match event {
            OpsEvent::DeadLettersDiscarded(event) => self.discarded(event),
            OpsEvent::DeadLettersRedriven(event) => self.redriven(event),
            // Says nothing of letters.
            _ => {}
        }
    }

    fn discarded(&mut self, event: DeadLettersDiscarded) {
        let DeadLettersDiscarded { meta, action_id, group, operator, why, letters, .. } = event;
        let state = State::Discarded(action(&meta, action_id, operator, why));
        for letter in letters {
            let id = LetterId { group: group.clone(), origin: letter.origin, log: letter.log };
            self.newest.insert(id, (letter.set_aside_at, state.clone()));
        }
    }

    fn redriven(&mut self, event: DeadLettersRedriven) {
        let DeadLettersRedriven { meta, action_id, group, operator, why, letters, .. } = event;
        let taken = State::Redriven(action(&meta, action_id, operator, why));
        for letter in letters {
            let state = match letter.outcome {
                RedriveOutcome::Taken => taken.clone(),
                RedriveOutcome::Parked => State::Parked,
                // A newer letter says why, or nothing has changed.
                RedriveOutcome::Rejected | RedriveOutcome::Nothing | RedriveOutcome::Unknown => continue,
            };
            let id = LetterId { group: group.clone(), origin: letter.origin, log: letter.log };
            self.newest.insert(id, (letter.set_aside_at, state));
        }
    }

    /// What has become of the letter. An action means what it saw: a record that was set aside again later is open.
    #[must_use]
    pub fn state(&self, letter: &Letter) -> State {
        match self.newest.get(&letter.id()) {
            Some((up_to, state)) if letter.set_aside_at <= *up_to => state.clone(),
            _ if letter.is_parked() => State::Parked,
            _ => State::Open,
        }
    }
}

fn action(meta: &EventMeta, action_id: String, by: String, why: String) -> Action {
    Action { action_id, at: time_text(meta.recorded_at), by, why }
}
