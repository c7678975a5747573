//! Lanes of a handler come and go: what the group gives is looked for and begun, what it takes is drained and given up.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use fleetlog_handler::{Handler, Incoming, Journey, LaneKind, Origin as EventOrigin, tells_time};
use fleetlog_kafka::GroupOffsets;
use fleetlog_projection::{LaneId as LaneName, LogNow, Record};
use tracing::{debug, info, warn};

use super::{
    Shared,
    carried::{Carried, Origin},
    driver::{Driver, DriverEnd, Entry, lane_at, lane_id},
    mutants,
};
use crate::{
    CommitError, Intake, LaneAt,
    ports::{LogFacts, Schemas},
    status::LaneState,
};

/// How long the last commit of a process may take: what is not committed comes again.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// After how long a commit that was not taken is tried again.
pub(super) const COMMIT_AGAIN: Duration = Duration::from_millis(50);

/// What a record takes beside its bytes: what is known of it, and its place in the window.
const RECORD_BYTES: usize = 512;

/// Lanes that the group takes: what is under way of them may end until then.
pub(super) struct Leaving {
    lanes: BTreeSet<LaneAt>,
    pub(super) until: Instant,
}

impl<I: Intake, H: Handler, C: Schemas> Driver<I, H, C> {
    /// Takes lanes up, paused, until it is known where they begin.
    pub(super) fn assigned(&mut self, lanes: Vec<LaneAt>) {
        info!(handler = self.shared.id, partitions = lanes.len(), "partitions assigned");
        let starts: Vec<(LaneAt, Option<i64>)> = lanes.iter().map(|at| (*at, None)).collect();
        if let Err(failure) = self.intake.assign(&starts) {
            // The group has moved on: a revocation of these lanes follows.
            warn!(handler = self.shared.id, %failure, "assignment not taken up");
        }
        for at in &lanes {
            let name = LaneName {
                projection: self.shared.id.clone(),
                version: 0,
                topic: self.shared.topics[at.topic].name.to_string(),
                partition: at.partition,
            };
            let status = self.shared.status.lane_joined(*at, &name);
            self.lanes.insert(*at, Entry { log: None, status });
        }
        self.shared.status.assigned();
        self.find_starts(lanes);
    }

    fn find_starts(&mut self, lanes: Vec<LaneAt>) {
        if !lanes.is_empty() {
            self.runtime.spawn(Arc::clone(&self.shared).find_starts(self.tell.clone(), lanes));
        }
    }

    /// It is known where lanes begin.
    pub(super) fn found(&mut self, lanes: &[LaneAt], facts: &LogFacts, committed: &GroupOffsets) {
        self.shared.know_partitions(facts);
        let is_awaited = |at: &LaneAt| self.lanes.get(at).is_some_and(|entry| entry.log.is_none());
        let lanes: Vec<LaneAt> = lanes.iter().filter(|at| is_awaited(at)).copied().collect();
        let starts = self.shared.starts(&lanes, facts, committed);
        let new: Vec<(LaneAt, i64)> = starts
            .iter()
            .filter(|(_, start, _)| start.is_new)
            .map(|(at, start, _)| (*at, start.offset))
            .collect();
        if !new.is_empty() {
            info!(
                handler = self.shared.id,
                partitions = new.len(),
                "nothing is committed of these yet: begins with what comes from now on"
            );
            // Or the next process would begin at another end, and what lies between would be passed over.
            if let Err(error) = self.intake.commit_and_wait(&new) {
                debug!(handler = self.shared.id, %error, "where it begins is not committed; tried again");
                return self.find_starts(lanes);
            }
        }
        for (at, start, log) in starts {
            let Some(entry) = self.lanes.get_mut(&at) else { continue };
            entry.log = Some(log);
            entry.status.set_state(LaneState::Running);
            entry.status.set_next(start.offset);
            entry.status.set_end(log.high);
            self.dispatcher.assigned(
                lane_id(at),
                mutants::kind(self.shared.topics[at.topic].kind),
                start.offset,
            );
            self.seeks.insert(at, start.offset);
        }
        self.tell_progress();
    }

    /// Some lane's next offset is not there any more, and the client does not say of which: all of them begin anew from what is
    /// committed. What is under way is given up, and comes again.
    pub(super) fn look_again(&mut self) {
        let lanes: Vec<LaneAt> = self.lanes.keys().copied().collect();
        warn!(handler = self.shared.id, "an offset to be read is gone: looking again where to begin");
        self.forget(&lanes.iter().copied().collect());
        for at in &lanes {
            self.intake.pause(*at);
            if let Some(entry) = self.lanes.get_mut(at) {
                entry.log = None;
                entry.status.set_state(LaneState::Starting);
            }
        }
        self.find_starts(lanes);
    }

    /// The group takes lanes.
    pub(super) fn revoked(&mut self, lanes: Vec<LaneAt>, lost: bool) {
        info!(handler = self.shared.id, partitions = lanes.len(), lost, "partitions revoked");
        let lanes: BTreeSet<LaneAt> = lanes.into_iter().collect();
        if lost {
            self.leaving = None;
            return self.unassign(&lanes);
        }
        lanes.iter().for_each(|at| self.dispatcher.leaves(lane_id(*at)));
        self.leaving = Some(Leaving { lanes, until: Instant::now() + self.shared.config.drain_deadline() });
    }

