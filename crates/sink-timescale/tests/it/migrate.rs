//! Migrations: what is applied, what is refused, and in which words.

use std::time::Duration;

use fleetlog_projection::{Fault, Sink};
use fleetlog_sink_timescale::{
    ConnectionSettings, Database, Flavour, MIGRATIONS, MigrateError, Migration, Migrator, Retention,
};
use fleetlog_testkit::PgliteServer;
use sqlx::{Connection, PgConnection};

use crate::support::{FreshDatabase, NOON, TestRow, number, open, run, with_database};

/// The number of the last migration.
fn latest() -> i32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

#[tokio::test]
async fn an_empty_database_is_brought_up_to_date_once() {
    let fresh = FreshDatabase::new().await;
    let database = fresh.open();
    let migrator = Migrator::new(&database);
    let plan = migrator.plan().await.unwrap();
    assert_eq!((plan.version, plan.flavour, plan.pending.len()), (0, Flavour::Plain, MIGRATIONS.len()));
    let refused = database.check().await.unwrap_err();
    assert_eq!(refused.fault, Fault::Permanent);
    let told = format!("at version 0 of {}: run `fleetlog migrate`", latest());
    assert!(refused.to_string().contains(&told), "{refused}");

    assert_eq!(migrator.apply().await.unwrap().pending.len(), MIGRATIONS.len());
    let after = migrator.apply().await.unwrap();
    assert_eq!((after.version, after.pending.len()), (latest(), 0));
    let server = database.check().await.unwrap();
    assert!(server.to_string().ends_with("without TimescaleDB: plain partitioned tables"), "{server}");
    assert!(server.durable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_migrate_at_once_take_turns() {
    let fresh = FreshDatabase::new().await;
    let servers: Vec<_> = (0..6)
        .map(|_| {
            let database = fresh.open();
            tokio::spawn(async move { Migrator::new(&database).apply().await.map(|plan| plan.pending.len()) })
        })
        .collect();
    let mut applied = Vec::new();
    for server in servers {
        applied.push(server.await.unwrap().unwrap());
    }
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 0, 0, 0, MIGRATIONS.len()], "one of them did the work");
}

#[tokio::test]
async fn an_older_a_newer_and_an_edited_schema_are_told_apart() {
    let fresh = FreshDatabase::new().await;
    let database = fresh.open();
    Migrator::new(&database).up_to(2).apply().await.unwrap();
    let text = async || database.sink::<TestRow>().check().await.unwrap_err().to_string();
    assert!(text().await.contains(&format!("at version 2 of {}: run `fleetlog migrate`", latest())));
    Migrator::new(&database).apply().await.unwrap();
    database.check().await.unwrap();

    let mut beside = fresh.connect().await;
    run(
        &mut beside,
        &format!(
            "INSERT INTO fleetlog_migrations (version, name, checksum, flavour, applied_by)
             VALUES ({}, 'later', gen_random_uuid(), 'plain', 'fleetlog 9')",
            latest() + 1
        ),
    )
    .await;
    let told = text().await;
    let newer = format!(
        "at version {}, newer than the {} this fleetlog knows: upgrade fleetlog",
        latest() + 1,
        latest()
    );
    assert!(told.contains(&newer), "{told}");
    let refused = Migrator::new(&database).apply().await;
    assert!(
        matches!(refused, Err(MigrateError::Newer { found, known }) if (found, known) == (latest() + 1, latest()))
    );

    run(
        &mut beside,
        &format!(
            "DELETE FROM fleetlog_migrations WHERE version > {};
             UPDATE fleetlog_migrations SET checksum = gen_random_uuid() WHERE version = 2",
            latest()
        ),
    )
    .await;
    let told = text().await;
    assert!(told.contains("migration 0002_history was applied with other contents"), "{told}");
}

