//! The views for people, on history made by hand; on both flavours of database where nothing hangs on the clock.

use std::time::Duration;

use fleetlog_sink_timescale::{ConnectionSettings, Database, Migrator};
use fleetlog_testkit::PgliteServer;
use sqlx::{Connection, PgConnection};

use crate::support::{FreshDatabase, run};

/// Unit `1` of two sites; unit `2` left the fleet with a fault and came back; unit `3` told of a mode and nothing else, its
/// clock turned back; unit `4` left, and its stale last will and a fault came after that; unit `5` the same, and was
/// registered anew.
const EVENTS: &str = "
    INSERT INTO unit_event (recorded_at, occurred_at, site_uid, unit_uid, event_type, log_partition, log_offset,
                            event_id, payload, source, reason, fault_id, fault_type, mode)
    SELECT at::timestamptz, 'epoch', site, unit, event_type, 0, n, gen_random_uuid(), '{}', 'it', reason, fault, kind, mode
    FROM (VALUES ( 1, '2024-01-01 06:00Z', 'a', '1', 'Connected',     NULL,      NULL, NULL,      NULL),
                 ( 2, '2024-01-01 18:00Z', 'a', '1', 'Disconnected',  'broken',  NULL, NULL,      NULL),
                 ( 3, '2024-01-02 12:00Z', 'a', '1', 'Connected',     NULL,      NULL, NULL,      NULL),
                 ( 4, '2024-01-02 12:01Z', 'a', '1', 'FaultRaised',   NULL,      'f1', 'lost',    NULL),
                 ( 5, '2024-01-02 12:01Z', 'a', '1', 'FaultRaised',   NULL,      'f2', 'blocked', NULL),
                 ( 6, '2024-01-02 12:02Z', 'a', '1', 'FaultRaised',   NULL,      'f3', 'blocked', NULL),
                 ( 7, '2024-01-02 12:03Z', 'a', '1', 'FaultCleared',  NULL,      'f1', 'lost',    NULL),
                 ( 8, '2024-01-02 12:04Z', 'a', '1', 'ModeChanged',   NULL,      NULL, NULL,      'automatic'),
                 ( 9, '2024-01-03 06:00Z', 'a', '1', 'Decommissioned', 'sold',   NULL, NULL,      NULL),
                 (10, '2024-01-04 06:00Z', 'a', '1', 'Connected',     NULL,      NULL, NULL,      NULL),
                 (11, '2024-01-04 07:00Z', 'a', '1', 'FaultRaised',   NULL,      'f4', 'late',    NULL),
                 (12, '2024-01-04 18:00Z', 'a', '1', 'Decommissioned', 'old',    NULL, NULL,      NULL),
                 (13, '2024-01-01 00:00Z', 'b', '1', 'Disconnected',  'graceful', NULL, NULL,     NULL),
                 (14, '2024-01-01 09:00Z', 'b', '1', 'Connected',     NULL,      NULL, NULL,      NULL),
                 (15, '2024-01-01 08:00Z', 'b', '1', 'FaultRaised',   NULL,      'f1', 'lost',    NULL),
                 (16, '2024-01-01 08:30Z', 'b', '1', 'Disconnected',  'timeout', NULL, NULL,      NULL),
                 (17, '2024-01-01 12:00Z', 'b', '1', 'Connected',     NULL,      NULL, NULL,      NULL),
                 (18, '2024-01-01 13:00Z', 'b', '3', 'ModeChanged',   NULL,      NULL, NULL,      'manual'),
                 (19, 'infinity',          'b', '3', 'Connected',     NULL,      NULL, NULL,      NULL),
                 (20, '2024-01-01 13:00Z', 'b', '2', 'FaultRaised',   NULL,      'f1', 'lost',    NULL),
                 (21, '2024-01-01 14:00Z', 'b', '2', 'Decommissioned', 'sold',   NULL, NULL,      NULL),
                 (22, '2024-01-01 15:00Z', 'b', '2', 'Connected',     NULL,      NULL, NULL,      NULL),
                 (23, '2024-01-01 00:00Z', 'b', '4', 'Connected',     NULL,      NULL, NULL,      NULL),
                 (24, '2024-01-01 06:00Z', 'b', '4', 'Decommissioned', 'sold',   NULL, NULL,      NULL),
                 (25, '2024-01-01 07:00Z', 'b', '4', 'Disconnected',  'broken',  NULL, NULL,      NULL),
                 (26, '2024-01-01 08:00Z', 'b', '4', 'FaultRaised',   NULL,      'f1', 'lost',    NULL),
                 (27, '2024-01-01 09:00Z', 'b', '4', 'Decommissioned', 'again',  NULL, NULL,      NULL),
                 (28, '2024-01-01 00:00Z', 'b', '5', 'ModeChanged',   NULL,      NULL, NULL,      'manual'),
                 (29, '2024-01-01 01:00Z', 'b', '5', 'Decommissioned', 'sold',   NULL, NULL,      NULL),
                 (30, '2024-01-01 02:00Z', 'b', '5', 'Disconnected',  'broken',  NULL, NULL,      NULL),
                 (31, '2024-01-01 03:00Z', 'b', '5', 'Registered',    NULL,      NULL, NULL,      NULL),
                 (32, '2024-01-01 04:00Z', 'b', '5', 'FaultRaised',   NULL,      'f1', 'lost',    NULL)
    ) e (n, at, site, unit, event_type, reason, fault, kind, mode)";

