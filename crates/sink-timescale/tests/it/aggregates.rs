//! Tasks by the hour and telemetry by the minute: the same on plain PostgreSQL (views) and on TimescaleDB (continuous
//! aggregates: the WASM build, or the server of `FLEETLOG_TEST_TIMESCALE_URL`), and what a computation of their own in Rust
//! says.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fleetlog_event::TimestampMs;
use fleetlog_sink_timescale::{ConnectionSettings, Database, Migrator, Retention};
use fleetlog_testkit::{PgliteServer, Stack};
use sqlx::{Connection, PgConnection};

use crate::support::{FreshDatabase, number, run};

/// Five thousand tasks over six days, some without a duration, one in ten not over.
const TASKS: &str = "
    INSERT INTO t_app_task_ledger2
        (task_id, site_uid, unit_uid, task_type, priority, status, created_at, finished_at, total_ms, work_ms, step_count,
         steps_finished, steps_failed, steps, parameters, assignments, pauses, rejections, occurred_at, recorded_at,
         created_recorded_at, finished_recorded_at, fold_log, fold_partition, fold_next, fold_revision, fold_state)
    SELECT 'task-' || n, 's' || n % 3, 'u' || n % 20, (ARRAY['delivery', 'transport'])[1 + n % 2], 0,
           CASE WHEN n % 10 = 0 THEN 'started' WHEN n % 25 = 1 THEN 'failed' WHEN n % 40 = 3 THEN 'cancelled'
                WHEN n % 90 = 7 THEN 'rejected' ELSE 'completed' END,
           at, CASE WHEN n % 10 > 0 THEN at + (60 + n % 900) * interval '1 s' END,
           CASE WHEN n % 10 > 0 AND n % 7 > 0 THEN (60 + n * n % 900) * 1000 END, n * n % 4000 * 1000,
           0, 0, 0, '[]', '{}', 1, 0, 0, at, at, at, CASE WHEN n % 10 > 0 THEN at + (60 + n % 900) * interval '1 s' END,
           '00000000-0000-0000-0000-000000000001', 0, n, 0, '{}'
    FROM (SELECT n, '2024-11-01'::timestamptz + n * interval '97 s' AS at FROM generate_series(0, 4999) n) made";

/// A task of the first hours ends days later, after its hour and the end's were looked at.
const A_LATE_END: &str = "
    UPDATE t_app_task_ledger2
    SET status = 'completed', finished_at = '2024-11-21', finished_recorded_at = '2024-11-03 05:00:00+00',
        total_ms = 777777777
    WHERE task_id = 'task-10'";

/// Tasks whose records say times that a hypertable refuses, and ones that it takes: none of them stops the ledger.
const ODD_TASKS: &str = "
    INSERT INTO t_app_task_ledger2
    SELECT (jsonb_populate_record(t, jsonb_build_object('task_id', 'odd-' || at, 'created_recorded_at', at))).*
    FROM t_app_task_ledger2 t,
         unnest(ARRAY['infinity', '-infinity', '294276-12-31', '9999-12-31', '1970-01-01', '4713-01-01 BC']) at
    WHERE task_id = 'task-11'";

/// Seven hours of seven units: gaps in what they tell, two maps, a position that is half there, one time twice.
const TELEMETRY: &str = "
    INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id, source,
                           x_m, y_m, map_id, battery_percent, driving)
    SELECT '2024-11-20'::timestamptz + n / 10 * interval '13 s', 'epoch', 's', 'u' || n % 7, n % 2, n,
           gen_random_uuid(), 'it', CASE WHEN n % 11 > 0 THEN n % 97 * 0.1 END, n % 89 * 0.37,
           CASE WHEN n % 400 < 200 THEN 'a' ELSE 'b' END, CASE WHEN n % 5 > 0 THEN 100 - n % 83 * 0.7 END,
           CASE WHEN n % 13 > 0 THEN n % 30 < 17 END
    FROM generate_series(1, 20000) n";

/// A unit without a name, one that tells nothing, and times at the ends of what a hypertable takes.
const ODD_TELEMETRY: &str = "
    INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id, source)
    SELECT at, 'epoch', 'odd', unit, 0, n, gen_random_uuid(), 'it'
    FROM (VALUES (1, NULL, '2024-11-20'::timestamptz), (2, 'mute', '2024-11-20'), (3, 'mute', '1970-01-01'),
                 (4, 'mute', '2100-01-01'), (5, 'mute', 'infinity'), (6, 'mute', '294000-01-01'),
                 (7, 'mute', '4713-01-01 BC')) odd (n, unit, at)";

