//! A circuit: an endpoint that is down is left alone for a while, and then tried with care.

use std::time::{Duration, Instant};

/// When a circuit opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitSettings {
    /// More failures than these, one after the other as they end, open it.
    pub failures_max: u32,
    /// How long nothing is called then.
    pub open: Duration,
    /// How many calls are let through after that; all of them have to be answered before it closes.
    pub trials: u32,
}

impl Default for CircuitSettings {
    fn default() -> Self {
        Self { failures_max: 3, open: Duration::from_secs(30), trials: 5 }
    }
}

/// What is known of one endpoint. Closed, open for a while, or trying; time is passed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    settings: CircuitSettings,
    state: State,
    /// How often it opened: a call that began before tells nothing about what is there now.
    openings: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Trying { begun: u32, answered: u32 },
}

/// A call that was let through; told again when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    openings: u64,
}

/// Whether a call may begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It may, and has to be told with this when it ended.
    Go(Ticket),
    /// Not before then.
    Until(Instant),
    /// Not before one of the trials has ended.
    Trials,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// It failed for a reason that may pass: this counts.
    Failed,
    /// The endpoint answered that it does not take this event. That is no failure of the endpoint, and no proof that others
    /// go through; of a trial it is an answer.
    Rejected,
    /// It was given up by us, as at a shutdown: it says nothing.
    Dropped,
}

/// What the end of a call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// A failure is the event's, and one of its calls is used up. Not so where the endpoint went down while it was called.
    pub counts: bool,
    /// The circuit changed by it.
    pub change: Option<Change>,
}

/// A change that is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing is called any more for a while.
    Opened,
    /// A trial failed: once more.
    OpenedAgain,
    /// All trials were answered.
    Closed,
}

impl Circuit {
    /// A closed one.
    #[must_use]
    pub fn new(settings: CircuitSettings) -> Self {
        Self { settings, state: State::Closed { failures: 0 }, openings: 0 }
    }

    /// Whether a call may begin. What is let through has to be told at its end, whatever became of it.
    pub fn pass(&mut self, now: Instant) -> Passage {
        if let State::Open { until } = self.state {
            if now < until {
                return Passage::Until(until);
            }
            self.state = State::Trying { begun: 0, answered: 0 };
        }
        if let State::Trying { begun, .. } = &mut self.state {
            if *begun >= self.settings.trials.max(1) {
                return Passage::Trials;
            }
            *begun += 1;
        }
        Passage::Go(Ticket { openings: self.openings })
    }

    /// Whether [`pass`](Self::pass) would let a call through.
    #[must_use]
    pub fn would_pass(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => now >= until,
            State::Trying { begun, .. } => begun < self.settings.trials.max(1),
        }
    }

    /// A call ended.
    pub fn ended(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) -> Verdict {
        if ticket.openings != self.openings {
            return Verdict { counts: false, change: None };
        }
        let mut change = None;
        match (&mut self.state, outcome) {
            (State::Closed { failures }, Outcome::Done) => *failures = 0,
            (State::Closed { failures }, Outcome::Failed) => {
                *failures += 1;
                if *failures > self.settings.failures_max {
                    self.open(now);
                    change = Some(Change::Opened);
                }
            }
            (State::Trying { .. }, Outcome::Failed) => {
                self.open(now);
                change = Some(Change::OpenedAgain);
            }
            (State::Trying { answered, .. }, Outcome::Done | Outcome::Rejected) => {
                *answered += 1;
                if *answered >= self.settings.trials.max(1) {
                    self.state = State::Closed { failures: 0 };
                    change = Some(Change::Closed);
                }
            }
            (State::Trying { begun, .. }, Outcome::Dropped) => *begun = begun.saturating_sub(1),
            // A ticket of before the last opening was told above, so none ends while it is open.
            (State::Closed { .. }, Outcome::Rejected | Outcome::Dropped) | (State::Open { .. }, _) => {}
        }
        Verdict { counts: true, change }
    }

    /// Nothing may be called now, or only trials: what has not been tried waits without using up its calls.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Until when nothing is called, if it is open.
    #[must_use]
    pub fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed { .. } | State::Trying { .. } => None,
        }
    }

    fn open(&mut self, now: Instant) {
        self.openings += 1;
        self.state = State::Open { until: now + self.settings.open };
    }
}

#[cfg(test)]
mod tests;