const TELEMETRY: &str = "
    INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id, source,
                           battery_percent, x_m, y_m, driving)
    SELECT at::timestamptz, 'epoch', site, '1', 0, n, gen_random_uuid(), 'it', battery, n, -n, true
    FROM (VALUES (1, 'a', '2024-01-04 08:00Z', 80), (2, 'b', '2024-01-05 00:00Z', 30), (3, 'b', '2024-01-05 00:00Z', 29.5),
                 (4, 'b', '2024-01-04 00:00Z', 31), (5, 'a', '2024-01-04 08:01Z', NULL)) t (n, site, at, battery)";

const TASKS: &str = "
    INSERT INTO t_app_task_ledger2
        (task_id, site_uid, unit_uid, task_type, priority, status, created_at, started_at, step_count, steps_finished,
         steps_failed, steps, parameters, assignments, pauses, rejections, occurred_at, recorded_at, created_recorded_at,
         fold_log, fold_partition, fold_next, fold_revision, fold_state)
    SELECT id, 'b', '1', 'delivery', priority, status, at::timestamptz, started::timestamptz, 0, 0, 0, '[]', '{}', 1, 0, 0,
           at::timestamptz, at::timestamptz, at::timestamptz, '00000000-0000-0000-0000-000000000001', 0, 1, 0, '{}'
    FROM (VALUES ('over',   9, 'completed', '2024-01-01', '2024-01-01'), ('urgent', 9, 'assigned', '2024-01-01', NULL),
                 ('begun',  1, 'paused',    '2024-01-02', '2024-01-02'), ('new',    9, 'created',  '2024-01-01', NULL)
    ) t (id, priority, status, at, started);
    INSERT INTO task_event (recorded_at, occurred_at, site_uid, unit_uid, task_id, event_type, log_partition, log_offset,
                            event_id, payload, source, reason)
    SELECT '2024-01-01', at::timestamptz, 'b', '1', id, event_type, 0, n, gen_random_uuid(), '{}', 'it', reason
    FROM (VALUES (1, 'begun', 'Created',  '2024-01-02 00:00:00Z', NULL),   (2, 'over',  'Created',  '2024-01-01 00:00:00Z', NULL),
                 (3, 'begun', 'Assigned', '2024-01-02 00:00:01Z', NULL),   (4, 'begun', 'Started',  '1970-01-01 00:00:00Z', NULL),
                 (5, 'begun', 'Paused',   '2024-01-02 00:00:03.5Z', 'door'), (6, 'over', 'Completed', '2024-01-01 00:01:00Z', NULL),
                 (7, 'begun', 'Resumed',  'infinity', NULL)
    ) e (n, id, event_type, at, reason)";

/// All gaps that are over.
const GAPS: &str = "
    SELECT concat_ws(' ', site_uid, unit_uid, kind, begins_at, ends_at, seconds, log_offset)
    FROM unit_gap_list WHERE ends_at IS NOT NULL ORDER BY 1";

/// What the counters say of each unit and of each message.
const COUNTERS: &str = "SELECT c::text FROM unit_gaps c ORDER BY 1";
const NUMBERS: &str = "SELECT n::text FROM unit_sequence n ORDER BY 1";

