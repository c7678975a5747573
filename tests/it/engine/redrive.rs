//! Commands by a real inbox: what a projector rejected comes in after all, under load, with members that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use fleetlog_engine::{EngineConfig, RunMode};
use fleetlog_event::{EntityKey, LogId, Reason, Recorded, Reject, catalogue::Catalogue, robot::RobotEvent};
use fleetlog_kafka::{HeaderName, OwnedRecord, native_headers};
use fleetlog_projection::{
    Act, Command, EntryState, Fold, FoldProjector, Headers, HotWrite, LaneId, MemorySink, Record, inbox_name,
};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::support::{Fleet, PATIENCE, Running, until};

/// The offsets of a unit's events; until it is fixed, every fifth of the log is rejected.
#[derive(Clone, Default)]
struct Fixable(Arc<AtomicBool>);

impl FoldProjector for Fixable {
    const ID: &'static str = "fixable";
    type Event = RobotEvent;
    type Write = HotWrite;
    type State = Vec<i64>;

    fn home(&self, key: &EntityKey) -> String {
        format!("fixable:{key}")
    }
    fn apply(&self, state: &mut Vec<i64>, event: &Recorded<RobotEvent>) -> Result<(), Reject> {
        if event.position.offset % 5 == 4 && !self.0.load(Ordering::SeqCst) {
            return Err(Reject::new(Reason::ImpossibleTransition, "the fifth"));
        }
        state.push(event.position.offset);
        Ok(())
    }
    fn writes(&self, _: &EntityKey, state: &Vec<i64>, out: &mut Vec<HotWrite>) {
        out.push(HotWrite::field("count", state.len().to_string()));
    }
}

/// A projection with an inbox, and who sends to it.
struct World {
    fleet: Arc<Fleet>,
    sink: MemorySink<HotWrite>,
    projector: Fixable,
    inbox: String,
    log: LogId,
    producer: BaseProducer,
}

impl World {
    async fn new(label: &str) -> Self {
        let fleet = Arc::new(Fleet::on_stack(label).await);
        let group = format!("{}fleetlog-fixable-v1", fleet.settings.topic_prefix);
        let inbox = inbox_name(&group, "robot");
        let spec = Catalogue::builtin().topic("robot").unwrap().inbox(inbox.clone(), Some(1)).unwrap();
        fleet.create_topics(&[spec]).await;
        let ids = fleet.admin().topic_ids(&[&fleet.robot()]).await.unwrap();
        let producer = fleet.settings.producer().create().unwrap();
        Self {
            sink: MemorySink::new(),
            projector: Fixable::default(),
            inbox,
            log: ids[&fleet.robot()],
            producer,
            fleet,
        }
    }

    fn run(&self, instance: &str) -> Running {
        let config = EngineConfig {
            instance: instance.into(),
            offset_commit_interval_ms: 50,
            ..EngineConfig::default()
        };
        self.fleet.run(Fold::new(self.projector.clone()), self.sink.clone(), config, RunMode::Continuous)
    }

    fn lane(&self, partition: i32) -> LaneId {
        LaneId { projection: "fixable".into(), version: 1, topic: self.fleet.robot(), partition }
    }

    fn send(&self, partition: i32, act: Act) {
        let command = Command { job: "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b11".into(), log: self.log, act };
        let written = command.write();
        let headers: Vec<(HeaderName, Option<Bytes>)> =
            written.headers.into_iter().map(|(name, value)| (name.as_ref().into(), value)).collect();
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.inbox)
            .partition(partition)
            .headers(native_headers(&headers).unwrap_or_default());
        record.key = written.key.as_deref();
        record.payload = written.value.as_deref();
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    fn redrive(&self, record: &OwnedRecord) {
        let headers = record.headers.iter().map(|(name, value)| (name, value.as_deref()));
        let record_of = Record {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: Headers::pack(headers),
        };
        self.send(record.partition, Act::Redrive { record: record_of, replays_max: 3 });
    }

    /// Every event that was sent is taken or set aside.
    async fn until_all(&self) {
        let sent = self.fleet.sent();
        let taken = || {
            let lanes = (0..6).map(|partition| self.sink.lane(&self.lane(partition)));
            lanes.filter_map(|lane| lane.progress).map(|progress| progress.main.cast_unsigned()).sum::<u64>()
        };
        until("all events", || taken() >= sent).await;
    }

    async fn log(&self) -> BTreeMap<(i32, i64), OwnedRecord> {
        let records = self.fleet.read_all(&self.fleet.robot()).await;
        records.into_iter().map(|record| ((record.partition, record.offset), record)).collect()
    }

    /// Every state is the fold of the log without what the ledger says was not taken.
    async fn assert_folded(&self) {
        let mut expected: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for ((partition, offset), record) in self.log().await {
            let ledger = self.sink.lane(&self.lane(partition)).ledger;
            if ledger.get(&offset).is_none_or(|entry| entry.state.is_taken()) {
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                expected.entry(format!("fixable:{key}")).or_default().push(offset);
            }
        }
        let states = self.sink.entities().into_iter();
        let found: BTreeMap<String, Vec<i64>> =
            states.map(|(home, entity)| (home, serde_json::from_slice(&entity.state).unwrap())).collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_is_redriven_under_load_while_members_come_and_go() {
    let world = World::new("redrive").await;
    world.fleet.connect(3_000, 40);
    let first = world.run("a");
    world.until_all().await;
    world.assert_folded().await;
    world.projector.0.store(true, Ordering::SeqCst);
    let aside: Vec<OwnedRecord> = world.log().await.into_values().filter(|r| r.offset % 5 == 4).collect();
    assert!(aside.len() > 500, "{}", aside.len());
    let second = world.run("b");
    for (round, some) in aside.chunks(100).enumerate() {
        // Each twice, and live events between them.
        some.iter().chain(some).for_each(|record| world.redrive(record));
        world.fleet.connect(300, 40);
        if round == 1 {
            until("both have lanes", || !second.status.snapshot().lanes.is_empty()).await;
        }
    }
    world.producer.flush(PATIENCE).unwrap();
    // One of the two goes in the middle of it; the other takes over.
    first.stop.cancel();
    first.end().await;
    world.until_all().await;
    let open = || {
        let lanes = (0..6).map(|partition| world.sink.lane(&world.lane(partition)).ledger);
        lanes.flat_map(BTreeMap::into_values).filter(|entry| entry.state == EntryState::Open).count()
    };
    until("all are redriven", || open() == 0).await;
    world.assert_folded().await;
    let revisions: BTreeSet<u32> =
        world.sink.entities().values().map(|entity| entity.version.revision).collect();
    assert!(revisions.iter().any(|revision| *revision > 0), "{revisions:?}");
    second.stop.cancel();
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_is_folded_anew_and_one_that_nobody_knows_is_no_trouble() {
    let world = World::new("anew").await;
    world.fleet.connect(600, 20);
    let running = world.run("a");
    world.until_all().await;
    let (_, record) = world.log().await.into_iter().next().unwrap();
    let key = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
    world.send(record.partition, Act::FoldAnew { key: "nobody".into() });
    world.send(record.partition, Act::FoldAnew { key: key.as_str().into() });
    world.producer.flush(PATIENCE).unwrap();
    let home = format!("fixable:{key}");
    until("folded anew", || world.sink.entity(&home).is_some_and(|entity| entity.version.revision == 1))
        .await;
    world.fleet.connect(600, 20);
    world.until_all().await;
    world.assert_folded().await;
    running.stop.cancel();
    running.end().await;
}
