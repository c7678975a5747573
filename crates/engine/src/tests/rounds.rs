//! Folds whose states are more than one write carries, and lanes that are behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fleetlog_codec::{Decoder, NoSource};
use fleetlog_event::{EntityKey, LogId, Reason, Recorded, Reject, catalogue::Catalogue, robot::RobotEvent};
use fleetlog_kafka::KafkaSettings;
use fleetlog_projection::{
    Commit, Fold, FoldProjector, HotWrite, LaneId, LedgerEntry, MemorySink, Sink, SinkError, Stored,
    UnitOfWork,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio_util::sync::CancellationToken;

use super::fake::{FakeDeadLetters, FakeGroup, FakeInbox, HangingSink, World, quick, until};
use crate::{End, EngineConfig, ProjectionRunner, ProjectionRuntime, RunnerParts, metrics::EngineMetrics};

const LOSSES: usize = 8;

/// The offsets of a unit's events, every eleventh of the log rejected after it has spoilt the state.
struct Offsets;

/// The offsets, and padding so that few states fill a write.
type State = (Vec<i64>, String);

fn is_rejected(offset: i64) -> bool {
    offset % 11 == 10
}

impl FoldProjector for Offsets {
    const ID: &'static str = "offsets";
    type Event = RobotEvent;
    type Write = HotWrite;
    type State = State;

    fn home(&self, key: &EntityKey) -> String {
        key.as_str().to_owned()
    }
    fn apply(&self, state: &mut State, event: &Recorded<RobotEvent>) -> Result<(), Reject> {
        state.0.push(event.position.offset);
        state.1 = "x".repeat(4000);
        if is_rejected(event.position.offset) {
            return Err(Reject::new(Reason::ImpossibleTransition, "the eleventh"));
        }
        Ok(())
    }
    fn writes(&self, _: &EntityKey, state: &State, out: &mut Vec<HotWrite>) {
        out.push(HotWrite::field("count", state.0.len().to_string()));
    }
}

/// A store in memory that looks at what it is given.
#[derive(Clone)]
struct Watched {
    inner: MemorySink<HotWrite>,
    log: FakeGroup,
    /// Commits that wrote states and left progress where it was.
    pieces: Arc<Mutex<usize>>,
}

impl Sink for Watched {
    type Write = HotWrite;
    const IN_PARTS: bool = true;

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
    /// Nothing is past its set-asides: what an entity covers is in its state, in the ledger, or set aside with it.
    async fn commit(&self, unit: &UnitOfWork<HotWrite>) -> Result<Commit, SinkError> {
        let view = self.inner.lane(&unit.lane);
        // A commit that follows anything else is fenced, or was begun before.
        for entity in unit.entities.iter().filter(|_| view.link == unit.follows) {
            let (offsets, _): State = serde_json::from_slice(&entity.state).expect("a state");
            let of_entity = |record: &&fleetlog_projection::Record| {
                record.key_text() == Some(entity.key.as_str()) && record.offset < entity.version.next
            };
            for record in self.log.records(unit.lane.partition).iter().filter(of_entity) {
                let aside = view.ledger.contains_key(&record.offset)
                    || unit.set_aside.iter().any(|aside| aside.record.offset == record.offset);
                assert_eq!(is_rejected(record.offset), aside, "{} of {}", record.offset, entity.home);
                assert_eq!(offsets.contains(&record.offset), !aside, "{} of {}", record.offset, entity.home);
            }
        }
        let before = view.progress.map_or(0, |progress| progress.main);
        let outcome = self.inner.commit(unit).await;
        if outcome.is_ok() && !unit.entities.is_empty() && unit.progress.main == before {
            *self.pieces.lock().expect("not poisoned") += 1;
        }
        outcome
    }
}

fn start(group: &FakeGroup, sink: &Watched, stop: &CancellationToken) -> tokio::task::JoinHandle<End> {
    // A piece holds some twenty of the fifty states.
    let config = EngineConfig { memory_bytes_max: 4 << 20, batch_bytes_max: 64 << 10, ..quick() };
    let runner = ProjectionRunner::new(RunnerParts {
        projection: Fold::new(Offsets),
        sink: sink.clone(),
        schemas: Decoder::new(Arc::new(NoSource)),
        dead_letters: Arc::new(FakeDeadLetters::default()),
        logs: Arc::new(group.clone()),
        inbox: Arc::new(FakeInbox::default()),
        kafka: KafkaSettings::default(),
        catalogue: Arc::new(Catalogue::builtin()),
        config,
        metrics: EngineMetrics::register(&prometheus::Registry::new()).expect("a new registry"),
        runtime: ProjectionRuntime::new("offsets", 2).expect("threads"),
    })
    .expect("good settings");
    let (stopped, membership) = (stop.clone(), group.clone());
    tokio::spawn(async move { runner.drive(&membership, None, &stopped).await })
}

/// The states that have to be there.
fn assert_all(sink: &Watched, group: &FakeGroup, lane: &LaneId) {
    let view = sink.inner.lane(lane);
    let log = group.records(0);
    let rejected: Vec<i64> = log.iter().map(|record| record.offset).filter(|at| is_rejected(*at)).collect();
    assert_eq!(view.ledger.keys().copied().collect::<Vec<_>>(), rejected);
    for (home, entity) in sink.inner.entities() {
        let of_entity =
            log.iter().filter(|record| record.key_text() == Some(&home)).map(|record| record.offset);
        let expected: Vec<i64> = of_entity.filter(|offset| !is_rejected(*offset)).collect();
        let (offsets, _): State = serde_json::from_slice(&entity.state).expect("a state");
        assert_eq!(offsets, expected, "{home}");
    }
}

#[tokio::test]
async fn given_more_states_than_a_write_carries_they_go_in_pieces_and_a_store_that_loses_any_of_them_is_right_again()
 {
    let (lane, mut all_pieces) = (LaneId { projection: "offsets".into(), ..super::lane(0) }, 0);
    for seed in 0..6 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (group, stop) = (FakeGroup::new(1), CancellationToken::new());
        let inner = MemorySink::with_history(8);
        let sink = Watched { inner, log: group.clone(), pieces: Arc::default() };
        let ended = start(&group, &sink, &stop);
        let is_done = || {
            let progress = sink.inner.lane(&lane).progress;
            progress.is_some_and(|progress| progress.main.unsigned_abs() == group.len())
        };
        let mut moments = vec![sink.inner.moment()];
        for _ in 0..LOSSES {
            group.send(200);
            let enough = sink.inner.calls() + rng.random_range(1..40);
            until("some steps", || sink.inner.calls() >= enough || is_done()).await;
            moments.push(sink.inner.moment());
            if rng.random_bool(0.7) {
                let back = rng.random_range(0..moments.len());
                sink.inner.lose_tail(moments[back]);
                moments.truncate(back);
                moments.push(sink.inner.moment());
            }
        }
        until("all of it", is_done).await;
        stop.cancel();
        assert_eq!(ended.await.expect("no panic"), End::Stopped, "seed {seed}");
        assert_all(&sink, &group, &lane);
        all_pieces += *sink.pieces.lock().expect("not poisoned");
    }
    assert!(all_pieces > 10, "{all_pieces} pieces");
}

