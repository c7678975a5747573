//! A log, a group, a store and dead letters that do what a test tells them.

mod group;
mod inbox;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fleetlog_codec::{Decoder, Encoder, NoSource};
use fleetlog_event::{
    Event as _, EventId, EventMeta, LogId, Position, Recorded, Reject, TimestampMs,
    catalogue::Catalogue,
    robot::{Connected, RobotEvent},
};
use fleetlog_kafka::KafkaSettings;
use fleetlog_projection::{
    Commit, LaneId, LedgerEntry, Map, MapProjector, MemorySink, Record, Sink, SinkError, Stored, UnitOfWork,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use crate::{
    DeadLetter, End, EngineConfig, Failure, LaneAt, ProjectionRunner, ProjectionRuntime, RunnerParts,
    StatusSnapshot,
    metrics::EngineMetrics,
    ports::{DeadLetters, Schemas},
    runner::StatusHandle,
};
pub(super) use group::{FakeGroup, LOG};
pub(super) use inbox::FakeInbox;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

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

    pub(super) fn is_on(&self) -> bool {
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
    pub(super) write_interval: Duration,
}

impl HangingSink {
    pub(super) fn new() -> Self {
        Self { inner: MemorySink::new(), hang: Arc::default(), write_interval: Duration::ZERO }
    }

    /// How many writes were taken.
    pub(super) fn writes(&self, lane: &LaneId) -> u64 {
        let link = self.inner.lane(lane).link.expect("wrote").to_string();
        link.split('.').nth(1).and_then(|text| text.parse().ok()).expect("nonce.counter.part")
    }
}

impl Sink for HangingSink {
    type Write = Position;
    const IN_PARTS: bool = false;

    fn write_interval(&self) -> Duration {
        self.write_interval
    }

    async fn check(&self) -> Result<(), SinkError> {
        Ok(())
    }
    async fn read(&self, lane: &LaneId, homes: &[String]) -> Result<Stored, SinkError> {
        self.inner.read(lane, homes).await
    }
    async fn entries(
        &self,
        lane: &LaneId,
        log: LogId,
        offsets: &[i64],
    ) -> Result<BTreeMap<i64, LedgerEntry>, SinkError> {
        self.inner.entries(lane, log, offsets).await
    }
    async fn not_taken(
        &self,
        lane: &LaneId,
        log: LogId,
        range: Range<i64>,
    ) -> Result<BTreeSet<i64>, SinkError> {
        self.inner.not_taken(lane, log, range).await
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
    pub(super) inbox: FakeInbox,
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
        hold_ms_max: 0,
        assign_wait_ms: 50,
        offset_commit_interval_ms: 10,
        full_wait_ms: 10,
        drain_deadline_ms: 2_000,
        ..EngineConfig::default()
    }
}

impl World {
    pub(super) fn start(group: FakeGroup, config: EngineConfig) -> Self {
        let sink = HangingSink::new();
        Self::start_with(group, config, sink)
    }

    pub(super) fn start_with(group: FakeGroup, config: EngineConfig, sink: HangingSink) -> Self {
        let dead_letters = Arc::<FakeDeadLetters>::default();
        let schemas_away = Arc::<Switch>::default();
        let inbox = FakeInbox::default();
        let runner = ProjectionRunner::new(RunnerParts {
            projection: Map(Places),
            sink: sink.clone(),
            schemas: FakeSchemas {
                decoder: Decoder::new(Arc::new(NoSource)),
                away: Arc::clone(&schemas_away),
            },
            dead_letters: Arc::clone(&dead_letters) as Arc<dyn DeadLetters>,
            logs: Arc::new(group.clone()),
            inbox: Arc::new(inbox.clone()),
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
        Self { group, sink, dead_letters, schemas_away, inbox, status, stop, ended }
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

    /// Waits until lane 0 is past the command that lies there in its inbox.
    pub(super) async fn until_carried_out(&self, at: i64) {
        let inbox = || self.sink.inner.lane(&super::lane(0)).progress.map_or(0, |progress| progress.inbox);
        until("the command", || inbox() > at).await;
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
