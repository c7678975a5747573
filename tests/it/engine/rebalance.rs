//! Members come and go, stores are away when partitions arrive, owners are replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use fleetlog_engine::{
    End, EngineConfig, Intake, KafkaIntake, LaneAt, LaneState, Polled, RebalanceEvent, RunMode,
};
use fleetlog_event::{LogId, TimestampMs};
use fleetlog_projection::{
    Chain, Commit, Fold, HotWrite, LaneId, LedgerEntry, MemorySink, Sink, SinkError, Stored, UnitOfWork,
};

use super::support::{Connects, Fleet, Running, total, until};

/// A store whose check at the start passes also while it is down.
#[derive(Clone)]
struct Unchecked(MemorySink<HotWrite>);

impl Sink for Unchecked {
    type Write = HotWrite;
    const IN_PARTS: bool = true;

    async fn check(&self) -> Result<(), SinkError> {
        Ok(())
    }
    async fn read(&self, lane: &LaneId, homes: &[String]) -> Result<Stored, SinkError> {
        self.0.read(lane, homes).await
    }
    async fn entries(
        &self,
        lane: &LaneId,
        log: LogId,
        offsets: &[i64],
    ) -> Result<BTreeMap<i64, LedgerEntry>, SinkError> {
        self.0.entries(lane, log, offsets).await
    }
    async fn not_taken(
        &self,
        lane: &LaneId,
        log: LogId,
        range: Range<i64>,
    ) -> Result<BTreeSet<i64>, SinkError> {
        self.0.not_taken(lane, log, range).await
    }
    async fn commit(&self, unit: &UnitOfWork<HotWrite>) -> Result<Commit, SinkError> {
        self.0.commit(unit).await
    }
}

fn lanes(running: &Running) -> usize {
    running.status.snapshot().lanes.len()
}

