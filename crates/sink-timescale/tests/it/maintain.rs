//! Partitions made ahead, rows beyond them, retention.

use fleetlog_event::TimestampMs;
use fleetlog_projection::{Chain, Commit, Sink};
use fleetlog_sink_timescale::{Retention, SqlSink};

use crate::support::{FreshDatabase, NOON, TestRow, lane, number, row, run, unit};

const DAY_MS: i64 = 86_400_000;
const FOR_EVER: Retention = Retention { telemetry_days: None };

/// Rows of any time are taken; once their partition is made they move there, none lost, none doubled.
#[tokio::test]
async fn rows_of_any_time_go_in_and_move_to_their_partition() {
    let fresh = FreshDatabase::migrated().await;
    let database = fresh.open();
    let sink: SqlSink<TestRow> = database.sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let times = [0, NOON.0, NOON.0 + DAY_MS, NOON.0 + 40 * DAY_MS, 4_102_444_800_000, i64::MAX, i64::MIN];
    let rows = (0..)
        .zip(times)
        .map(|(offset, at)| TestRow { recorded_at: TimestampMs(at), ..row(&lane, offset, 1) });
    assert_eq!(sink.commit(&unit(&lane, &mut chain, rows.collect())).await.unwrap(), Commit::Applied);
    let mut beside = fresh.connect().await;
    assert_eq!(number(&mut beside, "SELECT count(*) FROM telemetry_default").await, 7);

    let done = database.maintain(NOON, FOR_EVER).await.unwrap();
    assert_eq!(
        done.made,
        [
            "telemetry_20261120",
            "telemetry_20261121",
            "telemetry_20261122",
            "telemetry_20261123",
            "telemetry_20261124",
            "unit_event_202611",
            "unit_event_202612",
            "unit_event_202701",
            "task_event_202611",
            "task_event_202612",
            "task_event_202701"
        ]
    );
    assert_eq!(number(&mut beside, "SELECT count(*) FROM telemetry_20261121").await, 1);
    assert_eq!(number(&mut beside, "SELECT count(*) FROM telemetry_20261122").await, 1);
    assert_eq!(number(&mut beside, "SELECT count(*) FROM telemetry_default").await, 5);
    assert_eq!(number(&mut beside, "SELECT count(*) FROM telemetry").await, 7);
    // The parent's index is there too.
    let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'telemetry_20261121'";
    assert_eq!(number(&mut beside, indexes).await, 1);
    assert_eq!(
        database.maintain(NOON, FOR_EVER).await.unwrap().made,
        Vec::<String>::new(),
        "again: nothing to do"
    );
}

#[tokio::test]
async fn partitions_beyond_retention_are_dropped_and_no_other() {
    let fresh = FreshDatabase::migrated().await;
    let database = fresh.open();
    let long_ago = TimestampMs(NOON.0 - 100 * DAY_MS);
    database.maintain(long_ago, FOR_EVER).await.unwrap();
    let mut beside = fresh.connect().await;
    run(
        &mut beside,
        "INSERT INTO telemetry (recorded_at, occurred_at, site_uid, log_partition, log_offset, event_id, source)
         SELECT at, at, 's', 0, 0, gen_random_uuid(), 'it'
         FROM unnest(ARRAY['1970-01-01'::timestamptz, '2026-08-13', '2026-11-21', '2100-01-01']) AS at",
    )
    .await;
    let ninety = Retention { telemetry_days: Some(90) };
    let done = database.maintain(NOON, ninety).await.unwrap();
    assert_eq!(
        done.dropped,
        ["20260812", "20260813", "20260814", "20260815", "20260816"].map(|day| format!("telemetry_{day}"))
    );
    assert_eq!(number(&mut beside, "SELECT count(*) FROM telemetry").await, 2, "those of now and later stay");
    let events = "SELECT count(*) FROM pg_class WHERE relname ~ '^(unit|task)_event_2026(08|09|10)$'";
    assert_eq!(number(&mut beside, events).await, 6, "events are kept for ever");
}

/// A host whose clock is a year ahead: the database knows better.
#[tokio::test]
async fn a_clock_in_the_future_drops_nothing_that_is_not_old() {
    let fresh = FreshDatabase::migrated().await;
    let database = fresh.open();
    let mut beside = fresh.connect().await;
    run(
        &mut beside,
        "INSERT INTO telemetry (recorded_at, occurred_at, site_uid, log_partition, log_offset, event_id, source)
         VALUES (now(), now(), 's', 0, 0, gen_random_uuid(), 'it')",
    )
    .await;
    let next_year = TimestampMs(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64 + 365 * DAY_MS);
    let done = database.maintain(next_year, Retention { telemetry_days: Some(30) }).await.unwrap();
    assert_eq!(done.dropped, Vec::<String>::new());
    assert_eq!(number(&mut beside, "SELECT count(*) FROM telemetry").await, 1);
}

/// A server busy with writes is not held up: the partition is made at the next call.
#[tokio::test]
async fn a_busy_table_postpones_its_maintenance() {
    let fresh = FreshDatabase::migrated().await;
    let database = crate::support::open(&fresh.url, std::time::Duration::from_secs(2));
    let mut writer = fresh.connect().await;
    run(
        &mut writer,
        "BEGIN; INSERT INTO unit_event_default
             (recorded_at, occurred_at, site_uid, event_type, log_partition, log_offset, event_id, payload, source)
         VALUES (now(), now(), 's', 'Connected', 0, 0, gen_random_uuid(), '{}', 'it')",
    )
    .await;
    let done = database.maintain(NOON, FOR_EVER).await.unwrap();
    assert_eq!(done.postponed, ["unit_event_202611", "unit_event_202612", "unit_event_202701"]);
    run(&mut writer, "COMMIT").await;
    let done = database.maintain(NOON, FOR_EVER).await.unwrap();
    assert_eq!(done.made, ["unit_event_202611", "unit_event_202612", "unit_event_202701"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_maintain_at_once_take_turns() {
    let fresh = FreshDatabase::migrated().await;
    let servers: Vec<_> = (0..4)
        .map(|_| {
            let database = fresh.open();
            tokio::spawn(async move { database.maintain(NOON, FOR_EVER).await.unwrap().made.len() })
        })
        .collect();
    let mut made = 0;
    for server in servers {
        made += server.await.unwrap();
    }
    assert_eq!(made, 11);
}
