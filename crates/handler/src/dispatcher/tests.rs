//! Tests of the dispatcher: what it asks for, and a cluster in memory on which anything may fail.

mod world;

use proptest::prelude::*;

use super::*;
use crate::Origin;
use world::{Script, World};

fn settings() -> DispatcherSettings {
    DispatcherSettings {
        in_flight_max: 4,
        policy: RetryPolicy::default(),
        circuit: CircuitSettings::default(),
        buffer_records_max: 8,
        buffer_bytes_max: usize::MAX,
        commit_interval: Duration::ZERO,
    }
}

#[test]
fn events_that_work_are_called_for_once_each_and_committed() {
    let mut world = World::new(settings(), Script::Works, 1);
    world.send(50, 7);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.handled(), vec![1; 50]);
    assert_eq!(world.lags(), 0);
}

#[test]
fn an_event_that_fails_comes_back_after_1_2_and_4_s_and_is_a_dead_letter_then() {
    let mut world = World::new(settings(), Script::Fails(3), 1);
    world.send(20, 20);
    world.run_for(Duration::from_secs(20));
    let calls: Vec<u64> = world.calls_of(3).to_vec();
    let pauses: Vec<u64> = calls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses.len(), 3, "{calls:?}");
    for (pause, delay) in pauses.iter().zip([1_000, 2_000, 4_000]) {
        assert!((delay..delay + 100).contains(pause), "{pauses:?}");
    }
    assert_eq!(world.dead_letters(), [3]);
    assert_eq!(world.lags(), 0);
}

#[test]
fn while_the_endpoint_is_down_the_source_is_read_on_and_nothing_is_used_up() {
    let mut world = World::new(settings(), Script::DownUntil(120_000), 1);
    for _ in 0..60 {
        world.send(20, 100);
        world.run_for(Duration::from_secs(2));
        assert_eq!(world.source_lag(), 0, "nothing waits on the source topic");
    }
    // Four failures open it; then one trial in half a minute.
    assert!(world.calls_len() <= 4 + 4 * 5, "{} calls of a dead endpoint", world.calls_len());
    world.run_for(Duration::from_secs(120));
    assert!(world.handled().iter().all(|times| *times >= 1));
    assert_eq!((world.dead_letters(), world.lags()), (vec![], 0));
}

#[test]
fn one_that_fails_among_those_that_wait_for_the_endpoint_does_not_keep_it_shut() {
    let mut world = World::new(settings(), Script::DownUntilAndFails(10_000, 0), 1);
    world.send(40, 40);
    world.run_for(Duration::from_secs(600));
    assert_eq!(world.dead_letters(), [0]);
    assert_eq!(world.lags(), 0);
}

/// It is not called for before it asked for, while others fail and the circuit opens and closes; and it has all its calls then.
#[test]
fn what_is_not_due_waits_as_long_as_it_asks_for_and_is_no_failure() {
    let mut world = World::new(settings(), Script::NotBefore(0, 70_000), 1);
    world.send(1, 1);
    world.run_for(Duration::from_secs(1));
    world.send(40, 40);
    world.run_for(Duration::from_secs(300));
    let calls = world.calls_of(0);
    assert_eq!(calls.len(), 2, "{calls:?}");
    // Later than it asked for, as its rounds wait for the circuit as well.
    assert!(calls[1] >= 70_000, "{calls:?}");
    assert_eq!((world.complaints(), world.dead_letters(), world.lags()), (&[][..], vec![], 0));
    assert_eq!(world.handled()[0], 1);
}

#[test]
fn what_is_told_of_an_earlier_assignment_is_of_no_account() {
    let lane = LaneId { topic: 0, partition: 0 };
    let (mut dispatcher, now) = (Dispatcher::<u32, u32>::new(settings()), Instant::now());
    let incoming = |offset| Incoming {
        offset,
        origin: Origin { topic: 0, offset },
        key: None,
        appended_at: TimestampMs(0),
        rest: Duration::ZERO,
        failed_calls: 0,
        bytes: 1,
        record: Some(1),
    };
    dispatcher.assigned(lane, LaneKind::Source, 5);
    dispatcher.read(lane, incoming(5));
    let Some(Action::Prepare(first, _)) = dispatcher.act(now).pop() else { panic!("nothing is asked for") };
    dispatcher.revoked(lane, now);
    dispatcher.assigned(lane, LaneKind::Source, 5);
    dispatcher.read(lane, incoming(5));
    let Some(Action::Prepare(second, _)) = dispatcher.act(now).pop() else { panic!("nothing is asked for") };
    dispatcher.prepared(first, Prepared::Wanted(1));
    dispatcher.sent(first);
    assert_eq!(dispatcher.act(now), []);
    dispatcher.prepared(second, Prepared::Wanted(1));
    let call = Action::Call { at: second, event: 1, failed_calls: 0, newest_offset: 5 };
    assert_eq!(dispatcher.act(now), [call]);
}