    /// Gives up what is drained, or has had its time.
    pub(super) fn give_up(&mut self) {
        let Some(leaving) = &self.leaving else { return };
        let left: usize = leaving.lanes.iter().map(|at| self.dispatcher.in_flight_len_of(lane_id(*at))).sum();
        if left > 0 && Instant::now() < leaving.until {
            return;
        }
        if left > 0 {
            warn!(
                handler = self.shared.id,
                "{left} records under way given up: another member does them again"
            );
        }
        let Some(Leaving { lanes, until }) = self.leaving.take() else { return };
        if self.commit_now(&lanes).is_break() && Instant::now() < until {
            self.leaving = Some(Leaving { lanes, until });
            return;
        }
        self.unassign(&lanes);
    }

    fn unassign(&mut self, lanes: &BTreeSet<LaneAt>) {
        self.forget(lanes);
        for at in lanes {
            self.lanes.remove(at);
            self.seeks.remove(at);
            self.shared.lane_left(*at);
        }
        let lanes: Vec<LaneAt> = lanes.iter().copied().collect();
        if let Err(failure) = self.intake.unassign(&lanes) {
            warn!(handler = self.shared.id, %failure, "partitions not given up");
        }
    }

    /// What is under way of lanes ends without effect; calls are dropped.
    fn forget(&mut self, lanes: &BTreeSet<LaneAt>) {
        self.calls.retain(|at, call| {
            let stays = !lanes.contains(&lane_at(at.lane));
            if !stays {
                call.abort();
            }
            stays
        });
        let now = Instant::now();
        lanes.iter().for_each(|at| self.dispatcher.revoked(lane_id(*at), now));
    }

    /// Commits what is done; whether to try that once more, as another rebalance is just under way.
    fn commit_now(&mut self, lanes: &BTreeSet<LaneAt>) -> ControlFlow<()> {
        let done = |at: &LaneAt| Some((*at, self.dispatcher.to_commit(lane_id(*at))?));
        let offsets: Vec<(LaneAt, i64)> = lanes.iter().filter_map(done).collect();
        if offsets.is_empty() {
            return ControlFlow::Continue(());
        }
        match self.intake.commit_and_wait(&offsets) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                warn!(handler = self.shared.id, %error, "what was done last is not committed");
                match error {
                    CommitError::Transient(_) => ControlFlow::Break(()),
                    CommitError::NotOurs(_) => ControlFlow::Continue(()),
                }
            }
        }
    }

    /// The last thing: commits what is done, and leaves.
    pub(super) fn close(&mut self) {
        let lanes: BTreeSet<LaneAt> = self.lanes.keys().copied().collect();
        let until = Instant::now() + LAST_COMMIT_TIMEOUT;
        while !matches!(self.end, Some(DriverEnd::Replaced(_)))
            && self.commit_now(&lanes).is_break()
            && Instant::now() < until
        {
            self.runtime.block_on(tokio::time::sleep(COMMIT_AGAIN));
        }
        self.forget(&lanes);
        lanes.into_iter().for_each(|at| self.shared.lane_left(at));
        self.shared.figures.in_flight.set(0);
    }

    /// How far it is, for whoever asks.
    pub(super) fn tell_progress(&self) {
        for (lane, _, low_water) in self.dispatcher.lanes() {
            let at = lane_at(lane);
            let Some(entry) = self.lanes.get(&at) else { continue };
            entry.status.set_next(low_water);
        }
        self.shared.tell_lag();
    }
}

impl<H: Handler, C: Schemas> Shared<H, C> {
    fn lane_left(&self, at: LaneAt) {
        self.status.lane_left(at);
        self.figures.no_lag(&self.topics[at.topic].name, at.partition);
    }

    /// A record, with what is written on it.
    pub(super) fn incoming(&self, at: LaneAt, record: Record, log: &LogNow) -> Incoming<Arc<Carried>> {
        let Record { offset, timestamp, .. } = record;
        let (key, bytes, topic) =
            (record.key.clone(), record.size_bytes() + RECORD_BYTES, &self.topics[at.topic]);
        let header = |name: &str| record.headers.get(name);
        let is_source = topic.kind == LaneKind::Source;
        let is_time = !is_source && tells_time(header);
        let (name, scope) = (Arc::clone(&topic.name), log.scope);
        let origin = if is_source {
            Origin::Here { topic: name, scope }
        } else {
            match Journey::read(header) {
                Ok(journey) => Origin::Elsewhere(journey),
                Err(why) => Origin::Unknown { topic: name, scope, why },
            }
        };
        let carried = Carried { record, origin };
        Incoming {
            offset,
            origin: self.origin_of(at, offset, &carried),
            key,
            appended_at: timestamp,
            rest: carried.rest(),
            failed_calls: carried.failed_calls(),
            bytes,
            record: (!is_time).then(|| Arc::new(carried)),
        }
    }

    fn origin_of(&self, at: LaneAt, offset: i64, carried: &Carried) -> EventOrigin {
        let Some(journey) = carried.travelled() else { return EventOrigin { topic: at.topic, offset } };
        let topic = self.topics.iter().position(|topic| *topic.name == *journey.topic);
        // Of a topic that is not read any more nothing newer is known.
        EventOrigin { topic: topic.unwrap_or(usize::MAX), offset: journey.position.offset }
    }

    fn know_partitions(&self, facts: &LogFacts) {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        for ((topic, _), log) in facts {
            partitions.insert(topic.clone(), log.scope.partitions);
        }
    }
}
