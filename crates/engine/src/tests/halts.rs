//! Breakers, halts and failures: who stands still, for how long, and how it goes on.

use std::sync::{Arc, Mutex};

use fleetlog_codec::{Decoder, NoSource};
use fleetlog_event::{
    catalogue::Catalogue,
    ops::{HaltCause, ProjectionHalted},
};
use fleetlog_kafka::KafkaSettings;
use fleetlog_projection::Map;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fake::{
    FakeDeadLetters, FakeGroup, FakeInbox, HangingSink, PATIENCE, Places, Switch, quick, until,
};
use crate::{
    End, EngineConfig, Failure, ProjectionRunner, ProjectionRuntime, RunMode, RunnerParts, StatusHandle,
    StatusSnapshot,
    metrics::EngineMetrics,
    ports::{Halts, Standing},
};

const GROUP: &str = "fleetlog-places-v1";

/// Halts kept in memory: what another process, an operator and a broker do is what a test says.
#[derive(Default)]
struct FakeHalts {
    standing: watch::Sender<Standing>,
    written: Mutex<Vec<ProjectionHalted>>,
    away: Switch,
    has_no_topic: Switch,
}

impl FakeHalts {
    fn halted_by_another(&self) {
        self.standing.send_modify(|standing| standing.halt = Some(halt()));
    }

    fn resume(&self, set_asides_max: u64) {
        self.standing.send_modify(|standing| {
            *standing = Standing { halt: None, resumes: standing.resumes + 1, set_asides_max };
        });
    }

    fn written(&self) -> Vec<ProjectionHalted> {
        self.written.lock().expect("not poisoned").clone()
    }
}

impl Halts for FakeHalts {
    fn current<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<Standing, Failure>> {
        assert_eq!(group, GROUP);
        let known = self.standing.borrow().clone();
        async move { if self.away.is_on() { Err(Failure::transient("broker away")) } else { Ok(known) } }
            .boxed()
    }

    fn changed<'a>(&'a self, _: &'a str, known: &'a Standing) -> BoxFuture<'a, Standing> {
        let mut standing = self.standing.subscribe();
        async move { standing.wait_for(|now| now != known).await.expect("the sender lives").clone() }.boxed()
    }

    fn halt<'a>(&'a self, halt: &'a ProjectionHalted) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            if self.has_no_topic.is_on() {
                return Err(Failure::permanent("no topic ops: fleetlog topics apply"));
            }
            if self.away.is_on() {
                return Err(Failure::transient("broker away"));
            }
            self.written.lock().expect("not poisoned").push(halt.clone());
            self.standing.send_modify(|standing| standing.halt = Some(halt.clone()));
            Ok(())
        }
        .boxed()
    }
}

fn halt() -> ProjectionHalted {
    let json = r#"{"group": "fleetlog-places-v1", "projection": "places", "version": 1, "why": "set_aside_ratio",
        "who": "another", "detail": "a flood elsewhere"}"#;
    let mut halt: serde_json::Value = serde_json::from_str(json).expect("JSON");
    halt["meta"] = serde_json::to_value(meta()).expect("JSON");
    serde_json::from_value(halt).expect("an event")
}

fn meta() -> fleetlog_event::EventMeta {
    let (_, value) = super::fake::event(1);
    let decoded = fleetlog_codec::frame::event_id(Some(&value)).expect("an event");
    fleetlog_event::EventMeta::of_ops(decoded, "test/1", fleetlog_event::TimestampMs(0))
}

/// A projection that knows of halts, at work on a fake cluster.
struct World {
    group: FakeGroup,
    sink: HangingSink,
    dead_letters: Arc<FakeDeadLetters>,
    halts: Arc<FakeHalts>,
    registry: prometheus::Registry,
    status: StatusHandle,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<End>,
}

