//! A group and its log that do what a test tells them.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use fleetlog_event::{LogId, TimestampMs};
use fleetlog_kafka::{GroupFacts, GroupMember, GroupOffsets};
use fleetlog_projection::{Headers, LaneScope, LogNow, Record};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::mpsc::Receiver;

use super::{at, event};
use crate::{
    CommitError, EndOfMembership, Failure, Intake, LaneAt, Polled, RebalanceEvent,
    membership::Membership,
    ports::{LogFacts, LogPart, Logs, Piece},
};

pub(in crate::tests) const LOG: LogId = LogId(uuid::Uuid::from_u128(0xf1ee7));

#[derive(Default)]
struct FakeLane {
    log: Vec<Record>,
    /// Past the last record: where markers end.
    end: i64,
    low: i64,
    headers_from: i64,
    reading: Option<i64>,
    paused: bool,
    position: Option<i64>,
    end_told: bool,
}

#[derive(Default)]
pub(in crate::tests) struct GroupState {
    lanes: BTreeMap<LaneAt, FakeLane>,
    pub(in crate::tests) told: VecDeque<Polled>,
    pub(in crate::tests) verdicts: VecDeque<Result<(), CommitError>>,
    pub(in crate::tests) commits: Vec<(LaneAt, i64)>,
    pub(in crate::tests) given_up: Vec<LaneAt>,
    pub(in crate::tests) pauses: u64,
    pub(in crate::tests) polls: u64,
    pub(in crate::tests) joins: u64,
    pub(in crate::tests) nudges: u64,
    pub(in crate::tests) searches: u64,
    /// It does not say where a log ends, as if more came all the time.
    pub(in crate::tests) tells_no_ends: bool,
    /// The partition that nobody has.
    nobodys: Option<i32>,
    held_for: u64,
}

/// The cluster as one member sees it; clones share it.
#[derive(Clone, Default)]
pub(in crate::tests) struct FakeGroup(Arc<(Mutex<GroupState>, Condvar)>);

impl FakeGroup {
    /// A topic of `partitions` partitions, all of them assigned to the member.
    pub(in crate::tests) fn new(partitions: i32) -> Self {
        let group = Self::default();
        for partition in 0..partitions {
            group.state().lanes.insert(at(partition), FakeLane::default());
        }
        group.assign_all();
        group
    }

