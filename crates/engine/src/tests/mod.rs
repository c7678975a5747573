//! Each row of the table of faults, on a cluster that does what the test says: given, when, then.

mod commands;
pub(crate) mod fake;
mod halts;
mod rounds;

use std::sync::atomic::Ordering;

use fleetlog_projection::{LaneId, MemorySink, Sink as _};

use crate::{CommitError, End, EngineConfig, LaneState, Polled, status::StatusSnapshot};
use fake::{FakeGroup, HangingSink, World, at, event, quick, until};

fn failed(end: End) -> String {
    match end {
        End::Failed(why) => why,
        other => panic!("should have failed: {other:?}"),
    }
}

fn waits(status: &StatusSnapshot, text: &str) -> bool {
    status.lanes.iter().any(|lane| matches!(&lane.state, LaneState::Waiting(why) if why.contains(text)))
}

fn lane(partition: i32) -> LaneId {
    LaneId { projection: "places".into(), version: 1, topic: "robot".into(), partition }
}

#[tokio::test]
async fn given_a_log_all_of_it_is_taken_and_markers_move_progress() {
    let world = World::start(FakeGroup::new(3), quick());
    world.group.send(500);
    world.until_all().await;
    world.group.mark();
    until("the markers", || {
        world.status().lanes.iter().all(|l| {
            let stored = world.sink.inner.lane(&l.lane).progress.map(|p| p.main);
            l.progress == stored && l.progress.is_some_and(|main| main > 0)
        }) && world.status().lanes.iter().filter_map(|l| l.progress).sum::<i64>() == 503
    })
    .await;
    until("Kafka knows", || world.group.state().commits.iter().any(|(_, offset)| *offset > 100)).await;
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_store_that_is_down_polling_goes_on_and_nothing_becomes_a_dead_letter() {
    let world = World::start(FakeGroup::new(2), quick());
    world.group.send(100);
    world.until_all().await;
    world.sink.inner.set_down(true);
    world.group.send(100);
    // At the link, where a lane looked at it just before the events came.
    let is_waiting = |at| waits(&world.status(), at);
    until("waiting", || is_waiting("writing") || is_waiting("looking at the link")).await;
    assert!(!world.status().ready() && world.status().healthy());
    let polls = world.group.state().polls;
    until("polls go on", || world.group.state().polls > polls + 50).await;
    world.sink.inner.set_down(false);
    world.until_all().await;
    until("ready again", || world.status().ready()).await;
    assert_eq!(world.letters(), 0);
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_store_that_hangs_the_same_write_is_made_again_and_counts_once() {
    let config = EngineConfig { store_timeout_ms: 30, ..quick() };
    let world = World::start(FakeGroup::new(1), config);
    world.sink.hang.set(true);
    world.group.send(100);
    until("two tries", || world.sink.hang.met() > 2).await;
    assert!(waits(&world.status(), "no answer within 30 ms"));
    world.sink.hang.set(false);
    world.until_all().await;
    assert_eq!(world.status().lanes[0].fenced, 0, "already applied, not fenced");
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_slow_store_what_comes_meanwhile_is_projected_and_goes_out_in_one_write() {
    // Its first write is carried out, and the answer never comes: it is made again until one does.
    let world = World::start(FakeGroup::new(1), EngineConfig { store_timeout_ms: 50, ..quick() });
    world.sink.hang.set(true);
    world.group.send(40);
    until("the first write", || world.rows() > 0).await;
    let first = world.rows();
    for _ in 0..10 {
        world.group.send(40);
        let polls = world.group.state().polls;
        until("read", || world.group.state().polls > polls + 5).await;
        assert_eq!(world.rows(), first, "a second write beside the first");
    }
    world.sink.hang.set(false);
    world.until_all().await;
    assert_eq!(world.rows(), 440);
    let writes = world.sink.inner.lane(&lane(0)).link.expect("wrote").to_string();
    let counter: u64 =
        writes.split('.').nth(1).and_then(|text| text.parse().ok()).expect("nonce.counter.part");
    assert!(counter <= 3, "{writes}: 400 events that came meanwhile took more than two writes");
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_broken_chain_what_was_projected_ahead_is_dropped_and_its_memory_given_back() {
    let config = EngineConfig {
        memory_bytes_max: 4 << 20,
        batch_bytes_max: 64 << 10,
        store_timeout_ms: 30,
        ..quick()
    };
    let world = World::start(FakeGroup::new(1), config);
    world.group.send(100);
    world.until_all().await;
    for _ in 0..40 {
        world.sink.hang.set(true);
        let met = world.sink.hang.met();
        world.group.send(500);
        until("under way", || world.sink.hang.met() > met).await;
        steal(&world.sink.inner).await;
        world.sink.hang.set(false);
        world.until_all().await;
    }
    assert!(world.status().lanes[0].fenced >= 40, "{}", world.status().lanes[0].fenced);
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_full_lane_its_partition_is_paused_within_the_memory_and_read_on_later() {
    let config = EngineConfig {
        memory_bytes_max: 4 << 20,
        batch_bytes_max: 64 << 10,
        drain_deadline_ms: 100,
        ..quick()
    };
    let world = World::start(FakeGroup::new(2), config);
    world.sink.hang.set(true);
    world.group.send(40_000);
    until("both paused", || world.group.state().pauses >= 2 && world.status().lanes.iter().all(|l| l.paused))
        .await;
    let polls = world.group.state().polls;
    until("polls go on", || world.group.state().polls > polls + 50).await;
    assert!(world.rows() < 10_000);
    assert_eq!(world.stop().await, End::Stopped, "a stop does not wait for a hung store for ever");
}

#[tokio::test]
async fn given_a_lane_that_was_paused_nothing_is_lost_or_doubled_when_it_goes_on() {
    let config = EngineConfig {
        memory_bytes_max: 4 << 20,
        batch_bytes_max: 64 << 10,
        store_timeout_ms: 100,
        ..quick()
    };
    let world = World::start(FakeGroup::new(2), config);
    world.sink.hang.set(true);
    world.group.send(40_000);
    until("both paused", || world.status().lanes.iter().filter(|l| l.paused).count() == 2).await;
    world.sink.hang.set(false);
    world.until_all().await;
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_fence_the_lane_goes_on_only_after_kafka_took_its_commit() {
    let world = World::start(FakeGroup::new(1), quick());
    world.group.send(100);
    world.until_all().await;
    world.group.state().verdicts.extend([
        Err(CommitError::Transient("rebalance in progress".into())),
        Err(CommitError::Transient("rebalance in progress".into())),
        Ok(()),
    ]);
    steal(&world.sink.inner).await;
    until("fenced", || world.status().lanes[0].fenced == 1).await;
    world.group.send(100);
    world.until_all().await;
    assert!(world.group.state().verdicts.is_empty(), "asked until it was taken");
    assert_eq!(world.stop().await, End::Stopped);
}

fn over() -> Result<(), CommitError> {
    Err(CommitError::NotOurs("illegal generation".into()))
}

#[tokio::test]
async fn given_a_fence_in_a_generation_that_is_over_the_lane_goes_on_when_it_is_assigned_anew() {
    let world = World::start(FakeGroup::new(1), quick());
    world.group.send(100);
    world.until_all().await;
    world.group.state().verdicts.extend(std::iter::repeat_with(over).take(100_000));
    steal(&world.sink.inner).await;
    until("parked", || world.status().lanes[0].state == LaneState::Parked).await;
    world.group.send(100);
    world.group.revoke_all(true);
    world.group.state().verdicts.clear();
    world.group.assign_all();
    world.until_all().await;
    assert_eq!(world.stop().await, End::Stopped);
}

/// A cooperative rebalance leaves partitions where they are: there is a new generation, and no new assignment.
#[tokio::test]
async fn given_a_fence_during_a_rebalance_that_leaves_the_lane_here_it_goes_on() {
    let world = World::start(FakeGroup::new(1), quick());
    world.group.send(100);
    world.until_all().await;
    world.group.state().verdicts.extend(std::iter::repeat_with(over).take(3));
    steal(&world.sink.inner).await;
    until("fenced", || world.status().lanes[0].fenced == 1).await;
    world.group.send(100);
    world.until_all().await;
    assert!(world.group.state().verdicts.is_empty(), "asked until it was taken");
    assert_eq!(world.stop().await, End::Stopped);
}

/// Another owner takes the chain of lane 0 further, with a nonce of its own as every owner: with one that was used
/// before, a write that hangs since before the last takeover finds the link that it follows again, and counts twice.
async fn steal(sink: &MemorySink<fleetlog_event::Position>) {
    let stored = sink.read(&lane(0), &[]).await.expect("up");
    let log = fleetlog_projection::LogNow {
        scope: fleetlog_projection::LaneScope {
            topic: 0,
            log: stored.progress.expect("has progress").log,
            partition: 0,
            partitions: 1,
        },
        low: 0,
        high: i64::MAX,
    };
    let mut zombie =
        fleetlog_projection::LaneCore::start(lane(0), &stored, &log, 0, rand::random()).expect("starts");
    let unit = zombie.unit(fleetlog_projection::Writes::default(), fleetlog_event::TimestampMs(0));
    sink.commit(&unit).await.expect("takes over");
}

#[tokio::test]
async fn given_a_revocation_the_write_in_flight_finishes_and_the_next_assignment_goes_on() {
    let world = World::start(FakeGroup::new(3), quick());
    for round in 1..=5_u64 {
        world.group.send(300);
        until("some rows", || world.rows() > (round - 1) * 300).await;
        world.group.revoke_all(false);
        world.group.assign_all();
    }
    until("every revocation", || world.group.state().given_up.len() == 15).await;
    world.until_all().await;
    assert!(world.status().lanes.iter().all(|lane| lane.fenced == 0), "no owner met another");
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_lost_partitions_nothing_is_committed_for_them() {
    let config = EngineConfig { offset_commit_interval_ms: 60_000, ..quick() };
    let world = World::start(FakeGroup::new(1), config);
    // The first look at the clock commits at once; what counts is what comes after.
    until("assigned", || world.status().assigned).await;
    world.group.send(50);
    world.until_all().await;
    world.group.revoke_all(true);
    until("given up", || !world.group.state().given_up.is_empty()).await;
    assert!(world.group.state().commits.iter().all(|(_, offset)| *offset < 50));
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_broker_that_takes_no_dead_letters_progress_waits_for_them() {
    let world = World::start(FakeGroup::new(1), quick());
    world.dead_letters.failing.set(true);
    world.group.send(10);
    world.group.send_raw(0, Some(b"k"), b"noise");
    until("waiting", || world.dead_letters.failing.met() > 2).await;
    let stored = || world.sink.inner.lane(&lane(0)).progress.map_or(0, |p| p.main);
    assert!(stored() < 11, "progress does not move past what is not acknowledged");
    world.dead_letters.failing.set(false);
    until("all", || stored() == 11).await;
    assert_eq!((world.letters(), world.rows()), (1, 10));
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_what_is_set_aside_far_from_the_end_it_is_read_once_more_with_its_headers() {
    let group = FakeGroup::new(1);
    group.send(10);
    for _ in 0..3 {
        group.send_raw(0, Some(b"k"), b"noise");
    }
    group.send(10);
    group.mark_to(0, 1_000_000);
    let world = World::start(group, quick());
    let stored = || world.sink.inner.lane(&lane(0)).progress.map_or(0, |p| p.main);
    until("all", || stored() == 1_000_000).await;
    assert_eq!(world.rows(), 20);
    let sent_as = |letter: &crate::DeadLetter| {
        let mut headers = letter.headers.iter();
        headers.find(|(name, _)| *name == "sent-as").and_then(|(_, value)| value.clone())
    };
    let letters = world.dead_letters.letters.lock().expect("not poisoned").clone();
    let sent: Vec<_> = letters.iter().filter_map(sent_as).collect();
    assert_eq!(sent, ["10", "11", "12"]);
    assert_eq!(letters.len(), 3, "none went without");
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_registry_that_is_away_events_wait_and_are_not_rejected() {
    let world = World::start(FakeGroup::new(1), quick());
    world.schemas_away.set(true);
    world.group.send(10);
    until("waiting", || waits(&world.status(), "registry away")).await;
    world.schemas_away.set(false);
    world.until_all().await;
    assert_eq!(world.letters(), 0);
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_an_offset_that_does_not_exist_the_lane_looks_again_and_tells_what_was_lost() {
    let world = World::start(FakeGroup::new(1), quick());
    world.group.send(10);
    world.until_all().await;
    world.group.tell(Polled::OutOfRange);
    world.group.send(10);
    world.until_all().await;
    world.group.remove_before(0, 25);
    world.group.mark();
    world.group.tell(Polled::OutOfRange);
    let why = failed(world.end().await);
    assert!(why.contains("retention overtook it") && why.contains("rebuild `places`"), "{why}");
}

#[tokio::test]
async fn given_the_end_of_membership_the_projection_stops_and_says_why() {
    let world = World::start(FakeGroup::new(1), quick());
    until("assigned", || world.status().assigned).await;
    world.group.end_membership("fenced by another process");
    assert_eq!(failed(world.end().await), "fenced by another process");
}

#[tokio::test]
async fn given_a_ghost_with_its_name_the_member_waits_until_it_is_gone_and_joins_anew() {
    let world = World::start(FakeGroup::new(2), quick());
    world.group.send(100);
    world.until_all().await;
    world.group.replace(3);
    world.group.send(100);
    world.until_all().await;
    assert_eq!(world.group.state().joins, 2);
    until("no trouble", || world.status().ready()).await;
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_partition_that_nobody_has_the_group_is_made_to_share_out_anew() {
    let world = World::start(FakeGroup::new(3), quick());
    world.group.send(100);
    world.until_all().await;
    world.group.orphan(1);
    world.group.send(100);
    world.until_all().await;
    assert_eq!(world.group.state().nudges, 1);
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_living_process_with_its_name_the_projection_leaves_it_the_name_and_stops() {
    let world = World::start(FakeGroup::new(1), quick());
    until("assigned", || world.status().assigned).await;
    world.group.replace(u64::MAX);
    until("told", || world.status().trouble.is_some_and(|trouble| trouble.contains("taken by somebody")))
        .await;
    let (status, group) = (world.status(), world.group.clone());
    assert!(!status.ready() && status.lanes.is_empty(), "{status:?}");
    let why = failed(world.end().await);
    assert!(why.contains("same instance name: somebody"), "{why}");
    assert_eq!(group.state().joins, 1);
}

#[tokio::test]
async fn given_trouble_of_the_consumer_it_shows_until_it_reads_again() {
    let world = World::start(FakeGroup::new(1), quick());
    world.group.send(10);
    world.until_all().await;
    // The end of the partition, too, is something that was read.
    let polls = world.group.state().polls;
    until("quiet", || world.group.state().polls > polls + 10).await;
    world.group.tell(Polled::Trouble("all brokers down".into()));
    until("told", || world.status().trouble.as_deref() == Some("all brokers down")).await;
    world.group.send(10);
    world.until_all().await;
    assert_eq!(world.status().trouble, None);
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_store_that_hangs_a_stop_ends_at_the_deadline_and_the_next_owner_goes_on() {
    let config = EngineConfig { drain_deadline_ms: 50, ..quick() };
    let sink = HangingSink::new();
    let group = FakeGroup::new(2);
    let world = World::start_with(group.clone(), config, sink.clone());
    sink.hang.set(true);
    group.send(100);
    until("hangs", || sink.hang.met() > 0).await;
    assert_eq!(world.stop().await, End::Stopped);
    sink.hang.on.store(false, Ordering::SeqCst);
    let next = World::start_with(group, quick(), sink);
    next.until_all().await;
    assert_eq!(next.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_a_store_that_answers_late_the_assignment_does_not_wait_for_it() {
    let sink = HangingSink::new();
    sink.inner.set_down(true);
    let group = FakeGroup::new(2);
    group.send(100);
    let world = World::start_with(group, quick(), sink.clone());
    until("assigned without progress", || world.status().assigned).await;
    assert!(waits(&world.status(), "reading progress"));
    assert_eq!(world.rows(), 0);
    sink.inner.set_down(false);
    world.until_all().await;
    assert_eq!(world.stop().await, End::Stopped);
}

#[tokio::test]
async fn given_the_same_event_twice_it_counts_once() {
    let world = World::start(FakeGroup::new(1), quick());
    let (key, value) = event(1);
    for _ in 0..3 {
        world.group.send_raw(0, Some(key.as_bytes()), &value);
    }
    until("all read", || world.group.state().commits.contains(&(at(0), 3))).await;
    assert_eq!(world.rows(), 1);
    assert_eq!(world.stop().await, End::Stopped);
}
