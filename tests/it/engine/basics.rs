//! What a quiet day looks like: catching up, ends, markers, restarts.

use fleetlog_engine::{End, EngineConfig, RunMode};
use fleetlog_projection::MemorySink;

use super::support::{Fleet, places, total, until};

#[tokio::test(flavor = "multi_thread")]
async fn once_takes_every_event_once_and_stops_at_the_end() {
    let fleet = Fleet::on_stack("once").await;
    fleet.connect(20_000, 500);
    let sink = MemorySink::new();
    let outcome = fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await;
    assert_eq!(outcome.end, End::CaughtUp);
    assert_eq!((outcome.stats.events, outcome.stats.duplicates, outcome.stats.set_aside), (20_000, 0, 0));
    assert!(outcome.stats.cpu_seconds > 0.0);
    assert_eq!((total(&sink), sink.entities().len()), (20_000, 500));

    let again = fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await;
    assert_eq!((again.end, again.stats.events), (End::CaughtUp, 0), "nothing new");
    fleet.connect(600, 500);
    let more = fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await;
    assert_eq!((more.stats.events, total(&sink)), (600, 20_600));
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_markers_and_aborted_events_do_not_keep_a_lane_from_the_end() {
    let fleet = Fleet::on_stack("markers").await;
    fleet.connect(60, 30);
    fleet.transaction(60, 30, true);
    fleet.transaction(60, 30, false);
    let sink = MemorySink::new();
    let outcome = fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await;
    assert_eq!((outcome.end, outcome.stats.events, total(&sink)), (End::CaughtUp, 120, 120));

    let running = fleet.run_connects(sink.clone(), "a", RunMode::Continuous);
    running
        .until("every lane at the end", |now| {
            now.lanes.len() == 6 && now.lanes.iter().all(|lane| lane.lag() == Some(0))
        })
        .await;
    fleet.connect(30, 30);
    until("events behind the markers", || total(&sink) == 150).await;
    assert_eq!(running.stop().await.end, End::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_over_three_topics_takes_each_partition_of_each() {
    let fleet = Fleet::on_stack("topics").await;
    fleet.connect(300, 50);
    let telemetry = (0..200).map(|n| {
        let meta = super::support::meta(&(n % 20).to_string(), 1_000_000 + n);
        super::support::telemetry(meta)
    });
    fleet.send(telemetry.collect::<Vec<_>>());
    let sink = MemorySink::new();
    let config = EngineConfig { instance: "a".into(), ..EngineConfig::default() };
    let outcome = fleet.run(places(), sink.clone(), config, RunMode::Once).end().await;
    assert_eq!((outcome.end, outcome.stats.events, sink.rows().len()), (End::CaughtUp, 500, 500));
    assert_eq!(sink.lanes().len(), 12, "robot and telemetry; nothing to write for task");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_sent_twice_counts_once_also_across_a_restart() {
    let fleet = Fleet::on_stack("twice").await;
    let events: Vec<_> = (0..100).map(|n| fleet.connected(n % 10)).collect();
    fleet.send(events.clone());
    fleet.send(events.clone());
    let sink = MemorySink::new();
    let outcome = fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await;
    assert_eq!((outcome.stats.events, outcome.stats.duplicates, total(&sink)), (100, 100, 100));
    fleet.send(events);
    let outcome = fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await;
    assert_eq!((outcome.stats.events, outcome.stats.duplicates, total(&sink)), (0, 100, 100));
}