async fn rows(connection: &mut PgConnection, of: &str) -> Vec<String> {
    let sql = format!("SELECT t::text FROM {of} t");
    let mut rows: Vec<String> = sqlx::query_scalar(&sql).fetch_all(connection).await.unwrap();
    rows.sort_unstable();
    rows
}

async fn plain() -> (FreshDatabase, PgConnection) {
    let fresh = FreshDatabase::migrated().await;
    let mut connection = fresh.connect().await;
    run(&mut connection, "SET timezone = 'UTC'").await;
    (fresh, connection)
}

/// What keeps a database with TimescaleDB there.
enum Timescale {
    Wasm(PgliteServer),
    Native(FreshDatabase),
}

impl Timescale {
    fn url(&self) -> String {
        match self {
            Self::Wasm(server) => server.url(),
            Self::Native(fresh) => fresh.url.clone(),
        }
    }
}

async fn timescale() -> (Timescale, PgConnection) {
    let server = if let Some(native) = Stack::from_env().timescale_url {
        Timescale::Native(FreshDatabase::migrated_on(&native).await)
    } else {
        let server = PgliteServer::start().await.unwrap();
        // It has one session.
        let settings =
            ConnectionSettings { url: server.url(), connections_max: 1, timeout: Duration::from_secs(60) };
        let database = Database::new(&settings).unwrap();
        Migrator::new(&database).apply().await.unwrap();
        database.close().await;
        Timescale::Wasm(server)
    };
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    run(&mut connection, "SET timezone = 'UTC'").await;
    (server, connection)
}

/// Runs the job of a policy on a table or an aggregate, as its schedule would.
async fn run_policy(connection: &mut PgConnection, policy: &str, of: &str) {
    let sql = "SELECT j.job_id FROM timescaledb_information.jobs j
               LEFT JOIN timescaledb_information.continuous_aggregates a
                 ON a.materialization_hypertable_name = j.hypertable_name OR a.view_name = j.hypertable_name
               WHERE j.proc_name = 'policy_' || $1 AND coalesce(a.view_name, j.hypertable_name) = $2";
    let job: i32 = sqlx::query_scalar(sql).bind(policy).bind(of).fetch_one(&mut *connection).await.unwrap();
    run(connection, &format!("CALL run_job({job})")).await;
}

const REFRESH: &str = "refresh_continuous_aggregate";

/// The one test of both flavours on the same data: before anything is materialised, after, after a late end, and after
/// the chunks below are compressed.
#[tokio::test]
async fn continuous_aggregates_and_views_say_the_same() {
    let (_fresh, mut plain) = plain().await;
    let (_server, mut timescale) = timescale().await;
    for sql in [TASKS, ODD_TASKS, TELEMETRY, ODD_TELEMETRY] {
        run(&mut plain, sql).await;
        run(&mut timescale, sql).await;
    }
    let aggregates =
        [("task_hourly_stats", 500), ("telemetry_1m", 2000), ("task_milestone", 9000), ("task_figure", 60)];
    let same = async |plain: &mut PgConnection, timescale: &mut PgConnection, when: &str| {
        for (aggregate, least) in aggregates {
            let (here, there) = (rows(plain, aggregate).await, rows(timescale, aggregate).await);
            assert!(here.len() > least, "{aggregate} has {} rows", here.len());
            let different = here.iter().zip(&there).find(|(here, there)| here != there);
            assert_eq!(here.len(), there.len(), "rows of {aggregate} {when}");
            assert!(different.is_none(), "{aggregate} {when}: {different:?}");
        }
    };
    same(&mut plain, &mut timescale, "before the first refresh").await;
    run(&mut timescale, "CALL refresh_continuous_aggregate('telemetry_1m', NULL, now())").await;
    run_policy(&mut timescale, REFRESH, "task_hourly_stats").await;
    let materialized = "SELECT count(*) FROM task_hourly_stats";
    run(
        &mut timescale,
        "ALTER MATERIALIZED VIEW task_hourly_stats SET (timescaledb.materialized_only = true)",
    )
    .await;
    assert!(number(&mut timescale, materialized).await > 500, "the job has materialised the hours");
    run(
        &mut timescale,
        "ALTER MATERIALIZED VIEW task_hourly_stats SET (timescaledb.materialized_only = false)",
    )
    .await;
    same(&mut plain, &mut timescale, "after the refresh").await;

    for connection in [&mut plain, &mut timescale] {
        run(connection, A_LATE_END).await;
    }
    run_policy(&mut timescale, REFRESH, "task_hourly_stats").await;
    let late =
        "SELECT count(*) FROM task_hourly_stats WHERE hour = '2024-11-03 05:00:00+00' AND avg_total_ms > 1e7";
    assert_eq!(number(&mut plain, late).await, 1);
    same(&mut plain, &mut timescale, "after a late end").await;

    run(&mut timescale, "SELECT compress_chunk(c) FROM show_chunks('task_milestone') c").await;
    run(&mut timescale, "SELECT compress_chunk(c) FROM show_chunks('telemetry_1m') c").await;
    same(&mut plain, &mut timescale, "after compression").await;
}