    pub(in crate::tests) fn state(&self) -> MutexGuard<'_, GroupState> {
        self.0.0.lock().expect("not poisoned")
    }

    pub(in crate::tests) fn tell(&self, polled: Polled) {
        self.state().told.push_back(polled);
        self.0.1.notify_all();
    }

    pub(in crate::tests) fn assign_all(&self) {
        let lanes = self.state().lanes.keys().copied().collect();
        self.tell(Polled::Rebalance(RebalanceEvent::Assigned(lanes)));
    }

    pub(in crate::tests) fn revoke_all(&self, lost: bool) {
        let lanes = self.state().lanes.keys().copied().collect();
        self.tell(Polled::Rebalance(RebalanceEvent::Revoked { lanes, lost }));
    }

    pub(in crate::tests) fn end_membership(&self, what: &str) {
        self.tell(Polled::Over(EndOfMembership::Failed(Failure::permanent(what))));
    }

    /// A member that had a partition is gone, and nobody was given it.
    pub(in crate::tests) fn orphan(&self, partition: i32) {
        self.state().nobodys = Some(partition);
        self.tell(Polled::Rebalance(RebalanceEvent::Revoked { lanes: vec![at(partition)], lost: false }));
    }

    /// Somebody joins under the member's name, and has it until `holder` is asked for as often as `asked`.
    pub(in crate::tests) fn replace(&self, asked: u64) {
        self.state().held_for = asked;
        self.tell(Polled::Over(EndOfMembership::Replaced("fenced".into())));
    }

    /// Adds `count` good events to the partitions their keys belong to.
    pub(in crate::tests) fn send(&self, count: u64) {
        let partitions = i32::try_from(self.state().lanes.len()).expect("few");
        for n in 0..count {
            let (key, value) = event(n + 1_000_000 * self.len());
            let partition = fleetlog_event::partition_of(key.as_bytes(), partitions);
            self.send_raw(partition, Some(key.as_bytes()), &value);
        }
    }

    pub(in crate::tests) fn send_raw(&self, partition: i32, key: Option<&[u8]>, value: &[u8]) {
        let mut state = self.state();
        let lane = state.lanes.get_mut(&at(partition)).expect("a partition of the topic");
        lane.log.push(Record {
            offset: lane.end,
            timestamp: TimestampMs(lane.end),
            key: key.map(Bytes::copy_from_slice),
            value: Some(Bytes::copy_from_slice(value)),
            headers: Headers::pack([("sent-as", Some(lane.end.to_string().as_bytes()))]),
        });
        lane.end += 1;
        lane.end_told = false;
        drop(state);
        self.0.1.notify_all();
    }

    /// Adds markers until a partition ends there.
    pub(in crate::tests) fn mark_to(&self, partition: i32, end: i64) {
        let mut state = self.state();
        let lane = state.lanes.get_mut(&at(partition)).expect("a partition");
        (lane.end, lane.end_told) = (end, false);
    }

    /// Adds a transaction marker to every partition.
    pub(in crate::tests) fn mark(&self) {
        for lane in self.state().lanes.values_mut() {
            lane.end += 1;
            lane.end_told = false;
        }
        self.0.1.notify_all();
    }

    /// Retention removes all records below.
    pub(in crate::tests) fn remove_before(&self, partition: i32, low: i64) {
        self.state().lanes.get_mut(&at(partition)).expect("a partition").low = low;
    }

    /// All records of a partition.
    pub(in crate::tests) fn records(&self, partition: i32) -> Vec<Record> {
        self.state().lanes.get(&at(partition)).map(|lane| lane.log.clone()).unwrap_or_default()
    }

    fn low(&self, partition: i32) -> i64 {
        self.state().lanes[&at(partition)].low
    }

    pub(in crate::tests) fn len(&self) -> u64 {
        self.state().lanes.values().map(|lane| lane.log.len() as u64).sum()
    }

    fn now(&self) -> BTreeMap<LaneAt, LogNow> {
        let state = self.state();
        let partitions = i32::try_from(state.lanes.len()).expect("few");
        let now = |(at, lane): (&LaneAt, &FakeLane)| {
            let scope = LaneScope { topic: 0, log: LOG, partition: at.partition, partitions };
            (*at, LogNow { scope, low: lane.low, high: lane.end })
        };
        state.lanes.iter().map(now).collect()
    }
}

impl Intake for FakeGroup {
    fn poll(&mut self, timeout: Duration) -> Polled {
        let mut state = self.state();
        state.polls += 1;
        if let Some(told) = state.told.pop_front() {
            return told;
        }
        let tells_no_ends = state.tells_no_ends;
        for (at, lane) in &mut state.lanes {
            let Some(from) = lane.reading.filter(|_| !lane.paused) else { continue };
            if let Some(record) = lane.log.iter().find(|record| record.offset >= from) {
                lane.reading = Some(record.offset + 1);
                lane.position = lane.reading;
                let mut record = record.clone();
                if record.offset < lane.headers_from {
                    record.headers = Headers::UNREAD;
                }
                return Polled::Record(*at, record);
            }
            if !lane.end_told && !tells_no_ends {
                lane.end_told = true;
                lane.reading = Some(lane.end);
                lane.position = lane.reading;
                return Polled::End(at.partition);
            }
        }
        let waited = self.0.1.wait_timeout(state, timeout.min(Duration::from_millis(2)));
        drop(waited.expect("not poisoned"));
        Polled::Nothing
    }

    fn assign(&mut self, lanes: &[(LaneAt, Option<i64>)]) -> Result<(), Failure> {
        for (at, start) in lanes {
            let mut state = self.state();
            let lane = state.lanes.get_mut(at).expect("a lane of the topic");
            (lane.reading, lane.paused, lane.position, lane.end_told) =
                (*start, start.is_none(), None, false);
        }
        Ok(())
    }

    fn unassign(&mut self, lanes: &[LaneAt]) -> Result<(), Failure> {
        let mut state = self.state();
        for at in lanes {
            state.lanes.get_mut(at).expect("a lane of the topic").reading = None;
        }
        state.given_up.extend_from_slice(lanes);
        Ok(())
    }

    fn seek(&mut self, at: LaneAt, offset: i64) -> Result<(), Failure> {
        let mut state = self.state();
        let lane = state.lanes.get_mut(&at).expect("a lane of the topic");
        (lane.reading, lane.paused, lane.position, lane.end_told) = (Some(offset), false, None, false);
        Ok(())
    }

