//! One partition that a handler reads: of a source topic, of a retry tier, or of what is held.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetlog_event::TimestampMs;

use crate::{At, BrokerClock, DispatcherSettings, Window};

/// After how long the broker is asked again for its time if it has not told it.
const ASK_AGAIN: Duration = Duration::from_secs(5);

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
    /// What it takes, in bytes.
    pub bytes: usize,
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
    /// What the records here take.
    bytes: usize,
    in_flight_max: usize,
    is_paused: bool,
    is_leaving: bool,
    /// When the broker was asked for its time and has not told it yet.
    asked_at: Option<Instant>,
    /// The next record to be read.
    next: i64,
}

impl<R: Clone> Lane<R> {
    pub(crate) fn new(
        kind: LaneKind,
        assignment: u64,
        committed: i64,
        settings: &DispatcherSettings,
    ) -> Self {
        let in_flight_max = settings.in_flight_max.max(1);
        Self {
            kind,
            assignment,
            waiting: VecDeque::new(),
            under_way: BTreeMap::new(),
            window: Window::new(committed, in_flight_max),
            clock: BrokerClock::default(),
            records_max: settings.buffer_records_max.max(2 * in_flight_max),
            bytes: 0,
            in_flight_max,
            is_paused: false,
            is_leaving: false,
            asked_at: None,
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
            self.bytes += incoming.bytes;
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
        self.asked_at = None;
    }

    /// Whether the broker is to be asked for its time: something waits, and when it is due hangs on a clock that was not heard
    /// for long, or never. One that does not answer is asked again.
    pub(crate) fn asks_time(&mut self, now: Instant) -> bool {
        let waits = matches!(self.kind, LaneKind::Tier(_)) && !self.waiting.is_empty() && !self.is_leaving;
        let is_asked = self.asked_at.is_some_and(|at| now.saturating_duration_since(at) < ASK_AGAIN);
        let asks = waits && !is_asked && self.clock.is_stale(now);
        if asks {
            self.asked_at = Some(now);
        }
        asks
    }

    /// Nothing of it begins any more.
    pub(crate) fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// The next offset to be read.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// How far it may be committed.
    pub(crate) fn low_water(&self) -> i64 {
        self.window.low_water()
    }

    /// Whether so much lies here that no more is to be read, and whether that changed.
    pub(crate) fn pauses(&mut self, bytes_max: usize) -> bool {
        let is_full =
            self.waiting.len() + self.under_way.len() >= self.records_max || self.bytes >= bytes_max.max(1);
        let pauses = is_full && !self.is_paused;
        self.is_paused |= is_full;
        pauses
    }

    /// From where on to read again, once there is room.
    pub(crate) fn resumes(&mut self, bytes_max: usize) -> Option<i64> {
        let has_room =
            self.waiting.len() + self.under_way.len() <= self.records_max / 2 && self.bytes <= bytes_max / 2;
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

    /// How long a record of a tier has been due.
    pub(crate) fn late_by(&self, incoming: &Incoming<R>, now: Instant) -> Option<Duration> {
        let LaneKind::Tier(delay) = self.kind else { return None };
        let due_ms =
            incoming.appended_at.0.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
        let late_ms = self.clock.at_least(now)?.0.saturating_sub(due_ms);
        Some(Duration::from_millis(u64::try_from(late_ms).unwrap_or(0)))
    }

    /// The next record that may begin now; it has begun by that.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<(i64, Begun<R>)> {
        if self.is_leaving {
            return None;
        }
        while self.due_in(now) == Some(Duration::ZERO) {
            let Some(first) = self.waiting.pop_front() else { break };
            if first.record.is_none() {
                self.bytes -= first.bytes;
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
            self.bytes -= self.under_way.remove(&at.offset).map_or(0, |incoming| incoming.bytes);
            self.window.done(at.offset);
        }
    }

    pub(crate) fn to_commit(&self) -> Option<i64> {
        self.window.to_commit()
    }

    /// So much is done and not committed that it may keep the rest from beginning.
    pub(crate) fn presses_to_commit(&self) -> bool {
        self.window.begun_len() > self.in_flight_max / 2 && self.to_commit().is_some()
    }

    pub(crate) fn committed(&mut self, offset: i64) {
        self.window.committed(offset);
    }

    /// Records that have begun and are not done.
    pub(crate) fn in_flight_len(&self) -> usize {
        self.window.in_flight_len()
    }
}
