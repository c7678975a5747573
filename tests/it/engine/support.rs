//! A fleet's log on the stack's Kafka, runners over a store in memory, and what came of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetlog_codec::{Decoder, Encoder, NoSource};
use fleetlog_engine::{
    DeadLetter, EngineConfig, Failure, KafkaInbox, KafkaLogs, Outcome, ProjectionRunner, ProjectionRuntime,
    RunMode, RunnerParts, StatusHandle, StatusSnapshot, metrics::EngineMetrics, ports::DeadLetters,
};
use fleetlog_event::{
    EntityKey, Event, EventId, EventMeta, FleetEvent, Position, Recorded, Reject, TimestampMs,
    catalogue::{Catalogue, TopicSpec},
    robot::{Connected, RobotEvent},
    telemetry::Telemetry,
};
use fleetlog_kafka::{Admin, HeaderName, KafkaSettings, OwnedRecord, native_headers};
use fleetlog_projection::{Fold, FoldProjector, HotWrite, Map, MapProjector, MemorySink, Projection, Sink};
use fleetlog_testkit::{Stack, unique};
use futures_util::{FutureExt as _, future::BoxFuture};
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How many times each unit connected: a fold whose result shows every event that was lost or counted twice.
pub(crate) struct Connects;

impl FoldProjector for Connects {
    const ID: &'static str = "connects";
    type Event = RobotEvent;
    type Write = HotWrite;
    type State = u64;

    fn home(&self, key: &EntityKey) -> String {
        format!("connects:{key}")
    }
    fn apply(&self, connects: &mut u64, event: &Recorded<RobotEvent>) -> Result<(), Reject> {
        if let RobotEvent::Connected(connected) = &event.event
            && connected.protocol.as_deref() == Some("panic")
        {
            panic!("asked to panic");
        }
        *connects += 1;
        Ok(())
    }
    fn writes(&self, _: &EntityKey, connects: &u64, out: &mut Vec<HotWrite>) {
        out.push(HotWrite::field("connects", connects.to_string()));
    }
}

/// Where every event of every topic lies: a map over three topics.
pub(crate) struct Places;

impl MapProjector for Places {
    const ID: &'static str = "places";
    type Event = FleetEvent;
    type Write = (Position, EventId);

    fn map(&self, event: &Recorded<FleetEvent>, out: &mut Vec<Self::Write>) -> Result<(), Reject> {
        use fleetlog_event::EventSet as _;
        out.push((event.position, event.event.meta().event_id));
        Ok(())
    }
}

/// A fleet's log under a prefix of its own.
pub(crate) struct Fleet {
    pub(crate) settings: KafkaSettings,
    producer: BaseProducer,
    encoder: Encoder,
    next_id: AtomicU64,
}

impl Fleet {
    pub(crate) async fn on_stack(label: &str) -> Self {
        let settings = Stack::from_env().kafka(&unique(label));
        Self::new(KafkaSettings { replication: Some(1), ..settings }).await
    }

    pub(crate) async fn new(settings: KafkaSettings) -> Self {
        let fleet = Self {
            producer: settings.producer().create().unwrap(),
            encoder: Encoder::single_object(),
            next_id: AtomicU64::new(1),
            settings,
        };
        fleet.create_topics(&fleet.specs()).await;
        fleet
    }

    pub(crate) fn specs(&self) -> Vec<TopicSpec> {
        Catalogue::builtin().expand(&self.settings.topic_prefix, Some(1))
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(&self.settings).unwrap()
    }

    pub(crate) async fn create_topics(&self, specs: &[TopicSpec]) {
        let admin = self.admin();
        let plan = admin.plan(specs).await.unwrap();
        admin.apply(&plan).await.unwrap();
    }

    pub(crate) fn robot(&self) -> String {
        self.settings.topic("robot")
    }