/// What lies in the tiers when the endpoint goes down may be just what it stumbles over.
#[test]
fn trials_are_made_with_what_is_held() {
    let [source, tier, held] = [0, 1, 2].map(|topic| LaneId { topic, partition: 0 });
    let circuit = CircuitSettings { failures_max: 0, trials: 1, ..CircuitSettings::default() };
    let (mut dispatcher, now) =
        (Dispatcher::<u32, u32>::new(DispatcherSettings { circuit, ..settings() }), Instant::now());
    let incoming = |record| Incoming {
        offset: 0,
        origin: Origin { topic: 0, offset: 0 },
        key: None,
        appended_at: TimestampMs(0),
        rest: Duration::ZERO,
        failed_calls: 0,
        bytes: 1,
        record: Some(record),
    };
    dispatcher.assigned(source, LaneKind::Source, 0);
    dispatcher.read(source, incoming(1));
    let Some(Action::Prepare(at, _)) = dispatcher.act(now).pop() else { panic!("nothing is asked for") };
    dispatcher.prepared(at, Prepared::Wanted(1));
    assert!(matches!(dispatcher.act(now)[..], [Action::Call { .. }]));
    dispatcher.ended(at, Err(HandlerError::Retry("down".into())), now);
    assert!(!dispatcher.circuit().is_closed());
    dispatcher.act(now);
    assert_eq!(dispatcher.wakes_in(now), Some(circuit.open));
    let over = now + circuit.open;
    assert_eq!(dispatcher.wakes_in(over), Some(Duration::ZERO), "it is over, and was not acted on");
    dispatcher.act(over);
    assert_eq!(dispatcher.wakes_in(over), None, "nothing is there to try it with");

    dispatcher.assigned(tier, LaneKind::Tier(Duration::from_secs(1)), 0);
    dispatcher.assigned(held, LaneKind::Held, 0);
    dispatcher.heard(tier, TimestampMs(100_000), now);
    dispatcher.read(tier, incoming(2));
    dispatcher.read(held, incoming(3));
    dispatcher.act(now);
    let asked = dispatcher.act(now + circuit.open);
    let records: Vec<u32> = asked
        .iter()
        .filter_map(|action| match action {
            Action::Prepare(_, record) => Some(*record),
            _ => None,
        })
        .collect();
    assert_eq!(records, [3, 2]);
}

/// Time passes between the question what is to be done and the one how long to wait.
#[test]
fn what_becomes_due_while_it_acts_is_not_slept_over() {
    let (mut dispatcher, now) = (Dispatcher::<u32, u32>::new(settings()), Instant::now());
    let (tier, delay) = (LaneId { topic: 1, partition: 0 }, Duration::from_secs(1));
    dispatcher.assigned(tier, LaneKind::Tier(delay), 0);
    dispatcher.heard(tier, TimestampMs(100_000), now);
    let incoming = Incoming {
        offset: 0,
        origin: Origin { topic: 0, offset: 0 },
        key: None,
        appended_at: TimestampMs(100_000),
        rest: Duration::ZERO,
        failed_calls: 0,
        bytes: 1,
        record: Some(1),
    };
    dispatcher.read(tier, incoming);
    dispatcher.act(now);
    // As the broker's clock may be slower than ours, it is asked more than once.
    let mut at = now;
    for _ in 0..5 {
        let due_in = dispatcher.wakes_in(at).expect("it is waited for");
        assert!(!due_in.is_zero(), "it was acted on");
        // So much later than asked for: it is over by then, and is not slept over.
        at += due_in + Duration::from_micros(100);
        assert_eq!(dispatcher.wakes_in(at), Some(Duration::ZERO));
        if dispatcher.act(at).iter().any(|action| matches!(action, Action::Prepare(_, 1))) {
            assert!(at - now >= delay, "{:?}", at - now);
            return;
        }
    }
    panic!("it was never due");
}

#[test]
fn a_stop_begins_nothing_more_and_leaves_the_event_where_it_is() {
    let mut world = World::new(settings(), Script::Stops(5), 1);
    world.send(20, 1);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.stopped(), Some("stop"));
    assert_eq!(world.handled().iter().filter(|times| **times == 1).count(), 5);
    assert_eq!(world.lags(), 15);
}

#[test]
fn a_process_that_ends_in_peace_repeats_nothing() {
    let mut world = World::new(settings(), Script::Works, 1);
    world.send(500, 30);
    world.run_for(Duration::from_millis(300));
    world.end();
    let before = world.handled();
    assert!(before.contains(&1) && before.contains(&0), "in the midst of it");
    world.kill();
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.handled(), vec![1; 500]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever fails, whenever the process is killed, however late commits and acknowledgements come: every event is handled
    /// or a dead letter in the end, none is called too early, of one key on one partition one at a time and in order, and
    /// a kill repeats no more than may be in flight on a partition.
    #[test]
    fn nothing_is_lost_early_or_repeated_too_often(
        seed in any::<u64>(),
        keys in 1_u64..12,
        in_flight_max in 1_usize..9,
        commit_ms in 0_u64..200,
        buffer_bytes_max in 1_usize..40,
        kills in prop::collection::vec(1_u64..15_000, 0..5),
    ) {
        let commit_interval = Duration::from_millis(commit_ms);
        let settings = DispatcherSettings { in_flight_max, commit_interval, buffer_bytes_max, ..settings() };
        let mut world = World::new(settings, Script::Random, seed);
        for pause in kills {
            world.send(15, keys);
            world.run_for(Duration::from_millis(pause));
            world.kill();
        }
        world.send(15, keys);
        world.run_for(Duration::from_secs(30));
        world.heal();
        world.run_for(Duration::from_secs(200));
        let missing: Vec<u64> = world.missing();
        prop_assert!(missing.is_empty(), "neither handled nor a dead letter: {missing:?}");
        prop_assert_eq!(world.lags(), 0);
        prop_assert_eq!(world.complaints(), &[] as &[String]);
    }
}