/// Ten minutes of a unit, at four times before now; the seconds are those of whole minutes, so that no minute is cut.
const TELEMETRY_OF_WEEKS: &str = "
    INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id, source,
                           x_m, y_m, battery_percent, driving)
    SELECT date_trunc('minute', now()) - ago::interval + n * interval '10 s', 'epoch', 's', 'u', 0, n, gen_random_uuid(), 'it',
           n, 0, 100 - n, n % 3 = 0
    FROM (VALUES ('40 days'), ('20 days'), ('5 days'), ('2 hours')) t (ago), generate_series(0, 59) n";

/// One that comes late to a minute already refreshed, within what the topic keeps.
const A_LATE_MEASUREMENT: &str = "
    INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id, source,
                           battery_percent)
    SELECT date_trunc('minute', now()) - interval '5 days' + interval '5 s', 'epoch', 's', 'u', 0, 100, gen_random_uuid(), 'it', 3";

/// Retention drops the measurements; the policies that run after it leave the minutes made of them as they are, and still
/// bring in what comes late.
#[tokio::test]
async fn minutes_outlive_the_measurements_that_retention_drops() {
    let (server, mut timescale) = timescale().await;
    run(&mut timescale, TELEMETRY_OF_WEEKS).await;
    run(&mut timescale, "CALL refresh_continuous_aggregate('telemetry_1m', NULL, now())").await;
    let before = rows(&mut timescale, "telemetry_1m").await;
    assert_eq!(before.len(), 40);

    // The WASM build has one session.
    timescale.close().await.unwrap();
    let settings =
        ConnectionSettings { url: server.url(), connections_max: 1, timeout: Duration::from_secs(60) };
    let database = Database::new(&settings).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = TimestampMs(now.as_millis().try_into().unwrap());
    database.maintain(now, Retention { telemetry_days: Some(10) }).await.unwrap();
    database.close().await;
    let mut timescale = PgConnection::connect(&server.url()).await.unwrap();
    run(&mut timescale, "SET timezone = 'UTC'").await;

    // A native server's own scheduler keeps out.
    run(
        &mut timescale,
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE job_id >= 1000",
    )
    .await;
    run_policy(&mut timescale, "retention", "telemetry").await;
    assert_eq!(number(&mut timescale, "SELECT count(*) FROM telemetry").await, 120, "two of four are gone");
    for (policy, of) in
        [(REFRESH, "telemetry_1m"), ("compression", "telemetry"), ("compression", "telemetry_1m")]
    {
        run_policy(&mut timescale, policy, of).await;
        assert_eq!(rows(&mut timescale, "telemetry_1m").await, before, "after {policy} of {of}");
    }
    let compressed =
        "SELECT count(DISTINCT hypertable_name) FROM timescaledb_information.chunks WHERE is_compressed";
    assert_eq!(number(&mut timescale, compressed).await, 2, "chunks of both were compressed");

    run(&mut timescale, A_LATE_MEASUREMENT).await;
    run_policy(&mut timescale, REFRESH, "telemetry_1m").await;
    let after = rows(&mut timescale, "telemetry_1m").await;
    assert_eq!(after.iter().filter(|row| !before.contains(row)).count(), 1, "one minute has changed");
    assert_eq!(after.len(), 40);
    let lowest = "SELECT count(*) FROM telemetry_1m WHERE battery_min_percent = 3 AND measurements = 7";
    assert_eq!(number(&mut timescale, lowest).await, 1);
}

/// A million rows in a month of hours, so that a refresh takes a while.
const MANY_MILESTONES: &str = "
    INSERT INTO task_milestone
    SELECT '2024-12-01'::timestamptz + n * interval '2.5 s', 's' || n % 20, 'delivery', 'many-' || n, 0,
           CASE WHEN n % 2 = 0 THEN 'created' ELSE 'completed' END, CASE WHEN n % 2 = 1 THEN n % 5000 END
    FROM generate_series(0, 999999) n";