    /// The next `Connected` of a unit, with an id of its own.
    pub(crate) fn connected(&self, unit: u64) -> Connected {
        let n = self.next_id.fetch_add(1, Ordering::Relaxed);
        Connected { meta: meta(&unit.to_string(), n), protocol: None }
    }

    /// How many events this fleet has made.
    pub(crate) fn sent(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed) - 1
    }

    pub(crate) fn encode<E: Event>(&self, event: &E) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encoder.encode(event, &mut bytes).unwrap();
        bytes
    }

    /// Sends events of a topic as the producer crate does (key = entity, Java's partitioner), and flushes.
    pub(crate) fn send<E: Event>(&self, events: impl IntoIterator<Item = E>) {
        let topic = self.settings.topic(E::TOPIC);
        for event in events {
            let (key, value) = (event.entity(), self.encode(&event));
            let mut record = BaseRecord::to(&topic)
                .key(key.as_str())
                .payload(&value)
                .timestamp(event.meta().recorded_at.0)
                .headers(OwnedHeaders::new().insert(Header { key: "ce_type", value: Some(E::NAME) }));
            while let Err((_, again)) = self.producer.send(record) {
                self.producer.poll(Duration::from_millis(10));
                record = again;
            }
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    /// Sends `count` `Connected` spread over `units` units.
    pub(crate) fn connect(&self, count: u64, units: u64) {
        self.send((0..count).map(|n| self.connected(n % units)).collect::<Vec<_>>());
    }

    /// Sends raw bytes to a partition.
    pub(crate) fn send_raw(
        &self,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let topic = self.robot();
        let headers: Vec<(HeaderName, Option<Bytes>)> =
            headers.iter().map(|(name, value)| ((*name).into(), value.map(Bytes::copy_from_slice))).collect();
        let headers = native_headers(&headers).unwrap_or_default();
        let mut record = BaseRecord::<[u8], [u8]>::to(&topic).partition(partition).headers(headers);
        record.key = key;
        record.payload = value;
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(PATIENCE).unwrap();
    }

    /// Sends events in one transaction, which leaves a marker in each partition.
    pub(crate) fn transaction(&self, count: u64, units: u64, commit: bool) {
        let id = format!("{}tx", self.settings.topic_prefix);
        let producer: BaseProducer = self.settings.producer().set("transactional.id", id).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        let topic = self.robot();
        for n in 0..count {
            let event = self.connected(n % units);
            let (key, value) = (event.entity(), self.encode(&event));
            let record =
                BaseRecord::to(&topic).key(key.as_str()).payload(&value).timestamp(event.meta.recorded_at.0);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        if commit { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) }
            .unwrap();
    }

    /// Every record of a topic, up to its end now.
    pub(crate) async fn read_all(&self, topic: &str) -> Vec<OwnedRecord> {
        fleetlog_testkit::records(&self.settings, topic).await.unwrap()
    }

    pub(crate) fn parts<P, S>(
        &self,
        projection: P,
        sink: S,
        config: EngineConfig,
    ) -> RunnerParts<P, S, Decoder>
    where
        P: Projection,
    {
        RunnerParts {
            runtime: ProjectionRuntime::new(projection.id(), 2).unwrap(),
            projection,
            sink,
            schemas: Decoder::new(Arc::new(NoSource)),
            dead_letters: Arc::new(DirectDeadLetters::new(&self.settings)),
            logs: Arc::new(KafkaLogs::new(&self.settings).unwrap()),
            inbox: Arc::new(KafkaInbox::start(&self.settings).unwrap()),
            kafka: self.settings.clone(),
            catalogue: Arc::new(Catalogue::builtin()),
            config,
            metrics: EngineMetrics::register(&prometheus::Registry::new()).unwrap(),
        }
    }

    /// Runs the connects of every unit into `sink`, as the process `instance`.
    pub(crate) fn run_connects<S>(&self, sink: S, instance: &str, mode: RunMode) -> Running
    where
        S: Sink<Write = HotWrite>,
    {
        let config = EngineConfig { instance: instance.into(), ..EngineConfig::default() };
        self.run(Fold::new(Connects), sink, config, mode)
    }

    pub(crate) fn run<P, S>(&self, projection: P, sink: S, config: EngineConfig, mode: RunMode) -> Running
    where
        P: Projection,
        S: Sink<Write = P::Write>,
    {
        let runner = ProjectionRunner::new(self.parts(projection, sink, config)).unwrap();
        let (status, stop) = (runner.status(), CancellationToken::new());
        let stopped = stop.clone();
        let ended = tokio::spawn(async move { runner.run(mode, stopped).await });
        Running { status, stop, ended }
    }
}

pub(crate) fn places() -> Map<Places> {
    Map(Places)
}

/// Yesterday: topic `telemetry` forgets what is a week old.
static START_MS: LazyLock<i64> = LazyLock::new(|| jiff::Timestamp::now().as_millisecond() - 24 * 3_600_000);

pub(crate) fn meta(unit: &str, n: u64) -> EventMeta {
    EventMeta {
        event_id: EventId::derived("engine-test", u32::try_from(n).unwrap()),
        occurred_at: TimestampMs(*START_MS),
        recorded_at: TimestampMs(*START_MS + i64::try_from(n).unwrap()),
        site_uid: "504".into(),
        unit_uid: Some(unit.into()),
        sequence: None,
        sequence_scope: None,
        source: "engine-test/1".into(),
        correlation_id: None,
        causation_id: None,
    }
}

pub(crate) fn telemetry(meta: EventMeta) -> Telemetry {
    let minimal = serde_json::json!({ "meta": meta });
    serde_json::from_value(minimal).unwrap()
}

/// How many connects the store holds in all.
pub(crate) fn total(sink: &MemorySink<HotWrite>) -> u64 {
    sink.entities().values().map(|entity| serde_json::from_slice::<u64>(&entity.state).unwrap()).sum()
}

/// A runner at work.
pub(crate) struct Running {
    pub(crate) status: StatusHandle,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: JoinHandle<Outcome>,
}

impl Running {
    pub(crate) async fn stop(self) -> Outcome {
        self.stop.cancel();
        self.end().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn end(self) -> Outcome {
        tokio::time::timeout(PATIENCE, self.ended).await.expect("ends in time").unwrap()
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&StatusSnapshot) -> bool) {
        until(what, || holds(&self.status.snapshot())).await;
    }
}

/// Looks every few milliseconds until `holds`.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Dead letters by a producer of the test's own.
pub(crate) struct DirectDeadLetters {
    producer: FutureProducer,
}

impl DirectDeadLetters {
    pub(crate) fn new(settings: &KafkaSettings) -> Self {
        Self { producer: settings.producer().create().unwrap() }
    }
}

impl DeadLetters for DirectDeadLetters {
    fn publish<'a>(&'a self, letters: &'a [DeadLetter]) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            for letter in letters {
                let headers = native_headers(&letter.headers).unwrap_or_default();
                let mut record = FutureRecord::<[u8], [u8]>::to(&letter.topic).headers(headers);
                record.key = letter.key.as_deref();
                record.payload = letter.value.as_deref();
                let sent = self.producer.send_result(record).map_err(|(error, _)| error);
                let sent = sent.map_err(|error| Failure::transient(error.to_string()))?;
                match sent.await {
                    Ok(Ok(_)) => {}
                    Ok(Err((error, _))) => return Err(Failure::transient(error.to_string())),
                    Err(_) => return Err(Failure::transient("the producer went away")),
                }
            }
            Ok(())
        }
        .boxed()
    }
}

/// The headers of a record by name; of a repeated name the last.
pub(crate) fn headers(record: &OwnedRecord) -> BTreeMap<String, Bytes> {
    record.headers.iter().map(|(name, value)| (name.to_string(), value.clone().unwrap_or_default())).collect()
}
