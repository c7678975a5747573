//! What a job writes down on topic `ops`.

use fleetlog_event::{
    EventId, EventMeta, TimestampMs,
    ops::{
        DeadLettersRedriven, OpsEvent, RedriveEnd, RedriveEnded, RedriveOutcome, RedriveProgressed,
        RedriveStarted, RedrivenLetter,
    },
};
use serde::Serialize;

use super::{Candidate, RedriveRequest};
use crate::discard::{LETTERS_BYTES_MAX, REF_BYTES, selection};

/// Longest reason that an event tells, in characters: the letter has all of it.
const REASON_CHARS_MAX: usize = 200;

/// How many letters ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Taken by their group.
    pub taken: u64,
    /// Rejected again.
    pub rejected: u64,
    /// Rejected as often as they may be.
    pub parked: u64,
    /// Nothing came of them: their entries were not open any more.
    pub nothing: u64,
}

impl Outcomes {
    /// Counts one.
    pub fn add(&mut self, outcome: RedriveOutcome) {
        *match outcome {
            RedriveOutcome::Taken => &mut self.taken,
            RedriveOutcome::Rejected => &mut self.rejected,
            RedriveOutcome::Parked => &mut self.parked,
            RedriveOutcome::Nothing | RedriveOutcome::Unknown => &mut self.nothing,
        } += 1;
    }

    /// All of them.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.taken + self.rejected + self.parked + self.nothing
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            taken: self.taken + other.taken,
            rejected: self.rejected + other.rejected,
            parked: self.parked + other.parked,
            nothing: self.nothing + other.nothing,
        }
    }
}

/// A letter that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) candidate: &'a Candidate,
    pub(crate) outcome: RedriveOutcome,
    /// Why it was rejected again.
    pub(crate) reason: Option<String>,
}

/// The events of one job and group.
pub(crate) struct Audit<'a> {
    request: &'a RedriveRequest,
    group: String,
    /// Events of each kind so far: they get ids that are theirs alone, whichever is sent again.
    count: u32,
    parts: i32,
}

impl<'a> Audit<'a> {
    pub(crate) fn new(request: &'a RedriveRequest, group: &str) -> Self {
        Self { request, group: group.to_owned(), count: 0, parts: 0 }
    }

    pub(crate) fn started(&mut self, letters: usize, now: TimestampMs, until: TimestampMs) -> OpsEvent {
        RedriveStarted {
            meta: self.meta(now),
            action_id: self.request.action_id.clone(),
            group: self.group.clone(),
            operator: self.request.operator.clone(),
            why: self.request.why.clone(),
            selection: selection(&self.request.selector),
            letters: number(letters as u64),
            lease_until: until,
        }
        .into()
    }

    pub(crate) fn progressed(&mut self, now: TimestampMs, until: TimestampMs) -> OpsEvent {
        RedriveProgressed {
            meta: self.meta(now),
            action_id: self.request.action_id.clone(),
            group: self.group.clone(),
            lease_until: until,
        }
        .into()
    }

    pub(crate) fn ended(&mut self, end: RedriveEnd, outcomes: Outcomes, now: TimestampMs) -> OpsEvent {
        RedriveEnded {
            meta: self.meta(now),
            action_id: self.request.action_id.clone(),
            group: self.group.clone(),
            end,
            taken: number(outcomes.taken),
            rejected: number(outcomes.rejected),
            parked: number(outcomes.parked),
            nothing: number(outcomes.nothing),
        }
        .into()
    }

    /// What came of these letters, in as many events as they need.
    pub(crate) fn redriven(&mut self, told: &[Answer<'_>], now: TimestampMs) -> Vec<OpsEvent> {
        let mut events = Vec::new();
        let mut rest = told;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |told: &&Answer<'_>| {
                bytes += size_bytes(told);
                bytes <= LETTERS_BYTES_MAX
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (some, others) = rest.split_at(count);
            events.push(self.part(some, now).into());
            rest = others;
        }
        events
    }

    fn part(&mut self, told: &[Answer<'_>], now: TimestampMs) -> DeadLettersRedriven {
        let mut outcomes = Outcomes::default();
        told.iter().for_each(|told| outcomes.add(told.outcome));
        self.parts += 1;
        DeadLettersRedriven {
            meta: self.meta(now),
            action_id: self.request.action_id.clone(),
            group: self.group.clone(),
            operator: self.request.operator.clone(),
            why: self.request.why.clone(),
            selection: selection(&self.request.selector),
            part: self.parts,
            taken: number(outcomes.taken),
            rejected: number(outcomes.rejected),
            parked: number(outcomes.parked),
            nothing: number(outcomes.nothing),
            letters: told.iter().map(letter).collect(),
        }
    }

    fn meta(&mut self, now: TimestampMs) -> EventMeta {
        self.count += 1;
        let event_id = EventId::derived(&format!("{}/{}", self.request.action_id, self.group), self.count);
        EventMeta::of_ops(event_id, &self.request.source, now)
    }
}

fn number(count: u64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn size_bytes(told: &Answer<'_>) -> usize {
    let letter = &told.candidate.letter;
    let reason = told.reason.as_ref().unwrap_or(&letter.reason).len().min(4 * REASON_CHARS_MAX);
    // The log is 32 hex digits.
    REF_BYTES + 32 + letter.origin.to_string().len() + letter.place.to_string().len() + reason
}

fn letter(told: &Answer<'_>) -> RedrivenLetter {
    let Answer { candidate, outcome, reason } = told;
    let letter = &candidate.letter;
    let reason = reason.as_ref().unwrap_or(&letter.reason);
    RedrivenLetter {
        origin: letter.origin.to_string(),
        log: Some(candidate.log.to_string()),
        place: letter.place.to_string(),
        set_aside_at: letter.set_aside_at,
        reason: Some(reason.chars().take(REASON_CHARS_MAX).collect()),
        outcome: *outcome,
    }
}
