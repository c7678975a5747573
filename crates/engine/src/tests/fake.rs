//! A log, a group, a store and dead letters that do what a test tells them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetlog_codec::{Decoder, Encoder, NoSource};
use fleetlog_event::{
    Event as _, EventId, EventMeta, LogId, Position, Recorded, Reject, TimestampMs,
    catalogue::Catalogue,
    robot::{Connected, RobotEvent},
};
use fleetlog_kafka::{GroupFacts, GroupMember, KafkaSettings};
use fleetlog_projection::{
    Commit, Headers, LaneId, LaneScope, LogNow, Map, MapProjector, MemorySink, Record, Sink, SinkError,
    Stored, UnitOfWork,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use crate::{
    CommitError, DeadLetter, End, EndOfMembership, EngineConfig, Failure, Intake, LaneAt, Polled,
    ProjectionRunner, ProjectionRuntime, RebalanceEvent, RunnerParts, StatusSnapshot,
    membership::Membership,
    metrics::EngineMetrics,
    ports::{DeadLetters, LogFacts, Logs, Schemas},
    runner::StatusHandle,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const LOG: LogId = LogId(uuid::Uuid::from_u128(0xf1ee7));

pub(super) fn at(partition: i32) -> LaneAt {
    LaneAt { topic: 0, partition }
}

/// Where each event lies.
pub(super) struct Places;

impl MapProjector for Places {
    const ID: &'static str = "places";
    type Event = RobotEvent;
    type Write = Position;

    fn map(&self, event: &Recorded<RobotEvent>, out: &mut Vec<Position>) -> Result<(), Reject> {
        out.push(event.position);
        Ok(())
    }
}

#[derive(Default)]
struct FakeLane {
    log: Vec<Record>,
    /// Past the last record: where markers end.
    end: i64,
    low: i64,
    reading: Option<i64>,
    paused: bool,
    position: Option<i64>,
    end_told: bool,
}

#[derive(Default)]
pub(super) struct GroupState {
    lanes: BTreeMap<LaneAt, FakeLane>,
    pub(super) told: VecDeque<Polled>,
    pub(super) verdicts: VecDeque<Result<(), CommitError>>,
    pub(super) commits: Vec<(LaneAt, i64)>,
    pub(super) given_up: Vec<LaneAt>,
    pub(super) pauses: u64,
    pub(super) polls: u64,
    pub(super) joins: u64,
    pub(super) nudges: u64,
    /// The partition that nobody has.
    nobodys: Option<i32>,
    held_for: u64,
}

/// The cluster as one member sees it; clones share it.
#[derive(Clone, Default)]
pub(super) struct FakeGroup(Arc<(Mutex<GroupState>, Condvar)>);

impl FakeGroup {
    /// A topic of `partitions` partitions, all of them assigned to the member.
    pub(super) fn new(partitions: i32) -> Self {
        let group = Self::default();
        for partition in 0..partitions {
            group.state().lanes.insert(at(partition), FakeLane::default());
        }
        group.assign_all();
        group
    }

    pub(super) fn state(&self) -> MutexGuard<'_, GroupState> {
        self.0.0.lock().expect("not poisoned")
    }

    pub(super) fn tell(&self, polled: Polled) {
        self.state().told.push_back(polled);
        self.0.1.notify_all();
    }

    pub(super) fn assign_all(&self) {
        let lanes = self.state().lanes.keys().copied().collect();
        self.tell(Polled::Rebalance(RebalanceEvent::Assigned(lanes)));
    }

    pub(super) fn revoke_all(&self, lost: bool) {
        let lanes = self.state().lanes.keys().copied().collect();
        self.tell(Polled::Rebalance(RebalanceEvent::Revoked { lanes, lost }));
    }

    pub(super) fn end_membership(&self, what: &str) {
        self.tell(Polled::Over(EndOfMembership::Failed(Failure::permanent(what))));
    }

    /// A member that had a partition is gone, and nobody was given it.
    pub(super) fn orphan(&self, partition: i32) {
        self.state().nobodys = Some(partition);
        self.tell(Polled::Rebalance(RebalanceEvent::Revoked { lanes: vec![at(partition)], lost: false }));
    }

    /// Somebody joins under the member's name, and has it until `holder` is asked for as often as `asked`.
    pub(super) fn replace(&self, asked: u64) {
        self.state().held_for = asked;
        self.tell(Polled::Over(EndOfMembership::Replaced("fenced".into())));
    }

    /// Adds `count` good events to the partitions their keys belong to.
    pub(super) fn send(&self, count: u64) {
        let partitions = i32::try_from(self.state().lanes.len()).expect("few");
        for n in 0..count {
            let (key, value) = event(n + 1_000_000 * self.len());
            let partition = fleetlog_event::partition_of(key.as_bytes(), partitions);
            self.send_raw(partition, Some(key.as_bytes()), &value);
        }
    }

    pub(super) fn send_raw(&self, partition: i32, key: Option<&[u8]>, value: &[u8]) {
        let mut state = self.state();
        let lane = state.lanes.get_mut(&at(partition)).expect("a partition of the topic");
        lane.log.push(Record {
            offset: lane.end,
            timestamp: TimestampMs(lane.end),
            key: key.map(Bytes::copy_from_slice),
            value: Some(Bytes::copy_from_slice(value)),
            headers: Headers::default(),
        });
        lane.end += 1;
        lane.end_told = false;
        drop(state);
        self.0.1.notify_all();
    }

    /// Adds a transaction marker to every partition.
    pub(super) fn mark(&self) {
        for lane in self.state().lanes.values_mut() {
            lane.end += 1;
            lane.end_told = false;
        }
        self.0.1.notify_all();
    }

    /// Retention removes all records below.
    pub(super) fn remove_before(&self, partition: i32, low: i64) {
        self.state().lanes.get_mut(&at(partition)).expect("a partition").low = low;
    }

    pub(super) fn len(&self) -> u64 {
        self.state().lanes.values().map(|lane| lane.log.len() as u64).sum()
    }

    fn now(&self) -> BTreeMap<LaneAt, LogNow> {
        let state = self.state();
        let partitions = i32::try_from(state.lanes.len()).expect("few");
        let now = |(at, lane): (&LaneAt, &FakeLane)| {
            let scope = LaneScope { log: LOG, partition: at.partition, partitions };
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
        for (at, lane) in &mut state.lanes {
            let Some(from) = lane.reading.filter(|_| !lane.paused) else { continue };
            if let Some(record) = lane.log.iter().find(|record| record.offset >= from) {
                lane.reading = Some(record.offset + 1);
                lane.position = lane.reading;
                return Polled::Record(*at, record.clone());
            }
            if !lane.end_told {
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

    fn pause(&mut self, at: LaneAt) {
        let mut state = self.state();
        state.pauses += 1;
        state.lanes.get_mut(&at).expect("a lane of the topic").paused = true;
    }

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
            host: "there".to_owned(),
            assignment: assignment.collect(),
        };
        let facts = GroupFacts { is_stable: state.nobodys.is_some(), members: vec![me] };
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
}

pub(crate) fn event(n: u64) -> (String, Vec<u8>) {
    let meta = EventMeta {
        event_id: EventId::derived(&n.to_string(), 0),
        occurred_at: TimestampMs(0),
        recorded_at: TimestampMs(1),
        site_uid: "1".into(),
        unit_uid: Some((n % 50).to_string()),
        sequence: None,
        sequence_scope: None,
        source: "test/1".into(),
        correlation_id: None,
        causation_id: None,
    };
    let event = Connected { meta, protocol: None };
    let mut value = Vec::new();
    Encoder::single_object().encode(&event, &mut value).expect("encodes");
    (event.entity().to_string(), value)
}

/// A switch with a count of how often it was met.
#[derive(Debug, Default)]
pub(super) struct Switch {
    pub(super) on: AtomicBool,
    pub(super) met: AtomicU64,
}

impl Switch {
    pub(super) fn set(&self, on: bool) {
        self.on.store(on, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        let on = self.on.load(Ordering::SeqCst);
        if on {
            self.met.fetch_add(1, Ordering::SeqCst);
        }
        on
    }

    pub(super) fn met(&self) -> u64 {
        self.met.load(Ordering::SeqCst)
    }
}

/// A store in memory whose commits can hang for ever, after they were carried out.
#[derive(Clone)]
pub(super) struct HangingSink {
    pub(super) inner: MemorySink<Position>,
    pub(super) hang: Arc<Switch>,
}

impl Sink for HangingSink {
    type Write = Position;

    async fn check(&self) -> Result<(), SinkError> {
        Ok(())
    }
    async fn read(&self, lane: &LaneId, homes: &[String]) -> Result<Stored, SinkError> {
        self.inner.read(lane, homes).await
    }
    async fn commit(&self, unit: &UnitOfWork<Position>) -> Result<Commit, SinkError> {
        let outcome = self.inner.commit(unit).await;
        if self.hang.is_on() {
            std::future::pending::<()>().await;
        }
        outcome
    }
}

/// Dead letters kept in memory; acknowledging can fail.
#[derive(Default)]
pub(super) struct FakeDeadLetters {
    pub(super) letters: Mutex<Vec<DeadLetter>>,
    pub(super) failing: Switch,
}

impl DeadLetters for FakeDeadLetters {
    fn publish<'a>(&'a self, letters: &'a [DeadLetter]) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            if self.failing.is_on() {
                return Err(Failure::transient("broker away"));
            }
            self.letters.lock().expect("not poisoned").extend_from_slice(letters);
            Ok(())
        }
        .boxed()
    }
}

/// The real decoder, which can be cut off from its schemas.
pub(super) struct FakeSchemas {
    decoder: Decoder,
    pub(super) away: Arc<Switch>,
}

impl Schemas for FakeSchemas {
    type Decode = fleetlog_codec::Prepared;

    async fn prepare(&self, records: &[&Record]) -> Result<Self::Decode, Failure> {
        if self.away.is_on() {
            return Err(Failure::transient("registry away"));
        }
        Schemas::prepare(&self.decoder, records).await
    }

    fn event_id(&self, payload: Option<&[u8]>) -> Option<EventId> {
        Schemas::event_id(&self.decoder, payload)
    }
}

/// A projection at work on a fake cluster.
pub(super) struct World {
    pub(super) group: FakeGroup,
    pub(super) sink: HangingSink,
    pub(super) dead_letters: Arc<FakeDeadLetters>,
    pub(super) schemas_away: Arc<Switch>,
    status: StatusHandle,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<End>,
}

/// Settings with short pauses.
pub(super) fn quick() -> EngineConfig {
    EngineConfig {
        retry_delay_ms: 1,
        retry_delay_ms_max: 5,
        idle_interval_ms: 20,
        assign_wait_ms: 50,
        offset_commit_interval_ms: 10,
        full_wait_ms: 10,
        drain_deadline_ms: 2_000,
        ..EngineConfig::default()
    }
}

impl World {
    pub(super) fn start(group: FakeGroup, config: EngineConfig) -> Self {
        let sink = HangingSink { inner: MemorySink::new(), hang: Arc::default() };
        Self::start_with(group, config, sink)
    }

    pub(super) fn start_with(group: FakeGroup, config: EngineConfig, sink: HangingSink) -> Self {
        let dead_letters = Arc::<FakeDeadLetters>::default();
        let schemas_away = Arc::<Switch>::default();
        let runner = ProjectionRunner::new(RunnerParts {
            projection: Map(Places),
            sink: sink.clone(),
            schemas: FakeSchemas {
                decoder: Decoder::new(Arc::new(NoSource)),
                away: Arc::clone(&schemas_away),
            },
            dead_letters: Arc::clone(&dead_letters) as Arc<dyn DeadLetters>,
            logs: Arc::new(group.clone()),
            kafka: KafkaSettings::default(),
            catalogue: Arc::new(Catalogue::builtin()),
            config,
            metrics: EngineMetrics::register(&prometheus::Registry::new()).expect("a new registry"),
            runtime: ProjectionRuntime::new("places", 2).expect("threads"),
        })
        .expect("good settings");
        let (status, stop) = (runner.status(), CancellationToken::new());
        let (stopped, membership) = (stop.clone(), group.clone());
        let ended = tokio::spawn(async move { runner.drive(&membership, None, &stopped).await });
        Self { group, sink, dead_letters, schemas_away, status, stop, ended }
    }

    pub(super) fn rows(&self) -> u64 {
        self.sink.inner.rows().len() as u64
    }

    pub(super) fn letters(&self) -> usize {
        self.dead_letters.letters.lock().expect("not poisoned").len()
    }

    pub(super) fn status(&self) -> StatusSnapshot {
        self.status.snapshot()
    }

    /// Waits until every event of the log is a row, each once.
    pub(super) async fn until_all(&self) {
        until("every event", || self.rows() >= self.group.len()).await;
        assert_eq!(self.rows(), self.group.len());
    }

    pub(super) async fn stop(self) -> End {
        self.stop.cancel();
        self.end().await
    }

    pub(super) async fn end(self) -> End {
        tokio::time::timeout(PATIENCE, self.ended).await.expect("ends in time").expect("no panic")
    }
}

pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
