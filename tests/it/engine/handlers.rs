//! Handlers of a test's own on a real Kafka: what a process that is killed or an endpoint cannot show.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fleetlog_engine::{
    End, EngineConfig, Failure, HandlerMetrics, HandlerParts, HandlerRunner, HandlerSettings,
    ProjectionRuntime, StartAt, handler_group,
    ports::{Appended, Onward, WaitingTopics},
};
use fleetlog_event::{
    Event as _, EventSet as _, LogId, Position,
    catalogue::{Catalogue, Waiting, held_name},
    robot::RobotEvent,
};
use fleetlog_handler::{Call, CircuitSettings, Handler, HandlerError, Journey, RetryPolicy};
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::support::{DirectDeadLetters, Fleet, PATIENCE, until};

const ID: &str = "by-hand";
const TIERS_MS: [u64; 2] = [200, 500];

/// A call that was made: which event, when, and which attempt.
type Made = (String, Instant, u32);
type Deed = dyn Fn(&Call<RobotEvent>) -> (Duration, Result<(), HandlerError>) + Send + Sync;

/// Calls that have not ended: of each unit, in all, and the most at a time.
#[derive(Default)]
struct OpenCalls {
    of_unit: HashMap<String, usize>,
    all: usize,
    most: usize,
}

/// Does what a test says, and remembers its calls.
#[derive(Clone)]
struct ByHand {
    deed: Arc<Deed>,
    made: Arc<Mutex<Vec<Made>>>,
    open: Arc<Mutex<OpenCalls>>,
}

impl ByHand {
    fn new(
        deed: impl Fn(&Call<RobotEvent>) -> (Duration, Result<(), HandlerError>) + Send + Sync + 'static,
    ) -> Self {
        Self { deed: Arc::new(deed), made: Arc::default(), open: Arc::default() }
    }

    fn made(&self) -> Vec<Made> {
        self.made.lock().unwrap().clone()
    }
}

impl Handler for ByHand {
    type Event = RobotEvent;

    fn id(&self) -> &str {
        ID
    }

    async fn handle(&self, call: &Call<RobotEvent>) -> Result<(), HandlerError> {
        // Of the source; what comes back from a tier is beside it.
        let unit = call.event.event.meta().unit_uid.clone().unwrap();
        let unit = format!("{unit} {}", call.attempt);
        {
            let mut open = self.open.lock().unwrap();
            let of_unit = open.of_unit.entry(unit.clone()).or_default();
            *of_unit += 1;
            assert_eq!(*of_unit, 1, "two calls of one key at a time");
            open.all += 1;
            open.most = open.most.max(open.all);
        }
        let id = call.idempotence_key().0.to_string();
        self.made.lock().unwrap().push((id, Instant::now(), call.attempt));
        let _open = Open(self, unit);
        let (takes, result) = (self.deed)(call);
        tokio::time::sleep(takes).await;
        result
    }
}

/// A call that has not ended; it may also be dropped.
struct Open<'h>(&'h ByHand, String);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap();
        *open.of_unit.get_mut(&self.1).unwrap() -= 1;
        open.all -= 1;
    }
}

/// What waits, by a producer.
struct Tiers(RawProducer);

impl WaitingTopics for Tiers {
    fn append(&self, record: Onward) -> BoxFuture<'_, Result<Appended, Failure>> {
        let Onward { topic, partition, key, value, headers } = record;
        let record = RawRecord { topic, partition, key, value, timestamp: None, headers };
        Box::pin(async move {
            let delivered = self.0.send(record).await.unwrap().await;
            let delivered = delivered.map_err(|error| Failure::transient(error.to_string()))?;
            Ok(Appended { partition: delivered.partition, stamp: delivered.appended_at })
        })
    }
}

async fn fleet(label: &str) -> Fleet {
    fleet_with_tiers(label, &TIERS_MS).await
}