impl World {
    fn start(group: FakeGroup, halts: Arc<FakeHalts>, mode: RunMode) -> Self {
        let config = EngineConfig { set_aside_in_a_row_max: 20, ..quick() };
        let (sink, dead_letters) = (HangingSink::new(), Arc::<FakeDeadLetters>::default());
        let registry = prometheus::Registry::new();
        let runner = ProjectionRunner::new(RunnerParts {
            projection: Map(Places),
            sink: sink.clone(),
            schemas: Decoder::new(Arc::new(NoSource)),
            dead_letters: dead_letters.clone(),
            logs: Arc::new(group.clone()),
            inbox: Arc::new(FakeInbox::default()),
            kafka: KafkaSettings::default(),
            catalogue: Arc::new(Catalogue::builtin()),
            config,
            metrics: EngineMetrics::register(&registry).expect("a new registry"),
            runtime: ProjectionRuntime::new("places", 2).expect("threads"),
        })
        .expect("good settings")
        .with_halts(halts.clone());
        let (status, stop) = (runner.status(), CancellationToken::new());
        let (stopped, membership) = (stop.clone(), group.clone());
        let ended = tokio::spawn(async move { runner.run_on(&membership, mode, &stopped).await });
        Self { group, sink, dead_letters, halts, registry, status, stop, ended }
    }

    fn continuous() -> Self {
        Self::start(FakeGroup::new(1), Arc::default(), RunMode::Continuous)
    }

    fn flood(&self, count: usize) {
        (0..count).for_each(|_| self.group.send_raw(0, Some(b"k"), b"noise"));
    }

    fn status(&self) -> StatusSnapshot {
        self.status.snapshot()
    }

    fn rows(&self) -> usize {
        self.sink.inner.rows().len()
    }

    fn letters(&self) -> usize {
        self.dead_letters.letters.lock().expect("not poisoned").len()
    }

    /// How many entries the lane's ledger has.
    fn ledger(&self) -> usize {
        self.sink.inner.lane(&super::lane(0)).ledger.len()
    }

    async fn until_halted(&self) {
        until("halted", || {
            let status = self.status();
            assert!(status.healthy(), "not even while it drains: what looks after the process would end it");
            status.halted.is_some() && status.lanes.is_empty()
        })
        .await;
    }

    /// The causes for which the gauge says that it stands still.
    fn shown_causes(&self) -> Vec<String> {
        let families = self.registry.gather();
        let halted = families.iter().find(|family| family.name() == crate::metrics::PROJECTION_HALTED);
        let set = halted
            .expect("registered")
            .get_metric()
            .iter()
            .filter(|gauge| gauge.get_gauge().get_value() > 0.0);
        let cause = |gauge: &prometheus::proto::Metric| {
            let label = gauge.get_label().iter().find(|label| label.name() == "cause");
            label.expect("a cause").value().to_owned()
        };
        set.map(cause).collect()
    }

    async fn end(self) -> End {
        tokio::time::timeout(PATIENCE, self.ended).await.expect("ends in time").expect("no panic")
    }

    async fn stop(self) -> End {
        self.stop.cancel();
        self.end().await
    }
}