async fn filled(connection: &mut PgConnection) {
    run(connection, "SET timezone = 'UTC'").await;
    for sql in [EVENTS, TELEMETRY, TASKS] {
        run(connection, sql).await;
    }
}

async fn plain() -> (FreshDatabase, PgConnection) {
    let fresh = FreshDatabase::migrated().await;
    let mut connection = fresh.connect().await;
    filled(&mut connection).await;
    (fresh, connection)
}

async fn texts(connection: &mut PgConnection, sql: &str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

const NOW: &str = "
    SELECT concat_ws(' ', site_uid || '/' || unit_uid, connection, reason, mode, faults, fault_types::text, battery_percent,
                     x_m, task_id, task_status, recorded_at)
    FROM fleet_now ORDER BY site_uid, unit_uid";

const TIMELINE: &str = "
    SELECT concat_ws(' ', number, event_type, reason, since_previous_ms, since_first_ms)
    FROM task_timeline WHERE task_id = 'begun' ORDER BY number";

/// Days that are over, of units whose last event is not a connection that lasts until now.
const DAYS: &str = "
    SELECT concat_ws(' ', site_uid || '/' || unit_uid, to_char(day, 'DD'), known_s, online_s, round(availability::numeric, 3),
                     disconnects)
    FROM unit_availability_daily WHERE unit_uid IN ('1', '4', '5') AND day < '2024-01-06' ORDER BY site_uid, unit_uid, day";

#[tokio::test]
async fn the_fleet_as_it_is_now() {
    let (_fresh, mut connection) = plain().await;
    let expected = [
        // Its newest measurement tells of the position alone.
        "a/1 decommissioned old 0 80 5 2024-01-04 18:00:00+00",
        // Of the two measurements of one time the later on the log; its task is the one begun, not the most urgent.
        "b/1 online 1 {lost} 29.5 3 begun paused 2024-01-05 00:00:00+00",
        "b/2 online 0 2024-01-01 15:00:00+00",
        "b/3 online manual 0 infinity",
        // As hot state: what comes after the end changes nothing, until the unit is back.
        "b/4 decommissioned sold 0 2024-01-01 09:00:00+00",
        "b/5 unknown 1 {lost} 2024-01-01 04:00:00+00",
    ];
    assert_eq!(texts(&mut connection, NOW).await, expected);
}

/// Of unit `6`, and of its namesake at another site: one tells all of it, then the position alone, over and over.
const POSITIONS: &str = "
    INSERT INTO unit_event (recorded_at, occurred_at, site_uid, unit_uid, event_type, log_partition, log_offset, event_id, payload,
                            source)
    SELECT '2024-01-01', 'epoch', site, '6', 'Connected', 0, 100, gen_random_uuid(), '{}', 'it' FROM (VALUES ('a'), ('b')) t (site);
    INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id, source,
                           battery_percent, charging, driving, map_id, x_m, y_m)
    SELECT '2024-01-01'::timestamptz + n * interval '100 ms', 'epoch', site, '6', 0, n, gen_random_uuid(), 'it',
           CASE WHEN n = 0 THEN 77 END, CASE WHEN n = 0 THEN false END, CASE WHEN n % 200 = 0 THEN n = 200 END, 'hall', n, -n
    FROM (VALUES ('a'), ('b')) t (site), generate_series(0, CASE site WHEN 'a' THEN 599 ELSE 600 END) n";

#[tokio::test]
async fn what_was_last_told_is_looked_for_in_the_last_600_measurements() {
    let (_fresh, mut connection) = plain().await;
    run(&mut connection, POSITIONS).await;
    let sql =
        "SELECT concat_ws(' ', site_uid, battery_percent, charging, driving, map_id, x_m, y_m) FROM fleet_now
               WHERE unit_uid = '6' ORDER BY 1";
    let expected = ["a 77 f f hall 599 -599", "b f hall 600 -600"];
    assert_eq!(texts(&mut connection, sql).await, expected);
}

#[tokio::test]
async fn a_tasks_life_in_log_order() {
    let (_fresh, mut connection) = plain().await;
    let started = -1_704_153_601_000_i64; // 1970, a second after Assigned of 2024-01-02
    let expected = [
        "1 Created 0".to_owned(),
        "2 Assigned 1000 1000".to_owned(),
        format!("3 Started {started} {}", started + 1000),
        format!("4 Paused door {} 3500", 2500 - started),
        // A clock that SQL cannot hold: the event is there, its durations are not.
        "5 Resumed".to_owned(),
    ];
    assert_eq!(texts(&mut connection, TIMELINE).await, expected);
}

