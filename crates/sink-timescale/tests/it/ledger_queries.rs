//! The platform's own queries on a ledger of a million tasks: each goes by an index, and what each takes is printed.

use std::time::Instant;

use sqlx::{Connection, PgConnection};

use crate::support::{FreshDatabase, number, run};

/// A month of a million tasks at 20 sites with 2,000 units, one in a hundred still open, in one transaction. The
/// indexes are taken away meanwhile and made again by their own definitions: filled row by row they take most of the
/// time, and they are the same in the end.
const A_MONTH: &str = "
    BEGIN;
    CREATE TEMPORARY TABLE index_definition ON COMMIT DROP AS
        SELECT indexname, indexdef FROM pg_indexes
        WHERE tablename = 't_app_task_ledger2' AND indexname <> 't_app_task_ledger2_pkey';
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT indexname FROM index_definition LOOP EXECUTE format('DROP INDEX %I', name); END LOOP;
    END $$;
    INSERT INTO t_app_task_ledger2
        (task_id, site_uid, unit_uid, task_type, priority, status, created_at, assigned_at, started_at, finished_at,
         wait_ms, work_ms, total_ms, failure_reason, step_count, steps_finished, steps_failed, steps, parameters,
         assignments, pauses, rejections, occurred_at, recorded_at, created_recorded_at,
         finished_recorded_at, fold_log, fold_partition, fold_next, fold_revision,
         fold_state)
    SELECT 'task-' || to_char(n, 'FM0000000'), 's' || n % 20, 'u' || n % 2000,
           (ARRAY['delivery', 'transport', 'return'])[1 + n % 3], n % 5,
           CASE WHEN n % 100 = 0 THEN (ARRAY['created', 'assigned', 'started', 'paused'])[1 + n / 100 % 4]
                WHEN n % 25 = 1 THEN 'failed' WHEN n % 40 = 3 THEN 'cancelled' ELSE 'completed' END,
           at, at + interval '5 s', at + interval '20 s',
           CASE WHEN n % 100 > 0 THEN at + (60 + n % 900) * interval '1 s' END,
           20000, (40 + n % 900) * 1000, (60 + n % 900) * 1000,
           CASE WHEN n % 25 = 1 THEN (ARRAY['lost', 'timeout', 'blocked'])[1 + n % 3] END,
           0, 0, 0, '[]', '{}', 1, 0, 0, at, at, at, CASE WHEN n % 100 > 0 THEN at + (60 + n % 900) * interval '1 s' END, '00000000-0000-0000-0000-000000000001', 0, n, 0, '{}'
    FROM (SELECT n, '2026-11-01'::timestamptz + n * interval '2.592 s' AS at FROM generate_series(0, 999999) n) made;
    DO $$ DECLARE definition text; BEGIN
        FOR definition IN SELECT indexdef FROM index_definition LOOP EXECUTE definition; END LOOP;
    END $$;
    COMMIT;
    ANALYZE t_app_task_ledger2";

/// What is asked, the query, how many rows answer it, and the index it has to go by.
const QUERIES: [(&str, &str, i64, &str); 7] = [
    (
        "a site's tasks of a day, newest first",
        "SELECT * FROM t_app_task_ledger2 WHERE site_uid = 's3' AND created_at >= '2026-11-21' \
         AND created_at < '2026-11-22' ORDER BY created_at DESC LIMIT 100",
        100,
        "t_app_task_ledger2_site_created",
    ),
    (
        "a unit's last tasks",
        "SELECT * FROM t_app_task_ledger2 WHERE unit_uid = 'u1003' ORDER BY created_at DESC LIMIT 20",
        20,
        "t_app_task_ledger2_unit_created",
    ),
    (
        "what a site still has to do, most urgent first",
        "SELECT * FROM t_app_task_ledger2 WHERE site_uid = 's0' \
         AND status IN ('created', 'assigned', 'started', 'paused') ORDER BY priority DESC, created_at LIMIT 50",
        50,
        "t_app_task_ledger2_open",
    ),
    (
        "open tasks of all sites by status",
        "SELECT status, count(*) FROM t_app_task_ledger2 \
         WHERE status IN ('created', 'assigned', 'started', 'paused') GROUP BY status",
        4,
        "t_app_task_ledger2_open",
    ),
    (
        "why a site's tasks of a day failed",
        "SELECT failure_reason, count(*) FROM t_app_task_ledger2 WHERE site_uid = 's6' \
         AND created_at >= '2026-11-20' AND created_at < '2026-11-21' AND status = 'failed' GROUP BY failure_reason",
        3,
        "t_app_task_ledger2_site_created",
    ),
    (
        "what a unit works on (fleet_now)",
        "SELECT * FROM t_app_task_ledger2 WHERE site_uid = 's0' AND unit_uid = 'u100' \
         AND status IN ('assigned', 'started', 'paused') ORDER BY started_at IS NULL, priority DESC, created_at LIMIT 1",
        1,
        "t_app_task_ledger2_unit_working",
    ),
    (
        "one task",
        "SELECT * FROM t_app_task_ledger2 WHERE task_id = 'task-0004711'",
        1,
        "t_app_task_ledger2_pkey",
    ),
];