async fn fleet_with_tiers(label: &str, tiers_ms: &[u64]) -> Fleet {
    let fleet = Fleet::on_stack(label).await;
    let group = handler_group(&fleet.settings.topic_prefix, ID);
    let catalogue = Catalogue::builtin();
    let waiting = Waiting { group: &group, tiers_ms, replication: Some(1) };
    fleet.create_topics(&waiting.topics(&[catalogue.topic("robot").unwrap()]).unwrap()).await;
    fleet
}

fn runner(
    fleet: &Fleet,
    handler: ByHand,
    settings: HandlerSettings,
) -> HandlerRunner<ByHand, fleetlog_codec::Decoder> {
    runner_with_tiers(fleet, handler, settings, &TIERS_MS)
}

fn runner_with_tiers(
    fleet: &Fleet,
    handler: ByHand,
    settings: HandlerSettings,
    tiers_ms: &[u64],
) -> HandlerRunner<ByHand, fleetlog_codec::Decoder> {
    let metrics = ProducerMetrics::unregistered().unwrap();
    let producer = RawProducer::connect(&fleet.settings, &ProducerSettings::default(), metrics).unwrap();
    HandlerRunner::new(HandlerParts {
        handler,
        schemas: fleetlog_codec::Decoder::new(Arc::new(fleetlog_codec::NoSource)),
        waiting: Arc::new(Tiers(producer)),
        dead_letters: Arc::new(DirectDeadLetters::new(&fleet.settings)),
        logs: Arc::new(fleetlog_engine::KafkaLogs::new(&fleet.settings).unwrap()),
        kafka: fleet.settings.clone(),
        topics: vec!["robot".to_owned()],
        settings: HandlerSettings {
            start_at: StartAt::Begin,
            retry: RetryPolicy::new(tiers_ms.iter().copied().map(Duration::from_millis).collect()).unwrap(),
            ..settings
        },
        config: EngineConfig { instance: "it".into(), ..EngineConfig::default() },
        metrics: HandlerMetrics::register(&prometheus::Registry::new()).unwrap(),
        runtime: ProjectionRuntime::new(ID, 2).unwrap(),
    })
    .unwrap()
}

/// A hundred keys on six partitions, each call slow: many more at a time than there are partitions, of each key one, and in order.
#[tokio::test(flavor = "multi_thread")]
async fn more_calls_run_at_a_time_than_there_are_partitions_and_of_a_key_one() {
    let fleet = fleet("by-hand-wide").await;
    fleet.connect(1_000, 100);
    let handler = ByHand::new(|_| (Duration::from_millis(20), Ok(())));
    let (runner, stop) =
        (runner(&fleet, handler.clone(), HandlerSettings::default()), CancellationToken::new());
    let running = tokio::spawn(runner.run(stop.clone()));
    until("every event", || handler.made().len() >= 1_000).await;
    stop.cancel();
    assert_eq!(running.await.unwrap(), End::Stopped);
    let most = handler.open.lock().unwrap().most;
    println!("{most} calls at a time");
    assert!(most > 40, "{most} calls at a time");
    assert_eq!(handler.made().len(), 1_000, "each once");
}

/// It passes over nothing, and the process says over which event it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_stops_with_the_event_where_it_is() {
    let fleet = fleet("by-hand-panic").await;
    fleet.connect(10, 1);
    let handler = ByHand::new(|call| {
        assert!(call.event.position.offset != 4, "asked to panic");
        (Duration::ZERO, Ok(()))
    });
    let run = runner(&fleet, handler.clone(), HandlerSettings::default()).run(CancellationToken::new());
    let end = tokio::time::timeout(PATIENCE, run).await.expect("ends in time");
    let fifth = handler.made()[4].0.clone();
    match end {
        End::Failed(why) => assert!(why.contains("panicked") && why.contains(&fifth), "{why}"),
        other => panic!("{other:?}"),
    }
    // Begun again, it goes on with that event.
    let again = ByHand::new(|_| (Duration::ZERO, Ok(())));
    let (runner, stop) =
        (runner(&fleet, again.clone(), HandlerSettings::default()), CancellationToken::new());
    let running = tokio::spawn(runner.run(stop.clone()));
    until("the rest", || again.made().len() >= 6).await;
    stop.cancel();
    assert_eq!(running.await.unwrap(), End::Stopped);
    assert_eq!(again.made()[0].0, fifth);
}