/// A refresh that is cut off, ever later, until one gets through: what people read is the same all the time. On a native
/// TimescaleDB only: the WASM build has no timer that could cut a statement off.
#[tokio::test]
async fn a_refresh_of_a_million_rows_that_is_interrupted_changes_nothing_and_is_made_up_for() {
    if Stack::from_env().timescale_url.is_none() {
        eprintln!("skipped: FLEETLOG_TEST_TIMESCALE_URL is not set");
        return;
    }
    let (_fresh, mut plain) = plain().await;
    let (_server, mut timescale) = timescale().await;
    run(&mut plain, MANY_MILESTONES).await;
    run(&mut timescale, MANY_MILESTONES).await;
    let expected = rows(&mut plain, "task_hourly_stats").await;
    assert!(expected.len() > 13_000, "{} hours", expected.len());

    let mut interrupted = 0;
    for limit_ms in std::iter::successors(Some(20_u64), |limit_ms| Some(limit_ms * 3)) {
        run(&mut timescale, &format!("SET statement_timeout = {limit_ms}")).await;
        let call = "CALL refresh_continuous_aggregate('task_hourly_stats', NULL, NULL)";
        let outcome = sqlx::Executor::execute(&mut timescale, sqlx::raw_sql(call)).await;
        run(&mut timescale, "SET statement_timeout = 0").await;
        assert!(rows(&mut timescale, "task_hourly_stats").await == expected, "after {limit_ms} ms");
        match outcome {
            Ok(_) => break,
            Err(error) => {
                let code = error.as_database_error().and_then(|error| error.code().map(Into::into));
                assert_eq!(code, Some("57014".to_owned()), "{error}");
                interrupted += 1;
            }
        }
    }
    assert!(interrupted > 0, "a million rows were refreshed in no time");

    // What the last one wrote is all, also without the rows beneath.
    let only = "ALTER MATERIALIZED VIEW task_hourly_stats SET (timescaledb.materialized_only = true)";
    run(&mut timescale, only).await;
    assert!(rows(&mut timescale, "task_hourly_stats").await == expected, "what is materialised");
}

type Hour = (String, String, i64);

/// created, completed, failed, cancelled, rejected; durations of those completed.
type OfHour = ([i64; 5], Vec<i64>);

/// Of the ledger: site, type, status, seconds of creation and end, duration in ms.
type Task = (String, String, String, i64, Option<i64>, Option<i64>);

/// Of the aggregate: site, type, second, counts, average, 95th percentile.
type FoundHour = (String, String, i64, Vec<i64>, Option<f64>, Option<f64>);

/// The hours as the ledger's rows make them.
async fn hours_of_ledger(connection: &mut PgConnection) -> BTreeMap<Hour, OfHour> {
    let sql = "SELECT site_uid, task_type, status, extract(epoch FROM created_recorded_at)::bigint,
                      extract(epoch FROM finished_recorded_at)::bigint, total_ms FROM t_app_task_ledger2";
    let tasks: Vec<Task> = sqlx::query_as(sql).fetch_all(connection).await.unwrap();
    let mut hours: BTreeMap<Hour, OfHour> = BTreeMap::new();
    for (site, task_type, status, created, finished, total_ms) in tasks {
        let hour = |at: i64| (site.clone(), task_type.clone(), at.div_euclid(3600) * 3600);
        hours.entry(hour(created)).or_default().0[0] += 1;
        let Some(finished) = finished else { continue };
        let of_hour = hours.entry(hour(finished)).or_default();
        let status =
            ["completed", "failed", "cancelled", "rejected"].iter().position(|s| *s == status).unwrap();
        of_hour.0[1 + status] += 1;
        of_hour.1.extend(total_ms.filter(|_| status == 0));
    }
    hours
}

/// The value below which a share of them lies, between the two nearest in proportion.
fn percentile(sorted: &[i64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize] as f64, sorted[place.ceil() as usize] as f64);
    below + (above - below) * place.fract()
}