fn lane(fleet: &Fleet, partition: i32) -> LaneId {
    LaneId { projection: "connects".into(), version: 1, topic: fleet.robot(), partition }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_under_load_and_every_event_counts_once() {
    let fleet = Arc::new(Fleet::on_stack("members").await);
    let sink = MemorySink::new();
    let load = tokio::task::spawn_blocking({
        let fleet = Arc::clone(&fleet);
        move || (0..150).for_each(|_| fleet.connect(400, 300))
    });
    let first = fleet.run_connects(sink.clone(), "a", RunMode::Continuous);
    first.until("all six", |now| now.lanes.len() == 6).await;
    let second = fleet.run_connects(sink.clone(), "b", RunMode::Continuous);
    until("three each", || lanes(&first) == 3 && lanes(&second) == 3).await;
    assert_eq!(first.stop().await.end, End::Stopped);
    // The first one's static membership times out, then its partitions come over.
    second.until("all six", |now| now.lanes.len() == 6).await;
    load.await.unwrap();
    until("every event", || total(&sink) >= 60_000).await;
    let outcome = second.stop().await;
    assert_eq!((outcome.end, total(&sink)), (End::Stopped, 60_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_when_partitions_arrive_is_waited_for() {
    let fleet = Fleet::on_stack("down").await;
    fleet.connect(600, 60);
    let sink = MemorySink::new();
    sink.set_down(true);
    let config = EngineConfig { instance: "a".into(), ..EngineConfig::default() };
    let running = fleet.run(Fold::new(Connects), Unchecked(sink.clone()), config, RunMode::Continuous);
    running
        .until("every lane waits", |now| {
            now.assigned
                && now.lanes.len() == 6
                && now.lanes.iter().all(
                    |lane| matches!(&lane.state, LaneState::Waiting(why) if why.contains("reading progress")),
                )
        })
        .await;
    sink.set_down(false);
    until("every event", || total(&sink) == 600).await;
    running.until("ready", |now| now.ready()).await;

    sink.set_down(true);
    fleet.connect(600, 60);
    running
        .until("some lane waits", |now| now.lanes.iter().any(|l| matches!(l.state, LaneState::Waiting(_))))
        .await;
    sink.set_down(false);
    until("every event", || total(&sink) == 1_200).await;
    assert_eq!(running.stop().await.stats.set_aside, 0, "an outage is no data error");
    assert!(fleet.read_all(&fleet.settings.topic("robot-dlq")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_the_same_name_takes_over_at_once_and_the_old_one_ends() {
    let fleet = Fleet::on_stack("takeover").await;
    fleet.connect(600, 60);
    let sink = MemorySink::new();
    let old = fleet.run_connects(sink.clone(), "a", RunMode::Continuous);
    until("the old one's work", || total(&sink) == 600).await;
    // The old one does not leave: for the group it is as if it had been killed.
    fleet.connect(600, 60);
    until("the old one's work", || total(&sink) == 1_200).await;
    let begun = std::time::Instant::now();
    let new = fleet.run_connects(sink.clone(), "a", RunMode::Continuous);
    new.until("assigned", |now| now.lanes.len() == 6 && now.ready()).await;
    fleet.connect(600, 60);
    until("the new one's work", || total(&sink) == 1_800).await;
    // The old one's session would last for 10 s.
    assert!(begun.elapsed() < Duration::from_secs(8), "first write after {:?}", begun.elapsed());
    match old.end().await.end {
        End::Failed(why) => assert!(why.contains("same instance name"), "{why}"),
        other => panic!("the old one should have been told: {other:?}"),
    }
    assert_eq!(new.stop().await.end, End::Stopped);
    assert_eq!(total(&sink), 1_800);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_owners_write_fences_the_lane_which_goes_on_from_what_is_stored() {
    let fleet = Fleet::on_stack("fenced").await;
    let sink = MemorySink::new();
    let running = fleet.run_connects(sink.clone(), "a", RunMode::Continuous);
    fleet.connect(6_000, 60);
    until("the first events", || total(&sink) == 6_000).await;
    for round in 1..=5 {
        // Somebody takes the chain further without moving progress, as a zombie's first write would.
        let at = lane(&fleet, 3);
        let stored = sink.read(&at, &[]).await.unwrap();
        let mut chain = Chain::resume(round, stored.link);
        let (follows, leaves) = chain.next();
        let unit = UnitOfWork::<HotWrite> {
            lane: at,
            follows,
            leaves,
            progress: stored.progress.unwrap(),
            entities: Vec::new(),
            rows: Vec::new(),
            set_aside: Vec::new(),
            entries: Vec::new(),
            made_at: TimestampMs(0),
        };
        // The lane may have written in between; then it is this write that is fenced.
        if sink.commit(&unit).await.is_err() {
            continue;
        }
        fleet.connect(600, 60);
    }
    running.until("fenced", |now| now.lanes.iter().any(|lane| lane.fenced > 0)).await;
    let sent = fleet.sent();
    until("every event", || total(&sink) >= sent).await;
    assert_eq!(running.stop().await.end, End::Stopped);
    assert_eq!(total(&sink), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_its_tail_is_noticed_while_the_fleet_is_quiet() {
    let fleet = Fleet::on_stack("tail").await;
    let sink = MemorySink::with_history(4);
    let running = fleet.run_connects(sink.clone(), "a", RunMode::Continuous);
    fleet.connect(100, 20);
    until("the first events", || total(&sink) == 100).await;
    let moment = sink.moment();
    fleet.connect(100, 20);
    until("all events", || total(&sink) == 200).await;
    sink.lose_tail(moment);
    // No event arrives: the idle lanes look at their links.
    until("all events again", || total(&sink) == 200).await;
    assert!(running.status.snapshot().lanes.iter().any(|lane| lane.fenced > 0));
    assert_eq!(running.stop().await.end, End::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_finishes_the_write_in_flight_and_the_next_run_goes_on() {
    let fleet = Arc::new(Fleet::on_stack("drain").await);
    let sink = MemorySink::new();
    let load = tokio::task::spawn_blocking({
        let fleet = Arc::clone(&fleet);
        move || (0..100).for_each(|_| fleet.connect(300, 100))
    });
    for _ in 0..4 {
        let before = total(&sink);
        let running = fleet.run_connects(sink.clone(), "a", RunMode::Continuous);
        until("some progress", || total(&sink) > before || before == 30_000).await;
        assert_eq!(running.stop().await.end, End::Stopped);
    }
    load.await.unwrap();
    let outcome = fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await;
    assert_eq!((outcome.end, total(&sink)), (End::CaughtUp, 30_000));
    let committed = fleetlog_kafka::Offsets::new(&fleet.settings).unwrap();
    let group = format!("{}fleetlog-connects-v1", fleet.settings.topic_prefix);
    let committed = committed.committed(&group, &[&fleet.robot()]).await.unwrap();
    assert_eq!(committed.values().sum::<i64>(), 30_000, "lag tools see the progress after a stop");
}

/// The first record of partition 0 that is polled.
fn first_record(intake: &mut KafkaIntake) -> Option<i64> {
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if let Polled::Record(LaneAt { partition: 0, .. }, record) = intake.poll(Duration::from_millis(50)) {
            return Some(record.offset);
        }
    }
    None
}

/// The client keeps a pause over giving up and taking up: a full lane that is given up and comes back stood still.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_given_up_while_paused_is_read_when_it_comes_back() {
    let fleet = Fleet::on_stack("paused").await;
    fleet.connect(600, 300);
    let settings = fleet.settings.clone();
    let read = move || {
        let group = format!("{}paused", settings.topic_prefix);
        let topics = vec![settings.topic("robot")];
        let mut intake =
            KafkaIntake::new(&settings, &EngineConfig::default(), &group, "paused", topics).unwrap();
        let lanes = loop {
            if let Polled::Rebalance(RebalanceEvent::Assigned(lanes)) = intake.poll(Duration::from_millis(50))
            {
                break lanes;
            }
        };
        let (starts, lane): (Vec<_>, _) =
            (lanes.iter().map(|lane| (*lane, Some(0))).collect(), LaneAt { topic: 0, partition: 0 });
        intake.assign(&starts).unwrap();
        assert_eq!(first_record(&mut intake), Some(0));
        intake.pause(lane);
        intake.unassign(&[lane]).unwrap();
        intake.assign(&[(lane, Some(2))]).unwrap();
        assert_eq!(first_record(&mut intake), Some(2));
    };
    tokio::task::spawn_blocking(read).await.unwrap();
}