/// The plan of a query, a line each.
async fn plan(connection: &mut PgConnection, query: &str) -> String {
    let lines: Vec<String> =
        sqlx::query_scalar(&format!("EXPLAIN {query}")).fetch_all(connection).await.unwrap();
    lines.join("\n")
}

/// The aggregate over the month, and what the ledger's rows say of the same: no task too many, none too few.
async fn hours_of_a_month(connection: &mut PgConnection) {
    let difference = "
        SELECT count(*) FROM (
            SELECT site_uid, task_type, hour, created, completed + failed + cancelled + rejected AS over
            FROM task_hourly_stats
        ) a FULL JOIN (
            SELECT site_uid, task_type, hour, sum(created) AS created, sum(over) AS over
            FROM (SELECT site_uid, task_type, date_trunc('hour', created_recorded_at AT TIME ZONE 'UTC') AS hour,
                         1 AS created, 0 AS over FROM t_app_task_ledger2
                  UNION ALL
                  SELECT site_uid, task_type, date_trunc('hour', finished_recorded_at AT TIME ZONE 'UTC'), 0, 1
                  FROM t_app_task_ledger2 WHERE finished_recorded_at IS NOT NULL) facts
            GROUP BY site_uid, task_type, hour
        ) b ON (a.site_uid, a.task_type, a.hour AT TIME ZONE 'UTC') = (b.site_uid, b.task_type, b.hour)
        WHERE a.created IS DISTINCT FROM b.created OR a.over IS DISTINCT FROM b.over";
    assert_eq!(number(connection, difference).await, 0, "hours that differ");
    let begun = Instant::now();
    let hours = number(connection, "SELECT count(*) FROM task_hourly_stats").await;
    println!("{hours} hours of all sites and types: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    assert!(hours > 40_000, "720 hours of 20 sites and 3 types");
}

/// The figures of a month, which /metrics asks for at each scrape: the same as the ledger says, and without a look at it.
async fn figures_of_a_month(fresh: &FreshDatabase, connection: &mut PgConnection) {
    let totals = plan(
        connection,
        "SELECT site_uid, task_type, figure, sum(shown) FROM task_figure GROUP BY site_uid, task_type, figure",
    )
    .await;
    assert!(totals.contains("on task_figure") && !totals.contains("t_app_task_ledger2"), "{totals}");
    let rows = number(connection, "SELECT count(*) FROM task_figure").await;
    let begun = Instant::now();
    let figures = fresh.open().task_figures("it", std::time::Duration::from_secs(60)).await.unwrap().unwrap();
    println!("figures of {rows} rows: {:.1} ms with a connect", begun.elapsed().as_secs_f64() * 1e3);
    let text = prometheus::TextEncoder::new().encode_to_string(&figures.families()).unwrap();
    let told = |figure: &str| -> f64 {
        let samples = text.lines().filter(|line| line.starts_with(figure));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    assert_eq!(told("app_delivery_tasks_created_total{"), 1e6);
    let completed = "SELECT count(*) FROM t_app_task_ledger2 WHERE status = 'completed'";
    assert_eq!(told("app_delivery_task_duration_seconds_count{"), number(connection, completed).await as f64);
}

#[tokio::test]
async fn the_platforms_queries_go_by_the_indexes() {
    let fresh = FreshDatabase::migrated().await;
    let mut connection = fresh.connect().await;
    let begun = Instant::now();
    run(&mut connection, A_MONTH).await;
    println!("a million tasks made in {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(number(&mut connection, "SELECT count(*) FROM t_app_task_ledger2").await, 1_000_000);
    let mut without = Vec::new();
    for (what, query, rows, index) in QUERIES {
        let plan = plan(&mut connection, query).await;
        if !plan.contains(index) || plan.contains("Seq Scan") {
            without.push(format!("{what}: not by {index}:\n{plan}"));
        }
        let counted = format!("SELECT count(*) FROM ({query}) AS answer");
        let begun = Instant::now();
        assert_eq!(number(&mut connection, &counted).await, rows, "{what}");
        println!("{what}: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    }
    assert!(without.is_empty(), "{}", without.join("\n\n"));
    hours_of_a_month(&mut connection).await;
    figures_of_a_month(&fresh, &mut connection).await;
    connection.close().await.unwrap();
}