#[tokio::test]
async fn given_a_lane_that_catches_up_its_writes_are_held_and_few_but_end_with_what_there_is_to_take() {
    // Records that lie there when it begins, in batches of a hundred or so.
    let config = EngineConfig { hold_ms_max: 60_000, catch_up_ms: 1, batch_bytes_max: 32 << 10, ..quick() };
    for tells_no_ends in [true, false] {
        let group = FakeGroup::new(1);
        group.state().tells_no_ends = tells_no_ends;
        group.send(5_000);
        let world = World::start(group, config.clone());
        world.until_all().await;
        let writes = world.sink.writes(&super::lane(0));
        assert!(writes <= 10, "{writes} of some fifty batches");
        assert_eq!(world.stop().await, End::Stopped);
    }
}

#[tokio::test]
async fn given_a_sink_whose_writes_keep_a_distance_the_first_goes_at_once_and_what_comes_meanwhile_together()
{
    let config = EngineConfig { batch_bytes_max: 32 << 10, ..quick() };
    let write_interval = Duration::from_millis(500);
    let (group, begun) = (FakeGroup::new(1), Instant::now());
    let world =
        World::start_with(group.clone(), config, HangingSink { write_interval, ..HangingSink::new() });
    group.send(1);
    world.until_all().await;
    let first = begun.elapsed();
    group.send(5_000);
    world.until_all().await;
    let writes = world.sink.writes(&super::lane(0));
    assert!(writes <= 3, "{writes} of some fifty batches");
    // From the beginning of the first write on, which was no earlier than the lane.
    assert!(begun.elapsed() >= write_interval, "{:?}, the first after {first:?}", begun.elapsed());
    assert_eq!(world.stop().await, End::Stopped);
}
