//! What a process does for one handler, as values: what it is told, and what is to be done about it.
//!
//! It knows no client, no clock and no thread. Whoever drives it tells what was read, how calls ended and what was acknowledged,
//! and carries out the [`Action`]s that it asks for. So everything that can go wrong in between can be tried without a cluster.
//!
//! A record is done once it was handled, or once it was acknowledged on the topic that it went to next. Only then may its offset
//! be committed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fleetlog_event::{Reject, TimestampMs};

use crate::{
    Change, Circuit, CircuitSettings, Fate, HandlerError, Incoming, LaneKind, Outcome, Passage, Place,
    RetryPolicy, Ticket, fate,
    lane::{Begun, Lane},
    newest::Newest,
};

/// A partition: which of the handler's topics, which of its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    /// The topic's place among those that the driver reads.
    pub topic: usize,
    /// The partition.
    pub partition: i32,
}

/// A record under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// Where it was read.
    pub lane: LaneId,
    /// Its offset there.
    pub offset: i64,
    /// Since which assignment of the partition: what is told of an earlier one is of no account.
    pub assignment: u64,
}

/// What a record turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared<E> {
    /// An event that the handler is to be called for.
    Wanted(E),
    /// An event that does not concern it: done.
    Unwanted,
    /// Nothing that anybody could be called for: a dead letter.
    Rejected(Reject),
}

/// Where a record goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A retry tier.
    Tier {
        /// Which, and what is left to wait after it.
        place: Place,
        /// How many calls about it have failed.
        failed_calls: u32,
        /// What failed last, or what it waits for; none where it only goes round.
        why: Option<String>,
    },
    /// Held until the circuit lets calls through.
    Held {
        /// How many calls about it have failed.
        failed_calls: u32,
        /// What failed last; none where it was not called for.
        why: Option<String>,
    },
    /// The dead letters.
    DeadLetter {
        /// Why.
        reject: Reject,
        /// How many calls were made.
        calls: u32,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<R, E> {
    /// Find out what the record is; told by [`Dispatcher::prepared`].
    Prepare(At, R),
    /// Call the handler; told by [`Dispatcher::ended`].
    Call {
        /// About which record.
        at: At,
        /// The event.
        event: E,
        /// How many calls about it have failed.
        failed_calls: u32,
        /// The newest offset of its key on the source topic, as far as this process has seen.
        newest_offset: i64,
    },
    /// Append the record elsewhere; told by [`Dispatcher::sent`].
    Send(At, Destination),
    /// Have the broker tell its time, by an append to that partition of a tier; told by [`Dispatcher::heard`].
    AskTime(LaneId),
    /// Read no more of a partition for now.
    Pause(LaneId),
    /// Read on from there.
    Resume(LaneId, i64),
    /// Commit these offsets; told by [`Dispatcher::committed`].
    Commit(Vec<(LaneId, i64)>),
    /// The circuit changed.
    Changed(Change),
    /// The handler stops, for that reason.
    Stop(String),
}

/// How much may be under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatcherSettings {
    /// Records of a partition that may be under way at a time, and that may be handled again after a crash.
    pub in_flight_max: usize,
    /// The tiers.
    pub policy: RetryPolicy,
    /// The circuit.
    pub circuit: CircuitSettings,
    /// Records of a partition that are held here, under way or not. No fewer than twice `in_flight_max` are: there is something
    /// to begin when one ends.
    pub buffer_records_max: usize,
    /// What the records of all partitions may take together, in bytes; each has an even share, and may come one record beyond it.
    pub buffer_bytes_max: usize,
    /// How long what is done may wait to be committed, unless so much waits that nothing more can begin.
    pub commit_interval: Duration,
}

/// The state of a process's work for one handler.
#[derive(Debug)]
pub struct Dispatcher<R, E> {
    settings: DispatcherSettings,
    circuit: Circuit,
    lanes: BTreeMap<LaneId, Lane<R>>,
    /// Events that wait for the circuit, in the order in which they were prepared.
    prepared: Vec<(At, E)>,
    calls: BTreeMap<At, Ticket>,
    newest: Newest,
    assignments: u64,
    /// A commit is under way.
    commits: bool,
    /// When the last one was asked for.
    committed_at: Option<Instant>,
    /// The moment of which it was last asked what is to be done: nothing that was due by then is waited for.
    acted_at: Option<Instant>,
    is_stopped: bool,
    actions: Vec<Action<R, E>>,
}