/// Unit 1 of `a`: 12 h of 18 on the first day; off until noon and on since on the second; then decommissioned from 6 to
/// 6. Unit 1 of `b`: an hour in which the clock was turned back counts for nothing.
#[tokio::test]
async fn availability_by_day() {
    let (_fresh, mut connection) = plain().await;
    let expected = [
        "a/1 01 64800 43200 0.667 1",
        "a/1 02 86400 43200 0.500 0",
        "a/1 03 21600 21600 1.000 0",
        "a/1 04 43200 43200 1.000 0",
        "b/1 01 86400 43200 0.500 2",
        "b/1 02 86400 86400 1.000 0",
    ];
    let found = texts(&mut connection, DAYS).await;
    assert_eq!(found[..6], expected, "{found:?}");
    assert_eq!(found.len(), 10, "unit 1 of `b` goes on being connected: {found:?}");
    assert_eq!(found[9], "b/4 01 21600 21600 1.000 0", "a stale last will of a unit that left tells nothing");
    let today =
        "SELECT (known_s BETWEEN 0 AND 86400 AND online_s = known_s)::text FROM unit_availability_daily
                 WHERE site_uid = 'b' AND unit_uid = '1' ORDER BY day DESC LIMIT 1";
    assert_eq!(texts(&mut connection, today).await, ["true"], "today counts until now");
}

/// Unit, its numbers in log order, what `unit_gaps` and `unit_gap_list` say of them.
const COUNTED: [(&str, &str, &str, &str); 10] = [
    ("steady", "1,2,3,4", "4 gaps=0 missing=0 resets=0 repeats=0 late=0", ""),
    ("lost", "1,2,5,9", "4 gaps=2 missing=5 resets=0 repeats=0 late=0", "2-5:2 5-9:3"),
    ("late", "501,504,502,505", "4 gaps=1 missing=1 resets=0 repeats=0 late=1", "502-504:1"),
    ("all late", "1,4,3,2,5", "5 gaps=0 missing=0 resets=0 repeats=0 late=2", ""),
    ("first late", "5,4,6", "3 gaps=0 missing=0 resets=0 repeats=0 late=1", ""),
    ("very late", "500,3,501,502", "4 gaps=0 missing=0 resets=0 repeats=0 late=1", ""),
    ("repeats", "1,2,2,1,3", "5 gaps=0 missing=0 resets=0 repeats=2 late=0", ""),
    ("reset", "499,500,0,1,4", "5 gaps=1 missing=2 resets=1 repeats=0 late=0", "1-4:2"),
    ("small reset", "3,4,5,0,1,2,3,4,5,6", "10 gaps=0 missing=0 resets=0 repeats=3 late=3", ""),
    (
        "far",
        "-9223372036854775808,9223372036854775807",
        "2 gaps=1 missing=18446744073709551614 resets=0 repeats=0 late=0",
        "-9223372036854775808-9223372036854775807:18446744073709551614",
    ),
];

async fn count(connection: &mut PgConnection) {
    for (at, (unit, numbers, ..)) in COUNTED.iter().enumerate() {
        // Two sites with the same unit number: each has a counter of its own.
        let sql = format!(
            "INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id,
                                    sequence, sequence_scope, source)
             SELECT '2024-02-01'::timestamptz + n * interval '1 s', 'epoch', site, '{unit}', 0, {at} * 100 + n,
                    gen_random_uuid(), number::bigint, 'state#0', 'it'
             FROM unnest(string_to_array('{numbers}', ',')) WITH ORDINALITY AS v (number, n), unnest('{{x,y}}'::text[]) site"
        );
        run(connection, &sql).await;
    }
}

/// Counters of units, each in one scope: number by number in log order; and the gaps that are to be found.
#[tokio::test]
async fn counters_that_reset_repeat_and_come_late_make_no_false_gaps() {
    let (_fresh, mut connection) = plain().await;
    count(&mut connection).await;
    for (unit, _, expected, gaps) in COUNTED {
        for site in ["x", "y"] {
            let counts = format!(
                "SELECT concat_ws(' ', messages, 'gaps=' || gaps, 'missing=' || missing, 'resets=' || resets,
                                  'repeats=' || repeats, 'late=' || late)
                 FROM unit_gaps WHERE unit_uid = '{unit}' AND site_uid = '{site}'"
            );
            assert_eq!(texts(&mut connection, &counts).await, [expected], "{unit} of {site}");
            let list = format!(
                "SELECT coalesce(string_agg(last_before || '-' || first_after || ':' || missing, ' ' ORDER BY last_before), '')
                 FROM unit_gap_list WHERE unit_uid = '{unit}' AND site_uid = '{site}' AND kind = 'sequence'"
            );
            assert_eq!(texts(&mut connection, &list).await, [gaps], "{unit} of {site}");
        }
    }
}