#[tokio::test]
async fn given_a_flood_the_projection_is_halted_and_told_and_a_resume_that_spares_it_goes_past_it() {
    let world = World::continuous();
    world.flood(50);
    world.until_halted().await;
    assert!(world.letters() <= 20, "{} set aside", world.letters());
    let status = world.status();
    assert!(status.healthy() && !status.ready(), "a restart would not help, and nothing goes on: {status:?}");
    let why = status.not_ready().expect("not ready");
    assert!(why.starts_with("halted: lane places@1:robot:0: ") && why.contains("in a row"), "{why}");
    assert!(why.ends_with("; go on with: fleetlog progress resume places --why TEXT"), "{why}");
    until("written down", || !world.halts.written().is_empty()).await;
    let [halt] = &world.halts.written()[..] else { panic!("once: {:?}", world.halts.written()) };
    assert_eq!((halt.group.as_str(), halt.cause()), (GROUP, HaltCause::SetAsidesInARow));
    let place = (halt.topic.as_deref(), halt.partition, halt.offset);
    assert_eq!((place.0, place.1), (Some("robot"), Some(0)));
    assert!(place.2.is_some_and(|offset| offset <= 20), "{place:?}");
    assert_eq!(world.shown_causes(), ["set_asides_in_a_row"]);

    world.halts.resume(0);
    until("halted again", || world.halts.written().len() == 2).await;
    world.until_halted().await;
    assert!(world.letters() <= 40);
    world.group.send(10);
    world.halts.resume(50);
    until("all of it", || world.rows() == 10 && world.ledger() == 50).await;
    until("ready", || world.status().ready()).await;
    assert!(world.shown_causes().is_empty());
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_halt_at_the_start_nobody_joins_until_it_is_resumed() {
    let halts = Arc::<FakeHalts>::default();
    halts.halted_by_another();
    let world = World::start(FakeGroup::new(2), halts, RunMode::Continuous);
    world.group.send(100);
    world.until_halted().await;
    assert_eq!((world.group.state().joins, world.rows()), (0, 0));
    assert_eq!(world.shown_causes(), ["set_aside_ratio"]);
    world.halts.resume(0);
    until("all", || world.rows() == 100).await;
    assert_eq!((world.group.state().joins, world.halts.written().len()), (1, 0));
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_halt_by_another_process_it_drains_and_joins_anew_when_resumed() {
    let world = World::start(FakeGroup::new(2), Arc::default(), RunMode::Continuous);
    world.group.send(100);
    until("some", || world.rows() > 0).await;
    world.halts.halted_by_another();
    world.until_halted().await;
    world.group.send(100);
    assert_eq!(world.group.state().joins, 1);
    world.halts.resume(0);
    until("all", || world.rows() == 200).await;
    assert_eq!(world.group.state().joins, 2);
    assert!(world.halts.written().is_empty(), "it was another's halt");
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_failure_nothing_is_written_down_and_a_resume_tries_again() {
    let world = World::continuous();
    world.group.send(10);
    until("all", || world.rows() == 10).await;
    world.group.remove_before(0, 25);
    world.group.send(5);
    world.group.tell(crate::Polled::OutOfRange);
    until("failed", || !world.status().healthy()).await;
    until("shown", || !world.shown_causes().is_empty()).await;
    let why = world.status().stopped.expect("failed");
    assert!(why.contains("retention overtook it"), "{why}");
    assert_eq!((world.shown_causes(), world.halts.written().len()), (vec!["failed".to_owned()], 0));
    world.halts.resume(0);
    until("failed again", || world.group.state().joins == 2 && !world.status().healthy()).await;
    world.group.remove_before(0, 0);
    world.halts.resume(0);
    until("all", || world.rows() == 15).await;
    until("ready", || world.status().ready()).await;
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_failure_a_stop_ends_with_it() {
    let world = World::continuous();
    world.group.end_membership("fenced by another process");
    until("failed", || !world.status().healthy()).await;
    assert_eq!(world.stop().await, End::Failed("fenced by another process".into()));
}

#[tokio::test]
async fn given_a_cluster_without_topic_ops_a_flood_halts_this_process_all_the_same() {
    let world = World::continuous();
    world.halts.has_no_topic.set(true);
    world.flood(50);
    world.until_halted().await;
    until("tried", || world.halts.has_no_topic.met() > 0).await;
    assert_eq!(world.halts.has_no_topic.met(), 1, "what does not pass is not tried again");
    world.halts.resume(50);
    until("all", || world.ledger() == 50).await;
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_brokers_that_are_away_a_start_waits_and_a_halt_is_written_down_when_they_are_back() {
    let halts = Arc::<FakeHalts>::default();
    halts.away.set(true);
    let world = World::start(FakeGroup::new(1), halts, RunMode::Continuous);
    until("waits", || world.halts.away.met() > 2).await;
    assert!(
        world
            .status()
            .trouble
            .is_some_and(|trouble| trouble.contains("reading halts on topic `ops`: broker away"))
    );
    world.halts.away.set(false);
    world.group.send(10);
    until("all", || world.rows() == 10).await;
    world.halts.away.set(true);
    let met = world.halts.away.met();
    world.flood(50);
    world.until_halted().await;
    until("tries", || world.halts.away.met() > met + 2).await;
    world.halts.away.set(false);
    until("written down", || world.halts.written().len() == 1).await;
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_run_to_the_end_a_halt_is_refused_and_a_flood_ends_it() {
    let halts = Arc::<FakeHalts>::default();
    halts.halted_by_another();
    let world = World::start(FakeGroup::new(1), halts, RunMode::Once);
    let why = super::failed(world.end().await);
    assert!(why.contains("a flood elsewhere") && why.contains("fleetlog progress resume places"), "{why}");

    let group = FakeGroup::new(1);
    (0..50).for_each(|_| group.send_raw(0, Some(b"k"), b"noise"));
    let world = World::start(group, Arc::default(), RunMode::Once);
    let halts = Arc::clone(&world.halts);
    let why = super::failed(world.end().await);
    assert!(why.contains("in a row"), "{why}");
    assert_eq!(halts.written().len(), 1, "the next run has to know");
}