impl<R: Clone, E> Dispatcher<R, E> {
    /// Without a partition, and with a closed circuit.
    #[must_use]
    pub fn new(settings: DispatcherSettings) -> Self {
        let circuit = Circuit::new(settings.circuit);
        Self {
            settings,
            circuit,
            lanes: BTreeMap::new(),
            prepared: Vec::new(),
            calls: BTreeMap::new(),
            newest: Newest::default(),
            assignments: 0,
            commits: false,
            committed_at: None,
            acted_at: None,
            is_stopped: false,
            actions: Vec::new(),
        }
    }

    /// A partition is ours now, from what was committed on.
    pub fn assigned(&mut self, id: LaneId, kind: LaneKind, committed: i64) {
        self.assignments += 1;
        let lane = Lane::new(kind, self.assignments, committed, &self.settings);
        self.lanes.insert(id, lane);
    }

    /// A partition is to be given up: begins nothing more of it. What is under way may end and be committed, until it is
    /// [`revoked`](Self::revoked).
    pub fn leaves(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.leave();
        }
    }

    /// A partition is ours no more. What is under way of it ends without effect here; whoever has it now does it again.
    pub fn revoked(&mut self, id: LaneId, now: Instant) {
        self.lanes.remove(&id);
        self.prepared.retain(|(at, _)| at.lane != id);
        let calls: Vec<At> = self.calls.keys().filter(|at| at.lane == id).copied().collect();
        for at in calls {
            if let Some(ticket) = self.calls.remove(&at) {
                self.circuit.ended(ticket, Outcome::Dropped, now);
            }
        }
    }

    /// A record was read.
    pub fn read(&mut self, id: LaneId, incoming: Incoming<R>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if let (LaneKind::Source, Some(key)) = (lane.kind(), &incoming.key) {
            self.newest.saw(incoming.origin, key);
        }
        lane.take(incoming);
    }

    /// A partition was read to its end.
    pub fn read_to_end(&mut self, id: LaneId, position: i64) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.ends_at(position);
        }
    }

    /// An append to a partition of a tier was stamped with this time; `now` is when that was told.
    pub fn heard(&mut self, id: LaneId, stamp: TimestampMs, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.heard(stamp, now);
        }
    }

    /// It is known what a record is.
    pub fn prepared(&mut self, at: At, prepared: Prepared<E>) {
        let Some(incoming) = self.lanes.get(&at.lane).and_then(|lane| lane.get(at)) else { return };
        match prepared {
            Prepared::Wanted(event) => self.prepared.push((at, event)),
            Prepared::Unwanted => self.done(at),
            Prepared::Rejected(reject) => {
                let calls = incoming.failed_calls;
                self.actions.push(Action::Send(at, Destination::DeadLetter { reject, calls }));
            }
        }
    }

    /// A call ended; `now` is when.
    pub fn ended(&mut self, at: At, result: Result<(), HandlerError>, now: Instant) {
        let Some(ticket) = self.calls.remove(&at) else { return };
        let outcome = match &result {
            Ok(()) | Err(HandlerError::NotYet { .. }) => Outcome::Done,
            Err(HandlerError::Retry(_) | HandlerError::RetryAfter { .. }) => Outcome::Failed,
            Err(HandlerError::Reject(_)) => Outcome::Rejected,
            Err(HandlerError::Stop(_)) => Outcome::Dropped,
        };
        let verdict = self.circuit.ended(ticket, outcome, now);
        self.actions.extend(verdict.change.map(Action::Changed));
        let Some(lane) = self.lanes.get_mut(&at.lane) else { return };
        let Some(incoming) = lane.get(at) else { return };
        let before = incoming.failed_calls;
        let is_closed = self.circuit.is_closed();
        let destination = match fate(result, &self.settings.policy, before, verdict.counts, is_closed) {
            Fate::Done => return self.done(at),
            Fate::Stop(why) => {
                lane.put_back(at);
                self.is_stopped = true;
                return self.actions.push(Action::Stop(why));
            }
            // Where it waits for the circuit anyway it keeps its place.
            Fate::Hold { failed_calls, .. } if failed_calls == before && lane.kind() != LaneKind::Source => {
                return lane.put_back(at);
            }
            Fate::Hold { failed_calls, why } => Destination::Held { failed_calls, why: Some(why) },
            Fate::Wait { place, why } => Destination::Tier { place, failed_calls: before, why: Some(why) },
            Fate::Retry { place, failed_calls, why } => {
                Destination::Tier { place, failed_calls, why: Some(why) }
            }
            Fate::DeadLetter { reject, calls } => Destination::DeadLetter { reject, calls },
        };
        self.actions.push(Action::Send(at, destination));
    }

    /// A record was acknowledged where it went.
    pub fn sent(&mut self, at: At) {
        self.done(at);
    }

    /// A commit ended: these offsets were taken (none if it failed; it is tried again).
    pub fn committed(&mut self, offsets: &[(LaneId, i64)]) {
        self.commits = false;
        for (id, offset) in offsets {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.committed(*offset);
            }
        }
    }

    /// Begins nothing more, as before a shutdown: what is under way ends, and is committed.
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// What is to be done now.
    pub fn act(&mut self, now: Instant) -> Vec<Action<R, E>> {
        self.acted_at = Some(now);
        if self.is_stopped {
            for (at, _) in std::mem::take(&mut self.prepared) {
                self.put_back(at);
            }
        } else {
            self.begin(now);
            self.call(now);
        }
        let bytes_max = self.settings.buffer_bytes_max / self.lanes.len().max(1);
        for (id, lane) in &mut self.lanes {
            if lane.pauses(bytes_max) {
                self.actions.push(Action::Pause(*id));
            }
            self.actions.extend(lane.resumes(bytes_max).map(|from| Action::Resume(*id, from)));
            self.actions.extend(lane.asks_time(now).then_some(Action::AskTime(*id)));
        }
        self.commit(now);
        std::mem::take(&mut self.actions)
    }

    fn commit(&mut self, now: Instant) {
        let is_pressed = || self.lanes.values().any(Lane::presses_to_commit);
        if self.commits || (self.commits_in(now) > Duration::ZERO && !is_pressed()) {
            return;
        }
        let offsets: Vec<(LaneId, i64)> =
            self.lanes.iter().filter_map(|(id, lane)| Some((*id, lane.to_commit()?))).collect();
        if !offsets.is_empty() {
            self.commits = true;
            self.committed_at = Some(now);
            self.actions.push(Action::Commit(offsets));
        }
    }

    /// How long what is done may still wait to be committed.
    fn commits_in(&self, now: Instant) -> Duration {
        let passed = self.committed_at.map(|at| now.saturating_duration_since(at));
        passed.map_or(Duration::ZERO, |passed| self.settings.commit_interval.saturating_sub(passed))
    }

    /// When to ask again at the latest, if nothing is told before: when something becomes due, or the circuit lets trials
    /// through.
    #[must_use]
    pub fn wakes_in(&self, now: Instant) -> Option<Duration> {
        // What was over by then was acted on, and comes about with what is told next: waiting for it would be spinning. What has
        // become due since then was not.
        let acted_at = self.acted_at.unwrap_or(now);
        let open = self.circuit.open_until().map(|until| until.saturating_duration_since(acted_at));
        let due = self.lanes.values().filter_map(|lane| lane.due_in(acted_at));
        let moments = due.chain(open).filter(|wait| !wait.is_zero());
        let from_now = moments.map(|wait| (acted_at + wait).saturating_duration_since(now));
        let is_waiting = !self.commits && self.lanes.values().any(|lane| lane.to_commit().is_some());
        from_now.chain(is_waiting.then(|| self.commits_in(now))).min()
    }

    /// Records that have begun and are not done: a process that was stopped may end when there are none.
    #[must_use]
    pub fn in_flight_len(&self) -> usize {
        self.lanes.values().map(Lane::in_flight_len).sum()
    }

    /// The same of one partition.
    #[must_use]
    pub fn in_flight_len_of(&self, id: LaneId) -> usize {
        self.lanes.get(&id).map_or(0, Lane::in_flight_len)
    }

    /// A record under way; none where it is of an earlier assignment.
    #[must_use]
    pub fn record(&self, at: At) -> Option<&R> {
        self.lanes.get(&at.lane)?.get(at)?.record.as_ref()
    }

    /// How late it is for a record of a retry tier, by what the broker's clock shows at least; none of others.
    #[must_use]
    pub fn late_by(&self, at: At, now: Instant) -> Option<Duration> {
        let lane = self.lanes.get(&at.lane)?;
        lane.late_by(lane.get(at)?, now)
    }

    /// The partitions that are ours, each with the next offset to be read, and the one that may be committed.
    pub fn lanes(&self) -> impl Iterator<Item = (LaneId, i64, i64)> {
        self.lanes.iter().map(|(id, lane)| (*id, lane.next(), lane.low_water()))
    }

    /// What can be committed of a partition that was not committed yet, as before it is given up.
    #[must_use]
    pub fn to_commit(&self, id: LaneId) -> Option<i64> {
        self.lanes.get(&id)?.to_commit()
    }

    /// The circuit, for whoever shows it.
    #[must_use]
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    fn begin(&mut self, now: Instant) {
        let passes = self.circuit.would_pass(now);
        let mut lanes: Vec<(&LaneId, &mut Lane<R>)> = self.lanes.iter_mut().collect();
        if !self.circuit.is_closed() {
            // Trials are made with what is held. What lay in the tiers when the endpoint went down may be just what it stumbles
            // over, and each trial that fails costs all others another wait.
            lanes.sort_by_key(|(_, lane)| lane.kind() != LaneKind::Held);
        }
        for (id, lane) in lanes {
            // What waits for the circuit is not even looked at before.
            if lane.kind() != LaneKind::Source && !passes {
                continue;
            }
            while let Some((offset, begun)) = lane.begin(now) {
                let at = At { lane: *id, offset, assignment: lane.assignment() };
                self.actions.push(match begun {
                    Begun::Call(record) => Action::Prepare(at, record),
                    Begun::Round(rest) => {
                        let failed_calls = lane.get(at).map_or(0, |incoming| incoming.failed_calls);
                        let place = self.settings.policy.place(rest);
                        Action::Send(at, Destination::Tier { place, failed_calls, why: None })
                    }
                });
            }
        }
    }

    fn call(&mut self, now: Instant) {
        for (at, event) in std::mem::take(&mut self.prepared) {
            let Some(lane) = self.lanes.get_mut(&at.lane) else { continue };
            let Some(incoming) = lane.get(at) else { continue };
            let failed_calls = incoming.failed_calls;
            let is_source = lane.kind() == LaneKind::Source;
            // While it is tried with care, what has waited longest goes first.
            let passage =
                if is_source && !self.circuit.is_closed() { Passage::Trials } else { self.circuit.pass(now) };
            match passage {
                Passage::Go(ticket) => {
                    let newest_offset = self.newest.of(incoming.origin, incoming.key.as_ref());
                    self.calls.insert(at, ticket);
                    self.actions.push(Action::Call { at, event, failed_calls, newest_offset });
                }
                Passage::Until(_) | Passage::Trials if is_source => {
                    let held = Destination::Held { failed_calls, why: None };
                    self.actions.push(Action::Send(at, held));
                }
                Passage::Until(_) | Passage::Trials => lane.put_back(at),
            }
        }
    }

    /// A record is not to be moved on after all: it stays where it is, and begins again.
    pub fn put_back(&mut self, at: At) {
        if let Some(lane) = self.lanes.get_mut(&at.lane) {
            lane.put_back(at);
        }
    }

    fn done(&mut self, at: At) {
        if let Some(lane) = self.lanes.get_mut(&at.lane) {
            lane.done(at);
        }
    }
}

#[cfg(test)]
mod tests;