const INCARNATIONS: &str = "
    INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id,
                           sequence, sequence_scope, source)
    SELECT '2024-02-02', 'epoch', 'x', 'u', 0, n, gen_random_uuid(), number, scope, 'it'
    FROM (VALUES (1, 7, 'state#0'), (2, 8, 'state#0'), (3, 90, 'state#1'), (4, 92, 'state#1'),
                 (5, 1, 'visualization#0')) v (n, number, scope)";

/// A new incarnation is a count of its own; between two of them nothing is missing.
#[tokio::test]
async fn a_new_incarnation_is_a_reset_and_no_gap() {
    let (_fresh, mut connection) = plain().await;
    run(&mut connection, INCARNATIONS).await;
    let sql = "SELECT concat_ws(' ', channel, messages, gaps, missing, resets) FROM unit_gaps WHERE unit_uid = 'u' ORDER BY 1";
    assert_eq!(texts(&mut connection, sql).await, ["state 4 1 1 1", "visualization 1 0 0 0"]);
}

/// An hour with the clock turned back: the step back is no silence, and what is silent within that hour is.
#[tokio::test]
async fn silence_is_found_also_where_the_clock_was_turned_back() {
    let (_fresh, mut connection) = plain().await;
    run(
        &mut connection,
        "INSERT INTO telemetry (recorded_at, occurred_at, site_uid, unit_uid, log_partition, log_offset, event_id, source)
         SELECT ('2024-02-01 ' || at)::timestamptz, ('2024-02-01 ' || device)::timestamptz, 'x', 'u', 0, n,
                gen_random_uuid(), 'it'
         FROM (VALUES (1, '12:00:00', '12:00:00'), (2, '12:00:09', '12:00:09'), (3, '12:00:40', '12:00:40'),
                      (4, '11:00:41', '12:00:41'), (5, '11:01:41', '12:01:41'), (6, '12:01:42', '12:01:42')) v (n, at, device)",
    )
    .await;
    let sql = "SELECT concat_ws(' ', to_char(begins_at, 'HH24:MI:SS'), round(seconds), round(device_seconds), log_offset)
               FROM unit_gap_list WHERE unit_uid = 'u' AND kind = 'silence' AND ends_at IS NOT NULL ORDER BY log_offset";
    // The clock set right again looks like an hour; the unit's own clock tells that it was a second.
    let expected = ["12:00:09 31 31 3", "11:00:41 60 60 5", "11:01:41 3601 1 6"];
    assert_eq!(texts(&mut connection, sql).await, expected);
    let silent =
        "SELECT (seconds > 1000000)::text FROM unit_gap_list WHERE unit_uid = 'u' AND ends_at IS NULL";
    assert_eq!(texts(&mut connection, silent).await, ["true"], "it is silent still");
}

#[tokio::test]
async fn both_flavours_answer_the_same() {
    let server = PgliteServer::start().await.unwrap();
    let settings =
        ConnectionSettings { url: server.url(), connections_max: 1, timeout: Duration::from_secs(60) };
    let database = Database::new(&settings).unwrap();
    Migrator::new(&database).apply().await.unwrap();
    database.close().await;
    let mut timescale = PgConnection::connect(&server.url()).await.unwrap();
    filled(&mut timescale).await;
    let (_fresh, mut plain) = plain().await;
    for connection in [&mut timescale, &mut plain] {
        for sql in [POSITIONS, INCARNATIONS] {
            run(connection, sql).await;
        }
        count(connection).await;
    }
    for sql in [NOW, TIMELINE, DAYS, GAPS, COUNTERS, NUMBERS] {
        assert!(texts(&mut plain, sql).await.len() > 1, "{sql}");
        assert_eq!(texts(&mut timescale, sql).await, texts(&mut plain, sql).await, "{sql}");
    }
}