/// As after a change of what a handler is told of. What none of ours wrote there is a dead letter, and stops nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_of_a_topic_that_is_not_read_any_more_is_called_for() {
    let fleet = fleet("by-hand-former").await;
    let event = fleet.connected(1);
    let position = Position { log: LogId(uuid::Uuid::from_u128(7)), partition: 23, offset: 7 };
    let journey = Journey {
        topic: fleet.settings.topic("former"),
        position,
        recorded_at: event.meta.recorded_at,
        failed_calls: 2,
        first_failed_at: None,
        rest: Duration::ZERO,
        why: None,
        is_redrive: false,
    };
    let held = held_name(&handler_group(&fleet.settings.topic_prefix, ID));
    let (key, value) = (Some(event.entity().to_string().into()), Some(fleet.encode(&event).into()));
    let headers = journey.headers().into_iter().map(|(name, value)| (name.into(), Some(value))).collect();
    let ours = Onward { topic: held, partition: None, key, value, headers };
    let metrics = ProducerMetrics::unregistered().unwrap();
    let tiers = Tiers(RawProducer::connect(&fleet.settings, &ProducerSettings::default(), metrics).unwrap());
    tiers.append(Onward { headers: Vec::new(), ..ours.clone() }).await.unwrap();
    tiers.append(ours).await.unwrap();

    let called = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&called);
    let handler = ByHand::new(move |call| {
        *seen.lock().unwrap() = Some((call.event.position, call.attempt));
        (Duration::ZERO, Ok(()))
    });
    let (runner, stop) = (runner(&fleet, handler, HandlerSettings::default()), CancellationToken::new());
    let running = tokio::spawn(runner.run(stop.clone()));
    until("the call", || called.lock().unwrap().is_some()).await;
    stop.cancel();
    assert_eq!(running.await.unwrap(), End::Stopped);
    assert_eq!(*called.lock().unwrap(), Some((position, 3)));
    assert_eq!(fleet.read_all(&fleet.settings.topic("robot-dlq")).await.len(), 1);
}

/// For the handler to pass on: at the first call, and where the event comes back from a tier.
#[tokio::test(flavor = "multi_thread")]
async fn the_trace_that_an_event_is_part_of_is_told_at_each_call() {
    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let fleet = fleet("by-hand-trace").await;
    let event = fleet.connected(1);
    let (key, value) = (Some(event.entity().to_string().into()), Some(fleet.encode(&event).into()));
    let headers = vec![("traceparent".into(), Some(TRACEPARENT.into()))];
    let record = Onward { topic: fleet.settings.topic("robot"), partition: None, key, value, headers };
    let metrics = ProducerMetrics::unregistered().unwrap();
    let producer = RawProducer::connect(&fleet.settings, &ProducerSettings::default(), metrics).unwrap();
    Tiers(producer).append(record).await.unwrap();

    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let handler = ByHand::new(move |call| {
        telling.lock().unwrap().push((call.attempt, call.traceparent.clone()));
        let is_last = call.attempt == 3;
        (Duration::ZERO, if is_last { Ok(()) } else { Err(HandlerError::Retry("not yet".into())) })
    });
    let (runner, stop) = (runner(&fleet, handler, HandlerSettings::default()), CancellationToken::new());
    let running = tokio::spawn(runner.run(stop.clone()));
    until("three calls", || told.lock().unwrap().len() == 3).await;
    stop.cancel();
    assert_eq!(running.await.unwrap(), End::Stopped);
    assert_eq!(*told.lock().unwrap(), [1, 2, 3].map(|attempt| (attempt, Some(TRACEPARENT.to_owned()))));
}