/// A migration that fails leaves the one before it, and nothing of its own.
#[tokio::test]
async fn a_failed_migration_is_rolled_back_and_named() {
    let fresh = FreshDatabase::new().await;
    let mut beside = fresh.connect().await;
    run(&mut beside, "CREATE TABLE task_event (mine text)").await;
    let database = fresh.open();
    let error = Migrator::new(&database).apply().await.unwrap_err().to_string();
    assert!(
        error.contains("0002_history failed and was rolled back") && error.contains("already exists"),
        "{error}"
    );
    assert_eq!(Migrator::new(&database).plan().await.unwrap().version, 1);
    assert_eq!(number(&mut beside, "SELECT count(*) FROM pg_class WHERE relname = 'telemetry'").await, 0);
    run(&mut beside, "DROP TABLE task_event").await;
    Migrator::new(&database).apply().await.unwrap();
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let fresh = FreshDatabase::new().await;
    let mut beside = fresh.connect().await;
    let name: String =
        sqlx::query_scalar("SELECT current_database() || '_ascii'").fetch_one(&mut beside).await.unwrap();
    run(&mut beside, &format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"))
        .await;
    let error = open(&with_database(&fresh.url, &name), Duration::from_secs(20)).check().await.unwrap_err();
    run(&mut beside, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    assert_eq!(error.fault, Fault::Permanent);
    assert!(error.to_string().contains("encoding is SQL_ASCII"), "{error}");
}

/// A server without synchronous commits works, and is known for it.
#[tokio::test]
async fn a_server_that_loses_tails_is_noticed() {
    let fresh = FreshDatabase::migrated().await;
    let mut beside = fresh.connect().await;
    let name: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut beside).await.unwrap();
    run(&mut beside, &format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    assert!(!fresh.open().check().await.unwrap().durable);
}

const COLUMNS: &str = "
    SELECT coalesce(string_agg(format('%s.%s %s%s %s', c.relname, a.attname,
                                      format_type(a.atttypid, a.atttypmod),
                                      CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
                                      col_description(c.oid, a.attnum)), E'\\n' ORDER BY c.relname, a.attnum), '')
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
      AND c.relkind IN ('r', 'p', 'v') AND c.relname !~ '_(default|[0-9]{6,8})$'
      AND c.relname IN ('telemetry', 'unit_event', 'task_event', 'fleetlog_progress', 'fleetlog_set_aside',
                        'unit_gaps', 'unit_connection', 'set_aside_open', 't_app_task_ledger2',
                        'task_milestone', 'task_hourly_stats', 'telemetry_1m', 'fleet_now', 'task_timeline',
                        'unit_availability_daily', 'unit_sequence', 'unit_gap_list')";

/// Every table and view of the schema says what each column means.
#[tokio::test]
async fn every_column_has_a_comment() {
    let fresh = FreshDatabase::migrated().await;
    let mut beside = fresh.connect().await;
    let columns: String = sqlx::query_scalar(COLUMNS).fetch_one(&mut beside).await.unwrap();
    assert!(columns.lines().count() > 120, "{columns}");
    let bare: Vec<_> =
        columns.lines().filter(|line| line.ends_with(' ') || line.ends_with("not null ")).collect();
    assert!(bare.is_empty(), "without comment: {bare:?}");
}

/// Whatever view there is, and its columns: a new one without comments is found here.
#[tokio::test]
async fn every_view_has_a_comment_and_so_has_each_of_its_columns() {
    let fresh = FreshDatabase::migrated().await;
    let mut beside = fresh.connect().await;
    const VIEWS: &str =
        "FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('v', 'm')";
    assert!(number(&mut beside, &format!("SELECT count(*) {VIEWS}")).await >= 10);
    let bare = format!(
        "SELECT c.relname::text {VIEWS} AND obj_description(c.oid, 'pg_class') IS NULL
         UNION ALL
         SELECT c.relname || '.' || a.attname
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('v', 'm')
           AND col_description(c.oid, a.attnum) IS NULL"
    );
    let bare: Vec<String> = sqlx::query_scalar(&bare).fetch_all(&mut beside).await.unwrap();
    assert!(bare.is_empty(), "without comment: {bare:?}");
}

/// The other flavour, on the WASM build of PostgreSQL with the extension: hypertables, compression, policies, and the
/// same columns and comments as on plain PostgreSQL. It serves one connection at a time, so this is one test.
#[tokio::test]
async fn the_timescale_flavour_has_hypertables_with_the_same_columns() {
    let server = PgliteServer::start().await.unwrap();
    let url = server.url();
    let settings =
        ConnectionSettings { url: url.clone(), connections_max: 1, timeout: Duration::from_secs(60) };
    let database = Database::new(&settings).unwrap();
    let plan = Migrator::new(&database).apply().await.unwrap();
    assert_eq!((plan.flavour, plan.pending.len()), (Flavour::Timescale, MIGRATIONS.len()));
    assert_eq!(Migrator::new(&database).apply().await.unwrap().pending, Vec::<&Migration>::new());
    let found = database.check().await.unwrap();
    assert!(found.to_string().ends_with("TimescaleDB hypertables"), "{found}");
    jobs_are_told(&database).await;
    let mut policies = Vec::new();
    for telemetry_days in [None, Some(90), Some(90), Some(30), None] {
        database.maintain(NOON, Retention { telemetry_days }).await.unwrap();
        database.close().await;
        let mut connection = PgConnection::connect(&url).await.unwrap();
        policies.push(retention(&mut connection).await);
        connection.close().await.unwrap();
    }
    let [none, first, kept, changed, removed] = policies.try_into().unwrap();
    assert_eq!((none, first.as_ref().map(|p| p.1.as_str())), (None, Some("90 days")));
    assert_eq!(first, kept, "the same setting leaves the job alone");
    assert_eq!((changed.map(|p| p.1), removed), (Some("30 days".into()), None));

    let mut connection = PgConnection::connect(&url).await.unwrap();
    let here: String = sqlx::query_scalar(COLUMNS).fetch_one(&mut connection).await.unwrap();
    let plain = FreshDatabase::migrated().await;
    let there: String = sqlx::query_scalar(COLUMNS).fetch_one(&mut plain.connect().await).await.unwrap();
    assert_eq!(here, there, "names, types and comments are those of plain PostgreSQL");
    chunks_are_made_and_compressed(&mut connection).await;
}

/// What `fleetlog doctor` asks. The WASM build has no scheduler, so none of them ever ran.
async fn jobs_are_told(database: &Database) {
    let jobs = database.facts().await.unwrap().jobs;
    let of = |procedure| {
        jobs.iter().filter(|job| job.procedure == procedure).map(|job| job.of.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(
        of("policy_compression"),
        ["telemetry", "unit_event", "task_event", "task_milestone", "telemetry_1m"]
    );
    assert_eq!(of("policy_refresh_continuous_aggregate"), ["task_hourly_stats", "telemetry_1m"]);
    assert_eq!(jobs.len(), 7);
    assert!(jobs.iter().all(|job| job.is_scheduled && job.runs == 0 && !job.has_failed), "{jobs:?}");
}

/// The retention job of `telemetry`: its number and after how long it drops.
async fn retention(connection: &mut PgConnection) -> Option<(i32, String)> {
    let sql = "SELECT job_id, config ->> 'drop_after' FROM timescaledb_information.jobs
               WHERE proc_name = 'policy_retention'";
    sqlx::query_as(sql).fetch_optional(connection).await.unwrap()
}

async fn chunks_are_made_and_compressed(connection: &mut PgConnection) {
    let hypertables = "SELECT count(*) FROM timescaledb_information.hypertables
                       WHERE hypertable_name IN ('telemetry', 'unit_event', 'task_event') AND compression_enabled";
    assert_eq!(number(connection, hypertables).await, 3);
    let policies = "SELECT count(*) FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression'";
    assert_eq!(number(connection, policies).await, 5);
    run(
        connection,
        "INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id,
                                sequence, sequence_scope, source)
         SELECT '2026-11-21'::timestamptz + n * interval '1 hour', 'epoch', 's', 'u', 0, n, gen_random_uuid(),
                n, 'state#0', 'it'
         FROM generate_series(1, 100) n",
    )
    .await;
    let chunks = "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'telemetry'";
    assert_eq!(number(connection, chunks).await, 5, "one a day");
    run(connection, "SELECT compress_chunk(c) FROM show_chunks('telemetry') c").await;
    assert_eq!(number(connection, &format!("{chunks} AND is_compressed")).await, 5);
    assert_eq!(
        number(connection, "SELECT messages FROM unit_gaps WHERE gaps = 0 AND channel = 'state'").await,
        100
    );
}

/// The counters' arithmetic: a jump forward is a gap, a step back a reset, standing still a repeat; in log order, by
/// channel, whatever the incarnation.
#[tokio::test]
async fn gaps_are_counted_in_log_order() {
    let fresh = FreshDatabase::migrated().await;
    let mut beside = fresh.connect().await;
    run(
        &mut beside,
        "INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id,
                                sequence, sequence_scope, source)
         SELECT now() - n * interval '1 s', 'epoch', 's', unit, 0, n, gen_random_uuid(), sequence, scope, 'it'
         FROM (VALUES (1, 'a', 7, 'state#0'), (2, 'a', 8, 'state#0'), (3, 'b', 1, 'state#0'),
                      (4, 'a', 12, 'state#0'), (5, 'a', 12, 'state#0'), (6, 'a', 100, 'visualization#0'),
                      (7, 'a', 0, 'state#1'), (8, 'a', 2, 'state#1'), (9, 'a', NULL, NULL)) AS v (n, unit, sequence, scope);
         INSERT INTO unit_event (recorded_at, occurred_at, site_uid, unit_uid, event_type, log_partition, log_offset,
                                 event_id, payload, sequence, sequence_scope, source, reason)
         SELECT now(), 'epoch', 's', 'a', event_type, 0, n, gen_random_uuid(), '{}', sequence, scope, 'it', reason
         FROM (VALUES (1, 'Connected', 1, 'connection#0', NULL), (2, 'FaultRaised', 9, 'state#0', NULL),
                      (3, 'Disconnected', 2, 'connection#0', 'BROKEN')) AS v (n, event_type, sequence, scope, reason)",
    )
    .await;
    let sql = "SELECT unit_uid, channel, messages, gaps, missing::bigint, resets, repeats
               FROM unit_gaps ORDER BY unit_uid, channel";
    let counted: Vec<(String, String, i64, i64, i64, i64, i64)> =
        sqlx::query_as(sql).fetch_all(&mut beside).await.unwrap();
    let expected = [
        ("a", "connection", 2, 0, 0, 0, 0),
        ("a", "state", 6, 2, 4, 1, 1),
        ("a", "visualization", 1, 0, 0, 0, 0),
        ("b", "state", 1, 0, 0, 0, 0),
    ];
    let expected =
        expected.map(|(unit, channel, a, b, c, d, e)| (unit.to_owned(), channel.to_owned(), a, b, c, d, e));
    assert_eq!(counted, expected);
    let last: (String, String) = sqlx::query_as("SELECT connection, reason FROM unit_connection")
        .fetch_one(&mut beside)
        .await
        .unwrap();
    assert_eq!(last, ("Disconnected".into(), "BROKEN".into()));
}