    fn read_headers_from(&mut self, at: LaneAt, offset: i64) {
        self.state().lanes.get_mut(&at).expect("a lane of the topic").headers_from = offset;
    }

    fn pause(&mut self, at: LaneAt) {
        let mut state = self.state();
        state.pauses += 1;
        state.lanes.get_mut(&at).expect("a lane of the topic").paused = true;
    }

    fn on_readable(&mut self, _: Box<dyn Fn() + Send + Sync>) {}

    fn position(&mut self, at: LaneAt) -> Option<i64> {
        self.state().lanes[&at].position
    }

    fn commit(&mut self, offsets: &[(LaneAt, i64)]) {
        self.state().commits.extend_from_slice(offsets);
    }

    fn commit_and_wait(&mut self, _: &[(LaneAt, i64)]) -> Result<(), CommitError> {
        self.state().verdicts.pop_front().unwrap_or(Ok(()))
    }
}

impl Membership for FakeGroup {
    type Intake = Self;

    fn join(&self) -> Result<Self, Failure> {
        let mut state = self.state();
        state.joins += 1;
        let is_first = state.joins == 1;
        drop(state);
        if !is_first {
            self.assign_all();
        }
        Ok(self.clone())
    }

    fn name(&self) -> String {
        "me".to_owned()
    }

    fn group(&self) -> BoxFuture<'_, Result<GroupFacts, Failure>> {
        let mut state = self.state();
        let is_held = state.held_for > 0;
        state.held_for = state.held_for.saturating_sub(1);
        let has = |at: &LaneAt| state.nobodys.is_none_or(|partition| partition != at.partition);
        let assignment = state.lanes.keys().filter(|at| has(at)).map(|at| ("robot".to_owned(), at.partition));
        let me = GroupMember {
            id: "somebody".to_owned(),
            instance: (is_held || state.nobodys.is_some()).then(|| "me".to_owned()),
            client: "fleetlog".to_owned(),
            host: "there".to_owned(),
            assignment: assignment.collect(),
        };
        let facts = GroupFacts { is_stable: true, members: vec![me], ..GroupFacts::default() };
        async move { Ok(facts) }.boxed()
    }

    fn nudge(&self) -> BoxFuture<'_, Result<(), Failure>> {
        let mut state = self.state();
        state.nudges += 1;
        let lane = state.nobodys.take().map(at);
        drop(state);
        self.tell(Polled::Rebalance(RebalanceEvent::Assigned(lane.into_iter().collect())));
        async { Ok(()) }.boxed()
    }

    fn look_interval(&self) -> Duration {
        Duration::from_millis(5)
    }

    fn ghost_timeout(&self) -> Duration {
        Duration::from_millis(100)
    }
}

impl Logs for FakeGroup {
    fn look<'a>(&'a self, topics: &'a [String]) -> BoxFuture<'a, Result<LogFacts, Failure>> {
        let now =
            self.now().into_iter().map(|(at, log)| ((topics[at.topic].clone(), at.partition), log)).collect();
        async { Ok(now) }.boxed()
    }

    fn committed<'a>(&'a self, _: &'a str, _: &'a [String]) -> BoxFuture<'a, Result<GroupOffsets, Failure>> {
        async { Ok(GroupOffsets::new()) }.boxed()
    }

    fn search(&self, part: LogPart, keys: Arc<HashSet<Bytes>>) -> Receiver<Result<Piece, Failure>> {
        self.state().searches += 1;
        let mut from = part.from.max(self.low(part.partition));
        let (sender, pieces) = tokio::sync::mpsc::channel(1);
        let is_wanted = |record: &Record| {
            (from..part.to).contains(&record.offset)
                && record.key.as_ref().is_some_and(|key| keys.contains(key))
        };
        let records: Vec<Record> = self.records(part.partition).into_iter().filter(is_wanted).collect();
        tokio::spawn(async move {
            for records in records.chunks(3) {
                let next = records.last().map_or(from, |last| last.offset + 1);
                drop(sender.send(Ok(Piece { from, records: records.to_vec(), next })).await);
                from = next;
            }
            drop(sender.send(Ok(Piece { from, records: Vec::new(), next: part.to })).await);
        });
        pieces
    }
}