/// Calls that never end are ended, and repeated; all of a lot that is due at once is called for, and none too early.
#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_is_given_up_and_a_lot_that_is_due_at_once_comes_when_it_is_due() {
    let fleet = fleet("by-hand-due").await;
    fleet.connect(3_000, 300);
    let handler = ByHand::new(|call| match (call.attempt, call.event.position.offset) {
        (1, 0) => (Duration::from_secs(3_600), Ok(())),
        (1, _) => (Duration::ZERO, Err(HandlerError::Retry("at first always".into()))),
        _ => (Duration::ZERO, Ok(())),
    });
    let settings = HandlerSettings {
        call_timeout: Duration::from_millis(400),
        circuit: CircuitSettings { failures_max: u32::MAX, ..CircuitSettings::default() },
        ..HandlerSettings::default()
    };
    let (runner, stop) = (runner(&fleet, handler.clone(), settings), CancellationToken::new());
    let running = tokio::spawn(runner.run(stop.clone()));
    let seconds = || handler.made().iter().filter(|made| made.2 == 2).count();
    until("a second call for each", || seconds() >= 3_000 - 6).await;
    stop.cancel();
    assert_eq!(running.await.unwrap(), End::Stopped);
    let mut first: HashMap<String, Instant> = HashMap::new();
    let mut late: Vec<Duration> = Vec::new();
    for (id, at, attempt) in handler.made() {
        match attempt {
            1 => drop(first.entry(id).or_insert(at)),
            _ => late.push((at - first[&id]).checked_sub(Duration::from_millis(TIERS_MS[0])).expect("early")),
        }
    }
    late.sort_unstable();
    println!(
        "after it was due at the earliest: p50 {:?}, p99 {:?}",
        late[late.len() / 2],
        late[late.len() * 99 / 100]
    );
}

/// What waited while nobody ran is due all at once: each of it is called for once, and none too early.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_that_are_due_at_once_are_called_for() {
    const EVENTS: usize = 100_000;
    // All have failed once before the first is due, but on a machine that stands still: then fewer are due at once.
    const TIER: Duration = Duration::from_secs(10);
    let tiers_ms = [u64::try_from(TIER.as_millis()).unwrap()];
    let fleet = fleet_with_tiers("by-hand-lot", &tiers_ms).await;
    fleet.connect(EVENTS as u64, 10_000);
    let handler = ByHand::new(|call| {
        let failed = Err(HandlerError::Retry("at first always".into()));
        (Duration::ZERO, if call.attempt == 1 { failed } else { Ok(()) })
    });
    let circuit = CircuitSettings { failures_max: u32::MAX, ..CircuitSettings::default() };
    let run_until = async |calls: usize| {
        let settings = HandlerSettings { circuit, ..HandlerSettings::default() };
        let (begun, stop) = (Instant::now(), CancellationToken::new());
        let running =
            tokio::spawn(runner_with_tiers(&fleet, handler.clone(), settings, &tiers_ms).run(stop.clone()));
        until("the calls", || handler.made.lock().unwrap().len() >= calls).await;
        let took = begun.elapsed();
        stop.cancel();
        assert_eq!(running.await.unwrap(), End::Stopped);
        took
    };
    let failed = run_until(EVENTS).await;
    let at_once = 2 * EVENTS - handler.made().len();
    let last = handler.made().iter().map(|(_, at, _)| *at).max().unwrap();
    tokio::time::sleep_until((last + TIER).into()).await;
    let drained = run_until(2 * EVENTS).await;

    let made = handler.made();
    let of = |attempt| made.iter().filter(move |made| made.2 == attempt).map(|(id, at, _)| (id, *at));
    let (first, second): (HashMap<_, _>, HashMap<_, _>) = (of(1).collect(), of(2).collect());
    assert_eq!((first.len(), second.len(), made.len()), (EVENTS, EVENTS, 2 * EVENTS), "twice each");
    assert!(second.iter().all(|(id, at)| *at >= first[id] + TIER), "too early");
    println!(
        "{EVENTS} failed within {failed:?}; {at_once} were due at once, and called for {drained:?} after the start"
    );
}
