//! States of folds in SQL, beyond the suite: what somebody else did to them, and how fast they go in.

use std::time::Instant;

use fleetlog_event::EntityKey;
use fleetlog_projection::{
    Base, Chain, Commit, EntityChange, Fault, LaneId, Progress, Sink, SinkError, UnitOfWork, Version,
};
use fleetlog_sink_timescale::SqlSink;

use crate::support::{FreshDatabase, NOON, TEST_ENTITY_TABLE, TestEntity, lane, log, number, run};

async fn database() -> FreshDatabase {
    let fresh = FreshDatabase::migrated().await;
    run(&mut fresh.connect().await, TEST_ENTITY_TABLE).await;
    fresh
}

/// A unit of work on the chain with these entities, all at version `next`.
fn unit(lane: &LaneId, chain: &mut Chain, homes: &[String], next: i64) -> UnitOfWork<TestEntity> {
    let (follows, leaves) = chain.next();
    let entity = |home: &String| EntityChange {
        key: EntityKey::from(home.as_str()),
        home: home.clone(),
        version: Version { log: log(), partition: lane.partition, next, revision: 0 },
        state: next.to_string().into_bytes(),
        writes: vec![TestEntity { home: home.clone(), value: next }],
        base: Base::Unknown,
    };
    UnitOfWork {
        lane: lane.clone(),
        follows,
        leaves,
        progress: Progress { log: log(), main: next, inbox: 0, last: None },
        entities: homes.iter().map(entity).collect(),
        rows: Vec::new(),
        set_aside: Vec::new(),
        entries: Vec::new(),
        made_at: NOON,
    }
}

fn homes(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("task-{n:06}")).collect()
}

async fn permanent(sink: &SqlSink<TestEntity>, unit: &UnitOfWork<TestEntity>) -> String {
    match sink.commit(unit).await {
        Err(SinkError { fault: Fault::Permanent, what, .. }) => what,
        other => panic!("expected Permanent, got {other:?}"),
    }
}

/// The chain holds, but a row does not: it went on without its lane, or belongs to another log. Nothing is stored, and
/// the row is named.
#[tokio::test]
async fn a_row_that_somebody_else_wrote_is_not_written_over() {
    let fresh = database().await;
    let sink = fresh.open().fold_sink();
    let mut beside = fresh.connect().await;
    for (damage, part) in [
        ("fold_next = 900", "at offset 900"),
        ("fold_revision = 1, fold_next = 20", "at offset 20"),
        ("fold_partition = 5", "/5 at offset 10"),
        ("fold_log = gen_random_uuid()", "which is to become 00000000-0000-0000-0000-000000000106/0 at 20"),
    ] {
        run(&mut beside, "TRUNCATE test_entity").await;
        let (lane, mut chain) = (lane(), Chain::resume(1, None));
        let first = unit(&lane, &mut chain, &homes(300), 10);
        assert_eq!(sink.commit(&first).await.unwrap(), Commit::Applied);
        chain.written(first.leaves);
        run(&mut beside, &format!("UPDATE test_entity SET {damage} WHERE home = 'task-000123'")).await;
        let told = permanent(&sink, &unit(&lane, &mut chain, &homes(300), 20)).await;
        for part in ["row 'task-000123' of `test_entity`", part, "rebuild"] {
            assert!(told.contains(part), "{damage}: `{part}` is not in: {told}");
        }
        assert_eq!(number(&mut beside, "SELECT count(*) FROM test_entity WHERE value = 20").await, 0);
    }
}

/// A fold's row has nothing that the schema refuses. What a user's own constraint refuses stops the projection.
#[tokio::test]
async fn a_state_that_the_database_refuses_is_told() {
    let fresh = database().await;
    let sink = fresh.open().fold_sink();
    let mut beside = fresh.connect().await;
    run(&mut beside, "ALTER TABLE test_entity ADD CONSTRAINT small CHECK (value < 15)").await;
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let told = permanent(&sink, &unit(&lane, &mut chain, &homes(3), 20)).await;
    assert!(told.contains("constraint \"small\"") && told.contains("migrations did not make"), "{told}");
    assert_eq!(number(&mut beside, "SELECT count(*) FROM fleetlog_progress").await, 0);
}

/// A record's key may be any text; one that SQL cannot hold has no state there.
#[tokio::test]
async fn a_home_with_a_nul_has_no_state() {
    let fresh = database().await;
    let sink: SqlSink<TestEntity> = fresh.open().fold_sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let first = unit(&lane, &mut chain, &homes(1), 10);
    assert_eq!(sink.commit(&first).await.unwrap(), Commit::Applied);
    let asked = ["a\0b", "task-000000", "none"].map(str::to_owned);
    let stored = sink.read(&lane, &asked).await.unwrap();
    assert_eq!(stored.states.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(stored.link, Some(first.leaves));
}

#[tokio::test]
async fn a_sink_of_rows_takes_no_states() {
    let fresh = database().await;
    let sink: SqlSink<TestEntity> = fresh.open().sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    assert!(permanent(&sink, &unit(&lane, &mut chain, &homes(1), 10)).await.contains("fold_sink"));
    assert_eq!(sink.read(&lane, &homes(1)).await.unwrap_err().fault, Fault::Permanent);
}

/// Prints how fast states go in, first as new rows, then in the place of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_states_go_in_and_are_replaced() {
    let fresh = database().await;
    let sink: SqlSink<TestEntity> = fresh.open().fold_sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let homes = homes(100_000);
    for round in 1..=2 {
        let begun = Instant::now();
        for part in homes.chunks(20_000) {
            let unit = unit(&lane, &mut chain, part, round);
            assert_eq!(sink.commit(&unit).await.unwrap(), Commit::Applied);
            chain.written(unit.leaves);
        }
        println!("round {round}: {:.0} states/s", 100_000.0 / begun.elapsed().as_secs_f64());
    }
    let sql = "SELECT count(*) FROM test_entity WHERE value = 2 AND fold_state = '2'";
    assert_eq!(number(&mut fresh.connect().await, sql).await, 100_000);
}
