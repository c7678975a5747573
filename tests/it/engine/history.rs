//! Log history that progress stands on and that is gone: noticed, never skipped.

use std::collections::BTreeMap;

use fleetlog_engine::{End, RunMode};
use fleetlog_projection::MemorySink;
use fleetlog_testkit::delete_before;

use super::support::{Fleet, total};

/// Removes the first records of a partition, as retention does.
async fn remove_before(fleet: &Fleet, partition: i32, offset: i64) {
    delete_before(&fleet.settings, &fleet.robot(), &BTreeMap::from([(partition, offset)])).await.unwrap();
}

fn why(end: End) -> String {
    match end {
        End::Failed(why) => why,
        other => panic!("should have failed: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_again_is_not_mistaken_for_the_old_one() {
    let fleet = Fleet::on_stack("recreated").await;
    fleet.connect(600, 60);
    let sink = MemorySink::new();
    assert_eq!(fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await.end, End::CaughtUp);
    fleet.admin().delete_topics(&[&fleet.robot()]).await.unwrap();
    fleet.create_topics(&fleet.specs()).await;
    fleet.connect(1_200, 60);
    let why = why(fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await.end);
    for part in ["deleted and made again", "rebuild `connects`", "adopt"] {
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(total(&sink), 600, "nothing was taken from the new log");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_overtook_progress_is_noticed() {
    let fleet = Fleet::on_stack("retention").await;
    fleet.connect(600, 60);
    let sink = MemorySink::new();
    assert_eq!(fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await.end, End::CaughtUp);
    fleet.connect(600, 60);
    let progress = sink.lane(&sink.lanes()[0]).progress.unwrap().main;
    let partition = sink.lanes()[0].partition;
    remove_before(&fleet, partition, progress).await;
    assert_eq!(
        fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await.end,
        End::CaughtUp,
        "not yet"
    );
    fleet.connect(600, 60);
    let progress = sink.lane(&sink.lanes()[0]).progress.unwrap().main;
    remove_before(&fleet, partition, progress + 3).await;
    let why = why(fleet.run_connects(sink.clone(), "a", RunMode::Once).end().await.end);
    assert!(why.contains("retention overtook it") && why.contains("3 offsets are lost"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_named() {
    let fleet = Fleet::on_stack("missing").await;
    fleet.admin().delete_topics(&[&fleet.robot()]).await.unwrap();
    let sink = MemorySink::new();
    let why = why(fleet.run_connects(sink, "a", RunMode::Once).end().await.end);
    assert!(why.contains(&fleet.robot()) && why.contains("does not exist") && why.contains("apply"), "{why}");
}
