//! One partition that a handler reads: of a source topic, of a retry tier, or of what is held.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetlog_event::TimestampMs;

use crate::{At, BrokerClock, Window};

/// What a partition is to the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// Of a source topic: its records are called for at once.
    Source,
    /// Of a retry tier: each record once it has lain there for so long.
    Tier(Duration),
    /// Of what met an endpoint that is down: once the circuit lets calls through.
    Held,
}

/// A record as it came, with what former calls left on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<R> {
    /// Its offset on the partition it was read from.
    pub offset: i64,
    /// Where the event lies on its source topic.
    pub origin: Origin,
    /// Its key: of one key one record is under way at a time.
    pub key: Option<Bytes>,
    /// When it was appended there, by the broker's clock.
    pub appended_at: TimestampMs,
    /// What is left to wait once its tier's delay is over ([`Place::rest`](crate::Place)).
    pub rest: Duration,
    /// How many calls about it have failed.
    pub failed_calls: u32,
    /// What it is to whoever calls; none of a record that only tells the time.
    pub record: Option<R>,
}

/// A place on a source topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The topic's place among those that the driver reads.
    pub topic: usize,
    /// The offset on its partition.
    pub offset: i64,
}

/// A record that may begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begun<R> {
    /// It is to be called for.
    Call(R),
    /// It goes round once more, for what is left to wait.
    Round(Duration),
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Lane<R> {
    kind: LaneKind,
    assignment: u64,
    /// Read, and not due.
    waiting: VecDeque<Incoming<R>>,
    /// Due, and not done.
    under_way: BTreeMap<i64, Incoming<R>>,
    window: Window,
    clock: BrokerClock,
    records_max: usize,
    is_paused: bool,
    /// The next record to be read.
    next: i64,
}

impl<R: Clone> Lane<R> {
    pub(crate) fn new(kind: LaneKind, assignment: u64, committed: i64, in_flight_max: usize) -> Self {
        Self {
            kind,
            assignment,
            waiting: VecDeque::new(),
            under_way: BTreeMap::new(),
            window: Window::new(committed, in_flight_max),
            clock: BrokerClock::default(),
            // As many again as may be under way: there is something to begin when one ends.
            records_max: 2 * in_flight_max.max(1),
            is_paused: false,
            next: committed,
        }
    }

    pub(crate) fn kind(&self) -> LaneKind {
        self.kind
    }

    pub(crate) fn assignment(&self) -> u64 {
        self.assignment
    }

    /// Takes what was read. Records that were taken before, or behind a pause, are left: they come again.
    pub(crate) fn take(&mut self, incoming: Incoming<R>) {
        if !self.is_paused && incoming.offset >= self.next {
            self.next = incoming.offset + 1;
            self.waiting.push_back(incoming);
        }
    }

    /// The partition was read to its end, which is here: behind the last record may lie markers of transactions.
    pub(crate) fn ends_at(&mut self, position: i64) {
        if self.waiting.is_empty() && !self.is_paused {
            self.next = self.next.max(position);
            self.window.moves_to(self.next);
        }
    }

    pub(crate) fn heard(&mut self, stamp: TimestampMs, now: Instant) {
        self.clock.heard(stamp, now);
    }

    /// Whether so much lies here that no more is to be read, and whether that changed.
    pub(crate) fn pauses(&mut self) -> bool {
        let is_full = self.waiting.len() + self.under_way.len() >= self.records_max;
        let pauses = is_full && !self.is_paused;
        self.is_paused |= is_full;
        pauses
    }

    /// From where on to read again, once there is room.
    pub(crate) fn resumes(&mut self) -> Option<i64> {
        let has_room = self.waiting.len() + self.under_way.len() <= self.records_max / 2;
        let resumes = self.is_paused && has_room;
        self.is_paused &= !has_room;
        resumes.then_some(self.next)
    }

    /// How long the first of what waits is not due; zero if it is, none if nothing waits or the time is not known.
    pub(crate) fn due_in(&self, now: Instant) -> Option<Duration> {
        let first = self.waiting.front()?;
        match self.kind {
            LaneKind::Tier(delay) if first.record.is_some() => {
                self.clock.until_due(first.appended_at, delay, now)
            }
            LaneKind::Tier(_) | LaneKind::Source | LaneKind::Held => Some(Duration::ZERO),
        }
    }

    /// The next record that may begin now; it has begun by that.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<(i64, Begun<R>)> {
        while self.due_in(now) == Some(Duration::ZERO) {
            let Some(first) = self.waiting.pop_front() else { break };
            if first.record.is_none() {
                self.window.moves_to(first.offset + 1);
                continue;
            }
            self.window.admit(first.offset, first.key.as_ref());
            self.under_way.insert(first.offset, first);
        }
        let offset = self.window.begin()?;
        let begun = self.under_way.get(&offset)?;
        if !begun.rest.is_zero() {
            return Some((offset, Begun::Round(begun.rest)));
        }
        Some((offset, Begun::Call(begun.record.clone()?)))
    }

    /// A record under way; none where it is of an earlier assignment.
    pub(crate) fn get(&self, at: At) -> Option<&Incoming<R>> {
        self.under_way.get(&at.offset).filter(|_| at.assignment == self.assignment)
    }

    pub(crate) fn put_back(&mut self, at: At) {
        if at.assignment == self.assignment {
            self.window.put_back(at.offset);
        }
    }

    pub(crate) fn done(&mut self, at: At) {
        if at.assignment == self.assignment {
            self.under_way.remove(&at.offset);
            self.window.done(at.offset);
        }
    }

    pub(crate) fn to_commit(&self) -> Option<i64> {
        self.window.to_commit()
    }

    pub(crate) fn committed(&mut self, offset: i64) {
        self.window.committed(offset);
    }

    /// Records that have begun and are not done.
    pub(crate) fn in_flight_len(&self) -> usize {
        self.window.in_flight_len()
    }
}