fn assert_near(found: Option<f64>, expected: Option<f64>, of: &str) {
    let near = match (found, expected) {
        (Some(found), Some(expected)) => (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
        (found, expected) => found == expected,
    };
    assert!(near, "{of}: {found:?}, computed {expected:?}");
}

#[tokio::test]
async fn hours_are_what_the_ledgers_tasks_make_them() {
    let (_fresh, mut connection) = plain().await;
    run(&mut connection, TASKS).await;
    run(&mut connection, A_LATE_END).await;
    let expected = hours_of_ledger(&mut connection).await;
    let sql = "SELECT site_uid, task_type, extract(epoch FROM hour)::bigint,
                      ARRAY[created, completed, failed, cancelled, rejected], avg_total_ms, p95_total_ms
               FROM task_hourly_stats";
    let found: Vec<FoundHour> = sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap();
    assert_eq!(found.len(), expected.len());
    for (site, task_type, hour, counts, average, p95) in found {
        let key = (site, task_type, hour);
        let (wanted, mut durations) = expected[&key].clone();
        assert_eq!(counts, wanted, "{key:?}");
        durations.sort_unstable();
        let known = (!durations.is_empty()).then_some(&durations);
        assert_near(
            average,
            known.map(|d| d.iter().sum::<i64>() as f64 / d.len() as f64),
            &format!("average {key:?}"),
        );
        assert_near(p95, known.map(|d| percentile(d, 0.95)), &format!("p95 {key:?}"));
    }
}

/// A measurement: unit, time in ms, x and y, map, battery, driving.
type Measured = (Option<String>, i64, Option<f64>, Option<f64>, Option<String>, Option<f64>, Option<bool>);

/// A minute: unit, second, measurements, battery (first, last, least, most), way, share driving.
type FoundMinute = (Option<String>, i64, i64, Vec<Option<f64>>, Option<f64>, Option<f64>);

/// The way along positions, where those that follow each other lie on one map.
fn way_m(of: &[&Measured]) -> Option<f64> {
    let positions: Vec<_> = of.iter().filter_map(|m| Some((m.2?, m.3?, &m.4))).collect();
    let ways = positions.windows(2).filter(|pair| pair[0].2 == pair[1].2);
    let ways: Vec<f64> = ways.map(|pair| (pair[1].0 - pair[0].0).hypot(pair[1].1 - pair[0].1)).collect();
    (!ways.is_empty()).then(|| ways.iter().sum())
}

/// The share of the time that it drove, or of the measurements where no time passed.
fn driving_share(of: &[&Measured]) -> Option<f64> {
    let told: Vec<_> = of.iter().filter_map(|m| Some((m.1, m.6?))).collect();
    let held = |pair: &[(i64, bool)]| (pair[1].0 - pair[0].0) as f64;
    let all: f64 = told.windows(2).map(held).sum();
    if all > 0.0 {
        return Some(told.windows(2).filter(|pair| pair[0].1).map(held).sum::<f64>() / all);
    }
    (!told.is_empty()).then(|| told.iter().filter(|(_, drove)| *drove).count() as f64 / told.len() as f64)
}

#[tokio::test]
async fn minutes_are_what_the_measurements_make_them() {
    let (_fresh, mut connection) = plain().await;
    run(&mut connection, TELEMETRY).await;
    run(&mut connection, ODD_TELEMETRY).await;
    let sql = "SELECT unit_uid, (extract(epoch FROM recorded_at) * 1000)::bigint, x_m, y_m, map_id, battery_percent, driving
               FROM telemetry WHERE recorded_at BETWEEN '0001-01-01' AND '9999-12-31'
               ORDER BY recorded_at, log_partition, log_offset";
    let measured: Vec<Measured> = sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap();
    let mut minutes: BTreeMap<(Option<String>, i64), Vec<&Measured>> = BTreeMap::new();
    for one in &measured {
        minutes.entry((one.0.clone(), one.1.div_euclid(60_000) * 60)).or_default().push(one);
    }
    let sql = "SELECT unit_uid, extract(epoch FROM minute)::bigint, measurements,
                      ARRAY[battery_first_percent, battery_last_percent, battery_min_percent, battery_max_percent],
                      distance_m, driving_share
               FROM telemetry_1m";
    let found: Vec<FoundMinute> = sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap();
    assert_eq!(found.len(), minutes.len());
    for (unit, minute, measurements, battery, distance_m, share) in found {
        let key = (unit, minute);
        let of = &minutes[&key];
        assert_eq!(measurements, i64::try_from(of.len()).unwrap(), "{key:?}");
        let told: Vec<f64> = of.iter().filter_map(|m| m.5).collect();
        let (least, most) = (told.iter().copied().reduce(f64::min), told.iter().copied().reduce(f64::max));
        assert_eq!(battery, [told.first().copied(), told.last().copied(), least, most], "{key:?}");
        assert_near(distance_m, way_m(of), &format!("distance {key:?}"));
        assert_near(share, driving_share(of), &format!("share {key:?}"));
    }
}
